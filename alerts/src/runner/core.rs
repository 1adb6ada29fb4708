//! What the runner knows: rules with their states and counts, and the notifier. Pure: it takes times, lines and answers, and
//! collects what is to be written down as one [`Step`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::rule_set::RuleSet;
use super::view::{AlertView, GroupView, RuleView};
use crate::labels::Labels;
use crate::ledger::{Loaded, Step};
use crate::limits::{ALERTS_PER_RULE_MAX, CATCH_UP_MAX, STREAM_LOOK_EVERY, TURN_MARGIN};
use crate::notify::Notifier;
use crate::notify::config::Config;
use crate::notify::silence::Silence;
use crate::rules::{AlertRule, Group, RecordRule, Rule, RuleSource};
use crate::schedule::{CatchUp, Schedule};
use crate::sign::short_hex;
use crate::state::{Alert, Evaluation, Health, Phase, RuleState, Sample, Transition};
use crate::stream::{StreamCount, StreamLine, StreamState};

/// A query that is due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    /// The rule.
    pub(crate) rule: String,
    /// The moment it is asked about.
    pub(crate) moment: Timestamp,
    /// Its text.
    pub(crate) sql: String,
    /// The rows it may have.
    pub(crate) rows_max: usize,
}

/// What servers that share a group ask for a turn at it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupTurn {
    /// Made from the group's name and rules: servers with other ones do not share it.
    pub(crate) name: String,
    /// How long a turn lasts: the next evaluation prolongs it.
    pub(crate) span: Duration,
}

impl GroupTurn {
    fn of(group: &Group) -> GroupTurn {
        let mut digest = Sha256::new();
        digest.update(format!("{} {:?} {:?}", group.name, group.every(), group.rules));
        GroupTurn { name: short_hex(&digest.finalize()), span: 2 * group.every() + TURN_MARGIN }
    }
}

/// A rule with all that is known of it.
#[derive(Debug)]
struct Known {
    rule: Rule,
    state: RuleState,
    counts: Option<StreamState>,
    /// The last rows of a rule that records.
    recorded: Vec<Sample>,
    took: Duration,
    evaluations: u64,
    failures: u64,
    state_is_new: bool,
    counts_are_new: bool,
}

impl Known {
    fn new(rule: Rule, loaded: &mut Loaded) -> Known {
        let id = rule_id(&rule).to_owned();
        let counts = stream_of(&rule).map(|count| match loaded.streams.remove(&id) {
            Some((made_by, counts)) if made_by == words(count) => counts,
            _ => StreamState::default(),
        });
        Known {
            state: loaded.rules.remove(&id).unwrap_or_default(),
            counts,
            rule,
            recorded: Vec::new(),
            took: Duration::ZERO,
            evaluations: 0,
            failures: 0,
            state_is_new: false,
            counts_are_new: false,
        }
    }

    fn query(&self) -> Option<(&crate::rules::SqlQuery, usize)> {
        match &self.rule {
            Rule::Alert(AlertRule { source: RuleSource::Sql(query), limit, .. }) => Some((query, *limit)),
            Rule::Record(RecordRule { query, limit, .. }) => Some((query, *limit)),
            Rule::Alert(_) => None,
        }
    }
}

/// A group with its times.
#[derive(Debug)]
struct KnownGroup {
    file: String,
    name: String,
    interval: Duration,
    schedule: Schedule,
    rules: Vec<String>,
    /// Its queries run.
    is_running: bool,
    /// When its streaming rules were looked at.
    looked_at: Option<Timestamp>,
    turn: GroupTurn,
    /// When it was another server's turn last.
    left_at: Option<Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    rules: BTreeMap<String, Known>,
    groups: Vec<KnownGroup>,
    notifier: Notifier,
    notifier_is_new: bool,
    external_labels: Labels,
    external_url: String,
    place: Option<u64>,
    place_is_new: bool,
    /// Whether the lines of the past are counted, so that looking at streams now says something.
    is_current: bool,
    changes: Vec<(String, Transition)>,
    messages: Vec<crate::notify::Notification>,
    gone: Vec<String>,
    /// Batches of lines that were lost before they were counted.
    pub(crate) lost_records: u64,
    /// Why the last reading of the rule files was refused, if it was.
    pub(crate) reload_fault: Option<String>,
    /// Why the last step could not be written, if it could not.
    pub(crate) ledger_fault: Option<String>,
}

impl Core {
    /// Goes on from what was loaded. Alerts of rules that are no more end.
    pub(crate) fn new(
        rules: &RuleSet,
        config: Config,
        external_labels: Labels,
        external_url: String,
        mut loaded: Loaded,
        now: Timestamp,
    ) -> Core {
        let notifier = Notifier::new(config, std::mem::take(&mut loaded.notifier), now);
        let mut core = Core {
            rules: BTreeMap::new(),
            groups: Vec::new(),
            notifier,
            notifier_is_new: false,
            external_labels,
            external_url,
            place: loaded.place,
            place_is_new: false,
            is_current: false,
            changes: Vec::new(),
            messages: Vec::new(),
            gone: Vec::new(),
            lost_records: 0,
            reload_fault: None,
            ledger_fault: None,
        };
        core.take_rules(rules, &mut loaded);
        for (id, mut state) in std::mem::take(&mut loaded.rules) {
            let ended = state.end(&id, now);
            core.note(now, &id, ended);
            core.gone.push(id);
        }
        for id in loaded.streams.into_keys() {
            // Counts of a rule whose state was never written.
            if !core.gone.contains(&id) && !core.rules.contains_key(&id) {
                core.gone.push(id);
            }
        }
        core
    }

    fn take_rules(&mut self, rules: &RuleSet, loaded: &mut Loaded) {
        self.groups.clear();
        for (file, group) in rules.groups() {
            let ids = group.rules.iter().map(|rule| rule_id(rule).to_owned()).collect();
            for rule in &group.rules {
                self.rules.insert(rule_id(rule).to_owned(), Known::new(rule.clone(), loaded));
            }
            self.groups.push(KnownGroup {
                file: file.to_owned(),
                name: group.name.clone(),
                interval: group.every(),
                schedule: Schedule::new(&group.name, group.every()),
                rules: ids,
                is_running: false,
                looked_at: None,
                turn: GroupTurn::of(group),
                left_at: None,
            });
        }
    }

    /// Other rules from now on. What has the same id goes on; alerts of rules that are no more end.
    pub(crate) fn use_rules(&mut self, rules: &RuleSet, now: Timestamp) {
        let mut loaded = Loaded::default();
        for (id, known) in std::mem::take(&mut self.rules) {
            if let (Some(count), Some(counts)) = (stream_of(&known.rule), known.counts) {
                loaded.streams.insert(id.clone(), (words(count), counts));
            }
            loaded.rules.insert(id, known.state);
        }
        let before: BTreeSet<String> = loaded.rules.keys().cloned().collect();
        self.take_rules(rules, &mut loaded);
        for (id, mut state) in loaded.rules {
            let ended = state.end(&id, now);
            self.note(now, &id, ended);
            self.gone.push(id);
        }
        for (id, known) in &mut self.rules {
            known.state_is_new |= before.contains(id);
            known.counts_are_new |= known.counts.is_some();
        }
        self.reload_fault = None;
    }

    /// Other receivers and routes from now on. What was said stays said.
    pub(crate) fn use_config(&mut self, config: Config, now: Timestamp) {
        self.notifier = Notifier::new(config, self.notifier.state().clone(), now);
        self.notifier_is_new = true;
    }

    /// The last record of the journal that is counted.
    pub(crate) fn place(&self) -> Option<u64> {
        self.place
    }

    /// Whether some rule counts lines.
    pub(crate) fn counts_lines(&self) -> bool {
        self.rules.values().any(|known| known.counts.is_some())
    }

    /// Counts the lines of a record, as of when they came.
    pub(crate) fn observe(&mut self, place: u64, at: Timestamp, lines: &[StreamLine<'_>]) {
        if self.place.is_some_and(|last| place <= last) {
            return;
        }
        let mut reached = Vec::new();
        for (id, known) in &mut self.rules {
            let (Some(count), Some(counts)) = (stream_of(&known.rule), &mut known.counts) else { continue };
            if lines.is_empty() {
                continue;
            }
            known.counts_are_new = true;
            if counts.observe(count, at, lines.iter().copied()) {
                reached.push(id.clone());
            }
        }
        self.pass(place, 0);
        for id in reached {
            self.look_at_stream(&id, at);
        }
    }

    /// Goes past records that hold nothing to count, or that are lost.
    pub(crate) fn pass(&mut self, place: u64, lost_records: u64) {
        self.place = Some(self.place.map_or(place, |last| last.max(place)));
        self.place_is_new = true;
        self.lost_records += lost_records;
    }

    /// The journal goes on behind this record.
    pub(crate) fn start_from(&mut self, place: u64) {
        self.place_is_new |= self.place != Some(place);
        self.place = Some(place);
    }

    /// All lines of the past are counted.
    pub(crate) fn is_current(&mut self) {
        self.is_current = true;
    }

    /// What streaming rules say at a moment.
    fn look_at_stream(&mut self, id: &str, at: Timestamp) {
        let Some(known) = self.rules.get_mut(id) else { return };
        let (Some(count), Some(counts)) = (stream_of(&known.rule), &mut known.counts) else { return };
        let at = known.state.evaluated_at.map_or(at, |last| at.max(last));
        let rows = counts.rows(count, at);
        self.evaluated(id, at, Evaluation::Rows(rows), Duration::ZERO);
    }

    /// Looks at streaming rules whose time has come: those with alerts every second, the others with their group.
    pub(crate) fn look_at_streams(&mut self, now: Timestamp) {
        if !self.is_current {
            return;
        }
        let mut due = Vec::new();
        for group in &mut self.groups {
            let is_time = group.looked_at.is_none_or(|last| group.schedule.next_after(last) <= now);
            if is_time {
                group.looked_at = Some(now);
            }
            for id in &group.rules {
                let Some(known) = self.rules.get(id).filter(|known| known.counts.is_some()) else { continue };
                let has_alerts = known.state.alerts().any(|alert| alert.phase != Phase::Resolved);
                let was_looked_at =
                    known.state.evaluated_at.map_or(Duration::MAX, |at| crate::state::elapsed(at, now));
                if is_time || (has_alerts && was_looked_at >= STREAM_LOOK_EVERY) {
                    due.push(id.clone());
                }
            }
        }
        for id in due {
            self.look_at_stream(&id, now);
        }
    }

    /// The queries of every group whose time has come and that does not run; each such group runs from now on.
    pub(crate) fn start_due(&mut self, now: Timestamp) -> Vec<(usize, GroupTurn, Vec<Query>)> {
        let mut started = Vec::new();
        for (number, group) in self.groups.iter_mut().enumerate() {
            let is_left = group.left_at.is_some_and(|at| group.schedule.next_after(at) > now);
            if group.is_running || is_left {
                continue;
            }
            let mut queries = Vec::new();
            for id in &group.rules {
                let Some(known) = self.rules.get_mut(id) else { continue };
                let Some((query, rows_max)) = known.query() else { continue };
                let catch_up = if query.names_its_moment() { CatchUp::Possible } else { CatchUp::Impossible };
                let due = group.schedule.due(known.state.evaluated_at, now, catch_up);
                queries.extend(due.moments.iter().map(|moment| Query {
                    rule: id.clone(),
                    moment: *moment,
                    sql: query.at(*moment),
                    rows_max,
                }));
                if let Some(missed) = due.missed {
                    tracing::warn!(
                        rule = id,
                        count = missed.count,
                        from = %missed.from,
                        to = %missed.to,
                        "evaluations were missed"
                    );
                    known.state.missed += missed.count;
                    known.state_is_new = true;
                }
            }
            if !queries.is_empty() {
                group.is_running = true;
                started.push((number, group.turn.clone(), queries));
            }
        }
        started
    }

    /// Another server evaluates a group until its next moment. What it evaluates is kept due here, as far as it can be caught up: when its
    /// turn comes to this server it goes over the same moments and makes the same changes, with the same event ids.
    pub(crate) fn left_to_another(&mut self, number: usize, now: Timestamp) {
        let Some(group) = self.groups.get_mut(number) else { return };
        group.left_at = Some(now);
        let moments = u32::try_from(CATCH_UP_MAX - 1).unwrap_or(u32::MAX);
        let oldest = now.checked_sub(group.interval.saturating_mul(moments)).unwrap_or(Timestamp::MIN);
        for id in &group.rules {
            let Some(known) = self.rules.get_mut(id) else { continue };
            let Some((query, _)) = known.query() else { continue };
            let kept = match query.names_its_moment() {
                true => known.state.evaluated_at.map_or(now, |last| last.max(oldest)),
                false => now,
            };
            known.state_is_new |= known.state.evaluated_at != Some(kept);
            known.state.evaluated_at = Some(kept);
        }
    }

    /// A group's queries have ended. Its number may be that of another group after a change of the rules, which then only looks
    /// again.
    pub(crate) fn ended(&mut self, number: usize) {
        if let Some(group) = self.groups.get_mut(number) {
            group.is_running = false;
        }
    }

    /// Takes what a rule's query gave. A rule that is no more is nobody's matter.
    pub(crate) fn evaluated(&mut self, id: &str, at: Timestamp, evaluation: Evaluation, took: Duration) {
        let Some(known) = self.rules.get_mut(id) else { return };
        // A change of the rules may have a query asked twice about one moment.
        if known.counts.is_none() && known.state.evaluated_at.is_some_and(|last| at <= last) {
            return;
        }
        known.took = took;
        known.evaluations += 1;
        let has_failed = matches!(evaluation, Evaluation::Failed(_));
        let transitions = match &known.rule {
            Rule::Alert(rule) => known.state.on(rule, &self.external_labels, at, evaluation),
            Rule::Record(rule) => {
                known.state.evaluated_at = Some(at);
                match evaluation {
                    Evaluation::Rows(rows) => {
                        known.state.health = Health::Ok;
                        known.recorded = recorded(rule, rows);
                    }
                    Evaluation::Failed(text) => known.state.health = Health::Failed(text),
                }
                Vec::new()
            }
        };
        known.failures += u64::from(has_failed || matches!(known.state.health, Health::Failed(_)));
        known.state_is_new = true;
        self.note(at, id, transitions);
    }

    fn note(&mut self, at: Timestamp, rule: &str, transitions: Vec<Transition>) {
        if transitions.is_empty() {
            return;
        }
        let id: String = url::form_urlencoded::byte_serialize(rule.as_bytes()).collect();
        let url = format!("{}/api/v1/rules?rule={id}", self.external_url);
        self.notifier.on(at, &url, &transitions);
        self.notifier_is_new = true;
        self.changes.extend(transitions.into_iter().map(|transition| (rule.to_owned(), transition)));
    }

    /// Makes the messages that are due.
    pub(crate) fn tell(&mut self, now: Timestamp) {
        if self.notifier.next_wake().is_some_and(|wake| wake <= now) {
            self.messages.extend(self.notifier.tick(now));
            self.notifier_is_new = true;
        }
    }

    /// When something has to be done next if nothing comes.
    pub(crate) fn next_wake(&self, now: Timestamp) -> Timestamp {
        let idle = self.groups.iter().filter(|group| !group.is_running);
        let groups = idle.map(|group| group.schedule.next_after(now));
        let streams = self
            .rules
            .values()
            .any(|known| {
                known.counts.is_some() && known.state.alerts().any(|alert| alert.phase != Phase::Resolved)
            })
            .then(|| now.checked_add(STREAM_LOOK_EVERY).unwrap_or(Timestamp::MAX));
        groups.chain(self.notifier.next_wake()).chain(streams).min().unwrap_or(Timestamp::MAX)
    }

    /// Whether somebody waits for what is to be written.
    pub(crate) fn is_pressing(&self) -> bool {
        !self.changes.is_empty() || !self.messages.is_empty() || !self.gone.is_empty()
    }

    /// Whether there is anything to be written.
    pub(crate) fn has_news(&self) -> bool {
        self.is_pressing()
            || self.place_is_new
            || self.notifier_is_new
            || self.rules.values().any(|known| known.state_is_new || known.counts_are_new)
    }

    /// Everything that is to be written down. What was taken is written as often as it needs, before anything else is.
    pub(crate) fn take_step(&mut self) -> Step {
        let mut step = Step {
            notifier: std::mem::take(&mut self.notifier_is_new).then(|| self.notifier.state().clone()),
            changes: std::mem::take(&mut self.changes),
            messages: std::mem::take(&mut self.messages),
            place: std::mem::take(&mut self.place_is_new).then_some(self.place).flatten(),
            gone: std::mem::take(&mut self.gone),
            ..Step::default()
        };
        for (id, known) in &mut self.rules {
            if std::mem::take(&mut known.state_is_new) {
                step.rules.push((id.clone(), known.state.clone()));
            }
            let counts_are_new = std::mem::take(&mut known.counts_are_new);
            if let (true, Some(count), Some(counts)) =
                (counts_are_new, stream_of(&known.rule), known.counts.as_ref())
            {
                step.streams.push((id.clone(), words(count), counts.clone()));
            }
        }
        step
    }

    pub(crate) fn silence(&mut self, silence: Silence, now: Timestamp) -> bool {
        self.notifier_is_new = true;
        self.notifier.silence(silence, now)
    }

    pub(crate) fn expire_silence(&mut self, id: &str, now: Timestamp) -> bool {
        self.notifier_is_new = true;
        self.notifier.expire_silence(id, now)
    }

    pub(crate) fn silences(&self) -> Vec<Silence> {
        self.notifier.silences().cloned().collect()
    }

    /// The rules with their alerts, as the API shows them.
    pub(crate) fn view(&self, now: Timestamp) -> Vec<GroupView> {
        self.groups
            .iter()
            .map(|group| GroupView {
                name: group.name.clone(),
                file: group.file.clone(),
                interval_seconds: group.interval.as_secs_f64(),
                rules: group
                    .rules
                    .iter()
                    .filter_map(|id| Some((id, self.rules.get(id)?)))
                    .map(|(id, known)| self.rule_view(id, known, now))
                    .collect(),
            })
            .collect()
    }

    fn rule_view(&self, id: &str, known: &Known, now: Timestamp) -> RuleView {
        let (health, last_error) = match &known.state.health {
            Health::Unknown => ("unknown", String::new()),
            Health::Ok => ("ok", String::new()),
            Health::Failed(text) => ("err", text.clone()),
        };
        let (name, kind, query, hold, keep_firing_for) = match &known.rule {
            Rule::Alert(rule) => {
                let query = match &rule.source {
                    RuleSource::Sql(query) => query.text(),
                    RuleSource::Stream(count) => count.to_string(),
                };
                (rule.name.clone(), "alerting", query, rule.hold, rule.keep_firing_for)
            }
            Rule::Record(rule) => {
                (rule.name.clone(), "recording", rule.query.text(), Duration::ZERO, Duration::ZERO)
            }
        };
        let alerts: Vec<AlertView> = known.state.alerts().map(|alert| self.alert_view(alert, now)).collect();
        let state = match &known.rule {
            Rule::Record(_) => None,
            Rule::Alert(_) if alerts.iter().any(|alert| alert.state == "firing") => Some("firing"),
            Rule::Alert(_) if alerts.iter().any(|alert| alert.state == "pending") => Some("pending"),
            Rule::Alert(_) => Some("inactive"),
        };
        RuleView {
            id: id.to_owned(),
            name,
            kind,
            source: if known.counts.is_some() { "stream" } else { "sql" },
            query,
            duration_seconds: hold.as_secs_f64(),
            keep_firing_for_seconds: keep_firing_for.as_secs_f64(),
            state,
            health,
            last_error,
            last_evaluation: known.state.evaluated_at,
            evaluation_seconds: known.took.as_secs_f64(),
            evaluations: known.evaluations,
            failures: known.failures,
            missed: known.state.missed,
            refused: known.counts.as_ref().map_or(0, |counts| counts.refused),
            alerts,
            recorded: known.recorded.clone(),
        }
    }

    fn alert_view(&self, alert: &Alert, now: Timestamp) -> AlertView {
        AlertView {
            labels: alert.labels.clone(),
            annotations: alert.annotations.clone(),
            state: alert.phase.name(),
            active_at: alert.active_at,
            fired_at: alert.fired_at,
            resolved_at: alert.resolved_at,
            value: crate::template::general(alert.value),
            fingerprint: alert.labels.fingerprint(),
            silenced: self.notifier.is_silenced(&alert.labels, now),
            inhibited: self.notifier.is_inhibited(&alert.labels),
        }
    }
}

fn rule_id(rule: &Rule) -> &str {
    match rule {
        Rule::Alert(rule) => &rule.id,
        Rule::Record(rule) => &rule.id,
    }
}

fn stream_of(rule: &Rule) -> Option<&StreamCount> {
    match rule {
        Rule::Alert(AlertRule { source: RuleSource::Stream(count), .. }) => Some(count),
        _ => None,
    }
}

/// What tells one streaming rule from another: counts of one are no counts of another.
fn words(count: &StreamCount) -> String {
    count.to_string()
}

/// The rows of a rule that records, with the rule's labels; the first of those that are alike.
fn recorded(rule: &RecordRule, rows: Vec<Sample>) -> Vec<Sample> {
    let mut seen = BTreeSet::new();
    rows.into_iter()
        .take(rule.limit.min(ALERTS_PER_RULE_MAX))
        .map(|mut row| {
            for (name, value) in rule.labels.iter() {
                row.labels.set(name, value);
            }
            row
        })
        .filter(|row| seen.insert(row.labels.fingerprint()))
        .collect()
}
