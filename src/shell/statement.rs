//! Where statements end: text into statements and what is left, as PostgreSQL reads quotes and comments.

/// A text, cut at the semicolons that end statements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<'t> {
    /// The statements that have ended, without their semicolons and the space around them; empty ones are left out.
    pub(super) statements: Vec<&'t str>,
    /// What stands behind the last of them, without the space around it.
    pub(super) rest: &'t str,
}

/// Cuts a text. Semicolons within `'…'`, `"…"`, `$tag$…$tag$`, `-- …` and nested `/* … */` end nothing.
pub(super) fn cut(text: &str) -> Cut<'_> {
    let (mut statements, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(';') {
            statements.extend(text.get(start..at).map(bare).filter(|statement| !statement.is_empty()));
            start = at + 1;
        }
        at += token(rest);
    }
    Cut { statements, rest: bare(text.get(start..).unwrap_or_default()) }
}

/// Without the space and the comments before it: what is left of a text that says nothing is empty.
fn bare(text: &str) -> &str {
    let mut text = text.trim();
    while text.starts_with("--") || text.starts_with("/*") {
        let length = token(text);
        text = text.get(length..).unwrap_or_default().trim_start();
    }
    text
}

/// The bytes of what a text begins with: a quoted piece or a comment as a whole, else a character. One that does not end takes
/// all that is there, so that the statement is not complete.
fn token(text: &str) -> usize {
    let upto = |from: usize, end: &str| {
        let found = text.get(from..).and_then(|rest| rest.find(end));
        found.map_or(text.len(), |found| from + found + end.len())
    };
    match text.as_bytes() {
        [b'\'', ..] => upto(1, "'"),
        [b'"', ..] => upto(1, "\""),
        [b'-', b'-', ..] => upto(2, "\n"),
        [b'/', b'*', ..] => comment(text),
        [b'$', ..] => match tag(text) {
            Some(tag) => upto(tag.len(), tag),
            None => 1,
        },
        _ => text.chars().next().map_or(1, char::len_utf8),
    }
}

/// The bytes of a comment in which comments may be nested.
fn comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// `$tag$`, when the text begins with it. A digit cannot begin a tag: `$1` is a parameter.
fn tag(text: &str) -> Option<&str> {
    let inner = text.get(1..)?;
    let end = inner.find('$')?;
    let name = inner.get(..end)?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let is_tag = is_name && !name.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| text.get(..end + 2)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_at_a_semicolon_that_is_neither_quoted_nor_commented_out() {
        let cases: [(&str, &[&str], &str); 10] = [
            ("select 1; select 2", &["select 1"], "select 2"),
            ("select ';'; x", &["select ';'"], "x"),
            ("select 'it''s; so';", &["select 'it''s; so'"], ""),
            ("select \"a;b\";", &["select \"a;b\""], ""),
            ("select 1 -- one; two\n;", &["select 1 -- one; two"], ""),
            ("select /* a; /* b; */ c; */ 2;", &["select /* a; /* b; */ c; */ 2"], ""),
            ("select $$a;b$$; select $t$;$$;$t$;", &["select $$a;b$$", "select $t$;$$;$t$"], ""),
            ("select $1; select $2;", &["select $1", "select $2"], ""),
            ("; ;; -- nothing;\n", &[], ""),
            ("select 'ü;", &[], "select 'ü;"),
        ];
        for (text, statements, rest) in cases {
            assert_eq!(cut(text), Cut { statements: statements.to_vec(), rest }, "{text}");
        }
    }

    #[test]
    fn every_beginning_of_a_text_can_be_cut() {
        let text = "select 'a'';' /* /* ; */ */ , \"x;\" -- é;\n , $q$;$q$ from t where a = $1; select 2;";
        for (end, _) in text.char_indices() {
            let cut = cut(text.get(..end).unwrap());
            assert!(cut.statements.len() <= 1, "{end}");
        }
        assert_eq!(cut(text).statements.len(), 2);
    }
}
