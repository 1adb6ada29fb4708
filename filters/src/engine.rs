//! The engine: rules and a profile made ready, and the doors through which text goes.
//!
//! What always holds: whatever goes wrong inside, no text comes out; `Engine` is `Send + Sync` and keeps no text between calls.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use beeacon_record::limits::LINE_OVERLAP_BYTES;
use beeacon_record::{Batch, RuleSetId, Scrubbed};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::action::Action;
use crate::batch;
use crate::context;
use crate::continuity::Continuity;
use crate::error::{FilterError, RuleFault, RulesError};
use crate::fields::FieldRule;
use crate::key::Key;
use crate::known::{KNOWN_RULE, KnownSecrets, Shelf};
use crate::library;
use crate::limits::{RULES_MAX, SCRATCH_POOL_MAX, TEXT_BYTES_MAX};
use crate::lists::{self, Allow};
use crate::marker::{LINE_NAME, Names};
use crate::overlap::{self, Standing};
use crate::profile::{self, Profile};
use crate::reference::{Found, Reference};
use crate::rewrite::{Replacement, Rewriter};
use crate::rule::{Rule, RuleFile, Severity};
use crate::scan::simd::Level;
use crate::scan::{Cost, RuleGaveUp, Scanner, Scratch, Tally, VerifierCost};
use crate::scope::{self, Scope};
use crate::statistics::{Board, RuleCount, ScrubReport, Statistics};

/// What an engine is made of.
///
/// ```
/// use beeacon_filters::{Engine, EngineOptions};
/// let engine = Engine::new(EngineOptions::default()).unwrap();
/// let (text, counts) = engine.scrub_text("user bob@example.org logged in").unwrap();
/// assert_eq!(text, "user <EMAIL> logged in");
/// assert_eq!(counts[0].rule, "email");
/// ```
#[derive(Clone)]
pub struct EngineOptions {
    /// The profile's name. Default: `default`.
    pub profile: String,
    /// The user's own rules; each runs with its own action unless the profile says otherwise.
    pub rules: Vec<RuleFile>,
    /// The user's own profiles.
    pub profiles: Vec<Profile>,
    /// The key of keyed hashes; without one no rule may have the action `hash`.
    pub key: Option<Key>,
    /// Secrets that are known by themselves; looked for in every profile.
    pub known: Option<KnownSecrets>,
    /// Older keys: tokens that they made are known in [`Allow`] and [`Engine::tokens`]; new tokens are never made with them.
    pub old_keys: Vec<Key>,
    /// What happens to fields by their names.
    pub fields: Vec<FieldRule>,
    /// Containers for which another profile or other field rules apply; the first that covers one decides.
    pub scopes: Vec<Scope>,
    /// Values that stay.
    pub allow: Vec<Allow>,
    /// Values that are redacted wherever they stand.
    pub deny: Vec<String>,
    /// Whether matches of weak rules stay in fields whose values are clearly random, such as order ids. Default: yes.
    pub evidence: bool,
    /// A monotonic clock in nanoseconds, to say what each rule costs. Asked twice for each candidate: about 50 ns.
    pub clock: Option<fn() -> u64>,
    /// The path of the scan, to compare paths. By default, and where the processor lacks what it needs, the best.
    pub level: Option<Level>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            profile: "default".to_owned(),
            rules: Vec::new(),
            profiles: Vec::new(),
            key: None,
            known: None,
            old_keys: Vec::new(),
            fields: Vec::new(),
            scopes: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            evidence: true,
            clock: None,
            level: None,
        }
    }
}

/// A finding: where, and by which rule. It carries no text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// Where what is redacted starts, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Where the whole match starts, with the key before a value.
    pub match_start: usize,
    /// Where the whole match ends.
    pub match_end: usize,
}

/// A finding explained, without the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// The rule's category.
    pub category: String,
    /// The rule's description.
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which check it passed.
    pub validator: Option<String>,
    /// Which of the rule's words stands before it.
    pub context: Option<String>,
    /// How the candidate was found.
    pub found_by: String,
    /// What happens to it.
    pub action: Action,
}

/// A rule that runs.
#[derive(Clone, Debug)]
pub struct ActiveRule {
    /// The rule.
    pub rule: Rule,
    /// What happens to its findings in this engine.
    pub action: Action,
    /// How it is found, and what it costs.
    pub cost: Cost,
}

/// In one line: `bytes 5 to 20 email (pii): marker; found by ...`.
impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding { rule, start, end, .. } = &self.finding;
        write!(
            f,
            "bytes {start} to {end} {rule} ({}): {}; found by {}",
            self.category, self.action, self.found_by
        )?;
        if let Some(validator) = &self.validator {
            write!(f, "; passed {validator}")?;
        }
        if let Some(context) = &self.context {
            write!(f, "; after the word \"{context}\"")?;
        }
        Ok(())
    }
}

/// An example of a rule that does not come out as the rule says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: entry {index} of `{list}` {reason}")]
pub struct ExampleFault {
    /// The rule's id.
    pub rule: String,
    /// `finds` or `spares`.
    pub list: &'static str,
    /// Which entry, from 0.
    pub index: usize,
    /// What came out instead.
    pub reason: String,
}

/// The pollen filter.
pub struct Engine {
    active: Vec<ActiveRule>,
    rewriter: Rewriter,
    id: RuleSetId,
    board: Board,
    known: Shelf,
    pool: Mutex<Vec<Scratch>>,
    /// Scopes, with the engine of each, which has none of its own.
    scopes: Vec<(Scope, Arc<Engine>)>,
    /// Made when it is asked for, and kept until [`Engine::forget_reference`].
    reference: Mutex<Option<Arc<Reference>>>,
}

impl Engine {
    /// Makes the rules of a profile ready.
    ///
    /// # Errors
    /// With every fault of rules, profiles and key; the process must not ship logs then.
    pub fn new(mut options: EngineOptions) -> Result<Engine, RulesError> {
        let scopes = std::mem::take(&mut options.scopes);
        let mut inner = options.clone();
        let mut faults = Vec::new();
        let known = Shelf::new(options.known.take());
        let outer = Engine::without_scopes(options, known.clone());
        let outer = outer.map_err(|RulesError(found)| faults.extend(found)).ok();
        let mut scoped: Vec<(Scope, Arc<Engine>)> = Vec::new();
        let base = (inner.profile.clone(), inner.fields.clone());
        for (number, scope) in (1..).zip(scopes) {
            let alike = scoped.iter().find(|(other, _)| {
                other.profile == scope.profile && other.fields.is_empty() && scope.fields.is_empty()
            });
            if let Some((_, engine)) = alike {
                let engine = engine.clone();
                scoped.push((scope, engine));
                continue;
            }
            inner.profile = scope.profile.clone().unwrap_or_else(|| base.0.clone());
            inner.fields = scope.fields.clone();
            let is_own = |field: &&FieldRule| scope.fields.iter().any(|own| own.name() == field.name());
            inner.fields.extend(base.1.iter().filter(|field| !is_own(field)).cloned());
            match Engine::without_scopes(inner.clone(), known.clone()) {
                Ok(engine) => scoped.push((scope, Arc::new(engine))),
                Err(RulesError(found)) => {
                    // What is wrong with the rules themselves has been said.
                    for mut fault in
                        found.into_iter().filter(|fault| !faults.contains(fault)).collect::<Vec<_>>()
                    {
                        fault.subject = format!("scope {number}: {}", fault.subject);
                        faults.push(fault);
                    }
                }
            }
        }
        match outer {
            Some(mut engine) if faults.is_empty() => {
                let chosen = scoped.iter().filter(|(scope, _)| scope.is_chosen);
                let faults: Vec<RuleFault> =
                    chosen.filter_map(|(scope, own)| engine.too_weak(scope, own)).collect();
                if !faults.is_empty() {
                    return Err(RulesError(faults));
                }
                engine.id = scoped_id(engine.id, &scoped);
                engine.scopes = scoped;
                Ok(engine)
            }
            _ => Err(RulesError(faults)),
        }
    }

    /// What is wrong with a profile that containers may choose, where it leaves more than this engine's own.
    fn too_weak(&self, scope: &Scope, chosen: &Engine) -> Option<RuleFault> {
        let action_in = |engine: &Engine, id: &str| {
            let rule = engine.active.iter().find(|active| active.rule.id == id);
            rule.map_or(Action::Off, |active| active.action)
        };
        let all = self.active.iter().chain(&chosen.active).map(|active| active.rule.id.as_str());
        let mut weaker: Vec<&str> = all
            .filter(|id| {
                let (own, other) = (action_in(self, id), action_in(chosen, id));
                // What runs there only may win over what runs here, so it must leave nothing.
                !other.is_at_least(own) || (own == Action::Off && !other.hides_all())
            })
            .collect();
        weaker.sort_unstable();
        weaker.dedup();
        let first = *weaker.first()?;
        let reason = format!(
            "leaves more than the host's own profile, so containers may not choose it: {} rules, {first} among them",
            weaker.len()
        );
        let instead = "offer a profile that inherits from the host's, or make the host's looser";
        Some(RuleFault::new(scope.profile.as_deref().unwrap_or_default(), reason, instead))
    }

    /// Whether containers may choose this profile by their label [`crate::PROFILE_LABEL`].
    pub fn offers(&self, profile: &str) -> bool {
        let label = [(crate::PROFILE_LABEL.to_owned(), profile.to_owned())];
        self.scopes.iter().any(|(scope, _)| scope.is_chosen && scope.covers("", &label))
    }

    fn without_scopes(options: EngineOptions, known: Shelf) -> Result<Engine, RulesError> {
        let mut rules = library::rules()?;
        let built_in = rules.len();
        rules.extend(options.rules.iter().flat_map(|file| file.rules().iter().cloned()));
        let mut profiles = library::profiles()?;
        profiles.extend(options.profiles.iter().cloned());
        let mut faults = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            if rules.iter().take(index).any(|earlier| earlier.id == rule.id) {
                faults.push(RuleFault::new(
                    &rule.id,
                    "id is taken by another rule",
                    "give each rule its own id",
                ));
            }
            if rule.marker == LINE_NAME {
                faults.push(RuleFault::new(&rule.id, "marker LINE is taken", "give it another marker"));
            }
        }
        if rules.len() > RULES_MAX {
            let reason = format!("{} rules are given, allowed are {RULES_MAX}", rules.len());
            faults.push(RuleFault::new(&options.profile, reason, "leave some out"));
        }
        let actions = profile::actions(&options.profile, &profiles, &rules, |index| index >= built_in);
        let actions = actions.unwrap_or_else(|found| {
            faults.extend(found);
            Vec::new()
        });
        for allow in &options.allow {
            faults.extend(allow.unknown(|id| rules.iter().any(|rule| rule.id == id)));
        }
        let mut chosen: Vec<(Rule, Action)> =
            rules.into_iter().zip(actions).filter_map(|(rule, action)| Some((rule, action?))).collect();
        match lists::denied(&options.deny) {
            Ok(denied) => chosen.extend(denied.into_iter().map(|rule| (rule, Action::Marker))),
            Err(RulesError(found)) => faults.extend(found),
        }
        // Field rules run whatever the profile says, and come last.
        for field in &options.fields {
            let mut rule = field.rule().clone();
            if chosen.iter().any(|(other, _)| other.id == rule.id) {
                faults.push(RuleFault::new(field.name(), "field stands twice", "give each name one action"));
            }
            rule.description = format!("Values of fields named {}", field.name());
            for spared in field.spared() {
                if !chosen.iter().any(|(other, _)| other.id == *spared) {
                    let reason = format!("names the rule {spared}, which does not run");
                    faults.push(RuleFault::new(field.name(), reason, "see `beeacon rules list`"));
                }
            }
            let action = rule.action;
            chosen.push((rule, action));
        }
        let versions = options.key.iter().chain(&options.old_keys).map(Key::version);
        let mut versions: Vec<u32> = versions.collect();
        versions.sort_unstable();
        if versions.windows(2).any(|pair| pair.first() == pair.last()) {
            faults.push(RuleFault::new(
                "keys",
                "two keys have one version",
                "count versions up, never reuse one",
            ));
        }
        for (rule, action) in &chosen {
            if *action == Action::Hash && options.key.is_none() {
                faults.push(RuleFault::new(&rule.id, "action hash needs a key", "give a key, or use marker"));
            }
        }
        if !faults.is_empty() {
            return Err(RulesError(faults));
        }
        Engine::ready(chosen, options, known)
    }

    /// An engine of these rules, whatever the library and the profile say.
    pub(crate) fn ready(
        chosen: Vec<(Rule, Action)>,
        options: EngineOptions,
        known: Shelf,
    ) -> Result<Engine, RulesError> {
        let rules: Vec<&Rule> = chosen.iter().map(|(rule, _)| rule).collect();
        let (scanner, costs) = Scanner::new(&rules, options.clock, options.level).map_err(RulesError)?;
        let id = identify(&chosen, options.key.as_ref(), &options.fields);
        let names = Names::new(rules.iter().map(|rule| rule.marker.as_str())).with_known(known.clone());
        let standing = chosen
            .iter()
            .map(|(rule, action)| Standing { action: *action, precedence: rule.precedence })
            .collect();
        let replacement = |(rule, action): &(Rule, Action)| Replacement {
            action: *action,
            marker: rule.marker.clone(),
            normalise: rule.normalise,
        };
        let replacements = chosen.iter().map(replacement).collect();
        let private_key = chosen.iter().position(|(rule, _)| rule.id == library::PRIVATE_KEY);
        let private_key = private_key.and_then(|rule| u32::try_from(rule).ok());
        let fields: Vec<Vec<String>> = options.fields.iter().map(|field| field.segments().to_vec()).collect();
        let first_field = u32::try_from(chosen.len().saturating_sub(fields.len())).unwrap_or(u32::MAX);
        let number = |id: &String| {
            let number = chosen.iter().position(|(rule, _)| rule.id == *id);
            number.and_then(|number| u32::try_from(number).ok())
        };
        let spared =
            options.fields.iter().map(|field| field.spared().iter().filter_map(number).collect()).collect();
        let ids = chosen.iter().map(|(rule, _)| rule.id.clone()).collect();
        let keys = options.key.iter().chain(&options.old_keys).cloned().collect();
        let active =
            chosen.into_iter().zip(costs).map(|((rule, action), cost)| ActiveRule { rule, action, cost });
        let active: Vec<ActiveRule> = active.collect();
        Ok(Engine {
            board: Board::new(active.len() + 1), // and one for all known secrets
            active,
            known,
            rewriter: Rewriter {
                scanner,
                names,
                standing,
                replacements,
                key: options.key,
                fields,
                first_field,
                spared,
                allow: options.allow,
                ids,
                keys,
                evidence: options.evidence,
                private_key,
            },
            id,
            pool: Mutex::new(Vec::new()),
            scopes: Vec::new(),
            reference: Mutex::default(),
        })
    }

    /// Scrubs a batch: messages, attribute values and labels. Where nothing is found the batch keeps its buffers.
    ///
    /// # Errors
    /// Whatever went wrong, the text is withheld ([`FilterError`]): keep the source's position and stop.
    pub fn scrub(&self, batch: Batch) -> Result<(Scrubbed<Batch>, ScrubReport), FilterError> {
        self.scrub_batch(batch, None)
    }

    /// The same, where the batch goes on from batches before it: a private key that began there is redacted to its end.
    ///
    /// # Errors
    /// As for [`Engine::scrub`]. What is remembered of the batch's sources is forgotten then, which only ever redacts more.
    pub fn scrub_with(
        &self,
        batch: Batch,
        continuity: &mut Continuity,
    ) -> Result<(Scrubbed<Batch>, ScrubReport), FilterError> {
        self.scrub_batch(batch, Some(continuity))
    }

    fn scrub_batch(
        &self,
        batch: Batch,
        continuity: Option<&mut Continuity>,
    ) -> Result<(Scrubbed<Batch>, ScrubReport), FilterError> {
        let (batch, report) = match self.scopes.as_slice() {
            [] => self.scrub_rows(batch, continuity)?,
            _ => self.scrub_by_scope(batch, continuity)?,
        };
        Ok((Scrubbed::seal(batch, self.id), report))
    }

    fn scrub_rows(
        &self,
        batch: Batch,
        continuity: Option<&mut Continuity>,
    ) -> Result<(Batch, ScrubReport), FilterError> {
        self.guarded(|scratch| {
            let name = |rule| self.id_of(rule);
            let (batch, report) = batch::scrub(&self.rewriter, name, batch, continuity, scratch)?;
            self.board.add_report(&report);
            Ok((batch, report))
        })
    }

    /// Scrubs the sources of each scope by its own engine. Rows of different sources may change places.
    fn scrub_by_scope(
        &self,
        batch: Batch,
        mut continuity: Option<&mut Continuity>,
    ) -> Result<(Batch, ScrubReport), FilterError> {
        let mut report = ScrubReport::default();
        let mut scrubbed = Vec::new();
        for (engine, part) in self.parts(&batch)? {
            let (part, counted) = engine.scrub_rows(part, continuity.as_deref_mut())?;
            report.add(counted);
            scrubbed.push(part);
        }
        let batch = match <[Batch; 1]>::try_from(scrubbed) {
            Ok([whole]) => whole,
            Err(parts) => Batch::concat(&parts)?,
        };
        Ok((batch, report))
    }

    /// A batch taken apart by scopes, each part with the engine that is for it. All of it in one piece where no scope covers any of it.
    pub(crate) fn parts(&self, batch: &Batch) -> Result<Vec<(&Engine, Batch)>, FilterError> {
        let covered = match self.scopes.as_slice() {
            [] => BTreeMap::new(),
            scopes => scope::sources(scopes.iter().map(|(scope, _)| scope), batch)?,
        };
        if covered.is_empty() {
            return Ok(vec![(self, batch.clone())]);
        }
        let scoped =
            self.scopes.iter().enumerate().map(|(number, (_, engine))| (Some(number), engine.as_ref()));
        let mut parts = Vec::new();
        for (number, engine) in std::iter::once((None, self)).chain(scoped) {
            let part = batch.of_sources(|source| covered.get(source).copied() == number)?;
            if part.rows() > 0 || !part.intervals().is_empty() {
                parts.push((engine, part));
            }
        }
        Ok(parts)
    }

    /// Whether the same rules apply to two containers, each given by its service and its labels.
    ///
    /// ```
    /// use beeacon_filters::{Engine, EngineOptions, Scope};
    /// let scope = Scope::new(&["lab*".into()], &[], Some("secrets"), vec![]).unwrap();
    /// let engine = Engine::new(EngineOptions { scopes: vec![scope], ..EngineOptions::default() }).unwrap();
    /// assert!(engine.treats_alike(("web", &[]), ("db", &[])));
    /// assert!(!engine.treats_alike(("web", &[]), ("lab-1", &[])));
    /// ```
    pub fn treats_alike(&self, one: (&str, &[(String, String)]), other: (&str, &[(String, String)])) -> bool {
        let scope_of = |(service, labels): (&str, &[(String, String)])| {
            self.scopes.iter().position(|(scope, _)| scope.covers(service, labels))
        };
        scope_of(one) == scope_of(other)
    }

    /// This engine and those of its scopes, each once.
    fn engines(&self) -> Vec<&Engine> {
        let mut engines = vec![self];
        for (_, engine) in &self.scopes {
            if !engines.iter().any(|known| std::ptr::eq(*known, engine.as_ref())) {
                engines.push(engine);
            }
        }
        engines
    }

    /// Takes another set of known secrets, for all calls that begin from now on.
    pub fn replace_known(&self, known: Option<KnownSecrets>) {
        self.known.put(known);
    }

    /// The known secrets in use.
    pub fn known(&self) -> Option<KnownSecrets> {
        self.known.get()
    }

    /// Scrubs one text, whose lines end with `\n`. A line that a rule drops is left out with its end.
    ///
    /// # Errors
    /// Whatever went wrong, the text is withheld.
    pub fn scrub_text(&self, text: &str) -> Result<(String, Vec<RuleCount>), FilterError> {
        self.scrub_lines(text, &mut Continuity::default())
    }

    /// The same, where the text goes on from texts before it; it may be cut at line ends only.
    ///
    /// # Errors
    /// As for [`Engine::scrub_text`].
    pub fn scrub_text_with(
        &self,
        text: &str,
        continuity: &mut Continuity,
    ) -> Result<(String, Vec<RuleCount>), FilterError> {
        self.scrub_lines(text, continuity)
    }

    fn scrub_lines(
        &self,
        text: &str,
        continuity: &mut Continuity,
    ) -> Result<(String, Vec<RuleCount>), FilterError> {
        self.guarded(|scratch| {
            let name = |rule| self.id_of(rule);
            let (text, report) = batch::scrub_text(&self.rewriter, name, text, continuity, scratch)?;
            self.board.add_report(&report);
            Ok((text, report.counts))
        })
    }

    /// What would be rewritten in `text`, taken as one line: overlaps resolved, in order. Tagged findings are listed too.
    ///
    /// # Errors
    /// When the text is too long or the filter failed inside.
    pub fn scan(&self, text: &[u8]) -> Result<Vec<Finding>, FilterError> {
        self.guarded(|scratch| {
            let clusters = self.clusters(text, scratch)?;
            let tagged = scratch.hits.iter().filter(|hit| {
                self.active.get(index(hit.rule)).is_some_and(|active| active.action == Action::Tag)
            });
            let tagged = tagged.map(|hit| Finding {
                rule: self.id_of(hit.rule).to_owned(),
                start: index(hit.start),
                end: index(hit.end),
                match_start: index(hit.match_start),
                match_end: index(hit.match_end),
            });
            let rewritten = clusters.into_iter().map(|cluster| Finding {
                rule: self.id_of(cluster.rule).to_owned(),
                start: cluster.covered.start,
                end: cluster.covered.end,
                match_start: cluster.matched.start,
                match_end: cluster.matched.end,
            });
            let mut findings: Vec<Finding> = rewritten.chain(tagged).collect();
            findings.sort_by_key(|finding| (finding.start, finding.end));
            Ok(findings)
        })
    }

    /// What would be found in `text`, taken as one line, and why. Without the values.
    ///
    /// # Errors
    /// As for [`Engine::scan`].
    pub fn explain(&self, text: &[u8]) -> Result<Vec<Explanation>, FilterError> {
        let findings = self.scan(text)?;
        let explain = |finding: Finding| {
            if finding.rule == KNOWN_RULE {
                return Some(Explanation {
                    category: "secret".to_owned(),
                    description: "A secret that is known by itself.".to_owned(),
                    severity: Severity::Critical,
                    validator: None,
                    context: None,
                    found_by: "keyed hashes of what is known".to_owned(),
                    action: Action::Marker,
                    finding,
                });
            }
            let active = self.active.iter().find(|active| active.rule.id == finding.rule)?;
            Some(Explanation {
                category: active.rule.category.clone(),
                description: active.rule.description.clone(),
                severity: active.rule.severity,
                validator: active.rule.validator().map(str::to_owned),
                context: context::word_at(&active.rule.context, text, finding.match_start, finding.start)
                    .map(str::to_owned),
                found_by: active.cost.found_by.clone(),
                action: active.action,
                finding,
            })
        };
        Ok(findings.into_iter().filter_map(explain).collect())
    }

    /// Where to cut a text that is too long for one row: at most at `at_most`, at a character, and not inside a match. The rest
    /// keeps at least [`LINE_OVERLAP_BYTES`] of what is there, so that a secret which has not arrived whole is not cut either.
    ///
    /// Never 0 for a text that is not empty: where everything is one match the cut is as late as allowed.
    ///
    /// # Errors
    /// When the filter failed inside; do not cut, do not ship.
    pub fn safe_cut(&self, text: &[u8], at_most: usize) -> Result<usize, FilterError> {
        let mut cut = self.safe_cut_here(text, at_most)?;
        // Moving before a match of one engine may land inside a match of another; each step moves to the left.
        while !self.scopes.is_empty() {
            let before = cut;
            for engine in self.engines() {
                cut = engine.safe_cut_here(text, cut)?;
            }
            if cut == before {
                break;
            }
        }
        Ok(cut)
    }

    fn safe_cut_here(&self, text: &[u8], at_most: usize) -> Result<usize, FilterError> {
        if text.len() <= at_most {
            return Ok(text.len());
        }
        let latest = character_before(text, at_most).max(1);
        let spared = text.len().saturating_sub(LINE_OVERLAP_BYTES).min(latest);
        let wanted = character_before(text, spared);
        self.guarded(|scratch| {
            let clusters = self.clusters(text, scratch)?;
            let mut cut = wanted;
            // From right to left: moving before one match may land in an earlier one.
            for cluster in clusters.iter().rev() {
                if cluster.matched.start < cut && cut < cluster.matched.end {
                    cut = cluster.matched.start;
                }
            }
            Ok(if cut == 0 { latest } else { cut })
        })
    }

    /// Which rules these are: a hash over rules, profile and key version.
    pub fn rule_set_id(&self) -> RuleSetId {
        self.id
    }

    /// The tokens that stand for a value of a rule under every key, newest first: to find in old logs what is known today by a new
    /// token. Nothing when the rule does not run.
    pub fn tokens(&self, rule: &str, value: &str) -> Vec<String> {
        let Some(active) = self.active.iter().find(|active| active.rule.id == rule) else {
            return Vec::new();
        };
        let marker = &active.rule.marker;
        let value = active.rule.normalise.apply(value.as_bytes());
        let token = |key: &Key| {
            let token = key.token(marker, &value)?;
            Some(format!("<{marker}:v{}:{}>", key.version(), String::from_utf8_lossy(&token)))
        };
        self.rewriter.keys.iter().filter_map(token).collect()
    }

    /// The rules that run, with what they do and cost.
    pub fn rules(&self) -> &[ActiveRule] {
        &self.active
    }

    /// What each rule's verifier takes, in the order of [`Engine::rules`]. Builds those that no text has needed yet.
    pub fn verifiers(&self) -> Vec<VerifierCost> {
        self.rewriter.scanner.verifiers()
    }

    /// How much memory the tables take that find where rules may match, in bytes.
    pub fn finder_bytes(&self) -> usize {
        self.rewriter.scanner.finder_bytes()
    }

    /// Counts since the engine was made.
    pub fn statistics(&self) -> Statistics {
        let mut engines = self.engines().into_iter();
        let mut statistics = engines.next().map_or_else(|| self.counted(), Engine::counted);
        for engine in engines {
            statistics.add(engine.counted());
        }
        statistics
    }

    fn counted(&self) -> Statistics {
        let rules = self.active.iter().map(|active| (active.rule.id.as_str(), active.action));
        let known = self.known.get().map(|_| (KNOWN_RULE, Action::Marker));
        self.board.read(rules.chain(known))
    }

    /// Runs every rule's own examples, each rule by itself.
    ///
    /// # Errors
    /// Never; the faults are the answer. An empty list is what should come out.
    pub fn check_examples(&self) -> Vec<ExampleFault> {
        let mut rules: Vec<&Rule> = Vec::new();
        for active in self.engines().iter().flat_map(|engine| &engine.active) {
            if !rules.iter().any(|known| known.id == active.rule.id) {
                rules.push(&active.rule);
            }
        }
        rules.into_iter().flat_map(check_examples).collect()
    }

    fn id_of(&self, rule: u32) -> &str {
        self.active.get(index(rule)).map_or(KNOWN_RULE, |active| active.rule.id.as_str())
    }

    fn clusters(&self, text: &[u8], scratch: &mut Scratch) -> Result<Vec<overlap::Cluster>, Failed> {
        let end = within(text.len())?;
        self.rewriter.find(text, &[0, end], None, scratch)?;
        let mut clusters = Vec::new();
        overlap::resolve(&mut scratch.hits, &self.rewriter.standing, &mut clusters);
        Ok(clusters)
    }

    /// What the fast way and the plain meaning find in the lines between consecutive `offsets`. Counts nothing.
    pub(crate) fn both_ways(
        &self,
        text: &[u8],
        offsets: &[i32],
    ) -> Result<(BTreeSet<Found>, BTreeSet<Found>), FilterError> {
        let reference = self.reference()?;
        self.guarded(|scratch| {
            within(text.len())?;
            scratch.hits.clear();
            self.rewriter.scanner.scan(text, offsets, &self.rewriter.names, scratch)?;
            scratch.tallies.fill(Tally::default());
            let found = scratch.hits.iter().map(|hit| Found {
                rule: index(hit.rule),
                line: index(hit.line),
                start: index(hit.start),
                end: index(hit.end),
            });
            Ok((found.collect(), reference.find(text, offsets, &self.rewriter.names)))
        })
    }

    fn reference(&self) -> Result<Arc<Reference>, FilterError> {
        let mut kept = self.reference.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = kept.as_ref() {
            return Ok(reference.clone());
        }
        let made = Reference::new(self.active.iter().map(|active| &active.rule));
        let made = Arc::new(made.map_err(|_| FilterError::NoReference)?);
        *kept = Some(made.clone());
        Ok(made)
    }

    /// Gives back the memory of what [`Engine::compare`] needs, some 15 MB for the default profile: for whoever compares seldom. It is
    /// made again when it is needed, in a twentieth of a second.
    pub fn forget_reference(&self) {
        for engine in self.engines() {
            *engine.reference.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Runs `work` with a scratch state, and turns a panic into an error. The scratch of a failed call is thrown away.
    fn guarded<T>(&self, work: impl FnOnce(&mut Scratch) -> Result<T, Failed>) -> Result<T, FilterError> {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let pooled = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut scratch = pooled.unwrap_or_else(|| self.rewriter.scanner.scratch());
            scratch.tallies.resize(self.active.len() + 1, Tally::default());
            scratch.known = self.known.get();
            let result = work(&mut scratch);
            scratch.known = None;
            self.board.add_tallies(&mut scratch.tallies);
            (result, scratch)
        }));
        let result = match outcome {
            Ok((Ok(value), mut scratch)) => {
                scratch.hits.clear();
                let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
                if pool.len() < SCRATCH_POOL_MAX {
                    pool.push(scratch);
                }
                return Ok(value);
            }
            Ok((Err(failed), _)) => Err(self.in_words(failed)),
            Err(_) => Err(FilterError::Panicked),
        };
        self.board.add_failure();
        result
    }

    fn in_words(&self, failed: Failed) -> FilterError {
        match failed {
            Failed::Rule(RuleGaveUp(rule)) => {
                let rule = self.active.get(rule).map_or(String::new(), |active| active.rule.id.clone());
                FilterError::GaveUp { rule }
            }
            Failed::Filter(error) => error,
        }
    }
}

/// A failure before the rule's name is looked up.
pub(crate) enum Failed {
    Rule(RuleGaveUp),
    Filter(FilterError),
}

impl From<RuleGaveUp> for Failed {
    fn from(rule: RuleGaveUp) -> Self {
        Failed::Rule(rule)
    }
}

impl From<FilterError> for Failed {
    fn from(error: FilterError) -> Self {
        Failed::Filter(error)
    }
}

impl From<beeacon_record::BatchError> for Failed {
    fn from(error: beeacon_record::BatchError) -> Self {
        Failed::Filter(FilterError::Batch(error))
    }
}

/// A text's length as an offset, if it is not too long for one call.
pub(crate) fn within(bytes: usize) -> Result<i32, Failed> {
    let too_long = || Failed::Filter(FilterError::TooLong { bytes, limit: TEXT_BYTES_MAX });
    i32::try_from(bytes).ok().filter(|_| bytes <= TEXT_BYTES_MAX).ok_or_else(too_long)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The last character boundary at or before `at`. In what is no UTF-8 that is at most three bytes back.
fn character_before(text: &[u8], at: usize) -> usize {
    let continues = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let back = (0..=3).find(|back| !continues(at.saturating_sub(*back))).unwrap_or(0);
    at.saturating_sub(back)
}

fn identify(chosen: &[(Rule, Action)], key: Option<&Key>, fields: &[FieldRule]) -> RuleSetId {
    let mut hash = Xxh3::new();
    let mut feed = |text: &str| {
        hash.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for (rule, action) in chosen {
        feed(&rule.id);
        feed(&rule.pattern);
        feed(&rule.marker);
        feed(rule.validator().unwrap_or(""));
        feed(&format!(
            "{:?} {} {:?} {:?} {:?} {:?} {} {action:?}",
            rule.context,
            rule.context_required,
            rule.strength,
            rule.redact,
            rule.normalise,
            rule.window_bytes,
            rule.precedence
        ));
    }
    fields.iter().flat_map(FieldRule::spared).for_each(|rule| feed(rule));
    feed(&key.map_or(String::new(), |key| key.version().to_string()));
    RuleSetId(hash.digest())
}

/// The id of rules that apply in scopes, too.
fn scoped_id(outer: RuleSetId, scopes: &[(Scope, Arc<Engine>)]) -> RuleSetId {
    if scopes.is_empty() {
        return outer;
    }
    let mut hash = Xxh3::new();
    hash.update(&outer.0.to_le_bytes());
    for (scope, engine) in scopes {
        hash.update(scope.in_words().as_bytes());
        hash.update(&engine.id.0.to_le_bytes());
    }
    RuleSetId(hash.digest())
}

/// Runs a rule's own examples, whatever profile it runs in. An empty list is what should come out.
///
/// ```
/// use beeacon_filters::{check_examples, library};
/// let email = library::rules().unwrap().into_iter().find(|rule| rule.id() == "email").unwrap();
/// assert_eq!(check_examples(&email), vec![]);
/// ```
pub fn check_examples(rule: &Rule) -> Vec<ExampleFault> {
    let mut faults = Vec::new();
    let mut fault = |list, index, reason: &str| {
        faults.push(ExampleFault { rule: rule.id.clone(), list, index, reason: reason.to_owned() });
    };
    let options = EngineOptions::default();
    let Ok(engine) = Engine::ready(vec![(rule.clone(), Action::Marker)], options, Shelf::default()) else {
        fault("finds", 0, "cannot be tried: the rule does not compile");
        return faults;
    };
    for (index, (text, part)) in rule.examples.finds.iter().enumerate() {
        let found = engine.scan(text.as_bytes()).unwrap_or_default();
        match found.as_slice() {
            [] => fault("finds", index, "finds nothing"),
            [one] if text.get(one.start..one.end) == Some(part.as_str()) => {}
            [one] => {
                let got = text.get(one.start..one.end).unwrap_or("no text");
                fault("finds", index, &format!("finds `{got}`"));
            }
            _ => fault("finds", index, "finds more than one thing"),
        }
    }
    for (index, text) in rule.examples.spares.iter().enumerate() {
        if let Some(one) = engine.scan(text.as_bytes()).unwrap_or_default().first() {
            let got = text.get(one.start..one.end).unwrap_or("no text");
            fault("spares", index, &format!("finds `{got}`"));
        }
    }
    faults
}
