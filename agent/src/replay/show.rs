//! The comparison as text for people.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Compared, Outcome, Report};

/// The report as lines of text.
pub fn table(report: &Report) -> String {
    let mut shown = String::new();
    for compared in &report.containers {
        // Writing to text cannot fail.
        one(compared, &mut shown).ok();
    }
    for skipped in &report.skipped {
        writeln!(shown, "{}: not looked at: {}", printable(&skipped.container), printable(&skipped.reason))
            .ok();
    }
    let changed = report.containers.iter().filter(|compared| differs(compared)).count();
    let (all, skipped) = (report.containers.len(), report.skipped.len());
    writeln!(shown, "{changed} of {all} containers would differ, {skipped} were not looked at").ok();
    shown
}

fn differs(compared: &Compared) -> bool {
    compared.differences.is_any() || compared.before.is_some() != compared.after.is_some()
}

/// A number of an outcome.
type Number = fn(&Outcome) -> u64;

fn one(compared: &Compared, shown: &mut String) -> std::fmt::Result {
    let name = printable(&compared.container);
    let (before, after) = match (&compared.before, &compared.after) {
        (Some(before), Some(after)) => (before, after),
        (Some(before), None) => {
            return writeln!(shown, "{name}: would not be read any more ({} rows)", before.rows);
        }
        (None, Some(after)) => return writeln!(shown, "{name}: would be read ({} rows)", after.rows),
        (None, None) => return Ok(()),
    };
    let mib = before.read_bytes.max(after.read_bytes) as f64 / f64::from(1 << 20);
    let cut = if before.is_cut || after.is_cut { ", and more that was not looked at" } else { "" };
    writeln!(shown, "{name}: {mib:.1} MiB of text{cut}")?;
    let numbers: [(&str, Number); 6] = [
        ("rows", |outcome| outcome.rows),
        ("bytes shipped", |outcome| outcome.bytes),
        ("dropped by rules", |outcome| outcome.dropped_rows),
        ("left out by sample", |outcome| outcome.sampled_rows),
        ("left out by rate", |outcome| outcome.rate_limited_rows),
        ("own timestamps", |outcome| outcome.own_timestamps),
    ];
    for (what, number) in numbers {
        row(shown, what, number(before), number(after), true)?;
    }
    let rules: BTreeSet<&String> = before.redactions.keys().chain(after.redactions.keys()).collect();
    for rule in rules {
        let count = |outcome: &Outcome| outcome.redactions.get(rule).copied().unwrap_or_default();
        row(shown, &format!("redacted: {rule}"), count(before), count(after), false)?;
    }
    let levels: BTreeSet<&String> = before.levels.keys().chain(after.levels.keys()).collect();
    for level in levels {
        let count = |outcome: &Outcome| outcome.levels.get(level).copied().unwrap_or_default();
        if count(before) != count(after) {
            row(shown, &format!("level {level}"), count(before), count(after), false)?;
        }
    }
    let (from, to) = (before.ms_per_mib, after.ms_per_mib);
    writeln!(shown, "  {:<32} {from:>12.1} -> {to:>12.1}", "ms per MiB")?;
    let differences = &compared.differences;
    if differences.is_any() {
        let super::Differences { rows_gone, rows_new, other_level, other_text } = differences;
        writeln!(
            shown,
            "  of single rows: {rows_gone} gone, {rows_new} new, {other_level} of another level, {other_text} with another text"
        )?;
    }
    Ok(())
}

/// A number before and after. `hides` one that is nothing on both sides.
fn row(shown: &mut String, what: &str, before: u64, after: u64, hides: bool) -> std::fmt::Result {
    if hides && before == 0 && after == 0 {
        return Ok(());
    }
    let mark = if before == after { "" } else { "  *" };
    writeln!(shown, "  {:<32} {before:>12} -> {after:>12}{mark}", printable(what))
}

fn printable(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}
