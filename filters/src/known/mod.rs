//! Known secrets: text that must not pass because somebody keeps it secret, whatever it looks like.
//!
//! A set is built from (reference, secret) pairs and holds no secret: only keyed hashes of stretches of eight bytes and of whole
//! ways to write it ([`variants`]), under keys drawn at random for each set. What was given is wiped after building. Who can read
//! the process's memory can test a guess against it, and read nothing out of it.
//!
//! What always holds:
//! - a secret of 11 bytes or more is found wherever it starts in a line, in every variant; one of 6 to 10 bytes where no letter or
//!   digit is beside it; shorter ones, and those of fewer than three different bytes, are refused and reported, for they would
//!   take ordinary text out;
//! - nothing else is found: a finding means that a keyed 64-bit digest and an independent keyed 32-bit tag of the text are in the
//!   set. For text that holds none of its secrets each look errs with a probability of about 2⁻⁹⁵, a terabyte of it with 2⁻⁵⁷;
//! - a line's findings do not depend on its neighbours.
//!
//! Work is bounded by the secrets that share a stretch of eight bytes; the stretches are chosen as rare in the set as they can be.

mod digests;
pub(crate) mod reference;
mod sketch;
mod variants;
mod windows;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::limits::{
    KNOWN_BYTES_MAX, KNOWN_DIFFERENT_BYTES_MIN, KNOWN_LINE_BYTES_MIN, KNOWN_SECRET_BYTES_MIN,
    KNOWN_SECRETS_MAX,
};
use crate::marker::Names;
use crate::scan::whole_characters;
use crate::scan::{Hit, Tally};
use digests::{Digests, Meaning};
use sketch::Sketch;
use windows::{FilterKey, Place, Windows};

/// The id under which what is found here is counted.
pub const KNOWN_RULE: &str = "known_secret";

/// A secret and where it is kept. The bytes are wiped when it goes.
pub struct KnownSecret {
    source: u32,
    reference: String,
    value: Zeroizing<Vec<u8>>,
}

impl KnownSecret {
    /// A secret under a reference such as `path/field`, which stands in the marker.
    pub fn new(reference: impl Into<String>, value: impl Into<Zeroizing<Vec<u8>>>) -> KnownSecret {
        KnownSecret { source: 0, reference: reference.into(), value: value.into() }
    }

    /// The same, of another source than 0: references of several sources do not meet in [`KnownSecrets::updated`].
    #[must_use]
    pub fn of_source(self, source: u32) -> KnownSecret {
        KnownSecret { source, ..self }
    }

    /// Its reference.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.value.len()
    }
}

impl fmt::Debug for KnownSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownSecret").field("reference", &self.reference).finish_non_exhaustive()
    }
}

/// Why a secret is not looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is too short.
    #[error("has fewer than {KNOWN_SECRET_BYTES_MIN} bytes, and would take ordinary text out")]
    Short,
    /// It is made of too few different bytes.
    #[error(
        "consists of fewer than {KNOWN_DIFFERENT_BYTES_MIN} different bytes, and would take ordinary text out"
    )]
    Uniform,
}

/// What became of the secrets a set was built from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownReport {
    /// How many are looked for.
    pub secrets: usize,
    /// How many ways to write them.
    pub needles: usize,
    /// What the set holds in memory, in bytes.
    pub memory_bytes: usize,
    /// Which are not looked for, and why.
    pub refused: Vec<(String, Refusal)>,
}

/// Why there is no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnownError {
    /// Too many secrets.
    #[error("{count} known secrets are given, allowed are {KNOWN_SECRETS_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Too much text.
    #[error("known secrets have {bytes} bytes together, allowed are {KNOWN_BYTES_MAX}")]
    TooLarge {
        /// How much.
        bytes: usize,
    },
}

/// A set of known secrets. Clones are the same set.
///
/// ```
/// use beeacon_filters::{Engine, EngineOptions, KnownSecret, KnownSecrets};
/// let secret = KnownSecret::new("shop/db/password", b"synthetic-Pa55phrase".to_vec());
/// let known = KnownSecrets::new(vec![secret]).unwrap();
/// let engine = Engine::new(EngineOptions { known: Some(known), ..EngineOptions::default() }).unwrap();
/// let (text, _) = engine.scrub_text("login of app with synthetic-Pa55phrase failed").unwrap();
/// assert_eq!(text, "login of app with <VAULT_REF:shop/db/password> failed");
/// ```
#[derive(Clone)]
pub struct KnownSecrets(Arc<Set>);

#[derive(Clone)]
struct Set {
    /// By number.
    entries: Vec<Entry>,
    /// The references in use as they stand in markers, sorted.
    written: Vec<String>,
    filter_key: FilterKey,
    long: Windows<8, 4>,
    short: Windows<4, 2>,
    digests: Digests,
    report: KnownReport,
    /// Of each refused secret, its source.
    refused_of: Vec<u32>,
}

/// A reference, and what the set holds under it.
#[derive(Clone)]
struct Entry {
    source: u32,
    reference: String,
    /// As it stands in markers.
    written: String,
    secrets: usize,
    bytes: usize,
    is_in_use: bool,
}

impl fmt::Debug for KnownSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownSecrets").field("secrets", &self.0.report.secrets).finish_non_exhaustive()
    }
}

/// Something known, found.
struct Found {
    line: usize,
    /// Where the line lies in the text.
    bounds: Range<usize>,
    span: Range<usize>,
    reference: u32,
    is_shared: bool,
}

impl KnownSecrets {
    /// Builds a set. The secrets are wiped before this returns.
    ///
    /// # Errors
    /// When there are too many of them.
    pub fn new(secrets: Vec<KnownSecret>) -> Result<KnownSecrets, KnownError> {
        check(secrets.len(), secrets.iter().map(|secret| secret.value.len()).sum())?;
        let filter_key = FilterKey::random();
        let mut set = Set {
            entries: Vec::new(),
            written: Vec::new(),
            filter_key,
            long: Windows::with_room(0, filter_key),
            short: Windows::with_room(0, filter_key),
            digests: Digests::with_room(0),
            report: KnownReport::default(),
            refused_of: Vec::new(),
        };
        let taken = set.take(&secrets);
        let census = Census::of(&taken, filter_key);
        set.long = Windows::with_room(census.long, filter_key);
        set.short = Windows::with_room(census.short, filter_key);
        set.digests = Digests::with_room(census.long + census.short);
        set.enter(&taken, &census.sketch);
        Ok(KnownSecrets(Arc::new(set)))
    }

    /// This set without the secrets whose sources and references `keeps` does not keep, and with others: so that what has not
    /// changed need not be read again. `None` when the set has changed so much that it must be built anew. A stretch that two secrets share
    /// may keep the name of one that is gone.
    ///
    /// # Errors
    /// When there would be too many secrets.
    ///
    /// ```
    /// use beeacon_filters::{KnownSecret, KnownSecrets};
    /// let secret = |name: &str, value: &str| KnownSecret::new(name, value.as_bytes().to_vec());
    /// let old = vec![secret("shop/db", "synthetic-Pa55phrase"), secret("mail/key", "synthetic-0ther")];
    /// let known = KnownSecrets::new(old).unwrap();
    /// let changed = vec![secret("shop/db", "synthetic-N3wphrase")];
    /// let known = known.updated(|_, reference| reference != "shop/db", changed).unwrap().unwrap();
    /// assert_eq!(known.report().secrets, 2);
    /// ```
    pub fn updated(
        &self,
        keeps: impl Fn(u32, &str) -> bool,
        secrets: Vec<KnownSecret>,
    ) -> Result<Option<KnownSecrets>, KnownError> {
        let mut set = Set::clone(&self.0);
        for entry in &mut set.entries {
            entry.is_in_use &= keeps(entry.source, &entry.reference);
        }
        let refused = set.refused_of.iter().zip(&set.report.refused);
        let refused = refused.filter(|(source, (reference, _))| keeps(**source, reference));
        (set.refused_of, set.report.refused) =
            refused.map(|(source, refused)| (*source, refused.clone())).unzip();
        let in_use = || set.entries.iter().filter(|entry| entry.is_in_use);
        let count = in_use().map(|entry| entry.secrets).sum::<usize>() + set.report.refused.len();
        let bytes = in_use().map(|entry| entry.bytes).sum::<usize>();
        check(count + secrets.len(), bytes + secrets.iter().map(|secret| secret.value.len()).sum::<usize>())?;
        let taken = set.take(&secrets);
        let census = Census::of(&taken, set.filter_key);
        if !set.long.has_room_for(census.long) || !set.short.has_room_for(census.short) {
            return Ok(None);
        }
        let is_in_use = |meaning: &Meaning| {
            let entry = usize::try_from(meaning.reference).ok().and_then(|number| set.entries.get(number));
            meaning.is_shared || entry.is_some_and(|entry| entry.is_in_use)
        };
        set.digests = set.digests.retained(is_in_use, census.long + census.short);
        set.enter(&taken, &census.sketch);
        Ok(Some(KnownSecrets(Arc::new(set))))
    }

    /// What became of the secrets it was built from.
    pub fn report(&self) -> &KnownReport {
        &self.0.report
    }

    /// The reference of this number.
    pub(crate) fn reference(&self, number: u32) -> Option<&str> {
        self.0.entries.get(usize::try_from(number).ok()?).map(|entry| entry.written.as_str())
    }

    /// Whether a marker may hold this reference.
    fn has_reference(&self, reference: &[u8]) -> bool {
        self.0.written.binary_search_by(|known| known.as_bytes().cmp(reference)).is_ok()
    }

    /// Finds what is known in `text`, whose lines lie between consecutive `offsets`. A hit's rule is `first_rule` and the number
    /// of its reference.
    pub(crate) fn find(
        &self,
        text: &[u8],
        offsets: &[i32],
        names: &Names,
        first_rule: u32,
        hits: &mut Vec<Hit>,
        tally: &mut Tally,
    ) {
        let set = &*self.0;
        let mut found = Vec::new();
        if !set.long.is_empty() {
            set.long.candidates(text, |at| {
                for place in set.long.places(text, at) {
                    found.extend(set.verify(text, offsets, at, place, tally));
                }
            });
        }
        if !set.short.is_empty() {
            set.short.candidates(text, |at| {
                for place in set.short.places(text, at) {
                    found.extend(set.verify(text, offsets, at, place, tally));
                }
            });
        }
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        for one in joined(found) {
            let line = text.get(one.bounds.clone()).unwrap_or(&[]);
            let base = one.bounds.start;
            let span = one.span.start - base..one.span.end - base;
            let Some(span) = names.outside(line, whole_characters(line, span)) else { continue };
            let (start, end) = (narrow(base + span.start), narrow(base + span.end));
            hits.push(Hit {
                rule: first_rule.saturating_add(one.reference),
                line: narrow(one.line),
                start,
                end,
                match_start: start,
                match_end: end,
                weak: false,
            });
            tally.matches += 1;
        }
    }

    #[cfg(test)]
    pub(crate) fn image(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.long.image(&mut out);
        self.0.short.image(&mut out);
        self.0.digests.image(&mut out);
        out.extend(self.0.entries.iter().flat_map(|entry| entry.reference.bytes()));
        out
    }
}

impl Set {
    /// Notes the references of the secrets that can be looked for, and gives those with their numbers.
    fn take<'s>(&mut self, secrets: &'s [KnownSecret]) -> Vec<(u32, &'s [u8])> {
        let mut taken: Vec<(&str, u32, &[u8])> = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let value = secret.value.trim_ascii();
            match refusal(value) {
                Some(refusal) => {
                    self.report.refused.push((secret.reference.clone(), refusal));
                    self.refused_of.push(secret.source);
                }
                None => taken.push((&secret.reference, secret.source, value)),
            }
        }
        // The order decides which of two equal secrets gives its name.
        taken.sort_unstable();
        let first = self.entries.len();
        let mut numbered = Vec::with_capacity(taken.len());
        for (reference, source, value) in taken {
            let is_same = |entry: &&mut Entry| entry.reference == reference && entry.source == source;
            if self.entries.get_mut(first..).and_then(|new| new.last_mut()).filter(is_same).is_none() {
                let (reference, written) = (reference.to_owned(), reference::written(reference));
                self.entries.push(Entry {
                    source,
                    reference,
                    written,
                    secrets: 0,
                    bytes: 0,
                    is_in_use: true,
                });
            }
            if let Some(entry) = self.entries.last_mut() {
                entry.secrets += 1;
                entry.bytes += value.len();
            }
            numbered.push((u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX), value));
        }
        numbered
    }

    /// Enters what was taken, and says what the set holds now.
    fn enter(&mut self, taken: &[(u32, &[u8])], sketch: &Sketch) {
        for (reference, value) in taken {
            needles(value, |needle, meaning| {
                let is_word = needle.len() < KNOWN_LINE_BYTES_MIN;
                let digest = self.digests.of(needle);
                self.digests.add(digest, Meaning { reference: *reference, is_word, ..meaning });
                if is_word {
                    self.short.add(needle, sketch);
                } else {
                    self.long.add(needle, sketch);
                }
            });
        }
        let in_use = || self.entries.iter().filter(|entry| entry.is_in_use);
        self.report.secrets = in_use().map(|entry| entry.secrets).sum();
        self.written = in_use().map(|entry| entry.written.clone()).collect();
        self.written.sort_unstable();
        self.written.dedup();
        self.report.needles = self.digests.count();
        self.report.memory_bytes = self.memory_bytes();
    }

    /// Whether a needle lies at `place` about the window at `at`.
    fn verify(
        &self,
        text: &[u8],
        offsets: &[i32],
        at: usize,
        place: Place,
        tally: &mut Tally,
    ) -> Option<Found> {
        let start = at.checked_sub(usize::from(place.before))?;
        let span = start..start + usize::from(place.bytes);
        let needle = text.get(span.clone())?;
        tally.candidates += 1;
        tally.steps += u64::from(place.bytes);
        let found = self.digests.get(self.digests.of(needle)).and_then(|meaning| {
            let line = line_at(offsets, start);
            let bound = |index| offsets.get(index).and_then(|offset: &i32| usize::try_from(*offset).ok());
            let bounds = bound(line)?..bound(line + 1)?;
            let mut span = span.start..span.end;
            if span.end > bounds.end || (meaning.is_word && !stands_alone(text, &bounds, &span)) {
                return None;
            }
            let six_bits = |at: usize| text.get(at).copied().is_some_and(variants::is_base64);
            if meaning.reaches_before && span.start > bounds.start && six_bits(span.start - 1) {
                span.start -= 1;
            }
            if meaning.reaches_behind && span.end < bounds.end && six_bits(span.end) {
                span.end += 1;
            }
            let Meaning { reference, is_shared, .. } = meaning;
            Some(Found { line, bounds, span, reference, is_shared })
        });
        tally.rejected += u64::from(found.is_none());
        found
    }

    fn memory_bytes(&self) -> usize {
        let entry = |entry: &Entry| {
            let texts = entry.reference.capacity() + 2 * entry.written.capacity();
            texts + size_of::<Entry>() + size_of::<String>()
        };
        let references: usize = self.entries.iter().map(entry).sum();
        references + self.long.memory_bytes() + self.short.memory_bytes() + self.digests.memory_bytes()
    }
}

/// What is to be entered: how many needles of either kind, and how often each stretch stands in them.
struct Census {
    long: usize,
    short: usize,
    sketch: Sketch,
}

impl Census {
    fn of(taken: &[(u32, &[u8])], key: FilterKey) -> Census {
        let mut census = Census { long: 0, short: 0, sketch: Sketch::new() };
        for (_, value) in taken {
            needles(value, |needle, _| {
                let word = if needle.len() < KNOWN_LINE_BYTES_MIN {
                    census.short += 1;
                    windows::word::<4>
                } else {
                    census.long += 1;
                    windows::word::<8>
                };
                for word in (0..needle.len()).map_while(|at| word(needle, at)) {
                    census.sketch.add(key.hash(word));
                }
            });
        }
        census
    }
}

/// Whether a set may hold so much.
fn check(count: usize, bytes: usize) -> Result<(), KnownError> {
    if count > KNOWN_SECRETS_MAX {
        return Err(KnownError::TooMany { count });
    }
    if bytes > KNOWN_BYTES_MAX {
        return Err(KnownError::TooLarge { bytes });
    }
    Ok(())
}

/// The pieces of one secret, joined again: its findings that touch become one.
fn joined(mut found: Vec<Found>) -> Vec<Found> {
    /// How many findings back a piece is looked for; others of other secrets may lie inside it.
    const NEIGHBOURS: usize = 4;
    found.sort_unstable_by_key(|one| (one.span.start, std::cmp::Reverse(one.span.end), one.is_shared));
    let mut out: Vec<Found> = Vec::with_capacity(found.len());
    for next in found {
        let before = out.iter_mut().rev().take(NEIGHBOURS).find(|one| {
            let touches = one.line == next.line && next.span.start <= one.span.end;
            touches && (one.reference == next.reference || one.is_shared || next.is_shared)
        });
        match before {
            None => out.push(next),
            Some(one) => {
                one.span.end = one.span.end.max(next.span.end);
                if one.is_shared && !next.is_shared {
                    (one.reference, one.is_shared) = (next.reference, false);
                }
            }
        }
    }
    out
}

/// The line that holds `at`: of empty ones before it, none.
fn line_at(offsets: &[i32], at: usize) -> usize {
    let after = offsets.partition_point(|offset| usize::try_from(*offset).is_ok_and(|offset| offset <= at));
    after.saturating_sub(1)
}

fn refusal(value: &[u8]) -> Option<Refusal> {
    if value.len() < KNOWN_SECRET_BYTES_MIN {
        return Some(Refusal::Short);
    }
    let mut seen = [false; 256];
    for byte in value {
        if let Some(slot) = seen.get_mut(usize::from(*byte)) {
            *slot = true;
        }
    }
    (seen.iter().filter(|seen| **seen).count() < KNOWN_DIFFERENT_BYTES_MIN).then_some(Refusal::Uniform)
}

/// Every needle of a secret, and what finding it means but for the reference.
fn needles(value: &[u8], mut take: impl FnMut(&[u8], Meaning)) {
    // A short form is found where it stands alone, and a part of base64 never does.
    let fits = |variant: &variants::Variant| {
        let bytes = variant.text.len();
        bytes >= KNOWN_LINE_BYTES_MIN || (bytes >= KNOWN_SECRET_BYTES_MIN && !variant.is_part)
    };
    let variants = variants::all(value).into_iter().filter(fits);
    for variant in variants.chain(variants::lines(value)) {
        let bytes = variant.text.len();
        for piece in variants::pieces(bytes) {
            let meaning = Meaning {
                reaches_before: variant.reaches_before && piece.start == 0,
                reaches_behind: variant.reaches_behind && piece.end == bytes,
                ..Meaning::default()
            };
            take(variant.text.get(piece).unwrap_or(&[]), meaning);
        }
    }
}

/// Whether no letter or digit is beside the span that would make it part of a longer word.
fn stands_alone(text: &[u8], bounds: &Range<usize>, span: &Range<usize>) -> bool {
    let needle = text.get(span.clone()).unwrap_or(&[]);
    let before = text.get(bounds.start..span.start).unwrap_or(&[]);
    let behind = text.get(span.end..bounds.end).unwrap_or(&[]);
    let word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let opens = !word(needle.first()) || !word(before.last()) || ends_with_escape(before);
    opens && !(word(needle.last()) && word(behind.first()))
}

/// Whether the letters at the end of `text` belong to an escape: `\n`, `\u0026`, `%20`, or a terminal's `[31m`.
fn ends_with_escape(text: &[u8]) -> bool {
    let back = |bytes: usize| text.len().checked_sub(bytes).and_then(|at| text.get(at..)).unwrap_or(&[]);
    let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    match back(2) {
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f'] => return true,
        [_, b'm'] => {
            let codes = text.iter().rev().skip(1).take(16);
            let mut codes = codes.skip_while(|byte| byte.is_ascii_digit() || **byte == b';');
            return codes.next() == Some(&b'[');
        }
        _ => {}
    }
    back(3).strip_prefix(b"%").is_some_and(digits) || back(6).strip_prefix(b"\\u").is_some_and(digits)
}

/// The set that is in use; clones are the same place. It is read once for each batch.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<RwLock<Option<KnownSecrets>>>);

impl Shelf {
    pub(crate) fn new(known: Option<KnownSecrets>) -> Shelf {
        Shelf(Arc::new(RwLock::new(known)))
    }

    pub(crate) fn get(&self) -> Option<KnownSecrets> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn put(&self, known: Option<KnownSecrets>) {
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), known);
        // A large set is given back after the lock.
        drop(before);
    }

    /// Whether a marker may hold this reference. Anything else that looks like one is text, and may be a secret.
    pub(crate) fn has_reference(&self, reference: &[u8]) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| known.has_reference(reference))
    }
}

#[cfg(test)]
mod tests;
