//! The harness itself, before anything is judged by it: a search that finds nothing and a judge that is never angry are
//! worth nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use arrow_array::RecordBatch;
use beeacon_record::{
    AgentId, Batch, BatchBuilder, Epoch, FrameEncoder, Interval, Level, Line, Origin, Position, RuleSetId,
    Scrubbed, Source, Stream,
};

use crate::harness::docker::{Docker, Driver, Spec};
use crate::harness::http::request;
use crate::harness::leak::{Leaks, Secret};
use crate::harness::loki::{EntryAdapter, Loki, Mood, PushRequest, StreamAdapter, Timestamp};
use crate::harness::oracle::{GapRow, Place, Printed, Row, Verdict, judge_rows};
use crate::harness::poll::{seconds, wait_until};
use crate::harness::probe::need_docker;
use crate::harness::proxy::Proxy;
use crate::payload::{Shape, Streams, line};
use crate::planted::{KINDS, Numbers, plant};

fn secret() -> Secret {
    Secret { kind: "aws_key", origin: "here".into(), value: "AKIAQWERTYUIOPASDFGH".into() }
}

fn batch_with(text: &str) -> Scrubbed<Batch> {
    let source = Source::new("docker-file:4f2a").unwrap();
    let mut builder = BatchBuilder::new("a");
    let origin = builder.origin(&Origin::default(), &source);
    for minor in 0..100 {
        let line = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 2,
            stream: Stream::Stdout,
            level: Level::Info,
            position: Position::new(1, minor),
        };
        let filler = format!("line {minor} of many that compress well");
        builder.push(line, if minor == 50 { text.as_bytes() } else { filler.as_bytes() });
    }
    let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 100));
    Scrubbed::seal(builder.finish(vec![interval]).unwrap(), RuleSetId(1))
}

fn frame_with(text: &str) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(AgentId::from_bytes([1; 16]), Epoch(1), 0, 3).unwrap();
    encoder.encode(&batch_with(text)).unwrap().to_vec()
}

fn parquet_with(text: &str) -> Vec<u8> {
    let records: RecordBatch = batch_with(text).get().records().clone();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::try_new(3).unwrap()))
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, records.schema(), Some(properties)).unwrap();
    writer.write(&records).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn the_leak_search_finds_a_planted_secret_in_plain_text_in_a_frame_and_in_parquet() {
    let folder = tempfile::tempdir().unwrap();
    // A part of the value stands before it, so that zstd stores the value as a repetition and not as
    // it is; and it is neither the least nor the greatest text, which Parquet notes uncompressed.
    let said = format!("line 5 {} then key {} used", &secret().value[4..16], secret().value);
    let mut journal = b"some header of a journal segment".to_vec();
    journal.extend(frame_with(&said));
    let parquet = parquet_with(&said);
    // Both hide the value from a plain search, or the decoding would prove nothing.
    for hidden in [&journal, &parquet] {
        assert!(memchr::memmem::find(hidden, secret().value.as_bytes()).is_none());
    }
    std::fs::create_dir(folder.path().join("deep")).unwrap();
    std::fs::write(folder.path().join("deep/segment"), journal).unwrap();
    std::fs::write(folder.path().join("file.parquet"), parquet).unwrap();
    std::fs::write(folder.path().join("output.stderr"), &said).unwrap();

    let search = Leaks::new(vec![secret()]).search(&[folder.path()]);
    let mut places: Vec<_> = search.hits.iter().map(|(place, _)| place.rsplit('/').next().unwrap()).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places, ["file.parquet (its columns)", "output.stderr", "segment (a frame)"]);
    assert_eq!((search.files, search.frames, search.parquet_files), (3, 1, 1));
}

#[test]
fn the_leak_search_is_quiet_where_nothing_leaks() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("segment"), frame_with("key [aws_key] used")).unwrap();
    let search = Leaks::new(vec![secret()]).search(&[folder.path()]);
    search.assert_clean();
    assert_eq!((search.frames, search.rows), (1, 100));
}

fn printed() -> Printed {
    Printed { container: "c".into(), seed: 4, lines: 300, shape: Shape::Plain, streams: Streams::Both }
}

/// The rows of a perfect store: ten bytes of file per line.
fn perfect() -> Vec<Row> {
    let printed = printed();
    let mut rows = Vec::new();
    let mut minor = 0;
    for (stream, count) in printed.counts() {
        for id in 0..count {
            let line = line(printed.seed, "c", stream, id, printed.shape);
            let marker = line.secret.as_ref().map_or("", |_| "[taken out]");
            let message = format!("{}{marker}{}", line.head, line.tail);
            let redactions = usize::from(line.secret.is_some());
            rows.push(Row {
                stream,
                source: "s".into(),
                place: Place { major: 1, minor },
                message,
                redactions,
            });
            minor += 10;
        }
    }
    rows
}

fn gap(from: u64, to: u64) -> GapRow {
    let place = |minor| Place { major: 1, minor };
    GapRow { source: "s".into(), from: place(from), to: place(to), reason: "rotated".into(), bytes: 1 }
}

fn verdict(change: impl FnOnce(&mut Vec<Row>), gaps: Vec<GapRow>) -> Verdict {
    let mut rows = perfect();
    change(&mut rows);
    rows.sort_by_key(|row| row.place);
    judge_rows(&printed(), rows, gaps)
}

#[test]
fn the_judge_is_content_with_a_perfect_store() {
    let verdict = verdict(|_| {}, vec![]);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.stored, 300);
    assert!(printed().secrets().len() > 5);
}

#[test]
fn the_judge_sees_each_kind_of_fault() {
    type Fault = (&'static str, fn(&mut Vec<Row>), fn(&Verdict) -> u64);
    let faults: [Fault; 9] = [
        ("a line in the middle is missing", |rows| drop(rows.remove(20)), |v| v.missing),
        ("the last line is missing", |rows| drop(rows.pop()), |v| v.missing),
        ("the first line is missing", |rows| drop(rows.remove(0)), |v| v.missing),
        ("a line is stored twice at one position", |rows| rows.push(rows[9].clone()), |v| v.duplicates),
        (
            "a line is stored twice at two positions",
            |rows| {
                let mut row = rows[9].clone();
                row.place.minor += 1;
                rows.push(row);
            },
            |v| v.duplicates,
        ),
        ("a line lost its last letter", |rows| rows[9].message.truncate(5), |v| v.mismatches),
        (
            "two lines changed places",
            |rows| (rows[9].place, rows[10].place) = (rows[10].place, rows[9].place),
            |v| v.disorder,
        ),
        (
            "a secret was left",
            |rows| {
                let place = rows.iter().position(|row| row.redactions > 0).unwrap();
                let id: u64 = rows[place].message[3..].split(' ').next().unwrap().parse().unwrap();
                rows[place].message = line(4, "c", rows[place].stream, id, Shape::Plain).raw();
            },
            |v| v.mismatches,
        ),
        (
            "a redaction was not noted",
            |rows| rows.iter_mut().for_each(|row| row.redactions = 0),
            |v| v.unnoted,
        ),
    ];
    for (what, change, count) in faults {
        let verdict = verdict(change, vec![]);
        assert!(!verdict.is_clean() && count(&verdict) > 0, "{what}: {verdict}");
    }
}

#[test]
fn the_judge_takes_gap_rows_only_exactly_where_lines_are_missing() {
    // Rows 20 to 29 of stdout are gone: row 19 starts at 190, row 30 at 300.
    let lose = |rows: &mut Vec<Row>| drop(rows.drain(20..30));
    let exact = verdict(lose, vec![gap(200, 300)]);
    assert!(exact.is_clean() && exact.declared == 10, "{exact}");
    // Too early: it covers row 19, which is there.
    assert_eq!(verdict(lose, vec![gap(190, 300)]).missing, 10);
    // Too late: it covers row 30, which is there.
    assert_eq!(verdict(lose, vec![gap(200, 301)]).missing, 10);
    // Nothing is missing there.
    assert_eq!(verdict(|_| {}, vec![gap(200, 300)]).idle_gaps, 1);
}

#[test]
fn every_kind_of_secret_is_a_function_of_its_numbers_and_none_is_like_another() {
    let mut values = std::collections::BTreeSet::new();
    for kind in 0..KINDS {
        for ordinal in 0..50 {
            let make = || plant(kind, &mut Numbers::of(1, "x", ordinal)).value;
            assert_eq!(make(), make());
            assert!(make().len() >= 11);
            values.insert(make());
        }
    }
    assert_eq!(values.len() as u64, KINDS * 50);
}

#[test]
fn long_lines_carry_their_secret_across_dockers_cut() {
    for id in (7..400).step_by(40) {
        let line = line(1, "c", 'o', id, Shape::Long);
        let secret = line.secret.as_ref().unwrap();
        let start = line.head.len() + secret.before.len();
        let cut = crate::payload::DOCKER_PIECE_BYTES;
        assert!(start < cut && cut < start + secret.value.len(), "{start} {cut} {}", secret.value.len());
    }
}

#[test]
fn the_proxy_records_what_passes_and_loses_an_answer_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap(), folder.path());
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; 1000];
            let mut all = Vec::new();
            while memchr::memmem::find(&all, b"BEEACONF-body").is_none() {
                let count = stream.read(&mut bytes).unwrap();
                assert!(count > 0);
                all.extend_from_slice(&bytes[..count]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    proxy.lose_answers(1);
    assert!(request(proxy.address(), "POST", "/x", &[], b"BEEACONF-body").is_err());
    assert_eq!(proxy.answers_lost(), 1);
    assert_eq!(request(proxy.address(), "POST", "/x", &[], b"BEEACONF-body").unwrap().text(), "ok");
    server.join().unwrap();
    let sent = std::fs::read(proxy.folder().join("00000.to_server")).unwrap();
    assert!(sent.ends_with(b"BEEACONF-body"));
}

#[test]
fn the_loki_of_the_tests_takes_what_loki_takes_and_refuses_what_loki_refuses() {
    use prost::Message;
    let folder = tempfile::tempdir().unwrap();
    let loki = Loki::start(folder.path());
    let push = |labels: &str| {
        let entry = EntryAdapter {
            timestamp: Some(Timestamp { seconds: 5, nanos: 7 }),
            line: "x".into(),
            structured_metadata: vec![],
        };
        let request =
            PushRequest { streams: vec![StreamAdapter { labels: labels.into(), entries: vec![entry] }] };
        snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
    };
    let send = |body: &[u8]| {
        let kind = [("Content-Type", "application/x-protobuf")];
        request(loki.address(), "POST", "/loki/api/v1/push", &kind, body).unwrap().status
    };
    assert_eq!(send(&push(r#"{a="1", b="x\"y"}"#)), 204);
    assert_eq!(loki.entries()[0].labels["b"], "x\"y");
    assert_eq!(loki.entries()[0].timestamp_ns, 5_000_000_007);
    for bad in [push("{}"), push("a=1"), push(r#"{1a="x"}"#), b"not snappy".to_vec()] {
        assert_eq!(send(&bad), 400);
    }
    for (mood, status) in [(Mood::TooMany, 429), (Mood::Broken, 500), (Mood::Refusing, 400)] {
        loki.set_mood(mood);
        assert_eq!(send(&push(r#"{a="1"}"#)), status);
    }
    assert_eq!((loki.entry_count(), loki.faults().len()), (1, 4));
}

/// Scenario: a private dockerd runs containers with all drivers that the stories use, is restarted while one prints, and ends.
/// Guarantees: lines are in Docker's files as printed, containers outlive dockerd, nothing of it is left.
#[test]
fn a_private_docker_runs_containers_outlives_a_restart_of_dockerd_and_leaves_nothing() {
    need_docker!("a_private_docker_runs_containers_outlives_a_restart_of_dockerd_and_leaves_nothing");
    let mut docker = Docker::start();
    let printed = Printed {
        container: "quick".into(),
        seed: 3,
        lines: 20_000,
        shape: Shape::Plain,
        streams: Streams::Both,
    };
    let mut spec = Spec::new("quick", &[]);
    spec.command = printed.command(0, None);
    let started = std::time::Instant::now();
    let id = docker.run(&spec);
    assert_eq!(docker.wait(&id, seconds(60)), 0);
    println!("20,000 lines in {:.2} s", started.elapsed().as_secs_f64());
    let files = docker.json_files(&id);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert_eq!(text.lines().count(), 20_000);

    let rotated = Spec { driver: Driver::Rotated { max_size: "100k", max_file: 2 }, ..spec.clone() };
    let id = docker.run(&Spec { name: "rotated".into(), ..rotated });
    docker.wait(&id, seconds(60));
    assert_eq!(docker.json_files(&id).len(), 2);

    for (name, driver, tty) in [("local", Driver::Local, false), ("tty", Driver::JsonFile, true)] {
        let id = docker.run(&Spec { name: name.into(), driver, tty, ..spec.clone() });
        assert_eq!(docker.wait(&id, seconds(60)), 0);
    }

    let slow = Printed { container: "slow".into(), lines: 3_000, ..printed };
    let mut spec = Spec::new("slow", &[]);
    spec.command = slow.command(1_000, None);
    spec.binds = vec![docker.shared_bind()];
    let id = docker.run(&spec);
    wait_until("first lines", seconds(20), || {
        docker
            .json_files(&id)
            .first()
            .is_some_and(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0))
    });
    docker.stop_dockerd();
    docker.start_dockerd();
    assert_eq!(docker.wait(&id, seconds(60)), 0);
    let kept = std::fs::read_to_string(&docker.json_files(&id)[0]).unwrap().lines().count();
    println!("{kept} of 3,000 lines kept across a restart of dockerd");

    let folder = docker.containers_directory().ancestors().nth(2).unwrap().to_owned();
    drop(docker);
    assert!(!folder.exists());
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains(folder.to_str().unwrap()));
}

/// A patch that does not fit any more breaks nothing, and so proves nothing.
#[test]
fn every_mutant_can_still_be_made() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let patches = std::fs::read_dir(root.join("tests/mutants")).unwrap().flatten().map(|entry| entry.path());
    let patches: Vec<_> = patches.filter(|path| path.extension().is_some_and(|end| end == "patch")).collect();
    assert!(patches.len() >= 20);
    for patch in patches {
        let check = std::process::Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "{}: {said}", patch.display());
        let text = std::fs::read_to_string(&patch).unwrap();
        assert!(text.contains("\nKilled by: "), "{} names no test", patch.display());
    }
}
