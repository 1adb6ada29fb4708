//! Rewriting: from findings to the text without them, in one copy.
//!
//! A rewritten line is scanned again, alone, until nothing changes: a replaced value may make its neighbourhood look like something
//! else, and scrubbing what has been scrubbed must change nothing. A line that has not settled after
//! [`REWRITE_PASSES_MAX`] passes is replaced as a whole.

use std::ops::Range;

use crate::action::Action;
use crate::continuity::{self, Flows};
use crate::json::{self, Strings};
use crate::key::Key;
use crate::known::KnownSecrets;
use crate::limits::REWRITE_PASSES_MAX;
use crate::marker::{self, Names};
use crate::overlap::{self, Cluster, Standing};
use crate::rule::Normalise;
use crate::scan::{RuleGaveUp, Scanner, Scratch};

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
        let Scratch { hits, known, tallies, .. } = scratch;
        if let (Some(known), Some(tally)) = (known, tallies.get_mut(self.replacements.len())) {
            known.find(text, offsets, &self.names, self.known_rule(), hits, tally);
        }
        Ok(())
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
        flows: Option<Flowing<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Rewritten, RuleGaveUp> {
        self.find(text, offsets, flows, scratch)?;
        let mut result = Rewritten::default();
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
        let mut out = Vec::with_capacity(text.len() + text.len() / 16);
        let mut ends = Vec::with_capacity(offsets.len());
        ends.push(0);
        let mut spare = Vec::new();
        let mut done = 0; // lines copied
        for group in clusters.chunk_by(|one, next| one.line == next.line) {
            let Some(line) = group.first().map(|cluster| widen(cluster.line)) else { continue };
            let shift = out.len();
            out.extend_from_slice(text.get(bound(done)..bound(line)).unwrap_or(&[]));
            for index in done..line {
                ends.push(narrow(bound(index + 1) - bound(done) + shift));
            }
            let start = out.len();
            let source = text.get(bound(line)..bound(line + 1)).unwrap_or(&[]);
            for cluster in group {
                result.found.push((cluster.line, cluster.rule.min(self.known_rule())));
                if self
                    .replacement(cluster.rule)
                    .is_some_and(|replacement| replacement.action == Action::Drop)
                {
                    result.dropped.push(cluster.line);
                }
            }
            self.apply(source, bound(line), group, scratch.known.as_ref(), &mut out);
            self.settle(&mut out, start, narrow_line(line), scratch, &mut spare, result)?;
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

    /// Scans the line at the end of `out` again until it stays as it is.
    fn settle(
        &self,
        out: &mut Vec<u8>,
        start: usize,
        line: u32,
        scratch: &mut Scratch,
        spare: &mut Vec<u8>,
        result: &mut Rewritten,
    ) -> Result<(), RuleGaveUp> {
        let mut clusters = Vec::new();
        for _ in 0..REWRITE_PASSES_MAX {
            let text = out.get(start..).unwrap_or(&[]);
            let offsets = [0, narrow(text.len())];
            self.find(text, &offsets, None, scratch)?;
            clusters.clear();
            overlap::resolve(&mut scratch.hits, &self.standing, &mut clusters);
            // A truncated address is found again and truncated to itself: nothing to do, and nothing to count.
            clusters.retain(|cluster| {
                spare.clear();
                self.stand_in(cluster, text, 0, &cluster.covered, scratch.known.as_ref(), spare);
                text.get(cluster.covered.clone()) != Some(spare.as_slice())
            });
            if clusters.is_empty() {
                return Ok(());
            }
            spare.clear();
            self.apply(text, 0, &clusters, scratch.known.as_ref(), spare);
            for cluster in &clusters {
                result.found.push((line, cluster.rule.min(self.known_rule())));
                if self
                    .replacement(cluster.rule)
                    .is_some_and(|replacement| replacement.action == Action::Drop)
                {
                    result.dropped.push(line);
                }
            }
            out.truncate(start);
            out.extend_from_slice(spare);
        }
        out.truncate(start);
        marker::plain(marker::LINE_NAME, out);
        Ok(())
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
        for cluster in clusters {
            let covered = cluster.covered.start - base..cluster.covered.end - base;
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

fn narrow(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

fn narrow_line(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
