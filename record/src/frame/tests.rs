use proptest::prelude::*;

use super::*;
use crate::batch::{BatchBuilder, Line, Origin};
use crate::identity::{Gap, GapReason, Interval, Position, RuleSetId, Source};
use crate::level::{Level, Stream};
use crate::schema::Column;

fn encoder() -> FrameEncoder {
    FrameEncoder::new(AgentId::from_bytes([0xab; 16]), Epoch(7), 3, 1).unwrap()
}

#[test]
fn a_frame_that_waited_takes_another_session_and_other_intervals_and_keeps_its_rows() {
    let batch = rich_batch();
    let frame = Frame::parse(encoder().encode(&batch).unwrap()).unwrap();
    let mut intervals = frame.header().intervals.clone();
    intervals[1].gap = Some(Gap {
        from: Position::START,
        reason: GapReason::Policy,
        bytes: 9,
        timestamp_before_ns: 0,
        timestamp_after_ns: 0,
    });
    let again = Frame::parse(frame.readdress(Epoch(8), intervals.clone()).unwrap()).unwrap();
    assert_eq!((again.header().epoch, &again.header().intervals), (Epoch(8), &intervals));
    let decoded = again.decode().unwrap();
    assert_eq!(decoded.get().records(), batch.get().records());
    intervals[0].to = Position::START;
    assert!(frame.readdress(Epoch(8), intervals).is_err(), "an interval that runs backwards");
}

/// A batch with everything in it that a frame can carry.
fn rich_batch() -> Scrubbed<Batch> {
    let web = Source::new("docker-file:4f2a").unwrap();
    let db = Source::new("docker-api:5b:stderr").unwrap();
    let mut builder = BatchBuilder::new("0190-agent");
    let labels = vec![("team".to_owned(), "shop".to_owned()), ("app".to_owned(), "web".to_owned())];
    let origin = Origin {
        host: "host-1".into(),
        service: "web".into(),
        container: "shop-web-1".into(),
        container_id: "4f2a".into(),
        image: "shop/web:1".into(),
        labels,
    };
    let first = builder.origin(&origin, &web);
    let second = builder.origin(&Origin { service: "db".into(), ..origin.clone() }, &db);
    let mut line = Line {
        origin: first,
        timestamp_ns: 1_700_000_000_123_456_789,
        observed_timestamp_ns: 1_700_000_000_200_000_000,
        stream: Stream::Stdout,
        level: Level::Info,
        position: Position::new(2, 100),
    };
    builder.push(line, b"GET / 200");
    line.position.minor = 180;
    line.timestamp_ns += 15;
    line.stream = Stream::Stderr;
    line.level = Level::Error;
    builder.push(line, b"");
    builder.attribute("trace_id", "0af7");
    line.origin = second;
    line.position = Position::new(1_700_000_000_123_456_789, 0);
    line.timestamp_ns -= 60_000_000_000;
    builder.push(line, "na\u{ef}ve \u{1f41d}".as_bytes());
    let mut interval = Interval::new(web, Position::new(2, 100), Position::new(2, 300));
    interval.open = vec![Position::new(2, 240)];
    interval.cursor = vec![1, 2, 3];
    interval.dropped_rows = 4;
    interval.gap = Some(Gap {
        from: Position::new(1, 50),
        reason: GapReason::Rotated,
        bytes: 4096,
        timestamp_before_ns: 5,
        timestamp_after_ns: 6,
    });
    let mut other = Interval::new(
        db,
        Position::new(1_700_000_000_123_456_789, 0),
        Position::new(1_700_000_000_123_456_789, 1),
    );
    other.is_final = true;
    let batch = builder.finish(vec![interval, other]).unwrap();
    let redactions = crate::batch::redactions_array(3, [(0, "email", 2)].into_iter()).unwrap();
    let batch = batch.with_column(Column::Redactions, std::sync::Arc::new(redactions)).unwrap();
    Scrubbed::seal(batch, RuleSetId(0x1234_5678_9abc_def0))
}

/// Equal in every value; dictionaries may be laid out differently.
fn assert_same(left: &Batch, right: &Batch) {
    assert_eq!(left.intervals(), right.intervals());
    for column in Column::ALL.into_iter().take(Column::ALL.len() - 1) {
        assert_eq!(left.column(column).as_ref(), right.column(column).as_ref(), "{}", column.name());
    }
}

#[test]
fn a_batch_survives_its_frame() {
    let batch = rich_batch();
    let bytes = encoder().encode(&batch).unwrap();
    let frame = Frame::parse(bytes).unwrap();
    assert_eq!(frame.header().epoch, Epoch(7));
    assert_eq!(frame.header().key_version, 3);
    assert_eq!(frame.header().intervals, batch.get().intervals());
    let decoded = frame.decode().unwrap();
    assert_eq!(decoded.rule_set(), batch.rule_set());
    assert_same(decoded.get(), batch.get());
}

/// A frame of next to nothing may hold many rows: what a reader sets aside for it has to count them.
#[test]
fn rows_that_take_no_room_in_the_frame_are_counted_for_its_reader() {
    let source = Source::new("file:a").unwrap();
    let mut builder = BatchBuilder::new("a");
    let origin = builder.origin(&Origin::default(), &source);
    let line = Line {
        origin,
        timestamp_ns: 1,
        observed_timestamp_ns: 2,
        stream: Stream::Stdout,
        level: Level::Info,
        position: Position::new(1, 0),
    };
    (0..10_000).for_each(|_| builder.push(line, b""));
    let interval = Interval::new(source, Position::START, Position::new(1, 9));
    let batch = Scrubbed::seal(builder.finish(vec![interval]).unwrap(), RuleSetId(0));
    let frame = Frame::parse(encoder().encode(&batch).unwrap()).unwrap();
    assert!(frame.bytes().len() < 2_000, "{}", frame.bytes().len());
    let rebuilt = frame.decode().unwrap().get().records().get_array_memory_size();
    assert!(rebuilt <= frame.header().rebuilt_bytes() + 4096, "{rebuilt}");
}

#[test]
fn a_batch_without_rows_survives_its_frame() {
    let source = Source::new("file:a").unwrap();
    let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 9));
    let batch = BatchBuilder::new("a").finish(vec![interval]).unwrap();
    let bytes = encoder().encode(&Scrubbed::seal(batch, RuleSetId(0))).unwrap();
    assert_eq!(Frame::parse(bytes).unwrap().decode().unwrap().get().rows(), 0);
}

#[test]
fn every_flipped_bit_of_a_frame_is_detected() {
    let bytes = encoder().encode(&rich_batch()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::parse(Bytes::from(damaged)).is_err(), "bit {bit} went unseen");
    }
}

#[test]
fn every_truncated_frame_is_refused() {
    let bytes = encoder().encode(&rich_batch()).unwrap();
    for end in 0..bytes.len() {
        assert!(Frame::parse(bytes.slice(..end)).is_err(), "{end} bytes were enough");
    }
}

/// Makes the header's checksum right again after a change.
fn resealed(mut bytes: Vec<u8>) -> Bytes {
    let header_bytes = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&bytes[..header_bytes - 4]);
    bytes[header_bytes - 4..header_bytes].copy_from_slice(&crc.to_le_bytes());
    Bytes::from(bytes)
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = encoder().encode(&rich_batch()).unwrap().to_vec();
    bytes[8] = 3;
    let error = Frame::parse(resealed(bytes)).unwrap_err();
    assert!(matches!(error, FrameError::Newer { version: 3, known: 2 }));
}

#[test]
fn a_bomb_is_refused_before_it_inflates() {
    let mut bytes = encoder().encode(&rich_batch()).unwrap().to_vec();
    bytes[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Frame::parse(resealed(bytes)), Err(FrameError::TooLarge { .. })));
}

#[test]
fn a_payload_that_inflates_to_more_than_announced_is_refused() {
    let mut bytes = encoder().encode(&rich_batch()).unwrap().to_vec();
    let text_bytes = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    bytes[24..28].copy_from_slice(&(text_bytes - 1).to_le_bytes());
    let frame = Frame::parse(resealed(bytes)).unwrap();
    assert!(matches!(frame.decode(), Err(FrameError::Inflate { .. })));
}

/// One of every version, for ever. What is written may change with zstd; what the header says may not.
#[test]
fn the_golden_frames_still_read_and_are_still_written() {
    let goldens: [&[u8]; 2] =
        [include_bytes!("../../golden/v1/rich.frame"), include_bytes!("../../golden/v2/rich.frame")];
    for (version, golden) in (1..).zip(goldens) {
        let frame = Frame::parse(Bytes::from_static(golden)).unwrap();
        assert_eq!(frame.header().version, version);
        assert_same(frame.decode().unwrap().get(), rich_batch().get());
        let mut encoder = encoder();
        encoder.set_version(version);
        let written = encoder.encode(&rich_batch()).unwrap();
        let header_bytes = u32::from_le_bytes(written[12..16].try_into().unwrap()) as usize;
        assert_eq!(written[..16], golden[..16]);
        assert_eq!(written[20..header_bytes - 8], golden[20..header_bytes - 8]);
    }
}

/// Scenario: a frame waited in a spool, and the collector that is there now is older than the agent.
#[test]
fn a_frame_is_written_anew_for_a_reader_of_an_older_version_with_all_that_it_says() {
    let frame = Frame::parse(encoder().encode(&rich_batch()).unwrap()).unwrap();
    // An encoder of somebody else's, as the spool has: nothing of it gets into the frame.
    let mut other = FrameEncoder::new(AgentId::from_bytes([1; 16]), Epoch(0), 0, 1).unwrap();
    let older = frame.in_version(1, &mut other).unwrap();
    assert_eq!((frame.header().version, older.header().version), (2, 1));
    let FrameHeader { version, payload_bytes, columns_bytes, text_bytes, .. } = frame.header().clone();
    let header = FrameHeader { version, payload_bytes, columns_bytes, text_bytes, ..older.header().clone() };
    assert_eq!(&header, frame.header());
    assert_same(older.decode().unwrap().get(), rich_batch().get());
    assert_eq!(older.in_version(2, &mut other).unwrap().bytes(), older.bytes());
    let newest = other.encode(&rich_batch()).unwrap();
    assert_eq!(Frame::parse(newest).unwrap().header().version, FRAME_VERSION);
}

/// Lines as an agent reads them from a file, or through Docker's API: enough for the planes to be compressed apart.
fn many_lines(rows: u64, is_file: bool) -> Scrubbed<Batch> {
    let source = Source::new(if is_file { "docker-file:4f2a" } else { "docker-api:4f2a:stdout" }).unwrap();
    let mut builder = BatchBuilder::new("a");
    let origin = builder.origin(&Origin { service: "web".into(), ..Origin::default() }, &source);
    let (mut time, mut at) = (1_700_000_000_000_000_000_u64, 0);
    for row in 0..rows {
        time += 1_000_000 + row.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 900_000;
        let text = format!("request {row} took {}", "i".repeat(time as usize % 97));
        let position = if is_file { Position::new(1, at) } else { Position::new(time, 0) };
        at += text.len() as u64 + 70;
        let line = Line {
            origin,
            timestamp_ns: time.cast_signed(),
            observed_timestamp_ns: 1_700_000_100_000_000_000,
            stream: Stream::Stdout,
            level: Level::ALL[row as usize % 3],
            position,
        };
        builder.push(line, text.as_bytes());
    }
    let interval = Interval::new(source, Position::START, Position::new(u64::MAX, 0));
    let batch = builder.finish(vec![interval]).unwrap();
    let found = (0..rows as usize).step_by(5).flat_map(|row| [(row, "email", 1), (row, "ipv4", 300)]);
    let redactions = crate::batch::redactions_array(rows as usize, found).unwrap();
    let batch = batch.with_column(Column::Redactions, std::sync::Arc::new(redactions)).unwrap();
    Scrubbed::seal(batch, RuleSetId(1))
}

/// Positions follow from what else is in the frame, so they cost next to nothing: a broken expectation would be right and large.
#[test]
fn many_lines_survive_their_frame_and_positions_that_follow_from_the_text_or_the_time_take_no_room() {
    for is_file in [true, false] {
        let batch = many_lines(5_000, is_file);
        let sizes = [1, 2].map(|version| {
            let mut encoder = encoder();
            encoder.set_version(version);
            let bytes = encoder.encode(&batch).unwrap();
            assert_same(Frame::parse(bytes.clone()).unwrap().decode().unwrap().get(), batch.get());
            bytes.len()
        });
        let half = batch.filter(&(0..5_000).map(|row| Some(row % 2 == 0)).collect()).unwrap();
        let bytes = encoder().encode(&half).unwrap();
        assert_same(Frame::parse(bytes).unwrap().decode().unwrap().get(), half.get());
        // 0.56 and 0.62; without what is expected of positions 0.66 and 0.74.
        assert!(sizes[1] * 100 < sizes[0] * 64, "{sizes:?}");
    }
}

proptest! {
    #[test]
    fn any_lines_survive_their_frame(
        lines in proptest::collection::vec((any::<i64>(), any::<u64>(), any::<u64>(), ".{0,40}"), 0..50),
    ) {
        let source = Source::new("file:a").unwrap();
        let mut builder = BatchBuilder::new("a");
        let origin = builder.origin(&Origin::default(), &source);
        for (time, major, minor, text) in &lines {
            let position = Position::new(*major, *minor % u64::MAX);
            builder.push(
                Line {
                    origin, timestamp_ns: *time, observed_timestamp_ns: time.wrapping_mul(3),
                    stream: Stream::Stdout, level: Level::Unknown, position,
                },
                text.as_bytes(),
            );
        }
        let interval = Interval::new(source, Position::START, Position::new(u64::MAX, u64::MAX));
        let batch = Scrubbed::seal(builder.finish(vec![interval]).unwrap(), RuleSetId(1));
        for version in [1, 2] {
            let mut encoder = encoder();
            encoder.set_version(version);
            let bytes = encoder.encode(&batch).unwrap();
            let decoded = Frame::parse(bytes).unwrap().decode().unwrap();
            assert_same(decoded.get(), batch.get());
        }
    }

    #[test]
    fn a_frame_with_a_foreign_payload_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..4000, version in 1u16..=2,
    ) {
        // The columns are changed before they are compressed, and every checksum is right: what a malicious agent can send.
        let mut encoder = encoder();
        encoder.set_version(version);
        let bytes = encoder.encode(&rich_batch()).unwrap();
        let frame = Frame::parse(bytes.clone()).unwrap();
        let header_bytes = bytes.len() - frame.header().payload_bytes as usize;
        let mut inflated = zstd::bulk::decompress(&bytes[header_bytes..], frame.header().inflated_bytes()).unwrap();
        let at = at % inflated.len();
        for (slot, byte) in inflated[at..].iter_mut().zip(&noise) {
            *slot = *byte;
        }
        let compressed = zstd::bulk::compress(&inflated, 1).unwrap();
        let mut forged = bytes[..header_bytes].to_vec();
        forged[16..20].copy_from_slice(&(compressed.len() as u32).to_le_bytes());
        forged[header_bytes - 8..header_bytes - 4].copy_from_slice(&crc32c::crc32c(&compressed).to_le_bytes());
        forged.extend_from_slice(&compressed);
        if let Ok(frame) = Frame::parse(resealed(forged)) {
            drop(frame.decode());
        }
    }
}
