//! What is wrong with a pattern, in which of its bytes, and what to write instead.

use std::convert::Infallible;
use std::ops::Range;

use regex_syntax::ast::{self, Ast, RepetitionKind, RepetitionRange};
use regex_syntax::hir;

use crate::error::RuleFault;

/// The fault of a text that is no pattern. `what` is what the text is called in the rule: `pattern` or `value`.
pub(crate) fn syntax(rule: &str, what: &str, error: &regex_syntax::Error) -> RuleFault {
    let (reason, instead, span) = match error {
        regex_syntax::Error::Parse(error) => {
            (error.kind().to_string(), of_parsing(error.kind()), bytes(error.span()))
        }
        regex_syntax::Error::Translate(error) => {
            (error.kind().to_string(), of_meaning(error.kind()), bytes(error.span()))
        }
        _ => ("it is no regular expression".to_owned(), "", None),
    };
    let fault = RuleFault::new(rule, format!("{what} cannot compile: {reason}"), instead);
    match span {
        Some(span) => fault.at(span),
        None => fault,
    }
}

fn bytes(span: &ast::Span) -> Option<Range<usize>> {
    (span.start.offset <= span.end.offset).then_some(span.start.offset..span.end.offset)
}

fn of_parsing(kind: &ast::ErrorKind) -> &'static str {
    use ast::ErrorKind as Kind;
    match kind {
        Kind::UnsupportedLookAround => {
            "look-around is not linear-time: match the neighbour too and redact a group, or use \\b"
        }
        Kind::UnsupportedBackreference => "back-references are not linear-time: write the text out",
        Kind::GroupUnclosed => "close it with ), or write \\( for the character itself",
        Kind::GroupUnopened => "open it with (, or write \\) for the character itself",
        Kind::ClassUnclosed => "close it with ], or write \\[ for the character itself",
        Kind::ClassRangeInvalid => "write the lower character first, and \\- for a dash itself",
        Kind::RepetitionMissing => "put what is repeated before it, or a \\ for the character itself",
        Kind::RepetitionCountInvalid => "write the smaller count first",
        Kind::RepetitionCountUnclosed | Kind::RepetitionCountDecimalEmpty => {
            "write {4} or {4,8}, and \\{ for the brace itself"
        }
        Kind::EscapeUnrecognized | Kind::EscapeUnexpectedEof => {
            "leave the \\ out before a letter that has no meaning with it, write \\\\ for itself"
        }
        Kind::FlagUnrecognized => "known flags are i m s U u x R",
        Kind::NestLimitExceeded(_) => "nest fewer groups",
        _ => "",
    }
}

fn of_meaning(kind: &hir::ErrorKind) -> &'static str {
    use hir::ErrorKind as Kind;
    match kind {
        Kind::UnicodeNotAllowed => "put non-ASCII classes into (?u:...)",
        Kind::UnicodePropertyNotFound | Kind::UnicodePropertyValueNotFound => {
            "see the list of Unicode scripts and categories, as in (?u:\\p{Greek})"
        }
        Kind::UnicodePerlClassNotFound | Kind::UnicodeCaseUnavailable => "use ASCII classes such as [0-9]",
        _ => "",
    }
}

/// The counted repetition that makes a pattern largest: the one with the highest count.
pub(crate) fn largest_repetition(pattern: &str) -> Option<Range<usize>> {
    let ast = ast::parse::Parser::new().parse(pattern).ok()?;
    match ast::visit(&ast, Largest::default()) {
        Ok(found) => found,
        Err(never) => match never {},
    }
}

#[derive(Default)]
struct Largest {
    count: u32,
    found: Option<Range<usize>>,
}

impl ast::Visitor for Largest {
    type Output = Option<Range<usize>>;
    type Err = Infallible;

    fn finish(self) -> Result<Self::Output, Infallible> {
        Ok(self.found)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        if let Ast::Repetition(repetition) = ast
            && let RepetitionKind::Range(range) = &repetition.op.kind
        {
            let count = match range {
                RepetitionRange::Exactly(count) | RepetitionRange::AtLeast(count) => *count,
                RepetitionRange::Bounded(_, count) => *count,
            };
            if count > self.count {
                (self.count, self.found) = (count, bytes(&repetition.span));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::syntax_config;

    #[test]
    fn the_span_is_what_the_fault_is_about() {
        for (pattern, span, instead) in [
            ("ab(?<=c)d", 2..6, "match the neighbour"),
            ("ab(c)\\1d", 5..7, "write the text out"),
            ("ab(c", 2..3, "close it with )"),
            ("abc)", 3..4, "open it with ("),
            ("ab[c", 2..3, "close it with ]"),
            ("ab[z-a]", 3..6, "lower character first"),
            ("a|*", 2..2, "put what is repeated"),
            ("é\\p{Greek}", 2..11, "(?u:...)"),
        ] {
            let error = regex_automata::util::syntax::parse_with(pattern, &syntax_config()).unwrap_err();
            let fault = syntax("r", "pattern", &error);
            assert_eq!(fault.span, Some(span), "{pattern}: {fault}");
            assert!(fault.instead.contains(instead), "{pattern}: {fault}");
        }
    }

    #[test]
    fn the_highest_count_is_to_blame_for_a_large_pattern() {
        assert_eq!(largest_repetition("a{2}(?:b{3,900}|c{7,})"), Some(7..15));
        assert_eq!(largest_repetition("a+b*"), None);
    }
}
