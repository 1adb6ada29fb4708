//! Matchers over labels, as Alertmanager writes them: `severity="critical"`, `service=~"api|web"`, `team!=infra`, `"a.b"!~"x.*"`.

use std::fmt;

use regex_automata::meta::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::labels::{Labels, quoted, quoted_name};
use crate::limits::{MATCHER_BYTES_MAX, MATCHER_REGEX_BYTES_MAX};

/// Why a text is no matcher.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MatcherError {
    /// It has another shape.
    #[error("{0:?} is no matcher: write NAME=\"VALUE\", with =, !=, =~ or !~")]
    Shape(String),
    /// Its expression cannot be compiled within the limits.
    #[error(
        "the expression of the matcher on {0:?} cannot be compiled, or needs more than {MATCHER_REGEX_BYTES_MAX} bytes"
    )]
    Regex(String),
}

/// A condition on one label. A label that is not there has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    operator: Operator,
    value: String,
    regex: Option<Regex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Like,
    NotLike,
}

impl Operator {
    fn sign(self) -> &'static str {
        match self {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Like => "=~",
            Operator::NotLike => "!~",
        }
    }
}

impl Matcher {
    /// Reads a matcher.
    ///
    /// # Errors
    ///
    /// When the text has another shape, or its expression is none or too large.
    ///
    /// ```
    /// use beeacon_alerts::{Labels, matchers::Matcher};
    ///
    /// let matcher = Matcher::read("service=~\"api|web\"").unwrap();
    /// assert!(matcher.matches(&Labels::from_iter([("service", "api")])));
    /// assert!(!matcher.matches(&Labels::from_iter([("service", "api-2")])));
    /// ```
    pub fn read(text: &str) -> Result<Matcher, MatcherError> {
        let shape = || MatcherError::Shape(text.chars().take(80).collect());
        if text.len() > MATCHER_BYTES_MAX {
            return Err(shape());
        }
        let trimmed = text.trim();
        let (name, rest) = if trimmed.starts_with('"') {
            read_quoted(trimmed).ok_or_else(shape)?
        } else {
            let end = trimmed.find(['=', '!', '~', '"']).ok_or_else(shape)?;
            let (name, rest) = trimmed.split_at(end);
            (name.trim().to_owned(), rest)
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(shape());
        }
        let rest = rest.trim_start();
        // The longer signs first.
        let (operator, rest) = [Operator::Like, Operator::NotEqual, Operator::NotLike, Operator::Equal]
            .into_iter()
            .find_map(|operator| Some((operator, rest.strip_prefix(operator.sign())?.trim())))
            .ok_or_else(shape)?;
        let value = if rest.starts_with('"') {
            let (value, behind) = read_quoted(rest).ok_or_else(shape)?;
            if !behind.trim().is_empty() {
                return Err(shape());
            }
            value
        } else if rest.contains(['"', '{', '}', ',', '=']) {
            return Err(shape());
        } else {
            rest.to_owned()
        };
        Matcher::new(name, operator, value)
    }

    /// A matcher on equality.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Matcher {
        Matcher { name: name.into(), operator: Operator::Equal, value: value.into(), regex: None }
    }

    fn new(name: String, operator: Operator, value: String) -> Result<Matcher, MatcherError> {
        let regex = match operator {
            Operator::Equal | Operator::NotEqual => None,
            Operator::Like | Operator::NotLike => {
                let config = Regex::config().nfa_size_limit(Some(MATCHER_REGEX_BYTES_MAX));
                let built = Regex::builder().configure(config).build(&format!("^(?s:{value})$"));
                Some(built.map_err(|_| MatcherError::Regex(name.clone()))?)
            }
        };
        Ok(Matcher { name, operator, value, regex })
    }

    /// Whether the labels meet it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.name);
        let is_like = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.operator {
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
            Operator::Like => is_like(),
            Operator::NotLike => !is_like(),
        }
    }
}

/// Text in double quotes and what stands behind it.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let (mut out, mut chars) = (String::new(), text.char_indices().skip(1));
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                c @ ('"' | '\\') => out.push(c),
                // As in an expression: `\.`, `\d`.
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    None
}

/// As it is read, and as Alertmanager writes it in a group key.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", quoted_name(&self.name), self.operator.sign(), quoted(&self.value))
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.name == other.name && self.operator == other.operator && self.value == other.value
    }
}

impl Serialize for Matcher {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Matcher::read(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Whether labels meet all of some matchers; none are met by everything.
#[must_use]
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_says_what_it_says_in_alertmanager() {
        let labels = Labels::from_iter([("service", "api"), ("a.b", "x\"y"), ("zone", "line\nbreak")]);
        for (text, expected) in [
            ("service=api", true),
            ("service = \"api\"", true),
            ("service=ap", false),
            ("service!=ap", true),
            ("service=~a.*", true),
            ("service=~\"a\"", false),
            ("service=~\"web|api\"", true),
            ("service!~\"a.i\"", false),
            ("service=~\"\\\\w+\"", true),
            ("service=~\"\\w+\"", true),
            ("missing=\"\"", true),
            ("missing=", true),
            ("missing!=\"\"", false),
            ("missing=~\".*\"", true),
            ("missing=~\".+\"", false),
            ("\"a.b\"=\"x\\\"y\"", true),
            ("zone=~\"line.break\"", true),
        ] {
            let matcher = Matcher::read(text).unwrap();
            assert_eq!(matcher.matches(&labels), expected, "{text}");
            assert_eq!(Matcher::read(&matcher.to_string()).unwrap(), matcher, "{text}");
        }
    }

    #[test]
    fn what_is_no_matcher_is_refused() {
        for text in [
            "",
            "service",
            "=x",
            "service=\"x",
            "service=\"x\"y",
            "a b=c",
            "service=~\"(\"",
            "service==x",
            "s={x}",
        ] {
            assert!(Matcher::read(text).is_err(), "{text}");
        }
        assert!(matches!(Matcher::read("s=~\"(a{1000}){1000}\""), Err(MatcherError::Regex(_))));
        assert!(Matcher::read(&format!("s={}", "x".repeat(5_000))).is_err());
    }
}
