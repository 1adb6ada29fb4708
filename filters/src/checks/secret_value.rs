//! The value of a key such as `password`: not the words that say there is none, nor a place where one would be put.

use std::ops::Range;

use super::token::PLACEHOLDER_BYTES_MAX;

/// What stands there when there is no value, or a message about it. In order of length.
const NONE: &[&str] = &[
    "no",
    "is",
    "nil",
    "yes",
    "not",
    "for",
    "has",
    "was",
    "null",
    "none",
    "true",
    "must",
    "from",
    "with",
    "false",
    "empty",
    "<nil>",
    "reset",
    "wrong",
    "unset",
    "error",
    "(null)",
    "failed",
    "hidden",
    "masked",
    "string",
    "cannot",
    "invalid",
    "expired",
    "missing",
    "changed",
    "failure",
    "enabled",
    "updated",
    "redacted",
    "required",
    "accepted",
    "rejected",
    "provided",
    "disabled",
    "optional",
    "mismatch",
    "undefined",
    "incorrect",
    "[redacted]",
    "[filtered]",
];

/// What code and configuration take values from: `var.password`, `os.environ["PASSWORD"]`.
const ROOTS: &[&str] = &[
    "var", "local", "data", "module", "self", "this", "env", "process", "os", "config", "settings", "ctx",
    "req", "request", "params", "props", "options", "args", "secrets", "input", "output", "each",
];

/// How many letters in the alphabet's order make a placeholder.
const ALPHABET_BYTES: usize = 16;

/// Whether the text stands for a value and is none.
pub(super) fn is_placeholder(text: &[u8]) -> bool {
    if text.len() > PLACEHOLDER_BYTES_MAX {
        return false;
    }
    let starred = || text.iter().all(|byte| matches!(byte, b'*' | b'.' | b'x' | b'X' | b'-' | b'#'));
    is_label(text) || starred() || says_none(text) || is_reference(text) || follows_the_alphabet(text)
}

fn says_none(text: &[u8]) -> bool {
    let first = NONE.partition_point(|word| word.len() < text.len());
    let alike = NONE.iter().skip(first).take_while(|word| word.len() == text.len());
    alike.into_iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// `abcdefghijklmnopqrstuvwxyz`.
fn follows_the_alphabet(text: &[u8]) -> bool {
    if text.len() < ALPHABET_BYTES {
        return false;
    }
    let mut run = 1;
    text.windows(2).any(|pair| {
        let &[one, next] = pair else { return false };
        let (one, next) = (one.to_ascii_lowercase(), next.to_ascii_lowercase());
        run = if one.is_ascii_lowercase() && next.is_ascii_lowercase() && next == one + 1 {
            run + 1
        } else {
            1
        };
        run >= ALPHABET_BYTES
    })
}

/// `${NAME}`, `$NAME`, `{{ name }}`, `#{name}`, `%NAME%`, `<name>`, `var.name`.
fn is_reference(text: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match text {
        [b'<', ..] | [b'{', b'{', ..] | [b'#', b'{', ..] => true,
        [b'$', next, ..] => next.is_ascii_alphabetic() || matches!(next, b'_' | b'{' | b'('),
        [b'%', name @ .., b'%'] => {
            name.first().is_some_and(|byte| !byte.is_ascii_digit()) && name.iter().all(word)
        }
        _ => {
            let root = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let joined = text.get(root).is_some_and(|byte| matches!(byte, b'.' | b'[' | b'('));
            let root = text.get(..root).unwrap_or(&[]);
            joined && ROOTS.iter().any(|known| root.eq_ignore_ascii_case(known.as_bytes()))
        }
    }
}

/// `other_key = `: the start of another assignment.
fn is_label(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let Some((operator, words)) = text.split_last() else { return true };
    let name = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'.' | b' ' | b'-');
    matches!(operator, b'=' | b':') && !words.is_empty() && words.iter().all(name)
}

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    // `PWD=/srv/app` is the working directory of a shell.
    let key = line.get(..span.start)?.trim_ascii_end();
    let key = key.iter().rposition(|byte| byte.is_ascii_alphabetic()).and_then(|at| key.get(..=at));
    let directory = text.starts_with(b"/")
        && key
            .and_then(|key| key.len().checked_sub(3).and_then(|at| key.get(at..)))
            .is_some_and(|key| key.eq_ignore_ascii_case(b"pwd"));
    (!directory && !is_placeholder(text)).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn words_are_in_order_of_length() {
        assert!(NONE.is_sorted_by_key(|word| word.len()));
    }

    #[test]
    fn words_for_nothing_masks_and_references_are_no_secrets() {
        table(
            check,
            &["hunter2", "nullable", "/etc/pw", "my.secret", "$0meth1ng", "100%", "a=b:c"],
            &[
                "null",
                "NONE",
                "true",
                "****",
                "xxxx",
                "[REDACTED]",
                "required",
                "${DB}",
                "$DB",
                "%DB%",
                "{{ db }}",
                "<hidden>",
                "var.password",
                "os.environ['DB']",
                "XXXXXXXX",
                "abcdefghijklmnopqrstuvwxyz",
                "api_token = ",
            ],
        );
        assert_eq!(judge(check, "PWD=/srv/app", "/srv/app"), None);
        assert_eq!(judge(check, "\"pwd\": \"/srv/app\"", "/srv/app"), None);
        assert!(judge(check, "PWD=/", "/").is_none());
    }
}
