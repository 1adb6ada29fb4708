//! `beeacon sql` without a query: a shell on a terminal, a script from anywhere else.
//!
//! Statements end with a semicolon; lines that begin with a backslash are commands. Both ways go through the same code, so what works
//! by hand works in a script. A fault ends a script and not the shell. What is typed is kept as history in a file of the user's
//! own, except for lines that begin with a space.

mod command;
mod complete;
mod progress;
mod statement;

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use arrow_array::RecordBatch;
use beeacon_query::display;
use http_body_util::BodyExt;
use reedline::{
    ColumnarMenu, DefaultHinter, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Prompt,
    PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult,
    Validator, default_emacs_keybindings,
};
use serde::Deserialize;

use self::command::Command;
use self::complete::{Names, Words};
use self::progress::Progress;
use crate::client::{Client, ClientError};
use crate::command_line::{Format, SqlArguments};
use crate::exit::Exit;
use crate::sql::{self, End};

/// The longest script, in bytes. A statement that is longer than the server takes is refused there.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

/// How deep files may include each other, so that one that includes itself ends.
const INCLUDES_MAX: usize = 8;

/// How many lines of history are kept.
const HISTORY_LINES_MAX: usize = 10_000;

/// The most bytes of names that are asked for to complete them.
const NAMES_BYTES_MAX: usize = 4 << 20;

const TABLES: &str = "select table_name as \"table\", table_type as kind from information_schema.tables \
    where table_schema = 'public' order by 1";
const COLUMNS: &str = "select column_name as \"column\", data_type as \"type\", is_nullable as nullable \
    from information_schema.columns where table_schema = 'public' and table_name = $1 order by ordinal_position";
const FUNCTIONS: &str =
    "select distinct proname as function from pg_catalog.pg_proc where contains(proname, $1) order by 1";
const COLUMN_NAMES: &str =
    "select table_name, column_name from information_schema.columns where table_schema = 'public'";
const FUNCTION_NAMES: &str = "select distinct proname from pg_catalog.pg_proc";

/// Whether there is more to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Leave,
}

/// The shell, or the script.
pub(crate) async fn run(arguments: SqlArguments) -> anyhow::Result<Exit> {
    let token = sql::token(arguments.server.token_file.as_deref())?;
    let client = Client::new(&arguments.server.url, token, arguments.server.ca.as_deref())?;
    let by_hand = io::stdin().is_terminal();
    let mut shell = Shell {
        client,
        format: arguments.format,
        parameters: arguments.parameters,
        expanded: false,
        timing: false,
        output: None,
        by_hand,
        includes: 0,
    };
    let ended = if by_hand {
        shell.talk(&arguments.server.url).await
    } else {
        let script = read_script(io::stdin().lock(), "standard input")?;
        shell.script(&script).await.map(|_| ())
    };
    match ended {
        Err(error) if sql::is_broken_pipe(&error) => Ok(Exit::Done),
        Err(error) => Err(error),
        Ok(()) => Ok(Exit::Done),
    }
}

struct Shell {
    client: Client,
    format: Format,
    parameters: Vec<String>,
    expanded: bool,
    timing: bool,
    output: Option<File>,
    by_hand: bool,
    /// How many files are being included.
    includes: usize,
}

impl Shell {
    /// Reads statements and commands from a terminal until the user leaves. Faults are shown, and it goes on.
    async fn talk(&mut self, url: &str) -> anyhow::Result<()> {
        let names = self.names().await?;
        let mut editor = editor(Words::new(names))?;
        say(&format!("asking {url}; \\? helps, \\q leaves"));
        loop {
            match tokio::task::block_in_place(|| editor.read_line(&Beeacon))
                .context("read from the terminal")?
            {
                Signal::Success(text) => {
                    let (mut pending, mut next) = (String::new(), Next::GoOn);
                    for line in text.lines() {
                        let fed = tokio::select! {
                            fed = self.feed(&mut pending, line) => fed,
                            interrupted = tokio::signal::ctrl_c() => {
                                interrupted.context("wait for Ctrl-C")?;
                                pending.clear();
                                Err(anyhow::anyhow!("the query was stopped"))
                            }
                        };
                        match fed {
                            Ok(then) => next = then,
                            Err(error) => {
                                say_fault(&text, &error);
                                break;
                            }
                        }
                    }
                    if next == Next::Leave {
                        return Ok(());
                    }
                }
                Signal::CtrlC => {}
                Signal::CtrlD => return Ok(()),
            }
        }
    }

    /// Runs a script; its first fault ends it. A last statement needs no semicolon.
    async fn script(&mut self, text: &str) -> anyhow::Result<Next> {
        let mut pending = String::new();
        for line in text.lines() {
            if self.feed(&mut pending, line).await? == Next::Leave {
                return Ok(Next::Leave);
            }
        }
        let rest = statement::cut(&pending).rest;
        if !rest.is_empty() {
            self.ask(rest, &self.parameters.clone()).await?;
        }
        Ok(Next::GoOn)
    }

    /// Takes a line: a command, or a piece of what is to become a statement.
    async fn feed(&mut self, pending: &mut String, line: &str) -> anyhow::Result<Next> {
        if line.trim_start().starts_with('\\') && statement::cut(pending).rest.is_empty() {
            pending.clear();
            let command = command::read(line).map_err(|fault| anyhow::anyhow!(fault))?;
            return Box::pin(self.command(command)).await;
        }
        pending.push_str(line);
        pending.push('\n');
        // Only a line with a semicolon can end a statement, and a long one is not cut again for every line of it.
        if !line.contains(';') {
            return Ok(Next::GoOn);
        }
        let cut = statement::cut(pending);
        let (statements, rest) = (cut.statements.iter().map(|text| (*text).to_owned()), cut.rest.to_owned());
        let statements: Vec<String> = statements.collect();
        if !statements.is_empty() {
            *pending = rest + "\n";
        }
        for statement in statements {
            self.ask(&statement, &self.parameters.clone()).await?;
        }
        Ok(Next::GoOn)
    }

    async fn command(&mut self, command: Command) -> anyhow::Result<Next> {
        match command {
            Command::Tables => self.ask(TABLES, &[]).await?,
            Command::Columns { table } => {
                let parameters = [table];
                if self.list::<serde_json::Value>(COLUMNS, &parameters).await?.is_empty() {
                    anyhow::bail!("there is no table {}", parameters.concat());
                }
                self.ask(COLUMNS, &parameters).await?;
            }
            Command::Functions { text } => self.ask(FUNCTIONS, &[text]).await?,
            Command::Format(format) => self.format = format,
            Command::Expanded => {
                self.expanded = !self.expanded;
                self.note(if self.expanded {
                    "rows are blocks of lines"
                } else {
                    "rows are lines of a table"
                });
            }
            Command::Timing => {
                self.timing = !self.timing;
                self.note(if self.timing { "times are shown" } else { "times are not shown" });
            }
            Command::Output { file: None } => self.output = None,
            Command::Output { file: Some(path) } => {
                let file = File::create(&path).with_context(|| format!("write rows into {path}"))?;
                self.output = Some(file);
            }
            Command::Include { file } => return self.include(&file).await,
            Command::Help => write_out(&mut self.output, format!("{}\n", command::HELP).as_bytes())?,
            Command::Quit => return Ok(Next::Leave),
        }
        Ok(Next::GoOn)
    }

    async fn include(&mut self, path: &str) -> anyhow::Result<Next> {
        if self.includes >= INCLUDES_MAX {
            anyhow::bail!("{path} was not read: more than {INCLUDES_MAX} files include each other");
        }
        let file = File::open(path).with_context(|| format!("read statements from {path}"))?;
        let text = read_script(file, path)?;
        self.includes += 1;
        let done = self.script(&text).await;
        self.includes -= 1;
        done
    }

    fn note(&self, text: &str) {
        if self.by_hand {
            say(text);
        }
    }

    /// Asks, and shows the rows in the way that is set. Their number is known, and told, for tables.
    async fn ask(&mut self, query: &str, parameters: &[String]) -> anyhow::Result<()> {
        let started = Instant::now();
        let progress = Progress::start(self.by_hand && io::stderr().is_terminal());
        let accept = sql::media_type(self.format);
        let answer = self.client.post(beeacon_query::SQL_PATH, accept, sql::body(query, parameters)).await?;
        let rows = match self.format {
            Format::Table => {
                let batches = sql::rows(answer, |bytes| progress.add(bytes)).await?;
                progress.end();
                let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
                let shown =
                    if self.expanded { display::blocks(&batches)? } else { display::table(&batches)? };
                write_out(&mut self.output, format!("{shown}\n").as_bytes())?;
                Some(count)
            }
            _ => {
                let output = &mut self.output;
                let write = |bytes: &[u8]| {
                    if output.is_none() {
                        progress.end();
                    }
                    progress.add(bytes.len());
                    write_out(output, bytes)
                };
                sql::pass_on(answer, End::OfLine, write).await?;
                None
            }
        };
        if self.by_hand || self.timing {
            let count = rows.map(|rows| format!("{rows} {}", if rows == 1 { "row" } else { "rows" }));
            let took = self.timing.then(|| format!("{:.1} ms", started.elapsed().as_secs_f64() * 1e3));
            let parts: Vec<String> = count.into_iter().chain(took).collect();
            if !parts.is_empty() {
                say(&parts.join(", "));
            }
        }
        Ok(())
    }

    /// What can be completed. It is the first question, so a server that cannot be reached is told before anything is typed.
    async fn names(&self) -> anyhow::Result<Names> {
        #[derive(Deserialize)]
        struct Column {
            table_name: String,
            column_name: String,
        }
        #[derive(Deserialize)]
        struct Function {
            proname: String,
        }
        let columns = self.list::<Column>(COLUMN_NAMES, &[]).await?;
        let functions = self.list::<Function>(FUNCTION_NAMES, &[]).await?;
        Ok(Names {
            columns: columns.into_iter().map(|column| (column.table_name, column.column_name)).collect(),
            functions: functions.into_iter().map(|function| function.proname).collect(),
        })
    }

    /// Rows that the shell itself needs.
    async fn list<T: for<'de> Deserialize<'de>>(
        &self,
        query: &str,
        parameters: &[String],
    ) -> anyhow::Result<Vec<T>> {
        let body = sql::body(query, parameters);
        let answer = self.client.post(beeacon_query::SQL_PATH, "application/json", body).await?;
        let body = http_body_util::Limited::new(answer, NAMES_BYTES_MAX).collect().await;
        let body =
            body.map_err(|error| anyhow::anyhow!("read the names of tables and functions: {error}"))?;
        serde_json::from_slice(&body.to_bytes()).context("read the names of tables and functions")
    }
}

/// Writes rows to where they go.
fn write_out(output: &mut Option<File>, bytes: &[u8]) -> io::Result<()> {
    match output {
        Some(file) => file.write_all(bytes),
        None => sql::print(bytes),
    }
}

fn read_script(from: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = from.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text);
    read.with_context(|| format!("read statements from {name}"))?;
    if text.len() as u64 > SCRIPT_BYTES_MAX {
        anyhow::bail!("{name} has more than {SCRIPT_BYTES_MAX} bytes: the shell takes smaller scripts");
    }
    Ok(text)
}

fn say(text: &str) {
    #[expect(clippy::print_stderr, reason = "it is for the user, and standard output is for rows")]
    {
        eprintln!("{text}");
    }
}

/// Shows a fault, and below the statement's line the place that it is about.
fn say_fault(text: &str, error: &anyhow::Error) {
    say(&format!("error: {error:#}"));
    let place = error.downcast_ref::<ClientError>().and_then(ClientError::place);
    if let Some((line, column)) = place
        && let Some(shown) =
            usize::try_from(line).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?))
        && let Ok(column) = usize::try_from(column)
        && column <= shown.chars().count() + 1
    {
        say(&format!("  {shown}\n  {}^", " ".repeat(column.saturating_sub(1))));
    }
}

fn editor(words: Words) -> anyhow::Result<Reedline> {
    let mut keys = default_emacs_keybindings();
    let offer =
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu("words".to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, offer);
    let menu = ColumnarMenu::default().with_name("words").with_columns(4);
    let editor = Reedline::create()
        .with_completer(Box::new(words))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(Whole))
        .with_hinter(Box::new(DefaultHinter::default()))
        .with_partial_completions(true)
        .with_quick_completions(true)
        .with_history_exclusion_prefix(Some(" ".to_owned()));
    let Some(path) = history_file() else { return Ok(editor) };
    keep_private(&path).with_context(|| format!("keep the history in {}", path.display()))?;
    let history = FileBackedHistory::with_file(HISTORY_LINES_MAX, path.clone());
    let history = history.with_context(|| format!("read the history in {}", path.display()))?;
    Ok(editor.with_history(Box::new(history)))
}

/// Where history is kept: `BEEACON_SQL_HISTORY`, which may be empty for nowhere, else below the user's directory for state.
fn history_file() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BEEACON_SQL_HISTORY") {
        return (!named.is_empty()).then(|| PathBuf::from(named));
    }
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        directory("XDG_STATE_HOME").or_else(|| directory("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("beeacon/sql_history"))
}

/// Makes the file, when there is none, so that only its owner reads it: a query may quote what somebody searched for.
fn keep_private(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(|_| ())
}

/// A text is whole when nothing is left behind its last semicolon, or when it is a command.
struct Whole;

impl Validator for Whole {
    fn validate(&self, text: &str) -> ValidationResult {
        if text.trim_start().starts_with('\\') || statement::cut(text).rest.is_empty() {
            return ValidationResult::Complete;
        }
        ValidationResult::Incomplete
    }
}

struct Beeacon;

impl Prompt for Beeacon {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("beeacon")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("      -> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search \"{}\") ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_when_its_last_statement_has_ended() {
        let whole = |text: &str| matches!(Whole.validate(text), ValidationResult::Complete);
        for text in ["select 1;", "\\d", "", "  ", "select 1; select 2; -- both", "select ';';"] {
            assert!(whole(text), "{text}");
        }
        for text in ["select 1", "select ';", "select 1; select", "select /* ; "] {
            assert!(!whole(text), "{text}");
        }
    }

    #[test]
    fn history_is_readable_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/beeacon/sql_history");
        keep_private(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
