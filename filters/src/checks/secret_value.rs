//! The value of a key such as `password`: not the words that say there is none.

use std::ops::Range;

use super::before;

const NONE: [&str; 12] = [
    "null",
    "none",
    "nil",
    "true",
    "false",
    "undefined",
    "empty",
    "<nil>",
    "(null)",
    "[redacted]",
    "redacted",
    "[filtered]",
];

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let says_none = NONE.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    let starred = text.iter().all(|byte| matches!(byte, b'*' | b'.' | b'x' | b'X' | b'-'));
    // `PWD=/srv/app` is the working directory of a shell.
    let directory = text.starts_with(b"/")
        && before(line, span.start) == Some(b'=')
        && line.get(..span.start - 1).is_some_and(|key| key.ends_with(b"PWD"));
    (!says_none && !starred && !directory).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn words_for_nothing_and_masks_are_no_secrets() {
        table(
            check,
            &["hunter2", "nullable", "/etc/pw"],
            &["null", "NONE", "true", "****", "xxxx", "[REDACTED]"],
        );
        assert_eq!(judge(check, "PWD=/srv/app", "/srv/app"), None);
        assert!(judge(check, "PWD=/", "/").is_none());
    }
}
