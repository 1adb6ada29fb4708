//! Statements that concern the session and never reach the planner: transactions, settings, and what clears up.
//!
//! Transactions are kept track of, because clients open them by themselves; every statement sees its own moment of the store all
//! the same, as under PostgreSQL's `read committed`.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::settings::Settings;
use super::sqlstate::SqlError;

/// What a statement of the session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Begin,
    Commit,
    Rollback,
    Set {
        name: String,
        value: Option<String>,
    },
    /// A mode of a transaction that is the only one here.
    SetNothing,
    Reset(Option<String>),
    Show(Option<String>),
    Deallocate(Option<String>),
    /// Everything a session has set or prepared.
    DiscardAll,
    /// What there never is: notifications, cursors.
    Nothing(&'static str),
}

impl Local {
    /// The tag with which it is said to be done.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Local::Begin => "BEGIN",
            Local::Commit => "COMMIT",
            Local::Rollback => "ROLLBACK",
            Local::Set { .. } | Local::SetNothing => "SET",
            Local::Reset(_) => "RESET",
            Local::Show(_) => "SHOW",
            Local::Deallocate(None) => "DEALLOCATE ALL",
            Local::Deallocate(Some(_)) => "DEALLOCATE",
            Local::DiscardAll => "DISCARD ALL",
            Local::Nothing(tag) => tag,
        }
    }

    /// The columns of its answer.
    pub(crate) fn columns(&self) -> Vec<String> {
        match self {
            Local::Show(None) => ["name", "setting", "description"].map(str::to_owned).to_vec(),
            Local::Show(Some(name)) => vec![name.clone()],
            _ => Vec::new(),
        }
    }

    /// The rows of its answer.
    pub(crate) fn rows(&self, settings: &Settings) -> Result<Vec<Vec<String>>, SqlError> {
        match self {
            Local::Show(None) => Ok(settings
                .all()
                .into_iter()
                .map(|(name, value)| vec![name.to_owned(), value, String::new()])
                .collect()),
            Local::Show(Some(name)) => match settings.get(name) {
                Some(value) => Ok(vec![vec![value]]),
                None => Err(super::settings::SettingError::Unknown(name.clone()).into()),
            },
            _ => Ok(Vec::new()),
        }
    }
}

/// A statement, and how many characters of the text stand before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) before: usize,
}

/// The statements of a text, each without its semicolon. A text that cannot be taken apart is one, whose error will say why.
pub(crate) fn statements(text: &str) -> Vec<Part> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() else {
        return vec![Part { text: text.to_owned(), before: 0 }];
    };
    let ends = tokens.iter().filter(|token| matches!(token.token, Token::SemiColon));
    let mut ends = ends.map(|token| (token.span.start.line, token.span.start.column)).peekable();
    let has_words = |part: &str| {
        let tokens = Tokenizer::new(&GenericDialect {}, part).tokenize().unwrap_or_default();
        tokens.iter().any(|token| !matches!(token, Token::Whitespace(_) | Token::EOF))
    };
    let mut all = Vec::new();
    let (mut part, mut before) = (String::new(), 0);
    let (mut line, mut column) = (1, 1);
    for (index, c) in text.chars().enumerate() {
        if ends.next_if_eq(&(line, column)).is_some() {
            all.push(Part { text: std::mem::take(&mut part), before });
            before = index + 1;
        } else {
            part.push(c);
        }
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    all.push(Part { text: part, before });
    all.retain(|part| has_words(&part.text));
    all
}

/// What a statement is for the session, if it is one of its own.
pub(crate) fn read(text: &str) -> Option<Result<Local, SqlError>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().ok()?;
    let tokens: Vec<Token> = tokens
        .into_iter()
        .filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF | Token::SemiColon))
        .collect();
    let words: Vec<String> = tokens.iter().map(|token| token.to_string().to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match words.as_slice() {
        ["begin" | "start", modes @ ..] => modes_allowed(modes).map(|()| Local::Begin),
        ["commit" | "end", ..] => Ok(Local::Commit),
        ["rollback" | "abort", rest @ ..] if rest.contains(&"to") => Err(no_savepoints()),
        ["rollback" | "abort", ..] => Ok(Local::Rollback),
        ["savepoint" | "release", ..] => Err(no_savepoints()),
        ["set", rest @ ..] => set(rest, tokens.get(1..).unwrap_or_default()),
        ["reset", "all"] => Ok(Local::Reset(None)),
        ["reset", "session", "authorization"] => Ok(Local::Reset(Some("session_authorization".into()))),
        ["reset", name] => Ok(Local::Reset(Some((*name).trim_matches('"').to_owned()))),
        ["show", "all"] => Ok(Local::Show(None)),
        ["show", "time", "zone"] => Ok(Local::Show(Some("TimeZone".into()))),
        ["show", "transaction", "isolation", "level"] => {
            Ok(Local::Show(Some("transaction_isolation".into())))
        }
        ["show", "session", "authorization"] => Ok(Local::Show(Some("session_authorization".into()))),
        ["show", name] if !matches!(*name, "tables" | "columns" | "functions" | "databases" | "schemas") => {
            Ok(Local::Show(Some((*name).trim_matches('"').to_owned())))
        }
        ["deallocate", "all"] | ["deallocate", "prepare", "all"] => Ok(Local::Deallocate(None)),
        ["deallocate", "prepare", _] | ["deallocate", _] => {
            Ok(Local::Deallocate(tokens.last().map(unquoted)))
        }
        ["discard", "all"] => Ok(Local::DiscardAll),
        ["discard", "plans" | "sequences" | "temp" | "temporary"] => Ok(Local::Nothing("DISCARD")),
        ["close", "all"] => Ok(Local::Nothing("CLOSE CURSOR ALL")),
        ["unlisten", ..] => Ok(Local::Nothing("UNLISTEN")),
        ["listen" | "notify", ..] => Err(refused("there are no notifications here")),
        ["declare" | "fetch" | "move" | "close", ..] => {
            Err(refused("there are no cursors here; take rows in portions through the extended protocol"))
        }
        ["copy", ..] => Err(refused("COPY is not spoken here; use select, or POST /api/v1/sql for files")),
        ["prepare" | "execute", ..] => {
            Err(refused("statements are prepared through the extended protocol, not in SQL"))
        }
        ["lock", ..] => Err(SqlError::new("25006", "nothing can be locked: every statement only reads")),
        _ => return None,
    })
}

fn refused(message: &str) -> SqlError {
    SqlError::new("0A000", message)
}

fn no_savepoints() -> SqlError {
    refused("there are no savepoints here: every statement only reads")
}

/// Modes of a transaction: whatever isolation, but never to write.
fn modes_allowed(modes: &[&str]) -> Result<(), SqlError> {
    if modes.windows(2).any(|pair| pair == ["read", "write"]) {
        return Err(SqlError::new("25006", "a transaction here can only read"));
    }
    Ok(())
}

/// What follows `set`.
fn set(words: &[&str], tokens: &[Token]) -> Result<Local, SqlError> {
    match words {
        ["session" | "local", "characteristics", "as", "transaction", modes @ ..]
        | ["session", "transaction", modes @ ..]
        | ["transaction", modes @ ..] => modes_allowed(modes).map(|()| Local::SetNothing),
        ["session" | "local", rest @ ..] if !matches!(rest.first(), Some(&"=" | &"to")) => {
            set(rest, tokens.get(1..).unwrap_or_default())
        }
        ["time", "zone", _, ..] => {
            Ok(Local::Set { name: "TimeZone".into(), value: value(tokens.get(2..).unwrap_or_default()) })
        }
        ["names", _] => Ok(Local::Set {
            name: "client_encoding".into(),
            value: value(tokens.get(1..).unwrap_or_default()),
        }),
        ["authorization" | "role", ..] => Err(SqlError::new("42501", "a session keeps its role")),
        [name, "=" | "to", _, ..] => Ok(Local::Set {
            name: (*name).trim_matches('"').to_owned(),
            value: value(tokens.get(2..).unwrap_or_default()),
        }),
        _ => Err(SqlError::new("42601", "SET takes a name, = or TO, and a value")),
    }
}

/// The value after `=`; `default` is none.
fn value(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token::Word(word)] if word.keyword == Keyword::DEFAULT => None,
        _ => {
            let parts: Vec<String> = tokens.iter().map(unquoted).collect();
            Some(parts.join(" ").replace(" ,", ","))
        }
    }
}

fn unquoted(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
        Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_at_semicolons_outside_of_strings() {
        let table: [(&str, &[&str]); 6] = [
            ("select 1", &["select 1"]),
            ("select ';' ; select 2;", &["select ';' ", " select 2"]),
            (" ; -- nothing\n ;", &[]),
            ("begin; select 'it''s'", &["begin", " select 'it''s'"]),
            ("select 1 ;\n", &["select 1 "]),
            ("select 'open", &["select 'open"]),
        ];
        for (text, expected) in table {
            let found: Vec<_> = statements(text).into_iter().map(|part| part.text).collect();
            assert_eq!(found, expected, "{text}");
        }
        let second = statements("select 'ü;\n' ;\nselect 2").pop().unwrap();
        assert_eq!(second, Part { text: "\nselect 2".into(), before: 14 });
    }

    #[test]
    fn statements_of_the_session_are_known() {
        let setting = |name: &str, value: Option<&str>| Local::Set {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let table = [
            ("BEGIN", Local::Begin),
            ("start transaction isolation level repeatable read, read only", Local::Begin),
            ("END;", Local::Commit),
            ("rollback", Local::Rollback),
            ("SET extra_float_digits = 3", setting("extra_float_digits", Some("3"))),
            ("set session statement_timeout to '5s'", setting("statement_timeout", Some("5s"))),
            ("set datestyle to ISO, MDY", setting("datestyle", Some("ISO, MDY"))),
            ("set time zone 'UTC'", setting("TimeZone", Some("UTC"))),
            ("set statement_timeout = default", setting("statement_timeout", None)),
            ("set transaction isolation level serializable", Local::SetNothing),
            ("set session characteristics as transaction read only", Local::SetNothing),
            ("show server_version", Local::Show(Some("server_version".into()))),
            ("show transaction isolation level", Local::Show(Some("transaction_isolation".into()))),
            ("deallocate \"P 1\"", Local::Deallocate(Some("P 1".into()))),
            ("discard all", Local::DiscardAll),
            ("unlisten *", Local::Nothing("UNLISTEN")),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), Some(Ok(expected)), "{text}");
        }
        for text in ["select 1", "show tables", "explain select 1", "with a as (select 1) select 1", ""] {
            assert_eq!(read(text), None, "{text}");
        }
        let states = [
            ("begin read write", "25006"),
            ("set transaction read write", "25006"),
            ("set role root", "42501"),
            ("copy logs to stdout", "0A000"),
            ("declare c cursor for select 1", "0A000"),
            ("savepoint a", "0A000"),
            ("set x", "42601"),
        ];
        for (text, state) in states {
            assert_eq!(read(text).unwrap().unwrap_err().state, state, "{text}");
        }
    }
}
