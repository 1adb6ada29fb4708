//! What Tab offers: commands, words of SQL, tables, columns and functions.

use reedline::{Completer, Span, Suggestion};

/// The most words that are offered at once, so that one key cannot fill the screen.
const OFFERED_MAX: usize = 200;

/// Words of SQL that begin or join its parts.
const WORDS: &[&str] = &[
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "count",
    "desc",
    "describe",
    "distinct",
    "else",
    "end",
    "explain",
    "explain analyze",
    "false",
    "from",
    "group by",
    "having",
    "ilike",
    "in",
    "interval",
    "is not null",
    "is null",
    "join",
    "left join",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order by",
    "select",
    "then",
    "true",
    "union all",
    "using",
    "when",
    "where",
    "with",
];

const COMMANDS: &[&str] = &["\\d", "\\df", "\\dt", "\\format", "\\x", "\\timing", "\\o", "\\i", "\\?", "\\q"];

/// Names that the server knows, and what they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Tables, and their columns.
    pub(super) columns: Vec<(String, String)>,
    pub(super) functions: Vec<String>,
}

/// Completes over names that were asked for once.
pub(super) struct Words {
    /// In lower case, with what each is; sorted and each once.
    words: Vec<(String, String)>,
}

impl Words {
    pub(super) fn new(names: Names) -> Self {
        let keywords = WORDS.iter().map(|word| ((*word).to_owned(), String::new()));
        let tables = names.columns.iter().map(|(table, _)| (table.clone(), "table".to_owned()));
        let columns = names.columns.iter().map(|(table, column)| (column.clone(), format!("of {table}")));
        let functions = names.functions.iter().map(|name| (format!("{name}("), "function".to_owned()));
        let mut words: Vec<_> = tables.chain(columns).chain(keywords).chain(functions).collect();
        words.sort();
        words.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same && later.1 != first.1 && !later.1.is_empty() && !first.1.contains(&later.1) {
                first.1 = format!("{}, {}", first.1, later.1);
            }
            same
        });
        Words { words }
    }

    /// The words that go on from what stands before the cursor, and where that begins.
    fn offered(&self, before: &str) -> (usize, Vec<(&str, &str)>) {
        let command = before.starts_with('\\') && !before.contains(char::is_whitespace);
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        let start = if command { 0 } else { before.trim_end_matches(inside).len() };
        let typed = before.get(start..).unwrap_or_default().to_lowercase();
        if command {
            let matching = COMMANDS.iter().filter(|name| name.starts_with(&typed));
            return (start, matching.map(|name| (*name, "")).collect());
        }
        let after_format = before.get(..start).is_some_and(|head| head.trim_end() == "\\format");
        if after_format {
            let formats = ["csv", "json", "jsonl", "table"];
            return (
                start,
                formats.into_iter().filter(|name| name.starts_with(&typed)).map(|name| (name, "")).collect(),
            );
        }
        if typed.is_empty() {
            return (start, Vec::new());
        }
        let matching = self.words.iter().filter(|(word, _)| word.starts_with(&typed)).take(OFFERED_MAX);
        (start, matching.map(|(word, what)| (word.as_str(), what.as_str())).collect())
    }
}

impl Completer for Words {
    fn complete(&mut self, line: &str, at: usize) -> Vec<Suggestion> {
        let before = line.get(..at).unwrap_or(line);
        let (start, offered) = self.offered(before);
        let suggestion = |(word, what): (&str, &str)| Suggestion {
            value: word.to_owned(),
            description: (!what.is_empty()).then(|| what.to_owned()),
            span: Span::new(start, before.len()),
            append_whitespace: !word.ends_with('('),
            ..Suggestion::default()
        };
        offered.into_iter().map(suggestion).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let column = |table: &str, column: &str| (table.to_owned(), column.to_owned());
        Words::new(Names {
            columns: vec![
                column("logs", "level"),
                column("logs", "service"),
                column("redactions", "service"),
            ],
            functions: vec!["logfmt".to_owned()],
        })
    }

    #[test]
    fn tables_columns_functions_and_words_of_sql_are_offered_from_their_beginning() {
        let words = words();
        assert_eq!(words.offered("select lo").1, [("logfmt(", "function"), ("logs", "table")]);
        assert_eq!(words.offered("select ser"), (7, vec![("service", "of logs, of redactions")]));
        assert_eq!(words.offered("SEL").1, [("select", "")]);
        assert_eq!(words.offered("select count(LEV").1, [("level", "of logs")]);
        assert!(words.offered("select ").1.is_empty(), "nothing is typed, so nothing is offered");
    }

    #[test]
    fn commands_and_formats_are_offered_where_they_can_stand() {
        let words = words();
        assert_eq!(words.offered("\\ti").1, [("\\timing", "")]);
        assert_eq!(words.offered("\\format j").1, [("json", ""), ("jsonl", "")]);
    }
}
