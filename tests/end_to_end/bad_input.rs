//! What is wrong on the way in, and what it gets: a reason, bounded memory, and no harm to anything else.

use std::io::{BufReader, Write};

use beeacon_record::{AgentId, FRAME_VERSION, Gap, GapReason, Position};

use crate::harness::disk::SmallDisk;
use crate::harness::docker::{Docker, Driver, Spec};
use crate::harness::frames::{Hand, at, code, forge, noise, number_at, open_session, post};
use crate::harness::http::{connect, read_response};
use crate::harness::leak::Secret;
use crate::harness::oracle::{Printed, gaps, judge, rows};
use crate::harness::poll::{seconds, try_wait_for, wait_until};
use crate::harness::probe::{is_root, need_docker, skip};
use crate::harness::world::{Alone, Plan, World};
use crate::payload::{Shape, Streams, endless};
use crate::planted::Numbers;
use crate::whole_way::Cast;

fn lines(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("line {index} of a frame")).collect()
}

/// Scenario: frames that are malformed, truncated, bit-flipped, newer, oversized or bombs come over real HTTP.
/// Guarantees: each gets a 4xx with a code and a message; memory stays bounded; nothing of it is stored; the next good frame is.
#[test]
fn bad_frames_are_refused_with_a_reason_and_harm_nothing() {
    let alone = Alone::start("bad_frames", None, None);
    let address = alone.sql.address;
    let mut hand = Hand::open(address, 1, "hand");
    assert_eq!(hand.send(&lines(100)).status, 200);
    let before = alone.server.resident_bytes().unwrap();
    let good = hand.frame(&lines(50));

    let newer = {
        let mut frame = good.clone();
        frame[at::VERSION] = u8::try_from(FRAME_VERSION + 1).unwrap();
        frame
    };
    let text_bytes = number_at(&good, at::TEXT_BYTES);
    let zeros = vec![0u8; 256 << 20];
    let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
    drop(zeros);
    let header_bytes = number_at(&good, at::HEADER_BYTES) as usize;
    let cases: Vec<(&str, Vec<u8>, u16, &[&str])> = vec![
        ("nothing", Vec::new(), 400, &["malformed"]),
        ("one byte", vec![b'B'], 400, &["malformed"]),
        ("not a frame", b"GET / HTTP/1.1\r\n\r\n".repeat(10), 400, &["malformed"]),
        ("a newer version", newer, 400, &["newer"]),
        ("a bomb that announces little", forge(&good, &[], Some(&bomb)), 400, &["malformed"]),
        (
            "a bomb that announces all",
            forge(&good, &[(at::TEXT_BYTES, 256 << 20)], Some(&bomb)),
            413,
            &["too_large", "malformed"],
        ),
        (
            "a payload of noise",
            forge(&good, &[], Some(noise(3, 1, 5_000)[0].as_bytes())),
            400,
            &["malformed"],
        ),
        (
            "more rows announced than there are",
            forge(&good, &[(at::ROW_COUNT, 51)], None),
            400,
            &["malformed"],
        ),
        ("too many rows announced", forge(&good, &[(at::ROW_COUNT, u32::MAX)], None), 400, &["malformed"]),
        (
            "less text announced than there is",
            forge(&good, &[(at::TEXT_BYTES, text_bytes - 1)], None),
            400,
            &["malformed"],
        ),
        ("no columns announced", forge(&good, &[(at::COLUMNS_BYTES, 0)], None), 400, &["malformed"]),
        ("a header only", good[..header_bytes].to_vec(), 400, &["malformed"]),
        ("a byte too many", [good.as_slice(), b"x"].concat(), 400, &["malformed"]),
        ("more than a frame may have", vec![0; (8 << 20) + 1], 413, &["too_large"]),
    ];
    for (what, body, status, codes) in cases {
        let response = hand.post(&body);
        let is_refused =
            response.status == status || (400..500).contains(&response.status) && codes.len() > 1;
        assert!(is_refused, "{what}: {} {}", response.status, response.text());
        assert!(codes.contains(&code(&response).as_str()), "{what}: {}", response.text());
        assert!(response.json()["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
    }

    let mut chance = Numbers::new(5);
    for _ in 0..300 {
        let length = chance.below(good.len() as u64) as usize;
        assert_eq!(hand.post(&good[..length]).status, 400, "truncated to {length} bytes");
        let mut flipped = good.clone();
        let bit = chance.below(8 * good.len() as u64) as usize;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(hand.post(&flipped).status, 400, "bit {bit} flipped");
    }

    let grown = alone.server.resident_bytes_peak().unwrap().saturating_sub(before);
    println!("614 bad frames: resident memory grew by {} KiB at most", grown >> 10);
    assert!(grown < 160 << 20, "memory grew by {} MiB", grown >> 20);
    assert_eq!(alone.sql.number("select count(*) as n from logs"), 100);
    assert_eq!(hand.send(&lines(50)).status, 200);
    assert_eq!(alone.sql.number("select count(*) as n from logs"), 150);
}

/// Scenario: 32 bombs at once, each the largest that a header may announce.
/// Guarantees: memory stays within what the limits promise, and a good frame is still taken.
#[test]
fn many_bombs_at_once_stay_within_bounded_memory() {
    let alone = Alone::start("bombs", None, None);
    let mut hand = Hand::open(alone.sql.address, 1, "hand");
    assert_eq!(hand.send(&lines(10)).status, 200);
    let good = hand.frame(&lines(10));
    // Announces 31 MiB of text, which the limit allows, and inflates to just that.
    let columns = number_at(&good, at::COLUMNS_BYTES);
    let text = 31u32 << 20;
    let payload = zstd::bulk::compress(&vec![0u8; 32 + columns as usize + text as usize], 3).unwrap();
    let bomb = forge(&good, &[(at::TEXT_BYTES, text)], Some(&payload));
    let before = alone.server.resident_bytes().unwrap();
    let address = alone.sql.address;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(|| post(address, &bomb).unwrap().status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 400 | 413 | 429 | 503)), "{statuses:?}");
    let grown = alone.server.resident_bytes_peak().unwrap().saturating_sub(before);
    println!("32 bombs of 31 MiB at once: resident memory grew by {} MiB at most", grown >> 20);
    assert!(grown < 400 << 20, "memory grew by {} MiB", grown >> 20);
    assert_eq!(hand.send(&lines(10)).status, 200);
}

/// Guarantees: who is fenced, has no session, or leaves a hole is told so by code, and a declared hole is taken.
#[test]
fn sessions_and_positions_are_held_against_what_is_committed() {
    let alone = Alone::start("positions", None, None);
    let address = alone.sql.address;
    let mut hand = Hand::open(address, 1, "hand");
    assert_eq!(hand.send(&lines(10)).status, 200);

    let stranger = Hand { agent: AgentId::from_bytes([9; 16]), ..Hand::open(address, 2, "other") };
    let response = stranger.post(&stranger.frame(&lines(1)));
    assert_eq!((response.status, code(&response).as_str()), (409, "no_session"));

    let hole = hand.post(&hand.frame_at(200, &lines(5), None));
    assert_eq!((hole.status, code(&hole).as_str()), (409, "position"));
    assert_eq!(hole.json()["expected"][0]["position"]["minor"], 100);

    let again = hand.post(&hand.frame_at(0, &lines(10), None));
    assert_eq!(
        (again.status, again.json()["rows"].as_u64(), again.json()["duplicate_rows"].as_u64()),
        (200, Some(0), Some(10))
    );
    let half = hand.post(&hand.frame_at(50, &lines(10), None));
    assert_eq!(
        (half.status, half.json()["rows"].as_u64(), half.json()["duplicate_rows"].as_u64()),
        (200, Some(5), Some(5))
    );

    let gap = Gap {
        from: Position::new(1, 150),
        reason: GapReason::Rotated,
        bytes: 50,
        timestamp_before_ns: 0,
        timestamp_after_ns: 0,
    };
    let declared = hand.post(&hand.frame_at(200, &lines(5), Some(gap)));
    assert_eq!(declared.status, 200, "{}", declared.text());
    let gaps = gaps(alone.sql, "hand");
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from.minor, gaps[0].to.minor, gaps[0].reason.as_str()), (150, 200, "rotated"));

    assert_eq!(open_session(address, hand.agent).status, 200);
    let fenced = hand.post(&hand.frame_at(250, &lines(5), None));
    assert_eq!((fenced.status, code(&fenced).as_str()), (409, "fenced"));
    assert_eq!(alone.sql.number("select count(*) as n from logs"), 20);
}

/// Guarantees: a body that does not say its length is read to its end or refused, never beyond the limit, and never hangs.
#[test]
fn a_body_without_a_length_is_taken_in_bounds_or_refused() {
    let alone = Alone::start("no_length", None, None);
    let hand = Hand::open(alone.sql.address, 1, "hand");
    let chunked = |pieces: &mut dyn Iterator<Item = Vec<u8>>| {
        let mut stream = connect(alone.sql.address).unwrap();
        let head = "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        for piece in pieces {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
            // The server may have answered and closed already.
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
        stream.write_all(b"0\r\n\r\n").ok();
        read_response(&mut BufReader::new(stream))
    };
    let frame = hand.frame(&lines(20));
    let taken = chunked(&mut frame.chunks(100).map(<[u8]>::to_vec)).unwrap();
    println!("a frame in chunks: {}", taken.status);
    assert!(matches!(taken.status, 200 | 411), "{} {}", taken.status, taken.text());
    // 64 MiB without end: refused, or cut off with the answer lost in the reset.
    if let Ok(endless) = chunked(&mut std::iter::repeat_n(vec![7; 64 << 10], 1024)) {
        assert!(matches!(endless.status, 400 | 411 | 413), "{} {}", endless.status, endless.text());
    }

    for head in [
        "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
        "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = connect(alone.sql.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let answer = read_response(&mut BufReader::new(stream)).unwrap();
        assert!((400..500).contains(&answer.status), "{head}: {}", answer.status);
    }
    let expected = if taken.status == 200 { 20 } else { 0 };
    assert_eq!(alone.sql.number("select count(*) as n from logs"), expected);
}

/// Scenario: the server's disk fills up while frames come.
/// Guarantees: 503 while there is still space, no ack without durability, reads go on, and when space returns so does the
/// service, without a hand.
#[test]
fn a_full_disk_refuses_in_time_and_recovers_by_itself() {
    let test = "a_full_disk_refuses_in_time_and_recovers_by_itself";
    if !is_root() {
        return skip(test, "needs root, to mount a small disk");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 96) else {
        return skip(test, "cannot mount a loop ext4");
    };
    let ballast = disk.path.join("ballast");
    std::fs::write(&ballast, vec![1; 40 << 20]).unwrap();
    let config = "[journal]\nsegment_bytes = \"16MiB\"\nfree_bytes_min = \"8MiB\"\n[store]\nflush_bytes = \"4MiB\"\nfresh_bytes_max = \"32MiB\"\nflush_age = \"2s\"\n";
    let mut alone = Alone::start("full_disk", Some(&disk.path.join("data")), Some(config));
    let mut hand = Hand::open(alone.sql.address, 1, "hand");
    let mut acked = 0;
    let refused = (0..400).find_map(|round| {
        let text = noise(round, 500, 2_000);
        let response = hand.send(&text);
        match response.status {
            200 => acked += 500,
            503 => return Some(response),
            other => panic!("{other}: {}", response.text()),
        }
        None
    });
    let refused = refused.expect("400 MB went onto a disk of 96 MiB");
    assert_eq!(code(&refused), "busy");
    assert!(refused.header("retry-after").is_some(), "no Retry-After");
    let free = disk.free_bytes();
    println!("refused with {} KiB free, after {acked} rows", free >> 10);
    assert!(free > 0, "refused only when the disk was full");
    assert!(!alone.output().contains("No space left"), "ENOSPC was reached before the refusal");
    assert!(alone.server.runs());
    assert_eq!(alone.sql.number("select count(*) as n from logs"), acked);

    std::fs::remove_file(&ballast).unwrap();
    let text = noise(9_999, 500, 2_000);
    let status = try_wait_for(seconds(30), || (hand.send(&text).status == 200).then_some(()));
    assert!(status.is_some(), "still refused 30 s after space came back: {}", alone.server.last_words());
    acked += 500;
    assert_eq!(alone.sql.number("select count(*) as n from logs"), acked);
    alone.server.kill();
    alone.server.start();
    assert_eq!(alone.sql.number("select count(*) as n from logs"), acked, "after a restart");
}

/// Scenario: a container is removed by force while its log is read; another one prints on.
/// Guarantees: what was read before stays right and in order, the agent lives, the other container loses nothing.
#[test]
fn a_container_removed_while_it_is_read_ends_its_source_and_nothing_else() {
    need_docker!("a_container_removed_while_it_is_read_ends_its_source_and_nothing_else");
    let mut world = World::start("removed", Plan::default());
    let doomed = Cast::new(world.seed, "doomed", 400_000, Driver::JsonFile).rate(20_000);
    let other = Cast::new(world.seed, "other", 6_000, Driver::JsonFile).rate(2_000);
    let doomed_api = Cast::new(world.seed, "doomed-api", 400_000, Driver::Local).rate(5_000);
    let ids = [doomed.run(&world), doomed_api.run(&world)];
    other.run(&world);
    world.wait_rows("doomed", 1_000, 30);
    world.wait_rows("doomed-api", 1_000, 30);
    ids.iter().for_each(|id| world.docker.remove(id));
    let verdicts = world.judge_all(std::slice::from_ref(&other.printed), 30);
    assert!(verdicts[0].is_clean(), "{}", verdicts[0]);
    for cast in [&doomed, &doomed_api] {
        let verdict = judge(world.sql, &cast.printed);
        println!("{verdict}");
        assert_eq!(
            (verdict.duplicates, verdict.mismatches, verdict.strangers, verdict.disorder),
            (0, 0, 0, 0),
            "{verdict}"
        );
        assert!(verdict.stored >= 1_000);
    }
    assert!(world.agent.runs(), "{}", world.agent.last_words());
}

/// Scenario: the agent is started where no dockerd answers; dockerd comes later.
/// Guarantees: the agent waits, and reads as soon as there is something to read.
#[test]
fn an_agent_started_before_dockerd_waits_for_it() {
    need_docker!("an_agent_started_before_dockerd_waits_for_it");
    let mut world = World::prepare("before_dockerd", Plan::default(), Docker::start_without_dockerd());
    world.server.start();
    world.agent.start();
    let died = try_wait_for(seconds(3), || world.agent.ended());
    assert!(died.is_none(), "the agent ended without a dockerd: {}", world.agent.last_words());
    world.docker.start_dockerd();
    world.docker.import_image();
    let late = Cast::new(world.seed, "late", 2_000, Driver::JsonFile);
    late.run(&world);
    let verdicts = world.judge_all(std::slice::from_ref(&late.printed), 60);
    assert!(verdicts[0].is_clean(), "{}", verdicts[0]);
}

/// Scenario: while the agent is down a log with two files is rotated many times.
/// Guarantees: after its return there is exactly one gap row, it covers exactly the lost lines, and the rest is there.
#[test]
fn a_log_rotated_away_while_the_agent_was_down_leaves_exactly_one_gap_row() {
    need_docker!("a_log_rotated_away_while_the_agent_was_down_leaves_exactly_one_gap_row");
    let mut world = World::start("rotated", Plan::default());
    let drops = Driver::Rotated { max_size: "50k", max_file: 2 };
    let cast = Cast::new(world.seed, "rotated", 6_000, drops).gate(60);
    let id = cast.run(&world);
    world.wait_rows("rotated", 60, 30);
    world.agent.kill();
    world.open_gate("rotated");
    assert_eq!(world.docker.wait(&id, seconds(60)), 0);
    world.agent.start();
    let verdicts = world.judge_all(std::slice::from_ref(&cast.printed), 60);
    assert!(verdicts[0].is_clean(), "{}", verdicts[0]);
    let gaps = gaps(world.sql, "rotated");
    println!("{} lines lost to rotation: {gaps:?}", verdicts[0].declared);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].reason, "rotated");
    // The files are gone and nobody saw their sizes: zero says that, where a guess would say something else.
    assert_eq!(gaps[0].bytes, 0);
    assert!(verdicts[0].declared > 3_000);
}

/// Scenario: while the agent is down a log is rotated many times, and Docker compresses what it rotates.
/// Guarantees: every line is there once, and no gap is told.
#[test]
fn files_that_docker_has_compressed_are_read_where_the_agent_was_down() {
    need_docker!("files_that_docker_has_compressed_are_read_where_the_agent_was_down");
    let mut world = World::start("compressed", Plan::default());
    let driver = Driver::Compressed { max_size: "50k", max_file: 100 };
    let cast = Cast::new(world.seed, "compressed", 6_000, driver).gate(60);
    let id = cast.run(&world);
    world.wait_rows("compressed", 60, 30);
    world.agent.kill();
    world.open_gate("compressed");
    assert_eq!(world.docker.wait(&id, seconds(60)), 0);
    let directory = world.docker.containers_directory().join(&id);
    let is_compressed = |place: u32| directory.join(format!("{id}-json.log.{place}.gz")).exists();
    wait_until("Docker's compressed files", seconds(30), || is_compressed(1) && is_compressed(3));
    world.agent.start();
    let verdicts = world.judge_all(std::slice::from_ref(&cast.printed), 60);
    assert!(verdicts[0].is_clean(), "{}", verdicts[0]);
    assert_eq!((verdicts[0].declared, gaps(world.sql, "compressed").len()), (0, 0));
}

/// Scenario: one line of 100 MiB without a newline, with secrets across each MiB; and another one, printed to a terminal.
/// Guarantees: it is stored in pieces, in order, whole but for the secrets; the agent's memory stays bounded.
#[test]
fn a_line_without_an_end_is_stored_in_pieces_without_its_secrets() {
    need_docker!("a_line_without_an_end_is_stored_in_pieces_without_its_secrets");
    let world = World::start("endless", Plan::default());
    let warm = Printed {
        container: "warm".into(),
        seed: 1,
        lines: 5_000,
        shape: Shape::Plain,
        streams: Streams::Out,
    };
    world.run(&warm, 0, None, |_| {});
    world.wait_rows("warm", 5_000, 30);
    let mut secrets = print_endless(&world, "endless", false, world.seed);
    secrets.extend(print_endless(&world, "endless-tty", true, world.seed + 1));
    world.search(secrets).assert_clean();
}

/// Prints such a line and holds what is stored against it; gives its secrets.
fn print_endless(world: &World, name: &str, tty: bool, seed: u64) -> Vec<Secret> {
    const BYTES: usize = 100 << 20;
    let before = world.agent.resident_bytes_peak().unwrap();
    let words = ["/bin/generator", "endless", &BYTES.to_string(), &seed.to_string()];
    let id = world.docker.run(&Spec { tty, ..Spec::new(name, &words) });
    assert_eq!(world.docker.wait(&id, seconds(60)), 0);
    let mut text = Vec::new();
    let secrets = endless(BYTES, seed, |piece| text.extend_from_slice(piece));
    assert!(secrets.len() >= 20);
    let text = String::from_utf8(text).unwrap();
    let last = &text[text.len() - 40..];
    let query =
        format!("select count(*) as n from logs where container = '{name}' and message like '%{last}'");
    wait_until("the line's end", seconds(60), || world.sql.try_number(&query).is_ok_and(|n| n > 0));

    let stored = rows(world.sql, name);
    let pieces = stored.len();
    let whole: String = stored.into_iter().map(|row| row.message).collect();
    let mut rest = whole.as_str();
    let mut from = 0;
    for secret in &secrets {
        let phrase = secret.phrase();
        let at = from + text[from..].find(&phrase).unwrap();
        rest = rest
            .strip_prefix(&text[from..at])
            .unwrap_or_else(|| panic!("text before the {} differs", secret.kind));
        let next = text[at + phrase.len()..].chars().take(8).collect::<String>();
        let kept = rest.find(&next).unwrap_or_else(|| panic!("text after the {} is gone", secret.kind));
        assert!(!rest[..kept].contains(&secret.value), "a {} was left", secret.kind);
        rest = &rest[kept..];
        from = at + phrase.len();
    }
    assert_eq!(rest, &text[from..], "the text after the last secret differs");
    let grown = world.agent.resident_bytes_peak().unwrap().saturating_sub(before);
    println!(
        "{name}, 100 MiB without a newline: {pieces} pieces, the agent's peak memory grew by {} KiB",
        grown >> 10
    );
    assert!(grown < 64 << 20, "the agent's memory grew by {} MiB", grown >> 20);
    let secrets = secrets.into_iter().map(|secret| Secret {
        kind: secret.kind,
        origin: name.to_owned(),
        value: secret.value,
    });
    secrets.collect()
}
