//! The SQL text of a rule, and `$at` in it.

use jiff::Timestamp;
use thiserror::Error;

use crate::limits::SQL_BYTES_MAX;

/// A query of a rule. `$at` in it is the moment of the evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlQuery {
    /// The text around each `$at`; at least one.
    pieces: Vec<String>,
}

/// Why a text is no query of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SqlQueryError {
    /// There is nothing in it.
    #[error("`sql` is empty")]
    Empty,
    /// It is too long.
    #[error("`sql` has {0} bytes, the limit is {SQL_BYTES_MAX}")]
    Long(usize),
    /// A quote or a comment has no end.
    #[error("`sql` ends inside quotes or a comment")]
    Open,
    /// Something with a `$` that is not `$at`.
    #[error("`sql` knows no parameter but $at")]
    Parameter,
}

impl SqlQuery {
    /// Looks a query over. Whether it can be planned is seen by who plans it.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, ends within quotes, or has another parameter than `$at`.
    pub fn read(text: &str) -> Result<SqlQuery, SqlQueryError> {
        let text = text.trim().trim_end_matches(';').trim_end();
        if text.is_empty() {
            return Err(SqlQueryError::Empty);
        }
        if text.len() > SQL_BYTES_MAX {
            return Err(SqlQueryError::Long(text.len()));
        }
        let (mut pieces, mut piece, mut rest) = (Vec::new(), String::new(), text);
        while let Some(first) = rest.chars().next() {
            let taken = token(rest, first)?;
            let (token, behind) = rest.split_at(taken);
            if first == '$' {
                let word =
                    behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
                let (word, after) = behind.split_at(word);
                if word != "at" {
                    return Err(SqlQueryError::Parameter);
                }
                pieces.push(std::mem::take(&mut piece));
                rest = after;
            } else {
                piece.push_str(token);
                rest = behind;
            }
        }
        pieces.push(piece);
        Ok(SqlQuery { pieces })
    }

    /// Whether it names its moment, so that it can be asked about a past one.
    #[must_use]
    pub fn names_its_moment(&self) -> bool {
        self.pieces.len() > 1
    }

    /// The text for a moment.
    #[must_use]
    pub fn at(&self, moment: Timestamp) -> String {
        self.pieces.join(&format!("TIMESTAMP '{moment:.9}'"))
    }

    /// The text as it was written.
    #[must_use]
    pub fn text(&self) -> String {
        self.pieces.join("$at")
    }
}

/// The length of what stands first: a quoted text, a comment, or one character.
fn token(rest: &str, first: char) -> Result<usize, SqlQueryError> {
    let behind = rest.get(first.len_utf8()..).unwrap_or("");
    let up_to =
        |end: &str| behind.find(end).map(|at| first.len_utf8() + at + end.len()).ok_or(SqlQueryError::Open);
    match first {
        // A doubled quote inside quotes ends one text and begins the next, which comes to the same.
        '\'' => up_to("'"),
        '"' => up_to("\""),
        '-' if behind.starts_with('-') => {
            Ok(behind.find('\n').map_or(rest.len(), |at| first.len_utf8() + at))
        }
        '/' if behind.starts_with('*') => behind
            .get(1..)
            .and_then(|inside| inside.find("*/"))
            .map(|at| 2 + at + 2)
            .ok_or(SqlQueryError::Open),
        _ => Ok(first.len_utf8()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_is_put_in_where_it_is_named_and_not_in_quotes_or_comments() {
        let moment = "2026-11-26T10:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("SELECT 1;", "SELECT 1"),
            ("SELECT $at", "SELECT TIMESTAMP '2026-11-26T10:00:00.000000000Z'"),
            ("SELECT '$at', \"$at\" -- $at", "SELECT '$at', \"$at\" -- $at"),
            ("SELECT 'it''s $at' /* $at */, 'ü'", "SELECT 'it''s $at' /* $at */, 'ü'"),
        ] {
            let query = SqlQuery::read(text).unwrap();
            assert_eq!(query.at(moment), expected);
            assert_eq!(query.names_its_moment(), expected.contains("TIMESTAMP"), "{text}");
        }
        assert!(
            SqlQuery::read("SELECT $at\n--x\n, $at").unwrap().at(moment).matches("TIMESTAMP").count() == 2
        );
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (text, error) in [
            (" ; ", SqlQueryError::Empty),
            ("SELECT 'x", SqlQueryError::Open),
            ("SELECT /* x", SqlQueryError::Open),
            ("SELECT /*/", SqlQueryError::Open),
            ("SELECT $1", SqlQueryError::Parameter),
            ("SELECT $attack", SqlQueryError::Parameter),
            ("SELECT $$x$$", SqlQueryError::Parameter),
        ] {
            assert_eq!(SqlQuery::read(text), Err(error), "{text}");
        }
        assert!(matches!(SqlQuery::read(&"x".repeat(70_000)), Err(SqlQueryError::Long(70_000))));
    }
}
