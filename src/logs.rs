//! `beeacon logs`: lines of a running Beeacon, newest last, and with `-f` those that come.
//!
//! Following asks again and again. A line is known by its source and position, so it is shown once however often it is read. Each
//! question looks back a little, because hosts deliver in their own time; every now and then one looks back further, for lines of
//! a host that was away for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use beeacon_query::display::escaped;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::client::{Client, ClientError};
use crate::command_line::LogsArguments;
use crate::exit::Exit;
use crate::sql;
use crate::up::say;

/// The most lines that a server is asked to find as the last ones: it holds them in memory. Of more, all lines of the time are read.
const LAST_MAX: usize = 100_000;

/// How long a follower waits between two questions.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How far a question looks back. An agent ships within 200 ms, so this leaves much for a slow network.
const LOOK_BACK: Duration = Duration::from_secs(30);

/// How often, and how far, a question looks back further.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
const SWEEP_LOOK_BACK: Duration = Duration::from_secs(15 * 60);

/// How many lines a follower remembers to have shown. Some 40 bytes each.
const SHOWN_MAX: usize = 2_000_000;

/// How much longer a follower waits after a question without an answer. It says so once, and never gives up.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// A row as it is asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Row {
    timestamp: String,
    service: String,
    level: String,
    message: String,
    source: String,
    position_major: u64,
    position_minor: u64,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
struct Filter {
    services: Vec<String>,
    levels: Vec<String>,
    text: Option<String>,
}

impl Filter {
    /// The question and its parameters; what a user wrote travels as a parameter, never in the text.
    fn query(
        &self,
        from: Timestamp,
        observed_from: Option<Timestamp>,
        last: Option<usize>,
    ) -> (String, Map<String, Value>) {
        let mut parameters = Map::new();
        parameters.insert("from".into(), json!(from.to_string()));
        let mut conditions = vec!["timestamp >= $from".to_owned()];
        if let Some(observed) = observed_from {
            parameters.insert("observed".into(), json!(observed.to_string()));
            conditions.push("observed_timestamp >= $observed".into());
        }
        let mut one_of = |column: &str, values: &[String]| {
            if values.is_empty() {
                return;
            }
            let names: Vec<String> = (0..values.len()).map(|index| format!("{column}_{index}")).collect();
            let list: Vec<String> = names.iter().map(|name| format!("${name}")).collect();
            conditions.push(format!("{column} in ({})", list.join(", ")));
            parameters.extend(names.into_iter().zip(values.iter().map(|value| json!(value))));
        };
        one_of("service", &self.services);
        one_of("level", &self.levels);
        if let Some(text) = &self.text {
            parameters.insert("text".into(), json!(text.to_lowercase()));
            conditions.push("contains(lower(message), $text)".into());
        }
        let columns = "timestamp, service, level, message, source, position_major, position_minor";
        let order = ["timestamp", "source", "position_major", "position_minor"];
        let order = match last {
            None => order.join(", "),
            Some(last) => format!("{} desc limit {last}", order.join(" desc, ")),
        };
        let query = format!("select {columns} from logs where {} order by {order}", conditions.join(" and "));
        (query, parameters)
    }
}

/// Which lines were shown already, the oldest forgotten first.
#[derive(Default)]
struct Shown {
    sources: HashMap<String, u32>,
    rows: HashSet<(u32, u64, u64)>,
    order: VecDeque<(u32, u64, u64)>,
}

impl Shown {
    /// Whether the row is new, and remembers it.
    fn takes(&mut self, row: &Row) -> bool {
        let next = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        let source = *self.sources.entry(row.source.clone()).or_insert(next);
        let key = (source, row.position_major, row.position_minor);
        if !self.rows.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > SHOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.rows.remove(&oldest);
        }
        true
    }
}

pub(crate) async fn run(arguments: LogsArguments) -> anyhow::Result<Exit> {
    let token = sql::token(arguments.server.token_file.as_deref())?;
    let client = Client::new(&arguments.server.url, token, arguments.server.ca.as_deref())?;
    let filter = Filter {
        services: arguments.service.clone(),
        levels: arguments.level.iter().map(|level| level.to_lowercase()).collect(),
        text: arguments.text.clone(),
    };
    let colours =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let printed = follow(&client, &filter, &arguments, colours).await;
    match printed {
        Err(error) if sql::is_broken_pipe(&error) => Ok(Exit::Done),
        Err(error) => Err(error),
        Ok(()) => Ok(Exit::Done),
    }
}

async fn follow(
    client: &Client,
    filter: &Filter,
    arguments: &LogsArguments,
    colours: bool,
) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let since = before(now, arguments.since.0);
    // A follower has to know the lines it will meet again, also those it does not show.
    let from = if arguments.follow { since.min(before(now, SWEEP_LOOK_BACK)) } else { since };
    let mut shown = Shown::default();
    let last = (!arguments.follow && arguments.lines <= LAST_MAX).then_some(arguments.lines);
    let rows = ask(client, filter, from, None, last).await?;
    let wanted: Vec<&Row> = rows.iter().filter(|row| time(row).is_none_or(|at| at >= since)).collect();
    let first = wanted.len().saturating_sub(arguments.lines);
    print(wanted.get(first..).unwrap_or_default().iter().copied(), colours)?;
    for row in &rows {
        shown.takes(row);
    }
    if !arguments.follow {
        return Ok(());
    }
    let mut swept = Instant::now();
    let mut is_away = false;
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let is_sweep = is_away || swept.elapsed() >= SWEEP_INTERVAL;
        let now = Timestamp::now();
        let observed = before(now, if is_sweep { SWEEP_LOOK_BACK } else { LOOK_BACK });
        match ask(client, filter, before(now, SWEEP_LOOK_BACK), Some(observed), None).await {
            Ok(rows) => {
                if std::mem::take(&mut is_away) {
                    say("the server is back");
                }
                if is_sweep {
                    swept = Instant::now();
                }
                let new: Vec<&Row> = rows.iter().filter(|row| shown.takes(row)).collect();
                print(new, colours)?;
            }
            Err(error) if is_passing(&error) => {
                if !std::mem::replace(&mut is_away, true) {
                    say(&format!("{error:#}; trying again"));
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a server may answer the same question later.
fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::BrokeOff(_)) => true,
        Some(ClientError::Refused { status, .. }) => status.is_server_error() || status.as_u16() == 429,
        _ => false,
    }
}

fn before(now: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
}

fn time(row: &Row) -> Option<Timestamp> {
    row.timestamp.parse().ok()
}

/// Asks for rows, or for the last so many of them, the oldest first; it gives all of them or none: an answer that breaks off is asked for
/// again.
async fn ask(
    client: &Client,
    filter: &Filter,
    from: Timestamp,
    observed_from: Option<Timestamp>,
    last: Option<usize>,
) -> anyhow::Result<Vec<Row>> {
    let (query, parameters) = filter.query(from, observed_from, last);
    let body = json!({ "query": query, "parameters": parameters }).to_string().into_bytes();
    let mut answer = client.post(beeacon_query::SQL_PATH, "application/x-ndjson", body).await?;
    let mut rows = Vec::new();
    let mut held = Vec::new();
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(ClientError::BrokeOff)?;
        let Some(data) = frame.data_ref() else { continue };
        held.extend_from_slice(data);
        let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = held.split_off(end + 1);
        for line in held.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            rows.push(serde_json::from_slice::<Row>(line).context("read a row of the answer")?);
        }
        held = rest;
    }
    if last.is_some() {
        rows.reverse();
    }
    Ok(rows)
}

fn print<'a>(rows: impl IntoIterator<Item = &'a Row>, colours: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for row in rows {
        writeln!(out, "{}", shown_line(row, colours))?;
    }
    out.flush()?;
    Ok(())
}

/// A line for a terminal: time with milliseconds, service, level, and the message with everything escaped that would act.
fn shown_line(row: &Row, colours: bool) -> String {
    let time = row.timestamp.get(..23).unwrap_or(&row.timestamp);
    let (service, level, message) = (escaped(&row.service), escaped(&row.level), escaped(&row.message));
    if !colours {
        return format!("{time}Z {service} {level} {message}");
    }
    let colour = match row.level.as_str() {
        "fatal" | "error" => "31",
        "warn" => "33",
        "info" => "32",
        _ => "2",
    };
    let mut line = String::with_capacity(message.len() + 80);
    // Writing into a string cannot fail.
    write!(
        line,
        "\u{1b}[2m{time}Z\u{1b}[0m \u{1b}[36m{service}\u{1b}[0m \u{1b}[{colour}m{level}\u{1b}[0m {message}"
    )
    .ok();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(message: &str, minor: u64) -> Row {
        Row {
            timestamp: "2026-01-05T12:00:00.123456789Z".into(),
            service: "web".into(),
            level: "error".into(),
            message: message.into(),
            source: "docker-file:4f2a".into(),
            position_major: 1,
            position_minor: minor,
        }
    }

    #[test]
    fn a_line_cannot_act_on_the_terminal_and_colours_are_ours_alone() {
        let hostile = row("\u{1b}[2Jgone\r\u{202e}", 1);
        assert_eq!(
            shown_line(&hostile, false),
            "2026-01-05T12:00:00.123Z web error \\u{1b}[2Jgone\\r\\u{202e}"
        );
        let coloured = shown_line(&hostile, true);
        assert_eq!(coloured.matches('\u{1b}').count(), 6, "{coloured}");
    }

    #[test]
    fn a_line_is_shown_once_however_often_it_is_read() {
        let mut shown = Shown::default();
        assert!(shown.takes(&row("a", 1)) && shown.takes(&row("a", 2)));
        assert!(!shown.takes(&row("a", 1)));
        assert!(shown.takes(&Row { source: "other".into(), ..row("a", 1) }));
    }

    #[test]
    fn what_a_user_wrote_is_a_parameter() {
        let filter = Filter {
            services: vec!["we'b".into(), "db".into()],
            levels: vec!["error".into()],
            text: Some("Time'; drop".into()),
        };
        let (query, parameters) = filter.query(Timestamp::UNIX_EPOCH, None, None);
        assert!(query.contains("service in ($service_0, $service_1) and level in ($level_0)"), "{query}");
        assert!(query.contains("contains(lower(message), $text)") && !query.contains('\''), "{query}");
        assert!(query.ends_with("order by timestamp, source, position_major, position_minor"), "{query}");
        assert_eq!((&parameters["service_0"], &parameters["text"]), (&json!("we'b"), &json!("time'; drop")));
    }

    #[test]
    fn the_last_lines_are_found_by_the_server() {
        let (query, _) = Filter::default().query(Timestamp::UNIX_EPOCH, None, Some(7));
        let order = "order by timestamp desc, source desc, position_major desc, position_minor desc limit 7";
        assert!(query.ends_with(order), "{query}");
    }
}
