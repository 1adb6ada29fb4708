//! Rewriting: from findings to the text without them, in one copy.
//!
//! A rewritten line is scanned again, alone, until nothing changes: a replaced value may make its neighbourhood look like something
//! else, and scrubbing what has been scrubbed must change nothing. A line that has not settled after
//! [`REWRITE_PASSES_MAX`] passes is replaced as a whole.

use std::ops::Range;

use crate::action::Action;
use crate::continuity::{self, Flows};
use crate::evidence;
use crate::fields;
use crate::json::{self, Strings};
use crate::key::Key;
use crate::known::KnownSecrets;
use crate::limits::REWRITE_PASSES_MAX;
use crate::lists::Allow;
use crate::marker::{self, Names};
use crate::overlap::{self, Cluster, Standing};
use crate::remove::{self, Walker};
use crate::rule::Normalise;
use crate::scan::{Hit, RuleGaveUp, Scanner, Scratch};

/// What rewriting needs to know of a rule.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    pub(crate) action: Action,
    pub(crate) marker: String,
    pub(crate) normalise: Normalise,
}

/// Everything that turns text into scrubbed text.
pub(crate) struct Rewriter {
    pub(crate) scanner: Scanner,
    pub(crate) names: Names,
    pub(crate) standing: Vec<Standing>,
    pub(crate) replacements: Vec<Replacement>,
    pub(crate) key: Option<Key>,
    /// The segments of field rules, and the number of the first.
    pub(crate) fields: Vec<Vec<String>>,
    pub(crate) first_field: u32,
    /// For each field rule, the rules whose findings in its values stay.
    pub(crate) spared: Vec<Vec<u32>>,
    /// Values that stay, the rules' ids, and every key under which a token may have been made.
    pub(crate) allow: Vec<Allow>,
    pub(crate) ids: Vec<String>,
    pub(crate) keys: Vec<Key>,
    /// Whether a field's values may show that a weak rule's matches in it are chance.
    pub(crate) evidence: bool,
    /// The rule in whose name lines of private keys are redacted, if it runs.
    pub(crate) private_key: Option<u32>,
}

/// The flow of each line, for what goes over several lines.
pub(crate) type Flowing<'a> = (&'a mut Flows, &'a dyn Fn(u32) -> usize);

/// Scrubbed text and what was found in it.
#[derive(Default)]
pub(crate) struct Rewritten {
    /// The text and its lines' offsets; nothing if nothing changed.
    pub(crate) text: Option<(Vec<u8>, Vec<i32>)>,
    /// (line, rule) of everything found, in line order.
    pub(crate) found: Vec<(u32, u32)>,
    /// Lines to leave out, ascending.
    pub(crate) dropped: Vec<u32>,
    /// (line, field) of weak findings that stay, for their fields hold random numbers.
    spared: Vec<(u32, u64)>,
}

/// Rewritten lines, one behind the other.
struct Pieces {
    text: Vec<u8>,
    offsets: Vec<i32>,
    /// Which line each of them is.
    lines: Vec<u32>,
}

impl Default for Pieces {
    fn default() -> Self {
        Pieces { text: Vec::new(), offsets: vec![0], lines: Vec::new() }
    }
}

impl Pieces {
    /// What was written since the last end is this line.
    fn end(&mut self, line: u32) {
        self.offsets.push(narrow(self.text.len()));
        self.lines.push(line);
    }

    /// The line that a piece is, where the piece starts, and its text.
    fn piece(&self, index: u32) -> (u32, usize, &[u8]) {
        let index = widen(index);
        let bound = |index: usize| {
            self.offsets.get(index).and_then(|at| usize::try_from(*at).ok()).unwrap_or(self.text.len())
        };
        let (start, end) = (bound(index), bound(index + 1));
        (self.lines.get(index).copied().unwrap_or(u32::MAX), start, self.text.get(start..end).unwrap_or(&[]))
    }

    /// Every piece becomes the marker of a line that does not settle.
    fn hide(&mut self) {
        self.text.clear();
        self.offsets.truncate(1);
        for _ in 0..self.lines.len() {
            marker::plain(marker::LINE_NAME, &mut self.text);
            self.offsets.push(narrow(self.text.len()));
        }
    }
}

/// Rewritten lines as they stay: each version holds the lines that changed in the one before it.
struct Settled {
    versions: Vec<Pieces>,
}

impl Settled {
    /// Every line in order, in its last version.
    fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut at = vec![0_u32; self.versions.len()];
        let lines = self.versions.first().map_or(&[][..], |first| &first.lines);
        lines.iter().map(move |line| {
            let mut last: &[u8] = &[];
            for (pieces, at) in self.versions.iter().zip(&mut at) {
                if pieces.lines.get(widen(*at)) == Some(line) {
                    last = pieces.piece(*at).2;
                    *at += 1;
                }
            }
            (*line, last)
        })
    }
}

fn widen(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

impl Rewriter {
    fn replacement(&self, rule: u32) -> Option<&Replacement> {
        self.replacements.get(widen(rule))
    }

    /// Finds what the rules match, what is known, and keys over several lines, into `scratch.hits`. The numbers behind the rules'
    /// are known secrets.
    pub(crate) fn find(
        &self,
        text: &[u8],
        offsets: &[i32],
        flows: Option<Flowing<'_>>,
        scratch: &mut Scratch,
    ) -> Result<(), RuleGaveUp> {
        scratch.hits.clear();
        self.scanner.scan(text, offsets, &self.names, scratch)?;
        if let Some(rule) = self.private_key {
            continuity::add_keys(rule, text, offsets, flows, &mut scratch.hits);
        }
        let outside = |line: &[u8], span| self.names.outside(line, span);
        fields::refine(self.first_field, &self.fields, text, offsets, &mut scratch.hits, outside);
        fields::spare(self.first_field, &self.spared, &mut scratch.hits);
        if !self.allow.is_empty() {
            scratch.hits.retain(|hit| !self.is_allowed(text, hit));
        }
        let Scratch { hits, known, tallies, .. } = scratch;
        if let (Some(known), Some(tally)) = (known, tallies.get_mut(self.replacements.len())) {
            known.find(text, offsets, &self.names, self.known_rule(), hits, tally);
        }
        Ok(())
    }

    fn is_allowed(&self, text: &[u8], hit: &Hit) -> bool {
        let value = text.get(widen(hit.start)..widen(hit.end)).unwrap_or(&[]);
        let (Some(id), Some(replacement)) = (self.ids.get(widen(hit.rule)), self.replacement(hit.rule))
        else {
            return false;
        };
        self.allow
            .iter()
            .any(|allow| allow.spares(id, &replacement.marker, replacement.normalise, &self.keys, value))
    }

    /// The number under which all known secrets are counted, and the first that one of them has.
    fn known_rule(&self) -> u32 {
        u32::try_from(self.replacements.len()).unwrap_or(u32::MAX)
    }

    /// Scans `text` and rewrites it if anything was found.
    pub(crate) fn rewrite(
        &self,
        text: &[u8],
        offsets: &[i32],
        mut flows: Option<Flowing<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Rewritten, RuleGaveUp> {
        let again = flows.as_mut().map(|(flows, of)| (&mut **flows, *of));
        self.find(text, offsets, again, scratch)?;
        let mut result = Rewritten::default();
        if let Some(flows) = flows.filter(|_| self.evidence) {
            weigh(text, offsets, flows, scratch, &mut result.spared);
        }
        if scratch.hits.is_empty() {
            return Ok(result);
        }
        let mut clusters = Vec::new();
        overlap::resolve(&mut scratch.hits, &self.standing, &mut clusters);
        for hit in &scratch.hits {
            if self.replacement(hit.rule).is_some_and(|replacement| replacement.action == Action::Tag) {
                result.found.push((hit.line, hit.rule));
            }
        }
        if !clusters.is_empty() {
            result.text = Some(self.copy(text, offsets, &clusters, scratch, &mut result)?);
        }
        result.found.sort_unstable();
        result.dropped.sort_unstable();
        result.dropped.dedup();
        Ok(result)
    }

    /// Copies the text, line by line where something is rewritten and in one piece where not.
    fn copy(
        &self,
        text: &[u8],
        offsets: &[i32],
        clusters: &[Cluster],
        scratch: &mut Scratch,
        result: &mut Rewritten,
    ) -> Result<(Vec<u8>, Vec<i32>), RuleGaveUp> {
        let bound =
            |index: usize| offsets.get(index).and_then(|at| usize::try_from(*at).ok()).unwrap_or(text.len());
        let mut pieces = Pieces::default();
        for group in clusters.chunk_by(|one, next| one.line == next.line) {
            let Some(line) = group.first().map(|cluster| cluster.line) else { continue };
            self.note(group, line, result);
            let source = text.get(bound(widen(line))..bound(widen(line) + 1)).unwrap_or(&[]);
            self.apply(source, bound(widen(line)), group, scratch.known.as_ref(), &mut pieces.text);
            pieces.end(line);
        }
        let pieces = self.settle(pieces, scratch, result)?;

        let mut out = Vec::with_capacity(text.len() + text.len() / 16);
        let mut ends = Vec::with_capacity(offsets.len());
        ends.push(0);
        let mut done = 0; // lines copied
        for (line, piece) in pieces.iter() {
            let line = widen(line);
            let shift = out.len();
            out.extend_from_slice(text.get(bound(done)..bound(line)).unwrap_or(&[]));
            for index in done..line {
                ends.push(narrow(bound(index + 1) - bound(done) + shift));
            }
            out.extend_from_slice(piece);
            ends.push(narrow(out.len()));
            done = line + 1;
        }
        let shift = out.len();
        let lines = offsets.len().saturating_sub(1);
        out.extend_from_slice(text.get(bound(done)..).unwrap_or(&[]));
        for index in done..lines {
            ends.push(narrow(bound(index + 1) - bound(done) + shift));
        }
        Ok((out, ends))
    }

    /// Counts what one line's clusters are.
    fn note(&self, clusters: &[Cluster], line: u32, result: &mut Rewritten) {
        for cluster in clusters {
            result.found.push((line, cluster.rule.min(self.known_rule())));
            if self.replacement(cluster.rule).is_some_and(|replacement| replacement.action == Action::Drop) {
                result.dropped.push(line);
            }
        }
    }

    /// Scans the rewritten lines again until they stay as they are: all of them in one scan, then those that changed in the next.
    /// A line is matched as if it stood alone, so it comes out as it would by itself.
    fn settle(
        &self,
        rewritten: Pieces,
        scratch: &mut Scratch,
        result: &mut Rewritten,
    ) -> Result<Settled, RuleGaveUp> {
        let mut versions = vec![rewritten];
        let mut clusters = Vec::new();
        let mut spare = Vec::new();
        for _ in 0..REWRITE_PASSES_MAX {
            let Some(current) = versions.last() else { break };
            self.find(&current.text, &current.offsets, None, scratch)?;
            if !result.spared.is_empty() {
                scratch.hits.retain(|hit| {
                    let (line, start, text) = current.piece(hit.line);
                    let field = || (line, evidence::field(hit.rule, text, widen(hit.start) - start));
                    !(hit.weak && result.spared.binary_search(&field()).is_ok())
                });
            }
            clusters.clear();
            overlap::resolve(&mut scratch.hits, &self.standing, &mut clusters);
            // A truncated address is found again and truncated to itself: nothing to do, and nothing to count.
            clusters.retain(|cluster| {
                let (_, start, text) = current.piece(cluster.line);
                let covered = cluster.covered.start - start..cluster.covered.end - start;
                spare.clear();
                self.stand_in(cluster, text, start, &covered, scratch.known.as_ref(), &mut spare);
                text.get(covered) != Some(spare.as_slice())
            });
            if clusters.is_empty() {
                return Ok(Settled { versions });
            }
            let mut next = Pieces::default();
            for group in clusters.chunk_by(|one, next| one.line == next.line) {
                let Some(first) = group.first() else { continue };
                let (line, start, text) = current.piece(first.line);
                self.note(group, line, result);
                self.apply(text, start, group, scratch.known.as_ref(), &mut next.text);
                next.end(line);
            }
            versions.push(next);
        }
        if let Some(last) = versions.last_mut() {
            last.hide();
        }
        Ok(Settled { versions })
    }

    /// Writes what stands in a cluster's place.
    fn stand_in(
        &self,
        cluster: &Cluster,
        line: &[u8],
        base: usize,
        covered: &Range<usize>,
        known: Option<&KnownSecrets>,
        out: &mut Vec<u8>,
    ) {
        let value = cluster.value.start - base..cluster.value.end - base;
        let value = line.get(value).unwrap_or(&[]);
        let covered = line.get(covered.clone()).unwrap_or(&[]);
        match self.replacement(cluster.rule) {
            Some(Replacement { action, marker, normalise }) => {
                marker::write(*action, marker, *normalise, self.key.as_ref(), value, covered, out);
            }
            None => {
                let reference = known.zip(cluster.rule.checked_sub(self.known_rule()));
                match reference.and_then(|(known, number)| known.reference(number)) {
                    Some(reference) => marker::known(reference, out),
                    None => marker::plain(marker::LINE_NAME, out),
                }
            }
        }
    }

    /// The fields of a line that are left out, in order.
    fn removals(&self, line: &[u8], base: usize, clusters: &[Cluster]) -> Vec<Range<usize>> {
        let is_removed = |rule| self.replacement(rule).is_some_and(|one| one.action == Action::Remove);
        let mut gone: Vec<Range<usize>> = Vec::new();
        let json = json::starts_like_json(line);
        let mut walker = Walker::default();
        for cluster in clusters.iter().filter(|cluster| is_removed(cluster.rule)) {
            let span = cluster.covered.start - base..cluster.covered.end - base;
            let found = if json { walker.removal(line, &span) } else { remove::plain_removal(line, &span) };
            if let Some(found) = found {
                match gone.last_mut().filter(|last| found.start < last.end) {
                    Some(last) => last.end = last.end.max(found.end),
                    None => gone.push(found),
                }
            }
        }
        gone
    }

    /// Writes one line with its clusters replaced. `base` is where the line starts in the coordinates of the clusters.
    fn apply(
        &self,
        line: &[u8],
        base: usize,
        clusters: &[Cluster],
        known: Option<&KnownSecrets>,
        out: &mut Vec<u8>,
    ) {
        let json = json::starts_like_json(line);
        let mut strings = Strings::new();
        let mut copied = 0;
        let line_at = out.len();
        let removals = self.removals(line, base, clusters);
        let mut removals = removals.iter().peekable();
        for cluster in clusters {
            let covered = cluster.covered.start - base..cluster.covered.end - base;
            while let Some(gone) = removals.next_if(|gone| gone.start < covered.end) {
                copied = leave_out(line, gone, copied, line_at, json, out);
            }
            if covered.end <= copied {
                continue;
            }
            let bare = if json { strings.bare_value(line, &covered) } else { None };
            let grown = if json { json::whole_escapes(line, &covered) } else { covered };
            let mut covered = bare.clone().unwrap_or(grown);
            if bare.is_some() && covered.start < copied {
                // Two findings in one bare value: the first has taken it whole.
                continue;
            }
            covered = covered.start.max(copied)..covered.end.max(copied);
            out.extend_from_slice(line.get(copied..covered.start).unwrap_or(&[]));
            if bare.is_some() {
                out.push(b'"');
            }
            self.stand_in(cluster, line, base, &covered, known, out);
            if bare.is_some() {
                out.push(b'"');
            }
            copied = covered.end;
        }
        out.extend_from_slice(line.get(copied..).unwrap_or(&[]));
    }
}

/// Counts the candidates of weak rules, line by line, and drops the hits in fields whose values are random.
fn weigh(
    text: &[u8],
    offsets: &[i32],
    (flows, flow_of): Flowing<'_>,
    scratch: &mut Scratch,
    spared: &mut Vec<(u32, u64)>,
) {
    let Scratch { hits, rejected, .. } = scratch;
    if rejected.is_empty() && !hits.iter().any(|hit| hit.weak) {
        return;
    }
    let mut seen: Vec<(Hit, bool)> = hits.iter().filter(|hit| hit.weak).map(|hit| (*hit, true)).collect();
    seen.extend(rejected.drain(..).map(|hit| (hit, false)));
    seen.sort_unstable_by_key(|(hit, _)| (hit.line, hit.start, hit.end, hit.rule));
    for group in seen.chunk_by(|(one, _), (next, _)| one.line == next.line) {
        let Some(line) = group.first().map(|(hit, _)| hit.line) else { continue };
        let start = offsets.get(widen(line)).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
        let Some(evidence) = flows.evidence(flow_of(line)) else { continue };
        let mut fields = Vec::with_capacity(group.len());
        for (hit, passes) in group {
            let head = text.get(start..widen(hit.start)).unwrap_or(&[]);
            let field = evidence::field(hit.rule, head, head.len());
            let value = text.get(widen(hit.start)..widen(hit.end)).unwrap_or(&[]);
            evidence.observe(field, value, *passes);
            fields.push(field);
        }
        // The whole line is counted first, so that what stays in it stays when it is scanned again.
        let random = fields.into_iter().filter(|field| evidence.is_random(*field));
        spared.extend(random.map(|field| (line, field)));
    }
    if spared.is_empty() {
        return;
    }
    spared.sort_unstable();
    spared.dedup();
    hits.retain(|hit| {
        let start = offsets.get(widen(hit.line)).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
        let field = || {
            let head = text.get(start..widen(hit.start)).unwrap_or(&[]);
            (hit.line, evidence::field(hit.rule, head, head.len()))
        };
        !(hit.weak && spared.binary_search(&field()).is_ok())
    });
}

/// Writes what stands before a removed field, and says where to go on.
fn leave_out(
    line: &[u8],
    gone: &Range<usize>,
    copied: usize,
    line_at: usize,
    json: bool,
    out: &mut Vec<u8>,
) -> usize {
    out.extend_from_slice(line.get(copied..gone.start).unwrap_or(&[]));
    let at = gone.end.max(copied);
    let next = line.get(at..).unwrap_or(&[]).trim_ascii_start().first();
    // A member that was the last takes the comma before it, if that is still there.
    if json
        && matches!(next, Some(b'}' | b']'))
        && line.get(gone.start..gone.end).is_some_and(remove::is_whole_field)
    {
        remove::cut_comma(out, line_at);
    }
    at
}

fn narrow(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}
