//! Scrubbed lines as they pass, for whoever looks.
//!
//! What always holds: what is given out comes out of a scrubbed batch; nobody who reads slowly holds the agent back: what has
//! no room is left out, and how much is said; without anybody who looks a batch costs one load of a number. A batch is shown
//! when it has been scrubbed; what the collector then refuses is read, and shown, again.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use beeacon_record::schema::Column;
use beeacon_record::{Batch, BatchError, Scrubbed};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::limits::{TAP_CHUNK_BYTES_MAX, TAP_CHUNKS_MAX, TAPS_MAX};
use crate::selection::glob;

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of containers whose name, service or id this fits; of all without it.
    container: Option<String>,
}

/// A query that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("got the parameter \"{name}\", wanted container=<name, service or id, with * and ?>")]
pub struct QueryError {
    name: String,
}

impl Wanted {
    /// Reads `container=web*`, with percent escapes.
    ///
    /// # Errors
    /// When there is something else.
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        let mut wanted = Wanted::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("container", value)) => wanted.container = Some(unescaped(value)),
                _ => return Err(QueryError { name: pair.split('=').next().unwrap_or_default().to_owned() }),
            }
        }
        Ok(wanted)
    }

    /// As a query.
    pub fn to_query(container: Option<&str>) -> String {
        let Some(container) = container else { return String::new() };
        let escaped = container.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        });
        format!("?container={}", escaped.collect::<String>())
    }

    fn wants(&self, container: &str, service: &str, id: &str) -> bool {
        let Some(pattern) = &self.container else { return true };
        glob(pattern, container)
            || glob(pattern, service)
            || glob(pattern, id)
            || glob(&format!("{pattern}*"), id)
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let code = behind.split_first_chunk::<2>().and_then(|(code, _)| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Tap {
    wanted: Wanted,
    lines: mpsc::Sender<Bytes>,
    skipped: u64,
}

/// Those who look. Clones speak of the same ones.
#[derive(Clone, Default)]
pub struct Taps(Arc<Inner>);

#[derive(Default)]
struct Inner {
    count: AtomicUsize,
    taps: Mutex<Vec<Tap>>,
}

impl fmt::Debug for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taps").field(&self.0.count).finish()
    }
}

impl Taps {
    /// Somebody looks until the receiver is dropped. The one who came first goes when there are too many.
    pub fn open(&self, wanted: Wanted) -> mpsc::Receiver<Bytes> {
        let (lines, receiver) = mpsc::channel(TAP_CHUNKS_MAX);
        let mut taps = self.0.taps.lock().unwrap_or_else(PoisonError::into_inner);
        taps.retain(|tap| !tap.lines.is_closed());
        if taps.len() >= TAPS_MAX {
            taps.remove(0);
        }
        taps.push(Tap { wanted, lines, skipped: 0 });
        self.0.count.store(taps.len(), Ordering::Relaxed);
        receiver
    }

    /// Shows a batch to all who look.
    ///
    /// # Errors
    /// Never for a batch that was made by a builder.
    pub fn show(&self, batch: &Scrubbed<Batch>) -> Result<(), BatchError> {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let mut taps = self.0.taps.lock().unwrap_or_else(PoisonError::into_inner);
        for tap in taps.iter_mut() {
            let (mut text, shown, mut left_out) = written(batch.get(), &tap.wanted)?;
            if tap.skipped > 0 && shown > 0 {
                text.insert_str(0, &format!("{{\"skipped\":{}}}\n", tap.skipped));
            }
            if shown > 0 {
                match tap.lines.try_send(text.into()) {
                    Ok(()) => tap.skipped = 0,
                    Err(_) => left_out += shown,
                }
            }
            tap.skipped += left_out;
        }
        taps.retain(|tap| !tap.lines.is_closed());
        self.0.count.store(taps.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// The wanted rows as JSON, how many these are, and how many had no room.
fn written(batch: &Batch, wanted: &Wanted) -> Result<(String, u64, u64), BatchError> {
    let columns = [Column::Container, Column::Service, Column::ContainerId, Column::Stream, Column::Level];
    let mut named = Vec::with_capacity(columns.len());
    for column in columns {
        let (keys, values) = batch.dictionary_column(column)?;
        named.push((keys.values(), values.iter().map(Option::unwrap_or_default).collect::<Vec<_>>()));
    }
    let (mut text, mut shown, mut left_out) = (String::new(), 0, 0);
    let rows = batch.timestamps_ns().iter().zip(batch.messages());
    for (row, (timestamp_ns, message)) in rows.enumerate() {
        let of = |column: usize| {
            let (keys, values) = named.get(column)?;
            values.get(usize::try_from(*keys.get(row)?).ok()?).copied()
        };
        let of = |column| of(column).unwrap_or_default();
        let (container, service, id) = (of(0), of(1), of(2));
        if !wanted.wants(container, service, id) {
            continue;
        }
        if text.len() >= TAP_CHUNK_BYTES_MAX {
            left_out += 1;
            continue;
        }
        let timestamp = jiff::Timestamp::from_nanosecond(i128::from(*timestamp_ns));
        let attributes: serde_json::Map<String, serde_json::Value> =
            batch.attributes_of(row).into_iter().map(|(key, value)| (key, value.into())).collect();
        let object = serde_json::json!({
            "timestamp": timestamp.map(|timestamp| timestamp.to_string()).unwrap_or_default(),
            "container": container,
            "service": service,
            "stream": of(3),
            "level": of(4),
            "message": message.unwrap_or_default(),
            "attributes": attributes,
        });
        text.push_str(&object.to_string());
        text.push('\n');
        shown += 1;
    }
    Ok((text, shown, left_out))
}

#[cfg(test)]
mod tests {
    use beeacon_record::{BatchBuilder, Interval, Level, Line, Origin, Position, RuleSetId, Source, Stream};

    use super::*;

    fn batch(names: &[&str]) -> Scrubbed<Batch> {
        let mut builder = BatchBuilder::new("agent");
        let mut intervals = Vec::new();
        for name in names {
            let source = Source::new(format!("docker-file:{name}")).unwrap();
            let origin = Origin {
                container: (*name).to_owned(),
                service: format!("service-{name}"),
                container_id: format!("{name}0123"),
                ..Origin::default()
            };
            let origin = builder.origin(&origin, &source);
            let line = Line {
                origin,
                timestamp_ns: 1_700_000_000_000_000_000,
                observed_timestamp_ns: 1,
                stream: Stream::Stderr,
                level: Level::Warn,
                position: Position::new(1, 0),
            };
            builder.push(line, format!("line of {name}").as_bytes());
            intervals.push(Interval::new(source, Position::new(1, 0), Position::new(1, 9)));
        }
        Scrubbed::seal(builder.finish(intervals).unwrap(), RuleSetId(1))
    }

    fn read(lines: &mut mpsc::Receiver<Bytes>) -> Vec<serde_json::Value> {
        let mut objects = Vec::new();
        while let Ok(chunk) = lines.try_recv() {
            let text = std::str::from_utf8(&chunk).unwrap().to_owned();
            objects.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
        objects
    }

    #[test]
    fn everybody_sees_the_lines_of_the_containers_that_are_wanted() {
        let taps = Taps::default();
        taps.show(&batch(&["a"])).unwrap();
        for (query, seen) in [
            ("", vec!["line of web", "line of db"]),
            ("container=we*", vec!["line of web"]),
            ("container=service-db", vec!["line of db"]),
            ("container=db01", vec!["line of db"]),
            ("container=%64b", vec!["line of db"]),
            ("container=none", vec![]),
        ] {
            let mut lines = taps.open(Wanted::from_query(query).unwrap());
            taps.show(&batch(&["web", "db"])).unwrap();
            let objects = read(&mut lines);
            let messages: Vec<&str> = objects.iter().map(|one| one["message"].as_str().unwrap()).collect();
            assert_eq!(messages, seen, "{query}");
            for object in &objects {
                assert_eq!(object["timestamp"], "2023-11-14T22:13:20Z");
                assert_eq!((&object["stream"], &object["level"]), (&"stderr".into(), &"warn".into()));
            }
        }
        assert!(Wanted::from_query("name=x").is_err());
        let query = Wanted::to_query(Some("a b&*/\u{fc}"));
        let wanted = Wanted::from_query(query.strip_prefix('?').unwrap()).unwrap();
        assert_eq!(wanted.container.unwrap(), "a b&*/\u{fc}");
    }

    #[test]
    fn who_does_not_read_is_told_how_much_was_skipped_and_who_has_gone_is_forgotten() {
        let taps = Taps::default();
        let mut lines = taps.open(Wanted::default());
        for _ in 0..TAP_CHUNKS_MAX + 3 {
            taps.show(&batch(&["a", "b"])).unwrap();
        }
        assert_eq!(read(&mut lines).len(), 2 * TAP_CHUNKS_MAX);
        taps.show(&batch(&["a"])).unwrap();
        let objects = read(&mut lines);
        assert_eq!(objects[0]["skipped"], 6);
        assert_eq!(objects.len(), 2);
        drop(lines);
        taps.show(&batch(&["a"])).unwrap();
        assert_eq!(taps.0.count.load(Ordering::Relaxed), 0);
        let all: Vec<_> = (0..=TAPS_MAX).map(|_| taps.open(Wanted::default())).collect();
        assert_eq!(taps.0.count.load(Ordering::Relaxed), TAPS_MAX);
        assert!(all[0].is_closed() && !all[1].is_closed());
    }
}
