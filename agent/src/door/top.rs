//! Who writes how much, and what is behind: the status as a table.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{self, DoorError};

/// The longest name that is shown whole, in characters.
const NAME_CHARACTERS_MAX: usize = 32;

/// Writes the table every `every`, over the one before where it goes to a terminal; once when it does not, or `is_once`.
///
/// # Errors
/// When there is no agent, or the table cannot be written.
pub async fn run(
    data: &Path,
    every: Duration,
    is_once: bool,
    is_terminal: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), DoorError> {
    let (mut before, mut asked_at) = (client::status(data).await?, Instant::now());
    loop {
        tokio::time::sleep(every).await;
        let now = client::status(data).await?;
        let shown = table(&before, &now, asked_at.elapsed());
        (before, asked_at) = (now, Instant::now());
        let clear = if is_terminal && !is_once { "\u{1b}[H\u{1b}[2J" } else { "" };
        write!(out, "{clear}{shown}")?;
        out.flush()?;
        if is_once || !is_terminal {
            return Ok(());
        }
    }
}

/// The table of a status. Rates are those since `before`, which was asked `span` earlier.
pub fn table(before: &Value, now: &Value, span: Duration) -> String {
    let seconds = span.as_secs_f64().max(0.001);
    let lines_before: HashMap<&str, u64> =
        containers(before).map(|one| (text(one, "id"), number(one, "lines"))).collect();
    let mut rows: Vec<(f64, &Value)> = containers(now)
        .map(|one| {
            let earlier = lines_before.get(text(one, "id")).copied().unwrap_or_default();
            let count = u32::try_from(number(one, "lines").saturating_sub(earlier)).unwrap_or(u32::MAX);
            (f64::from(count) / seconds, one)
        })
        .collect();
    rows.sort_by(|(left, a), (right, b)| {
        right.total_cmp(left).then_with(|| text(a, "name").cmp(text(b, "name")))
    });
    let mut shown = String::new();
    let state =
        if now.get("healthy").and_then(Value::as_bool) == Some(true) { "healthy" } else { "NOT HEALTHY" };
    writeln!(
        shown,
        "agent {} {state}, {} containers, {} lines, {} redactions, {} gaps",
        text(now, "agent"),
        rows.len(),
        number(now, "lines"),
        number(now, "redactions"),
        number(now, "gaps")
    )
    .ok();
    for problem in now.get("problems").and_then(Value::as_array).into_iter().flatten() {
        writeln!(shown, "! {}", printable(problem.as_str().unwrap_or_default())).ok();
    }
    if let Some(faults) =
        now.pointer("/reload/faults").and_then(Value::as_str).filter(|text| !text.is_empty())
    {
        writeln!(shown, "! the changed configuration is refused: {}", printable(faults)).ok();
    }
    writeln!(
        shown,
        "{:NAME_CHARACTERS_MAX$} {:11} {:>10} {:>12} {:>8} {:>8} {:>12}",
        "CONTAINER", "READER", "LINES/S", "LAG BYTES", "LAG", "LOSS IN", "REDACTIONS"
    )
    .ok();
    for (rate, one) in rows {
        let name: String = printable(text(one, "name")).chars().take(NAME_CHARACTERS_MAX).collect();
        let is_read = text(one, "reader");
        let lag = if is_read == "file" { number(one, "lag_bytes").to_string() } else { "-".to_owned() };
        writeln!(
            shown,
            "{name:NAME_CHARACTERS_MAX$} {is_read:11} {rate:>10.1} {lag:>12} {:>8} {:>8} {:>12}",
            seconds_or_none(one, "lag_seconds"),
            seconds_or_none(one, "time_to_loss_seconds"),
            number(one, "redactions")
        )
        .ok();
    }
    shown
}

fn containers(status: &Value) -> impl Iterator<Item = &Value> {
    status.get("containers").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, key: &str) -> u64 {
    object.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn seconds_or_none(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"))
}

fn printable(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_container_comes_first_with_its_rate_and_its_lag() {
        let status = |lines: u64| {
            serde_json::json!({
                "agent": "a", "healthy": false, "problems": ["x\u{1b}y"], "lines": 9, "redactions": 3, "gaps": 1,
                "reload": { "faults": "agent.rate: no" },
                "containers": [
                    { "id": "1", "name": "quiet", "reader": "api", "lines": 7, "lag_bytes": 0, "redactions": 0 },
                    { "id": "2", "name": "busy", "reader": "file", "lines": lines, "lag_bytes": 4096,
                      "lag_seconds": 2, "time_to_loss_seconds": 90, "redactions": 5 },
                ],
            })
        };
        let shown = table(&status(100), &status(150), Duration::from_secs(2));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("NOT HEALTHY, 2 containers, 9 lines, 3 redactions, 1 gaps"), "{shown}");
        assert_eq!((lines[1], lines[2]), ("! x y", "! the changed configuration is refused: agent.rate: no"));
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[4]), "busy file 25.0 4096 2 s 90 s 5");
        assert_eq!(words(lines[5]), "quiet api 0.0 - - - 0");
    }
}
