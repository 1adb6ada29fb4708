//! The judge: knows what every container printed, asks by SQL what was stored, and says what is missing, twice, wrong or
//! out of order, and whether gap rows stand exactly where lines are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::harness::leak::Secret;
use crate::harness::sql::{Sql, number_of};
use crate::payload::{Shape, Streams, line, stream_of};

/// What one generator container printed.
#[derive(Clone, Debug)]
pub(crate) struct Printed {
    pub(crate) container: String,
    pub(crate) seed: u64,
    pub(crate) lines: u64,
    pub(crate) shape: Shape,
    pub(crate) streams: Streams,
}

impl Printed {
    /// The generator's words for it.
    pub(crate) fn command(&self, rate: u64, gate: Option<u64>) -> Vec<String> {
        let shape = if self.shape == Shape::Long { "long" } else { "plain" };
        let streams = if self.streams == Streams::Both { "both" } else { "out" };
        let numbers = [self.seed, self.lines].map(|number| number.to_string());
        let mut words: Vec<String> =
            ["/bin/generator", "lines", &self.container, &numbers[0], &numbers[1], shape, streams]
                .map(str::to_owned)
                .into();
        words.extend([rate.to_string(), "/shared".into()]);
        words.extend(gate.map(|gate| gate.to_string()));
        words
    }

    /// How many lines went to each stream: 'o', then 'e'.
    pub(crate) fn counts(&self) -> [(char, u64); 2] {
        let err = (0..self.lines)
            .filter(|index| stream_of(self.seed, &self.container, *index, self.streams) == 'e')
            .count();
        [('o', self.lines - err as u64), ('e', err as u64)]
    }

    /// Every secret it printed.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for (stream, count) in self.counts() {
            for id in 0..count {
                if let Some(secret) = line(self.seed, &self.container, stream, id, self.shape).secret {
                    let origin = format!("{} {stream} {id}", self.container);
                    secrets.push(Secret { kind: secret.kind, origin, value: secret.value });
                }
            }
        }
        secrets
    }
}

/// Where a row or a gap stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

/// A stored row, as far as the judge looks.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) stream: char,
    pub(crate) source: String,
    pub(crate) place: Place,
    pub(crate) message: String,
    pub(crate) redactions: usize,
}

/// A gap row.
#[derive(Clone, Debug)]
pub(crate) struct GapRow {
    pub(crate) source: String,
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) reason: String,
    pub(crate) bytes: u64,
}

/// The smallest `max-size` of the tests' containers, in bytes. Docker rotates a file at the first record after it is that long.
const MAX_SIZE_BYTES_LEAST: u64 = 100_000;

impl GapRow {
    /// From the end of a file that was read whole to the begin of the next one: an agent that finds all files gone that it knew cannot tell
    /// whether the oldest that is left came right behind them. If it did, the row is about nothing.
    fn is_doubtful(&self) -> bool {
        let next = Place { major: self.from.major + 1, minor: 0 };
        self.reason == "rotated"
            && self.bytes == 0
            && self.from.minor >= MAX_SIZE_BYTES_LEAST
            && self.to == next
    }
}

/// The verdict on one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) container: String,
    pub(crate) printed: u64,
    pub(crate) stored: u64,
    /// Not stored and in no gap row.
    pub(crate) missing: u64,
    /// Not stored, and a gap row stands exactly there.
    pub(crate) declared: u64,
    /// Stored more than once.
    pub(crate) duplicates: u64,
    /// Text that is not what was printed, or a secret left in it.
    pub(crate) mismatches: u64,
    /// Rows that belong to nothing printed.
    pub(crate) strangers: u64,
    /// Ids that fall where positions rise.
    pub(crate) disorder: u64,
    /// Lines with a secret and no redaction noted.
    pub(crate) unnoted: u64,
    /// Gap rows of this container.
    pub(crate) gaps: u64,
    /// Gap rows where nothing is missing.
    pub(crate) idle_gaps: u64,
    /// Those of them that nobody could have spared, see [`GapRow::is_doubtful`]; not counted above.
    pub(crate) doubtful_gaps: u64,
    /// The first few faults, in words.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    /// Whether everything is zero that must be.
    pub(crate) fn is_clean(&self) -> bool {
        let faults = [
            self.missing,
            self.duplicates,
            self.mismatches,
            self.strangers,
            self.disorder,
            self.unnoted,
            self.idle_gaps,
        ];
        faults.iter().all(|count| *count == 0)
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < 6 {
            self.examples.push(example());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<16} printed {:>6} stored {:>6} missing {} duplicates {} mismatches {} strangers {} disorder {} unnoted {} \
             | in gap rows {} gap rows {} idle gap rows {} doubtful {}",
            self.container,
            self.printed,
            self.stored,
            self.missing,
            self.duplicates,
            self.mismatches,
            self.strangers,
            self.disorder,
            self.unnoted,
            self.declared,
            self.gaps,
            self.idle_gaps,
            self.doubtful_gaps,
        )?;
        for example in &self.examples {
            write!(f, "\n    {example}")?;
        }
        Ok(())
    }
}

/// Judges one container by what SQL says.
pub(crate) fn judge(sql: Sql, printed: &Printed) -> Verdict {
    judge_rows(printed, rows(sql, &printed.container), gaps(sql, &printed.container))
}

/// The rows of a container by source and position.
pub(crate) fn rows(sql: Sql, container: &str) -> Vec<Row> {
    let query = format!(
        "select stream, source, position_major, position_minor, message, redactions from logs \
         where container = '{container}' order by source, position_major, position_minor"
    );
    sql.rows(&query)
        .iter()
        .map(|row| Row {
            stream: if row["stream"] == "stderr" { 'e' } else { 'o' },
            source: text(row, "source"),
            place: Place { major: number(row, "position_major"), minor: number(row, "position_minor") },
            message: text(row, "message"),
            redactions: row["redactions"].as_array().map_or(0, Vec::len),
        })
        .collect()
}

/// The gap rows of a container.
pub(crate) fn gaps(sql: Sql, container: &str) -> Vec<GapRow> {
    let query = format!("select * from gaps where container = '{container}'");
    sql.rows(&query)
        .iter()
        .map(|row| GapRow {
            source: text(row, "source"),
            from: Place { major: number(row, "from_major"), minor: number(row, "from_minor") },
            to: Place { major: number(row, "to_major"), minor: number(row, "to_minor") },
            reason: text(row, "reason"),
            bytes: number(row, "bytes"),
        })
        .collect()
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

fn number(row: &Value, key: &str) -> u64 {
    number_of(&row[key]).unwrap_or_else(|| panic!("{key} is {} in {row}", row[key]))
}

/// Judges rows that are in order of their source and position.
pub(crate) fn judge_rows(printed: &Printed, rows: Vec<Row>, gaps: Vec<GapRow>) -> Verdict {
    let mut verdict = Verdict {
        container: printed.container.clone(),
        printed: printed.lines,
        stored: rows.len() as u64,
        gaps: gaps.len() as u64,
        ..Verdict::default()
    };
    let mut used: BTreeSet<usize> = BTreeSet::new();
    let mut by_stream: BTreeMap<char, Vec<Row>> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for row in rows {
        if !places.insert((row.source.clone(), row.place)) {
            verdict.duplicates += 1;
            verdict.note(|| format!("two rows at {:?} of {}", row.place, row.source));
        }
        by_stream.entry(row.stream).or_default().push(row);
    }
    for (stream, count) in printed.counts() {
        let rows = by_stream.remove(&stream).unwrap_or_default();
        judge_stream(printed, stream, count, &rows, &gaps, &mut used, &mut verdict);
    }
    for (index, gap) in gaps.iter().enumerate() {
        if !used.contains(&index) && gap.is_doubtful() {
            verdict.doubtful_gaps += 1;
        } else if !used.contains(&index) && gap.reason != "unknown" {
            verdict.idle_gaps += 1;
            verdict.note(|| format!("nothing is missing at gap row {gap:?}"));
        }
    }
    verdict
}

/// Judges one stream of one container.
fn judge_stream(
    printed: &Printed,
    stream: char,
    count: u64,
    rows: &[Row],
    gaps: &[GapRow],
    used: &mut BTreeSet<usize>,
    verdict: &mut Verdict,
) {
    let mut seen = BTreeSet::new();
    let mut before: Option<(u64, &Row)> = None;
    let mut declared = 0;
    for row in rows {
        let Some(id) = id_of(&row.message).filter(|id| *id < count) else {
            verdict.strangers += 1;
            verdict.note(|| {
                format!("no such line was printed: {stream} at {:?}: {:.60}", row.place, row.message)
            });
            continue;
        };
        if !seen.insert(id) {
            verdict.duplicates += 1;
            verdict.note(|| format!("id {id} of {stream} a second time, at {:?}", row.place));
            continue;
        }
        judge_text(printed, stream, id, row, verdict);
        let next = before.map_or(0, |(id, _)| id + 1);
        if id < next {
            verdict.disorder += 1;
            verdict.note(|| format!("id {id} of {stream} stands after id {}", next - 1));
            continue;
        }
        if id > next {
            let start = before.map(|(_, row)| row);
            let found: Vec<usize> = gaps
                .iter()
                .enumerate()
                .filter(|(_, gap)| gap.source == row.source && gap.to <= row.place)
                .filter(|(_, gap)| {
                    start.is_none_or(|start| start.source != row.source || gap.from > start.place)
                })
                .map(|(index, _)| index)
                .collect();
            if found.is_empty() {
                verdict.note(|| {
                    format!("ids {next} to {} of {stream} before {:?} are in no gap row", id - 1, row.place)
                });
            } else {
                declared += id - next;
                used.extend(found);
            }
        }
        before = Some((id, row));
    }
    let last = before.map_or(0, |(id, _)| id + 1);
    // A stream's end can be lost while the other stream's is kept: then the gap row stands behind its last row.
    let behind: Vec<usize> = gaps
        .iter()
        .enumerate()
        .filter(|(_, gap)| before.is_some_and(|(_, row)| row.source == gap.source && gap.from > row.place))
        .map(|(index, _)| index)
        .collect();
    if last < count && !behind.is_empty() {
        declared += count - last;
        used.extend(behind);
    } else if last < count {
        verdict.note(|| format!("ids {last} to {} of {stream} never came", count - 1));
    }
    let never = (0..count).filter(|id| !seen.contains(id)).count() as u64;
    verdict.missing += never.saturating_sub(declared);
    verdict.declared += declared;
}

fn judge_text(printed: &Printed, stream: char, id: u64, row: &Row, verdict: &mut Verdict) {
    let line = line(printed.seed, &printed.container, stream, id, printed.shape);
    let good = match &line.secret {
        None => row.message == line.raw(),
        Some(secret) => {
            let middle = row.message.strip_prefix(&line.head).and_then(|rest| rest.strip_suffix(&line.tail));
            middle.is_some_and(|middle| {
                !middle.is_empty() && middle.len() < 300 && !middle.contains(&secret.value)
            })
        }
    };
    if !good {
        verdict.mismatches += 1;
        let kind = line.secret.as_ref().map_or("no", |secret| secret.kind);
        verdict.note(|| {
            let (from, printed) = first_difference(&row.message, &line.raw());
            format!("id {id} of {stream} ({kind} secret) differs: stored …{from}…, printed …{printed}…")
        });
    }
    if line.secret.is_some() && row.redactions == 0 {
        verdict.unnoted += 1;
        verdict.note(|| format!("id {id} of {stream} had a secret and notes no redaction"));
    }
}

/// Where two texts part, with a little around it.
fn first_difference(stored: &str, printed: &str) -> (String, String) {
    let at = stored.bytes().zip(printed.bytes()).take_while(|(a, b)| a == b).count();
    let window = |text: &str| {
        let bytes = text.as_bytes().get(at.saturating_sub(10)..).unwrap_or(&[]);
        String::from_utf8_lossy(&bytes[..bytes.len().min(70)]).into_owned()
    };
    (window(stored), window(printed))
}

fn id_of(message: &str) -> Option<u64> {
    message.strip_prefix("id=")?.split(' ').next()?.parse().ok()
}
