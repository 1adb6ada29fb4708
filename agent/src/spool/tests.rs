use std::collections::BTreeSet;

use beeacon_record::{Batch, BatchBuilder, Level, Line, Origin, RuleSetId, Scrubbed, Stream};

use super::*;

const AGENT: AgentId = AgentId::from_bytes([3; 16]);

fn source(name: &str) -> Source {
    Source::new(name).unwrap()
}

/// A frame of one source with a row of `bytes` at every tenth position of `[from, to)`, which does not compress.
fn frame(name: &str, from: u64, to: u64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new("a");
    let origin = builder.origin(&Origin::default(), &source(name));
    let mut random = from.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for at in (from..to).step_by(10) {
        let text: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            b' ' + (random % 94) as u8
        })
        .take(bytes)
        .collect();
        let line = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 2,
            stream: Stream::Stdout,
            level: Level::Info,
            position: Position::new(1, at),
        };
        builder.push(line, &text);
    }
    let mut interval = Interval::new(source(name), Position::new(1, from), Position::new(1, to));
    interval.cursor = to.to_le_bytes().to_vec();
    let batch: Scrubbed<Batch> = Scrubbed::seal(builder.finish(vec![interval]).unwrap(), RuleSetId(1));
    FrameEncoder::new(AGENT, Epoch(1), 0, 1).unwrap().encode(&batch).unwrap()
}

fn small() -> SpoolConfig {
    SpoolConfig { bytes_max: 20 << 20, free_bytes_min: 0, ..SpoolConfig::default() }
}

fn open(config: &SpoolConfig, directory: &Path) -> Spool {
    Spool::open(config, directory, AGENT).unwrap()
}

/// What a crash leaves: the files as they are now.
fn crashed(spool: &Spool) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let into = copy.path().join("spool");
    std::fs::create_dir(&into).unwrap();
    for entry in std::fs::read_dir(&spool.directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), into.join(entry.file_name())).unwrap();
        }
    }
    copy
}

/// The collector's rules for one source after another, and what it has stored.
#[derive(Default)]
struct Model {
    committed: HashMap<Source, Position>,
    stored: BTreeSet<(Source, Position)>,
    missing: Vec<(Source, Position, Position)>,
}

impl Model {
    /// Takes a frame, or says what it expects instead.
    fn take(&mut self, bytes: &Bytes) -> Result<(), Vec<Committed>> {
        let frame = Frame::parse(bytes.clone()).unwrap();
        // A source that was never heard of is taken from wherever it starts.
        let place = |model: &Model, interval: &Interval| {
            let start = interval.gap.as_ref().map_or(interval.from, |gap| gap.from);
            model.committed.get(&interval.source).copied().unwrap_or(start)
        };
        for interval in &frame.header().intervals {
            let committed = place(self, interval);
            let is_covered = interval.gap.as_ref().is_some_and(|gap| gap.from <= committed);
            if interval.from > committed && !is_covered {
                return Err(vec![Committed { source: interval.source.clone(), position: committed }]);
            }
        }
        let batch = frame.decode().unwrap();
        for interval in &frame.header().intervals {
            let committed = place(self, interval);
            if interval.to < committed {
                continue;
            }
            if interval.from > committed {
                self.missing.push((interval.source.clone(), committed, interval.from));
            }
            for position in batch.get().positions().filter(|position| *position >= committed) {
                // Frames of these tests have rows of one source.
                assert!(self.stored.insert((interval.source.clone(), position)), "stored twice");
            }
            self.committed.insert(interval.source.clone(), interval.to);
        }
        Ok(())
    }

    /// Sends everything.
    fn drain(&mut self, spool: &mut Spool) {
        while let Some(next) = spool.next(Epoch(9)).unwrap() {
            self.take(&next.frame).unwrap();
            spool.committed(next.id).unwrap();
        }
        assert!(!spool.has_waiting());
    }
}

#[test]
fn frames_leave_in_order_under_the_session_and_stay_until_they_are_committed() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(&small(), directory.path());
    for from in [0, 100, 200] {
        assert_eq!(spool.keep(frame("file:a", from, from + 100, 5)).unwrap(), Kept::Durable);
    }
    assert!(spool.holds(&source("file:a")) && !spool.holds(&source("file:b")));
    let first = spool.next(Epoch(4)).unwrap().unwrap();
    let again = spool.next(Epoch(5)).unwrap().unwrap();
    assert_eq!((first.id, first.rows), (again.id, 10));
    assert_eq!(Frame::parse(again.frame).unwrap().header().epoch, Epoch(5));
    // Nobody has confirmed it: a crash now leaves all three.
    let mut model = Model::default();
    model.drain(&mut open(&small(), crashed(&spool).path()));
    assert_eq!(model.stored.len(), 30);
    spool.committed(again.id).unwrap();
    spool.committed(again.id).unwrap();
    // What was sent before a crash may come again, what was not must.
    let mut model = Model::default();
    model.take(&first.frame).unwrap();
    let copy = crashed(&spool);
    model.drain(&mut open(&small(), copy.path()));
    assert_eq!(model.stored.len(), 30);
    spool.close().unwrap();
    let mut spool = open(&small(), directory.path());
    assert_eq!(spool.status().frames, 2);
    let mut model = Model::default();
    model.committed.insert(source("file:a"), Position::new(1, 100));
    model.drain(&mut spool);
    assert_eq!(model.stored.len(), 20);
}

#[test]
fn where_reading_goes_on_is_known_from_the_spool_until_a_frame_goes_past_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(&small(), directory.path());
    assert!(spool.positions().is_none());
    let at = |minor| Acked { committed: Position::new(1, minor), ..Acked::default() };
    let states = HashMap::from([(source("file:a"), at(100)), (source("file:b"), at(7))]);
    assert!(spool.know(&states).unwrap());
    assert_eq!(spool.keep(frame("file:a", 100, 200, 5)).unwrap(), Kept::Durable);
    let copy = crashed(&spool);
    let known = open(&small(), copy.path());
    let known = known.positions().unwrap();
    assert_eq!(known.get(&source("file:b")), Some(&at(7)));
    let moved = known.get(&source("file:a")).unwrap();
    assert_eq!((moved.committed, moved.cursor.len()), (Position::new(1, 200), 8));
    spool.unknow().unwrap();
    let copy = crashed(&spool);
    let void = open(&small(), copy.path());
    assert!(void.positions().is_none());
    // What waits is known all the same, and comes on top of what the collector says, unless that is further.
    let mut states = HashMap::from([(source("file:a"), at(150)), (source("file:b"), at(8))]);
    void.overlay(&mut states);
    assert_eq!(states.get(&source("file:a")).unwrap().committed, Position::new(1, 200));
    assert_eq!(states.get(&source("file:b")), Some(&at(8)));
    let mut states = HashMap::from([(source("file:a"), at(900))]);
    void.overlay(&mut states);
    assert_eq!(states.get(&source("file:a")), Some(&at(900)));
}

/// Scenario: far more is kept than the quota allows, with a crash in the midst, and then sent.
/// Guarantees: the disk stays within the quota; every row is stored or lies in a declared gap, none in both; reading would go on
/// where it had come to.
#[test]
fn at_the_quota_the_oldest_frames_go_and_the_gaps_say_exactly_which() {
    let directory = tempfile::tempdir().unwrap();
    let config = SpoolConfig { when_full: WhenFull::DropOldest, ..small() };
    let mut spool = open(&config, directory.path());
    assert!(spool.know(&HashMap::new()).unwrap());
    let mut rows = BTreeSet::new();
    let mut copies = Vec::new();
    for number in 0..48 {
        let name = if number % 4 == 3 { "file:b" } else { "file:a" };
        let from = number * 100;
        let at = |name: &str| {
            rows.iter().filter(|(source, _): &&(Source, Position)| source.as_str() == name).count() as u64
                * 10
        };
        let start = at(name);
        assert!(start <= from);
        assert_eq!(spool.keep(frame(name, start, start + 100, 60_000)).unwrap(), Kept::Durable);
        rows.extend((start..start + 100).step_by(10).map(|at| (source(name), Position::new(1, at))));
        assert!(spool.status().bytes <= config.bytes_max, "{:?}", spool.status());
        if number == 40 {
            copies.push((crashed(&spool), rows.clone()));
        }
    }
    assert!(spool.status().dropped_frames > 0);
    copies.push((crashed(&spool), rows.clone()));
    drop(spool);
    for (copy, rows) in copies {
        let mut spool = open(&config, copy.path());
        let end = spool.positions().unwrap().get(&source("file:a")).unwrap().committed;
        let last = rows.iter().rfind(|(source, _)| source.as_str() == "file:a").unwrap();
        assert_eq!(end, Position::new(1, last.1.minor + 10));
        let mut model = Model::default();
        model.drain(&mut spool);
        assert!(!model.missing.is_empty() && !model.stored.is_empty());
        for (source, position) in &rows {
            let is_stored = model.stored.contains(&(source.clone(), *position));
            let is_missing =
                model.missing.iter().any(|(of, from, to)| of == source && from <= position && position < to);
            assert!(is_stored != is_missing, "{source} {position}: stored {is_stored}, missing {is_missing}");
        }
        assert!(model.stored.iter().all(|row| rows.contains(row)));
    }
}

#[test]
fn at_the_quota_a_pausing_spool_takes_nothing_until_some_of_it_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(&small(), directory.path());
    let mut kept = 0;
    while spool.keep(frame("file:a", kept * 100, kept * 100 + 100, 60_000)).unwrap() == Kept::Durable {
        kept += 1;
        assert!(kept < 60, "the quota was passed");
    }
    assert!(spool.status().is_full && spool.status().bytes <= small().bytes_max);
    assert_eq!(spool.keep(frame("file:a", kept * 100, kept * 100 + 100, 10)).unwrap(), Kept::Full);
    let mut model = Model::default();
    model.drain(&mut spool);
    assert_eq!(spool.keep(frame("file:a", kept * 100, kept * 100 + 100, 10)).unwrap(), Kept::Durable);
    model.drain(&mut spool);
    assert_eq!(model.stored.len() as u64, (kept + 1) * 10);
    assert!(model.missing.is_empty());
}

#[test]
fn a_collector_that_lost_its_memory_gets_a_gap_declared_and_a_refused_frame_is_cut_down_to_its_row() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(&small(), directory.path());
    assert_eq!(spool.keep(frame("file:a", 500, 540, 5)).unwrap(), Kept::Durable);
    let mut model = Model::default();
    model.committed.insert(source("file:a"), Position::new(1, 30));
    let next = spool.next(Epoch(9)).unwrap().unwrap();
    let expected = model.take(&next.frame).unwrap_err();
    assert!(spool.declare(next.id, &expected));
    assert!(!spool.declare(next.id, &expected), "it has been declared already");
    // The row at 520 is taken by nobody.
    let mut refused = 0;
    while let Some(next) = spool.next(Epoch(9)).unwrap() {
        let batch = Frame::parse(next.frame.clone()).unwrap().decode().unwrap();
        if batch.get().positions().any(|position| position.minor == 520) {
            refused += spool.cut(next.id).unwrap();
            continue;
        }
        model.take(&next.frame).unwrap();
        spool.committed(next.id).unwrap();
    }
    let stored: Vec<u64> = model.stored.iter().map(|(_, position)| position.minor).collect();
    assert_eq!((refused, stored), (1, vec![500, 510, 530]));
    let missing: Vec<(u64, u64)> = model.missing.iter().map(|(_, from, to)| (from.minor, to.minor)).collect();
    assert_eq!(missing, [(30, 500), (520, 530)]);
    assert_eq!(model.committed.get(&source("file:a")), Some(&Position::new(1, 540)));
}

#[test]
fn a_record_of_another_kind_is_refused_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(&small(), directory.path());
    spool.journal.append(vec![77, 1, 2]).unwrap();
    spool.close().unwrap();
    let error = Spool::open(&small(), directory.path(), AGENT).err().expect("kind 77 is of the future");
    assert!(matches!(error, SpoolError::Record { source: RecordError::Kind { kind: 77 }, .. }));
}
