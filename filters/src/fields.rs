//! Field rules: what happens to the value of a field, by the field's name.
//!
//! A name is one or several segments with dots between them, `*` for any characters and `?` for one within a segment, without regard to
//! case: `phone_*`, `user.*.email`. A name of one segment is found at any depth; one of several matches the innermost keys.
//! Fields are found in JSON (nested, in arrays, and as text inside of a string), in logfmt and other `key=value`, and in headers.
//!
//! A field rule is found as a rule like any other, by a pattern over its last segment and an operator; so it costs what one more
//! rule costs, and nothing where there is none. How far the value reaches is decided here.
//!
//! A field may also spare: what rules that are named find in it stays ([`FieldRule::sparing`]).
//!
//! What always holds: where the keys above a value cannot be told, as inside of a string, the last segment decides.

use std::ops::Range;

use crate::action::Action;
use crate::error::{RuleFault, RulesError};
use crate::json;
use crate::limits::{FIELD_KEY_BYTES_MAX, FIELD_SEGMENTS_MAX, MARKER_NAME_BYTES_MAX};
use crate::remove::Walker;
use crate::rule::{Rule, RuleFile};
use crate::scan::Hit;

/// What happens to the values of fields of a name.
#[derive(Clone, Debug)]
pub struct FieldRule {
    name: String,
    segments: Vec<String>,
    rule: Rule,
    /// The rules whose findings in it stay.
    spared: Vec<String>,
}

impl FieldRule {
    /// A rule for the fields called `name`; `marker` is what it is called in markers, by default its last segment.
    ///
    /// ```
    /// use beeacon_filters::{Engine, EngineOptions, FieldRule};
    /// let phone = FieldRule::new("phone_*", "remove", 0, 0, None).unwrap();
    /// let engine = Engine::new(EngineOptions { fields: vec![phone], ..EngineOptions::default() }).unwrap();
    /// let (text, _) = engine.scrub_text(r#"{"id":1,"Phone_Home":"call me","n":2}"#).unwrap();
    /// assert_eq!(text, r#"{"id":1,"n":2}"#);
    /// ```
    ///
    /// # Errors
    /// With every fault found.
    pub fn new(
        name: &str,
        action: &str,
        keep_first: u8,
        keep_last: u8,
        marker: Option<&str>,
    ) -> Result<FieldRule, RulesError> {
        FieldRule::read(name, action, (keep_first, keep_last), marker, &[])
    }

    /// In the fields called `name`, what the rules of these ids find stays as it is: order numbers that look like cards. Known secrets
    /// and what other rules find is redacted as elsewhere.
    ///
    /// ```
    /// use beeacon_filters::{Engine, EngineOptions, FieldRule};
    /// let order = FieldRule::sparing("order_*", &["credit_card".to_owned()]).unwrap();
    /// let engine = Engine::new(EngineOptions { fields: vec![order], ..EngineOptions::default() }).unwrap();
    /// let (text, _) = engine.scrub_text("order_id=4539148803436467 card=4539148803436467").unwrap();
    /// assert_eq!(text, "order_id=4539148803436467 card=<CARD>");
    /// ```
    ///
    /// # Errors
    /// With every fault found.
    pub fn sparing(name: &str, rules: &[String]) -> Result<FieldRule, RulesError> {
        FieldRule::read(name, "off", (0, 0), None, rules)
    }

    fn read(
        name: &str,
        action: &str,
        (keep_first, keep_last): (u8, u8),
        marker: Option<&str>,
        spared: &[String],
    ) -> Result<FieldRule, RulesError> {
        let mut faults = Vec::new();
        let subject = format!("field {name}");
        let mut fault =
            |reason: String, instead: String| faults.push(RuleFault::new(&subject, reason, instead));
        let segments: Vec<String> = name.split('.').map(str::to_ascii_lowercase).collect();
        let fits = |segment: &String| {
            !segment.is_empty()
                && segment.len() <= FIELD_KEY_BYTES_MAX
                && segment.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$' | b'@' | b'*' | b'?')
                })
        };
        if segments.len() > FIELD_SEGMENTS_MAX || !segments.iter().all(fits) {
            let reason = format!(
                "name is not 1 to {FIELD_SEGMENTS_MAX} segments of 1 to {FIELD_KEY_BYTES_MAX} letters, digits, _ - $ @ * ?"
            );
            fault(reason, "write it as phone_* or user.*.email".to_owned());
        }
        let last = segments.last().cloned().unwrap_or_default();
        let letters = last.bytes().filter(|byte| !matches!(byte, b'*' | b'?')).count();
        if letters < 2 {
            fault(
                "last segment names nothing".to_owned(),
                "give it two letters or more beside * and ?".to_owned(),
            );
        }
        let parsed = Action::parse(action, keep_first, keep_last);
        if parsed.is_none() {
            fault(
                format!("action {action} is not known{}", nearest(action, Action::NAMES.split(", "))),
                format!("choose one of {}", Action::NAMES),
            );
        }
        if parsed == Some(Action::Off) && spared.is_empty() {
            fault(
                "action off names no rule".to_owned(),
                "give `rules`, whose findings in the field stay".to_owned(),
            );
        }
        if parsed != Some(Action::Off) && !spared.is_empty() {
            fault(
                format!("`rules` have no meaning with the action {action}"),
                "leave them out, or choose the action off".to_owned(),
            );
        }
        if !faults.is_empty() {
            return Err(RulesError(faults));
        }
        let plain = |upper: bool| -> String {
            let text: String =
                last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let text = text.trim_matches('_');
            if upper { text.to_ascii_uppercase() } else { text.to_owned() }
        };
        let default = plain(true);
        let default = if default.starts_with(|c: char| c.is_ascii_uppercase()) {
            default
        } else {
            format!("FIELD_{default}")
        };
        let default: String = default.chars().take(MARKER_NAME_BYTES_MAX).collect();
        let id: String =
            format!("field_{}", name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let id: String = id.chars().take(MARKER_NAME_BYTES_MAX).collect();
        let sample = last.replace(['*', '?'], "x");
        let text = format!(
            "[[rule]]\nid = '{id}'\ncategory = 'field'\ndescription = 'Values of fields named {name}'\npattern = '''{}'''\nmarker = '{}'\nprecedence = 1\nwindow_bytes = 512\naction = '{action}'\nkeep_first = {keep_first}\nkeep_last = {keep_last}\nfinds = [['{sample}=value', '{sample}=v']]\nspares = ['{sample}']\n",
            pattern(&last),
            marker.unwrap_or(&default).replace('\'', "?"),
        );
        let file = RuleFile::read(&subject, &text)?;
        let rule = file.rules().first().cloned();
        let missing = || RulesError(vec![RuleFault::new(&subject, "makes no rule", "")]);
        Ok(FieldRule {
            name: name.to_owned(),
            segments,
            rule: rule.ok_or_else(missing)?,
            spared: spared.to_vec(),
        })
    }

    /// Its name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    pub(crate) fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The rules whose findings in it stay.
    pub(crate) fn spared(&self) -> &[String] {
        &self.spared
    }
}

/// The known name that a misspelt one most likely means, for a message: at most two letters away.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let wanted: Vec<char> = name.to_ascii_lowercase().chars().take(FIELD_KEY_BYTES_MAX).collect();
    let close = known.map(|known| (distance(&wanted, known), known)).min();
    close.filter(|(away, _)| *away <= 2).map_or(String::new(), |(_, close)| format!(", {close} is"))
}

/// How many letters are to be added, left out or changed to make one name of the other.
fn distance(wanted: &[char], known: &str) -> usize {
    let mut row: Vec<usize> = (0..=wanted.len()).collect();
    for letter in known.chars() {
        let mut left = row.first().map_or(0, |first| first + 1);
        let mut next = vec![left];
        for (pair, other) in row.windows(2).zip(wanted) {
            let (above_left, above) = (pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0));
            left = (above_left + usize::from(letter != *other)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// A key that fits the segment, closed by a quote or not, an operator, and the first byte of a value.
fn pattern(segment: &str) -> String {
    let mut key = String::new();
    for character in segment.chars() {
        match character {
            '*' => key.push_str("[a-z0-9_$@-]{0,64}"),
            '?' => key.push_str("[a-z0-9_$@-]"),
            '-' | '$' => {
                key.push('\\');
                key.push(character);
            }
            other => key.push(other),
        }
    }
    format!(r#"(?i){key}(?:\\{{0,4}}["'])?[ \t]{{0,4}}(?:=>|:=|=|:|%3D)[ \t]{{0,4}}[^ \t]"#)
}

/// Whether a key fits a segment with `*` and `?`; both in small letters but for `key`.
pub(crate) fn glob_fits(segment: &[u8], key: &[u8]) -> bool {
    // The last star and what it has taken: going back to it is enough, and linear times the stars.
    let (mut s, mut k, mut star) = (0, 0, None);
    while k < key.len() {
        match (segment.get(s), key.get(k)) {
            (Some(b'*'), _) => {
                star = Some((s, k));
                s += 1;
            }
            (Some(wanted), Some(byte)) if *wanted == b'?' || *wanted == byte.to_ascii_lowercase() => {
                s += 1;
                k += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    s = at + 1;
                    k = taken + 1;
                }
                None => return false,
            },
        }
    }
    segment.get(s..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Turns hits of field rules, which hold a key and the first byte of a value, into hits of the value; drops those that are none.
///
/// `segments` are those of the field rules, the first of which has the number `first`. `rest` says what of a span is not redacted yet.
pub(crate) fn refine(
    first: u32,
    segments: &[Vec<String>],
    text: &[u8],
    offsets: &[i32],
    hits: &mut Vec<Hit>,
    rest: impl Fn(&[u8], Range<usize>) -> Option<Range<usize>>,
) {
    if segments.is_empty() || !hits.iter().any(|hit| hit.rule >= first) {
        return;
    }
    hits.sort_unstable_by_key(|hit| (hit.line, hit.start));
    let (mut walker, mut walked) = (Walker::default(), None);
    hits.retain_mut(|hit| {
        let number = usize::try_from(hit.rule).unwrap_or(0).checked_sub(usize::try_from(first).unwrap_or(0));
        let Some(segments) = number.and_then(|number| segments.get(number)) else { return true };
        let bound = |line: u32, next: usize| {
            let at = usize::try_from(line).ok().and_then(|line| offsets.get(line + next));
            at.and_then(|at| usize::try_from(*at).ok()).unwrap_or(text.len())
        };
        let (start, end) = (bound(hit.line, 0), bound(hit.line, 1));
        let line = text.get(start..end).unwrap_or(&[]);
        if walked != Some(hit.line) {
            (walker, walked) = (Walker::default(), Some(hit.line));
        }
        let within = |at: u32| usize::try_from(at).unwrap_or(usize::MAX).saturating_sub(start);
        let found = value_of(segments, line, within(hit.match_start), within(hit.match_end), &mut walker);
        let Some(value) = found.and_then(|value| rest(line, value)) else { return false };
        let narrow = |at: usize| u32::try_from(start + at).unwrap_or(u32::MAX);
        (hit.start, hit.end) = (narrow(value.start), narrow(value.end));
        hit.match_end = hit.end;
        true
    });
}

/// Takes out what is spared: hits of field rules that spare, and the hits of the rules that they spare inside of their values.
/// `spared` are the numbers of these rules, for each field rule.
pub(crate) fn spare(first: u32, spared: &[Vec<u32>], hits: &mut Vec<Hit>) {
    let of = |hit: &Hit| -> Option<&Vec<u32>> {
        let number = usize::try_from(hit.rule.checked_sub(first)?).ok()?;
        spared.get(number).filter(|spared| !spared.is_empty())
    };
    let sparing: Vec<(Hit, &Vec<u32>)> = hits.iter().filter_map(|hit| Some((*hit, of(hit)?))).collect();
    if sparing.is_empty() {
        return;
    }
    let covers = |(field, rules): &(Hit, &Vec<u32>), hit: &Hit| {
        field.line == hit.line
            && field.start <= hit.start
            && hit.end <= field.end
            && rules.contains(&hit.rule)
    };
    hits.retain(|hit| {
        // Field rules come in order of lines and of places.
        let from = sparing.partition_point(|(field, _)| field.line < hit.line);
        let here = sparing.iter().skip(from).take_while(|(field, _)| field.line == hit.line);
        of(hit).is_none() && !here.clone().any(|field| covers(field, hit))
    });
}

fn value_of(
    segments: &[String],
    line: &[u8],
    key_start: usize,
    match_end: usize,
    walker: &mut Walker,
) -> Option<Range<usize>> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$' | b'@');
    let head = line.get(..key_start)?;
    if head.last().is_some_and(is_name) {
        return None;
    }
    let quote_at = key_start.checked_sub(1).filter(|at| matches!(line.get(*at), Some(b'"' | b'\'')));
    let escaped = quote_at.is_some_and(|at| line.get(..at).is_some_and(|head| head.ends_with(b"\\")));
    if segments.len() > 1 && !escaped {
        let own = line.get(key_start..match_end)?;
        let own = own.get(..own.iter().take_while(|byte| is_name(byte)).count())?;
        let mut path: Vec<&[u8]> = Vec::new();
        if quote_at.is_some() && json::starts_like_json(line) {
            // Of the member's own level the key is the one before, which is not read yet.
            path = walker.path(line, key_start.saturating_sub(1))?;
        }
        let dotted = head.iter().rev().take_while(|byte| is_name(byte) || **byte == b'.').count();
        path.extend(
            head.get(head.len() - dotted..)?.split(|byte| *byte == b'.').filter(|key| !key.is_empty()),
        );
        path.push(own);
        let inner = path.iter().rev().zip(segments.iter().rev());
        if path.len() < segments.len()
            || !inner.into_iter().all(|(key, segment)| glob_fits(segment.as_bytes(), key))
        {
            return None;
        }
    }
    let at = match_end.checked_sub(1)?;
    let is_header = key_start == 0 && quote_at.is_none();
    value(line, at, is_header && line.get(..at)?.contains(&b':')).filter(|value| {
        let text = line.get(value.clone()).unwrap_or(&[]);
        !text.is_empty() && !matches!(text, b"null" | b"\"\"" | b"''" | b"{}" | b"[]")
    })
}

/// The value that starts at `at`: inside of its quotes, or all of an object or array.
fn value(line: &[u8], at: usize, is_header: bool) -> Option<Range<usize>> {
    let rest = line.get(at..)?;
    let slashes = rest.iter().take_while(|byte| **byte == b'\\').count();
    match rest.get(slashes) {
        Some(quote @ (b'"' | b'\'')) => {
            // Closed by the same quote behind as many backslashes.
            let start = at + slashes + 1;
            let mut run = 0;
            for (index, byte) in line.iter().enumerate().skip(start) {
                if byte == quote && (if slashes == 0 { run % 2 == 0 } else { run == slashes }) {
                    return Some(start..index - slashes.min(run));
                }
                run = if *byte == b'\\' { run + 1 } else { 0 };
            }
            Some(start..line.len())
        }
        Some(b'{' | b'[') if slashes == 0 => Some(at..balanced(line, at)),
        _ if is_header => Some(at..line.trim_ascii_end().len().max(at)),
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"',;&}])\\".contains(byte);
            let bytes = rest.iter().position(ends).unwrap_or(rest.len());
            Some(at..at + bytes)
        }
    }
}

/// The end of the object or array that starts at `start`, or of the line.
fn balanced(line: &[u8], start: usize) -> usize {
    let (mut depth, mut at, mut inside) = (0_usize, start, false);
    while let Some(byte) = line.get(at) {
        match byte {
            b'\\' if inside => at += 1,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => depth += 1,
            b'}' | b']' if !inside => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    line.len()
}
