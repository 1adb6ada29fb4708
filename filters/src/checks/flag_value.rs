//! The value behind a flag of a command line: `--password x`, also as arguments in quotes. `the password x` has no flag.

use std::ops::Range;

use super::before;
use super::secret_value::is_placeholder;

/// How far before the value its flag may start, in bytes.
const FLAG_BYTES: usize = 80;

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    if text.starts_with(b"-") || is_placeholder(text) {
        return None;
    }
    let head = line.get(span.start.saturating_sub(FLAG_BYTES)..span.start)?;
    let between = |byte: &u8| matches!(byte, b'"' | b'\'' | b',' | b' ' | b'\t');
    let head = head.get(..head.len() - head.iter().rev().take_while(|byte| between(byte)).count())?;
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let start = head.len() - head.iter().rev().take_while(|byte| name(byte)).count();
    let alone = before(head, start).is_none_or(|byte| between(&byte) || matches!(byte, b'[' | b'('));
    (alone && head.get(start) == Some(&b'-')).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::*;

    #[test]
    fn a_value_has_a_flag_before_it_and_is_none_itself() {
        for (line, value, found) in [
            ("app --password hunter2", "hunter2", true),
            ("[\"-token\", \"hunter2\"]", "hunter2", true),
            ("the password hunter2", "hunter2", false),
            ("sub-password hunter2", "hunter2", false),
            ("app --password --port", "--port", false),
            ("app --password ${PASSWORD}", "${PASSWORD}", false),
        ] {
            assert_eq!(judge(check, line, value).is_some(), found, "{line}");
        }
    }
}
