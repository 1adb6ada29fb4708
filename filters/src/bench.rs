//! What rules cost on a text: how fast all of it is scrubbed, and each rule's candidates and time.
//!
//! The caller brings the clock: nothing here reads one.

use serde::Serialize;

use crate::continuity::Continuity;
use crate::engine::Engine;
use crate::error::FilterError;
use crate::limits::BENCH_BLOCK_BYTES;
use crate::listing::in_columns;

/// One rule's price on a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RulePrice {
    /// The rule's id.
    pub rule: String,
    /// Starts that were tried.
    pub candidates: u64,
    /// Matches that its check accepted.
    pub matches: u64,
    /// Matches that its check refused.
    pub rejected: u64,
    /// Bytes read while verifying candidates.
    pub bytes_verified: u64,
    /// Time spent verifying candidates.
    pub nanoseconds: u64,
    /// The same for each byte of the text.
    pub nanoseconds_per_byte: f64,
}

/// What scrubbing a text cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bench {
    /// How long the text is.
    pub bytes: u64,
    /// How many findings there were.
    pub redactions: u64,
    /// How long it took to scrub, without looking at single rules.
    pub nanoseconds: u64,
    /// How many bytes that is in a second.
    pub bytes_per_second: f64,
    /// Rules that had candidates, the most expensive first.
    pub rules: Vec<RulePrice>,
}

/// Scrubs `text` by `plain` for the total, and by `timed`, whose options had the same `clock`, for single rules.
///
/// # Errors
/// As for [`Engine::scrub_text`].
pub fn bench(plain: &Engine, timed: &Engine, text: &str, clock: fn() -> u64) -> Result<Bench, FilterError> {
    // The first pass builds what is built when it is first needed.
    scrub(plain, text)?;
    let began = clock();
    let redactions = scrub(plain, text)?;
    let nanoseconds = clock().saturating_sub(began).max(1);
    scrub(timed, text)?;
    let before = timed.statistics();
    scrub(timed, text)?;
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let mut rules: Vec<RulePrice> = timed
        .statistics()
        .rules
        .into_iter()
        .zip(before.rules)
        .map(|(after, before)| {
            let nanoseconds = after.nanoseconds - before.nanoseconds;
            RulePrice {
                rule: after.rule,
                candidates: after.candidates - before.candidates,
                matches: after.matches - before.matches,
                rejected: after.rejected - before.rejected,
                bytes_verified: after.bytes_verified - before.bytes_verified,
                nanoseconds,
                nanoseconds_per_byte: ratio(nanoseconds, bytes.max(1)),
            }
        })
        .filter(|rule| rule.candidates > 0)
        .collect();
    rules.sort_by(|a, b| b.nanoseconds.cmp(&a.nanoseconds).then_with(|| a.rule.cmp(&b.rule)));
    let bytes_per_second = ratio(bytes, nanoseconds) * 1e9;
    Ok(Bench { bytes, redactions, nanoseconds, bytes_per_second, rules })
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn ratio(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

/// Scrubs block by block, as batches come, and says how much was found.
fn scrub(engine: &Engine, text: &str) -> Result<u64, FilterError> {
    let mut continuity = Continuity::default();
    let (mut rest, mut found) = (text, 0);
    while !rest.is_empty() {
        let at_most = rest.floor_char_boundary(BENCH_BLOCK_BYTES.min(rest.len()));
        let head = rest.get(..at_most).unwrap_or(rest);
        // A line that is longer than a block stays whole.
        let end = head.rfind('\n').or_else(|| rest.find('\n')).map_or(rest.len(), |at| at + 1);
        let (block, tail) = rest.split_at(end);
        let (_, counts) = engine.scrub_text_with(block, &mut continuity)?;
        found += counts.iter().map(|count| count.count).sum::<u64>();
        rest = tail;
    }
    Ok(found)
}

impl Bench {
    /// For people: the total, then a table of rules.
    pub fn table(&self) -> String {
        let heads = ["RULE", "NS/BYTE", "CANDIDATES", "MATCHES", "REJECTED", "BYTES READ", "NS/CANDIDATE"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.rules.iter().map(|rule| {
            [
                rule.rule.clone(),
                format!("{:.4}", rule.nanoseconds_per_byte),
                rule.candidates.to_string(),
                rule.matches.to_string(),
                rule.rejected.to_string(),
                rule.bytes_verified.to_string(),
                format!("{:.0}", ratio(rule.nanoseconds, rule.candidates.max(1))),
            ]
        }));
        format!(
            "{} bytes, {} findings, {:.0} MB/s\n\n{}",
            self.bytes,
            self.redactions,
            self.bytes_per_second / 1e6,
            in_columns(&rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{EngineOptions, corpus};

    /// A clock that goes on by one with every look.
    fn ticks() -> u64 {
        static TICKS: AtomicU64 = AtomicU64::new(0);
        TICKS.fetch_add(1, Ordering::Relaxed)
    }

    #[test]
    fn every_rule_with_candidates_has_its_price_and_the_most_expensive_comes_first() {
        let plain = Engine::new(EngineOptions::default()).unwrap();
        let timed = Engine::new(EngineOptions { clock: Some(ticks), ..EngineOptions::default() }).unwrap();
        let text = corpus::mixed(3, 700_000);
        let bench = bench(&plain, &timed, &text, ticks).unwrap();
        let whole = plain.scrub_text(&text).unwrap().1.iter().map(|count| count.count).sum::<u64>();
        assert_eq!((bench.bytes, bench.redactions), (text.len() as u64, whole));
        let email = bench.rules.iter().find(|rule| rule.rule == "email").unwrap();
        assert!(email.matches > 0 && email.nanoseconds >= email.candidates, "{email:?}");
        assert!(bench.rules.is_sorted_by(|a, b| a.nanoseconds >= b.nanoseconds));
        assert!(bench.table().lines().nth(2).unwrap().starts_with("RULE"));
        assert_eq!(bench.table().lines().count(), bench.rules.len() + 3);
    }
}
