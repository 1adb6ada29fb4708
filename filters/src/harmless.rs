//! Ordinary lines without anything to hide: what a rule takes of them says whether it tells values from other text at all.

use crate::error::RuleFault;
use crate::limits::HARMLESS_REDACTED_PER_CENT_MAX;
use crate::marker::Names;
use crate::reference::Reference;
use crate::rule::Rule;

/// Lines of the usual kinds: key=value, JSON, prose, syslog, a stack trace, an access log, identifiers, rules, numbers.
const LINES: &str = include_str!("../data/harmless.txt");

/// How much of the harmless lines a rule would redact, in per cent of their bytes, its validator and context heard.
fn redacted_per_cent(reference: &Reference, rule: &Rule) -> usize {
    let names = Names::new(std::iter::once(rule.marker.as_str()));
    let mut text = Vec::with_capacity(LINES.len());
    let mut offsets = vec![0];
    for line in LINES.lines() {
        text.extend_from_slice(line.as_bytes());
        offsets.push(i32::try_from(text.len()).unwrap_or(i32::MAX));
    }
    let (mut redacted, mut seen_to) = (0, 0);
    for found in reference.find(&text, &offsets, &names) {
        let start = found.start.max(seen_to);
        redacted += found.end.saturating_sub(start);
        seen_to = seen_to.max(found.end);
    }
    redacted * 100 / text.len().max(1)
}

/// Refuses a rule that matches everything: one that would redact more than [`HARMLESS_REDACTED_PER_CENT_MAX`] of the harmless lines.
pub(crate) fn check(rule: &Rule) -> Result<(), RuleFault> {
    // A pattern that does not compile is a fault of its own.
    let Ok(reference) = Reference::new(std::iter::once(rule)) else { return Ok(()) };
    let share = redacted_per_cent(&reference, rule);
    if share <= HARMLESS_REDACTED_PER_CENT_MAX {
        return Ok(());
    }
    let reason = format!(
        "pattern matches everything: it would redact {share} % of harmless lines, allowed are {HARMLESS_REDACTED_PER_CENT_MAX}"
    );
    let instead = "say what is special about the value: fixed characters, a length, or keywords and value";
    let fault = RuleFault::new(&rule.id, reason, instead);
    Err(if rule.is_assignment { fault } else { fault.at(0..rule.pattern.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;
    use crate::rule::RuleFile;

    fn share(pattern: &str) -> usize {
        let text = format!(
            "[[rule]]\nid = 'r'\ncategory = 'c'\ndescription = 'd'\npattern = '{pattern}'\nfinds = [['a', 'a']]\nspares = ['']\n"
        );
        let file = RuleFile::read("r", &text).unwrap();
        redacted_per_cent(&Reference::new(file.rules().iter()).unwrap(), &file.rules()[0])
    }

    #[test]
    fn everything_is_told_from_much() {
        for (pattern, wanted) in [
            (".", 100..=100),
            (".{60,}", 90..=100),
            (r"\S+", 80..=95),
            (r"[a-zA-Z0-9]+", 70..=80),
            ("[a-z]+", 40..=60),
            ("[0-9]+", 10..=30),
            ("e", 1..=10),
        ] {
            assert!(wanted.contains(&share(pattern)), "{pattern} {}", share(pattern));
        }
    }

    #[test]
    fn no_rule_of_the_library_takes_much_of_harmless_lines() {
        for rule in library::rules().unwrap() {
            let reference = Reference::new(std::iter::once(&rule)).unwrap();
            let share = redacted_per_cent(&reference, &rule);
            assert!(share <= 15, "{} takes {share} %", rule.id());
        }
    }
}
