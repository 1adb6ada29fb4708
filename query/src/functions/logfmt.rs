//! `logfmt(message, key)`: the value of a key in a line such as `level=info msg="was done" took=3ms`.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

use super::{Plain, at, texts};

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Plain::function("logfmt", 2..=2, DataType::Utf8, |arguments, rows| {
        let (lines, keys) = (texts(arguments, 0)?, texts(arguments, 1)?);
        let values = (0..rows).map(|row| value(at(&lines, row)?, at(&keys, row)?));
        let values: StringArray = values.collect();
        Ok(Arc::new(values) as ArrayRef) as Result<ArrayRef>
    })]
}

/// The value of the first `key=…`; quotes are taken off and their escapes resolved. A key without `=` has the value "".
fn value<'a>(line: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let (found, after) = match after.strip_prefix('=') {
            None => (Cow::Borrowed(""), after),
            Some(after) => match after.strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                None => {
                    let end = after.find(char::is_whitespace).unwrap_or(after.len());
                    let (value, after) = after.split_at(end);
                    (Cow::Borrowed(value), after)
                }
            },
        };
        if key == wanted && !key.is_empty() {
            return Some(found);
        }
        rest = after.trim_start();
    }
    None
}

/// What stands before the closing quote, and what follows it. A quote that is never closed ends with the line.
fn unquoted(text: &str) -> (Cow<'_, str>, &str) {
    let mut value = String::new();
    let mut escaped = false;
    let mut plain = true;
    for (index, c) in text.char_indices() {
        if escaped {
            escaped = false;
            value.push(match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            });
        } else if c == '\\' {
            escaped = true;
            plain = false;
        } else if c == '"' {
            let (before, after) = text.split_at(index);
            let value = if plain { Cow::Borrowed(before) } else { Cow::Owned(value) };
            return (value, after.strip_prefix('"').unwrap_or_default());
        } else {
            value.push(c);
        }
    }
    (Cow::Owned(value), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_plain_quoted_and_missing() {
        let line = r#"level=info msg="was \"done\"\n" took=3ms flag caller=a=b  empty= last="open"#;
        let table = [
            ("level", Some("info")),
            ("msg", Some("was \"done\"\n")),
            ("took", Some("3ms")),
            ("flag", Some("")),
            ("caller", Some("a=b")),
            ("empty", Some("")),
            ("last", Some("open")),
            ("lev", None),
            ("done", None),
            ("", None),
        ];
        for (key, expected) in table {
            assert_eq!(value(line, key).as_deref(), expected, "{key}");
        }
        assert_eq!(value("", "a"), None);
        assert_eq!(value("= =x ü=1", "ü").as_deref(), Some("1"));
    }
}
