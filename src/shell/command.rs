//! Commands of the shell: lines that begin with a backslash, as psql has them.

use crate::command_line::Format;

/// What `\?` says.
pub(super) const HELP: &str = "\
Statements end with ; and may have several lines. Tab completes, Ctrl-C stops a query, Ctrl-D leaves.
  \\d            the tables
  \\d TABLE      the columns of a table
  \\df [TEXT]    functions, with TEXT in their names
  \\format NAME  how rows are shown: table, json, jsonl, csv
  \\x            each row as a block of lines, and back
  \\timing       how long each query took, and back
  \\o [FILE]     rows into a file; without a name back to the screen
  \\i FILE       the statements of a file
  \\?            this
  \\q            leave";

/// A command, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Tables,
    Columns { table: String },
    Functions { text: String },
    Format(Format),
    Expanded,
    Timing,
    Output { file: Option<String> },
    Include { file: String },
    Help,
    Quit,
}

/// Reads a line that begins with a backslash.
///
/// # Errors
/// What is wrong with it, for the user.
pub(super) fn read(line: &str) -> Result<Command, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = match line.split_once(char::is_whitespace) {
        Some((name, argument)) => (name, argument.trim()),
        None => (line, ""),
    };
    let plain = |command: Command| {
        if argument.is_empty() { Ok(command) } else { Err(format!("{name} takes nothing behind it")) }
    };
    match name {
        "\\d" | "\\d+" if argument.is_empty() => Ok(Command::Tables),
        "\\d" | "\\d+" => Ok(Command::Columns { table: argument.trim_matches('"').to_owned() }),
        "\\dt" | "\\dt+" => plain(Command::Tables),
        "\\df" => Ok(Command::Functions { text: argument.to_lowercase() }),
        "\\format" | "\\f" => match argument {
            "table" => Ok(Command::Format(Format::Table)),
            "json" => Ok(Command::Format(Format::Json)),
            "jsonl" => Ok(Command::Format(Format::Jsonl)),
            "csv" => Ok(Command::Format(Format::Csv)),
            other => Err(format!("no format \"{other}\": table, json, jsonl, csv")),
        },
        "\\x" => plain(Command::Expanded),
        "\\timing" => plain(Command::Timing),
        "\\o" => Ok(Command::Output { file: (!argument.is_empty()).then(|| argument.to_owned()) }),
        "\\i" if argument.is_empty() => Err("\\i needs the name of a file".to_owned()),
        "\\i" => Ok(Command::Include { file: argument.to_owned() }),
        "\\?" | "\\h" | "\\help" => plain(Command::Help),
        "\\q" | "\\quit" => plain(Command::Quit),
        other => Err(format!("no command {other}: \\? lists them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_psql_reads_them() {
        assert_eq!(read("\\d"), Ok(Command::Tables));
        assert_eq!(read("\\d logs;"), Ok(Command::Columns { table: "logs".into() }));
        assert_eq!(read("\\df JSON"), Ok(Command::Functions { text: "json".into() }));
        assert_eq!(read("\\format csv"), Ok(Command::Format(Format::Csv)));
        assert_eq!(read("\\o"), Ok(Command::Output { file: None }));
        assert_eq!(read("\\o a b.csv"), Ok(Command::Output { file: Some("a b.csv".into()) }));
        assert_eq!(read("\\q"), Ok(Command::Quit));
        for wrong in ["\\format parquet", "\\nonsense", "\\i", "\\x y"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_names_every_command() {
        for name in ["\\d", "\\df", "\\format", "\\x", "\\timing", "\\o", "\\i", "\\?", "\\q"] {
            let stands = |line: &&str| line.split_whitespace().next() == Some(name);
            assert_eq!(HELP.lines().filter(stands).count().min(1), 1, "{name}");
        }
    }
}
