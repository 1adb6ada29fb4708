//! Where in a query an error lies, as line and column.
//!
//! The planner gives spans for most unknown names, the parser writes its place into the message, and for the rest (unknown
//! functions) the offending word is looked up in the text.

use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use serde::Serialize;

/// A place in the query text; both numbers count from one, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl Place {
    pub(crate) fn from_location(location: Location) -> Option<Place> {
        (location.line > 0).then_some(Place { line: location.line, column: location.column })
    }
}

/// Where the error lies, if anything tells.
pub(crate) fn of_error(error: &DataFusionError, query: &str) -> Option<Place> {
    error
        .diagnostic()
        .and_then(of_diagnostic)
        .or_else(|| of_parser(error.find_root(), query))
        .or_else(|| of_name(error.find_root(), query))
}

fn of_diagnostic(diagnostic: &Diagnostic) -> Option<Place> {
    let start = diagnostic.span?.start;
    (start.line > 0).then_some(Place { line: start.line, column: start.column })
}

fn of_parser(error: &DataFusionError, query: &str) -> Option<Place> {
    let DataFusionError::SQL(error, _) = error else { return None };
    match error.as_ref() {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            written_place(text).or_else(|| text.contains("EOF").then(|| end_of(query)))
        }
        ParserError::RecursionLimitExceeded => None,
    }
}

/// Reads the ` at Line: 1, Column: 8` at the end of a parser's message.
fn written_place(message: &str) -> Option<Place> {
    let (_, tail) = message.rsplit_once("Line: ")?;
    let (line, column) = tail.split_once(", Column: ")?;
    let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
    Some(Place { line: line.trim().parse().ok()?, column: digits.parse().ok()? })
}

fn end_of(query: &str) -> Place {
    let last = query.lines().last().unwrap_or_default();
    Place {
        line: u64::try_from(query.lines().count().max(1)).unwrap_or(u64::MAX),
        column: u64::try_from(last.chars().count()).unwrap_or(u64::MAX).saturating_add(1),
    }
}

fn of_name(error: &DataFusionError, query: &str) -> Option<Place> {
    match error {
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => find_word(query, &field.name),
            _ => None,
        },
        DataFusionError::Plan(text) => {
            let name = text.strip_prefix("Invalid function '").or_else(|| text.strip_prefix("table '"))?;
            let name = name.split('\'').next()?;
            find_word(query, name.rsplit('.').next()?)
        }
        _ => None,
    }
}

fn find_word(query: &str, name: &str) -> Option<Place> {
    let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize_with_location().ok()?;
    let found = tokens.iter().find(|TokenWithSpan { token, .. }| match token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        _ => false,
    })?;
    Place::from_location(found.span.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsers_message_gives_its_place() {
        let place = written_place("Expected: an expression, found: from at Line: 3, Column: 18");
        assert_eq!(place, Some(Place { line: 3, column: 18 }));
        assert_eq!(written_place("sql parser error"), None);
    }

    #[test]
    fn a_word_is_found_outside_strings_only() {
        assert_eq!(find_word("select 'fooo',\n  Fooo(1)", "fooo"), Some(Place { line: 2, column: 3 }));
    }
}
