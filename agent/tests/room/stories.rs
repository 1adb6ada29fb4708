use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beeacon_agent::filter::{Filter, ScrubCounts, ScrubError};
use beeacon_agent::multiline::Grouping;
use beeacon_agent::picking::Picks;
use beeacon_agent::pollen::FilterConfig;
use beeacon_agent::reload::{self, Load};
use beeacon_agent::selection::Condition;
use beeacon_agent::timestamp::LineTime;
use beeacon_agent::{Agent, AgentConfig, AgentError};
use beeacon_filters::{Engine, EngineOptions, Scope};
use beeacon_record::{Batch, GapReason, Position, Scrubbed};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::collector::{Collector, Mood};
use crate::dockerd::Log;

pub(crate) struct Running {
    pub(crate) agent: Agent,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), AgentError>>,
}

impl Running {
    pub(crate) fn start(collector: &Collector, directory: &Path) -> Self {
        let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
        let agent = Agent::new(config(collector, directory), engine, 0).unwrap();
        Running::run(agent)
    }

    pub(crate) fn run(agent: Agent) -> Self {
        let stop = CancellationToken::new();
        let (running, stopping) = (agent.clone(), stop.clone());
        let task = tokio::spawn(async move { running.run(stopping).await });
        Running { agent, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) fn config(collector: &Collector, directory: &Path) -> AgentConfig {
    AgentConfig {
        collector: collector.url.clone(),
        data: directory.join("data"),
        docker_host: None,
        containers_directory: Some(directory.join("containers")),
        host: "h".into(),
        flush_after: Duration::from_millis(20),
        ..AgentConfig::default()
    }
}

pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("containers")).unwrap();
    directory
}

pub(crate) fn log(directory: &TempDir, id: &str, size_max: u64, file_max: usize) -> Log {
    Log::create(&directory.path().join("containers"), id, size_max, file_max)
}

/// The number at the end of a message.
pub(crate) fn number(message: &str) -> u64 {
    message.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_several_containers_are_stored_once_scrubbed_and_in_order() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut logs: Vec<Log> = (0..3).map(|index| log(&directory, &format!("c{index}"), 0, 1)).collect();
    let running = Running::start(&collector, directory.path());
    for line in 0..1000 {
        for log in &mut logs {
            let stream = if line % 3 == 0 { "stderr" } else { "stdout" };
            log.line(stream, &format!("mail bob@example.org \"q\" \u{1f41d} {line}"));
        }
    }
    collector.until("3000 rows", |state| state.rows.len() == 3000).await;
    assert!(running.agent.status().healthy);
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let mut next: HashMap<String, u64> = HashMap::new();
    for (source, _, row) in &state.rows {
        let expected = next.entry(source.clone()).or_default();
        assert_eq!(number(&row.message), *expected);
        assert!(row.message.starts_with("mail <EMAIL> \"q\" \u{1f41d}"), "{}", row.message);
        assert_eq!(row.stream, if expected.is_multiple_of(3) { "stderr" } else { "stdout" });
        *expected += 1;
    }
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn split_empty_damaged_and_terminal_lines_come_out_right() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut plain = log(&directory, "plain", 0, 1);
    let full = "f".repeat(16 << 10);
    plain.line("stdout", "");
    let at = plain.now();
    plain.piece("stdout", &full, at);
    plain.line("stderr", "between");
    plain.piece("stdout", &full, at);
    plain.piece("stdout", "\n", at);
    plain.raw(b"{\"log\":\"torn");
    plain.line("stdout", "behind a torn record");
    plain.raw(&[0; 300]);
    plain.line("stdout", "behind a hole");
    plain.raw(b"no record at all\n");
    plain.line("stdout", "carriage return stays\r");
    let at = plain.now();
    plain.piece("stdout", "last words", at);
    plain.describe(false, false);
    let mut terminal = log(&directory, "terminal", 0, 1);
    terminal.describe(true, true);
    terminal.line("stdout", "10%\r20%\r");
    let running = Running::start(&collector, directory.path());
    collector.until("8 rows", |state| state.rows.len() >= 8).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let of = |wanted: &str| {
        let rows = state.rows.iter().filter(|(source, ..)| source.ends_with(wanted));
        rows.map(|(_, _, row)| row.message.clone()).collect::<Vec<_>>()
    };
    let double = format!("{full}{full}");
    let expected = [
        "",
        "between",
        &double,
        "behind a torn record",
        "behind a hole",
        "carriage return stays\r",
        "last words",
    ];
    assert_eq!(of("plain"), expected);
    assert_eq!(of("terminal"), ["10%\r20%"]);
    assert_eq!(
        state.rows.iter().filter(|(_, _, row)| row.attributes.len() == 1).count(),
        1,
        "only the last words are cut"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_across_the_cuts_of_an_endless_line_is_scrubbed_and_no_byte_is_lost() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut endless = log(&directory, "endless", 0, 1);
    let at = endless.now();
    let mut written = 0;
    for piece in 0..200 {
        let text = format!("{piece:08} secret-{piece}@example.org ").repeat(900);
        let text = &text[..16 << 10];
        written += text.len();
        endless.piece("stdout", text, at);
    }
    endless.piece("stdout", "\n", at);
    let running = Running::start(&collector, directory.path());
    collector.until("the last row", |state| !state.sources.is_empty() && state.rows.len() >= 4).await;
    running.stop().await;
    let messages = collector.messages();
    assert!(written > 3 << 20 && messages.iter().all(|message| !message.contains("@example.org")));
    assert_eq!(collector.state.lock().unwrap().duplicates_stored, 0);
    let joined = messages.concat();
    assert!((0..200).all(|piece| joined.contains(&format!("{piece:08} "))));
}

/// Scenario: Docker rotates several hundred times a second and keeps two files. Guarantees: a line is stored, or it lies
/// within a gap; never both, never neither.
async fn storm(size_max: u64, file_max: usize, lines: u64) -> (usize, usize) {
    let (collector, directory) = (Collector::start().await, directory());
    let mut storm = log(&directory, "storm", size_max, file_max);
    let first = storm.line("stdout", "line 0");
    let running = Running::start(&collector, directory.path());
    collector.until("the first line", |state| state.rows.len() == 1).await;
    let writing = tokio::task::spawn_blocking(move || {
        let mut places = vec![first];
        let text = "x".repeat(150);
        for line in 1..lines {
            places.push(storm.line("stdout", &format!("{text} {line}")));
        }
        places
    });
    let places = writing.await.unwrap();
    let last = lines - 1;
    collector
        .until("the last line", |state| {
            state.rows.last().is_some_and(|(_, _, row)| number(&row.message) == last)
        })
        .await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(state.duplicates_stored, 0);
    let stored: HashMap<u64, Position> =
        state.rows.iter().map(|(_, position, row)| (number(&row.message), *position)).collect();
    let mut missing = 0;
    for (line, place) in places.iter().enumerate() {
        let in_gap = state.gaps.iter().any(|(_, gap, to)| gap.from <= *place && place < to);
        match stored.get(&(line as u64)) {
            Some(position) => {
                assert_eq!(position, place, "line {line} stands elsewhere");
                assert!(!in_gap, "line {line} is stored and in a gap");
            }
            None => {
                assert!(in_gap, "line {line} at {place} is missing and in no gap: {:?}", state.gaps);
                missing += 1;
            }
        }
    }
    (missing, state.gaps.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_rotations_every_line_is_stored_or_in_a_gap() {
    let (missing, gaps) = storm(20_000, 2, 60_000).await;
    println!("two files: {missing} of 60000 lines missing in {gaps} gaps");
    let (missing, gaps) = storm(20_000, 1, 60_000).await;
    println!("one file: {missing} of 60000 lines missing in {gaps} gaps");
}

#[tokio::test(flavor = "multi_thread")]
async fn moderate_rotation_loses_nothing_and_declares_nothing() {
    assert_eq!(storm(1 << 20, 5, 60_000).await, (0, 0));
}

/// Scenario: every third line comes in pieces, and Docker rotates between them as well as anywhere else.
/// Guarantees: each is one row, whole, at the place of its first piece; nothing is missing and no gap is declared.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_split_across_rotations_are_joined() {
    const LINES: u64 = 6_000;
    let (collector, directory) = (Collector::start().await, directory());
    let mut split = log(&directory, "split", 45_000, 60);
    let running = Running::start(&collector, directory.path());
    let writing = tokio::task::spawn_blocking(move || {
        let (mut places, mut across) = (Vec::new(), 0);
        for line in 0..LINES {
            if line % 3 > 0 {
                places.push(split.line("stdout", &format!("whole {line}")));
                continue;
            }
            let (at, text) = (split.now(), "p".repeat(100));
            let first = split.piece("stdout", &text, at);
            split.line("stderr", &format!("between {line}"));
            split.piece("stdout", &text, at);
            let last = split.piece("stdout", &format!(" {line}\n"), at);
            across += u64::from(first.major < last.major);
            places.push(first);
        }
        (places, across)
    });
    let (places, across) = writing.await.unwrap();
    assert!(across > 4, "only {across} lines lay across a rotation");
    let rows = usize::try_from(LINES + LINES / 3).unwrap();
    collector.until("every line", |state| state.rows.len() >= rows).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let lines = state.rows.iter().filter(|(_, _, row)| row.stream == "stdout");
    let found: HashMap<u64, (Position, usize)> =
        lines.map(|(_, place, row)| (number(&row.message), (*place, row.message.len()))).collect();
    for (line, place) in (0..LINES).zip(&places) {
        let bytes = if line % 3 > 0 { format!("whole {line}") } else { format!(" {line}") }.len();
        let expected = (*place, if line % 3 > 0 { bytes } else { bytes + 200 });
        assert_eq!(found.get(&line), Some(&expected), "line {line}");
    }
    assert_eq!((state.rows.len(), state.duplicates_stored, state.gaps.len()), (rows, 0, 0));
}

/// Scenario: while the agent is down a log is removed and written anew, by a container of the same id, in a file with the same inode
/// and the same first record. Guarantees: it is another file, behind a gap; nothing of it is taken for what was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_written_anew_under_the_same_inode_is_another_file() {
    use std::os::unix::fs::MetadataExt;
    let (collector, directory) = (Collector::start().await, directory());
    let path = directory.path().join("containers/again/again-json.log");
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let mut before = log(&directory, "again", 0, 1);
    for line in 0..10 {
        before.line("stdout", &format!("line {line}"));
    }
    let running = Running::start(&collector, directory.path());
    collector.until("10 rows", |state| state.rows.len() == 10).await;
    running.stop().await;
    drop(before);
    let known = inode();
    // The file system gives a free inode to the next file; where another program was faster, the one after that gets it.
    let mut taken = Vec::new();
    std::fs::remove_file(&path).unwrap();
    let mut after = log(&directory, "again", 0, 1);
    while inode() != known {
        assert!(taken.len() < 500, "this file system does not give an inode again");
        let aside = directory.path().join(format!("aside{}", taken.len()));
        std::fs::rename(&path, &aside).unwrap();
        taken.push(aside);
        after = log(&directory, "again", 0, 1);
    }
    for line in 0..30 {
        after.line("stdout", &format!("line {line}"));
    }
    let running = Running::start(&collector, directory.path());
    collector.until("30 rows more", |state| state.rows.len() == 40).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    assert_eq!(numbers, (0..10).chain(0..30).collect::<Vec<_>>());
    assert_eq!(state.gaps.len(), 1);
    assert!(state.rows.iter().skip(10).all(|(_, place, _)| place.major == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_away_while_the_agent_was_down_is_one_gap_with_its_bounds() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut kept = log(&directory, "kept", 0, 3);
    let mut lost = log(&directory, "lost", 0, 2);
    for line in 0..10 {
        kept.line("stdout", &format!("kept {line}"));
        lost.line("stdout", &format!("lost {line}"));
    }
    let running = Running::start(&collector, directory.path());
    collector.until("20 rows", |state| state.rows.len() == 20).await;
    running.stop().await;
    let committed = collector.state.lock().unwrap().sources["docker-file:lost"].committed;
    for line in 10..13 {
        kept.line("stdout", &format!("kept {line}"));
        lost.line("stdout", &format!("lost {line}"));
        kept.rotate();
        lost.rotate();
        if line == 11 {
            // Only two of kept's files are old ones.
            kept.line("stdout", "kept 12");
            lost.line("stdout", "lost 12");
            lost.rotate();
            break;
        }
    }
    lost.line("stdout", "lost 13");
    let running = Running::start(&collector, directory.path());
    collector
        .until("the rest", |state| {
            let has = |wanted: &str| state.rows.iter().any(|(_, _, row)| row.message == wanted);
            has("kept 12") && has("lost 13")
        })
        .await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let count = |wanted: &str| state.rows.iter().filter(|(source, ..)| source.ends_with(wanted)).count();
    assert_eq!(count("kept"), 13);
    assert_eq!(state.gaps.len(), 1);
    let (source, gap, to) = &state.gaps[0];
    assert_eq!((source.as_str(), gap.from, gap.reason), ("docker-file:lost", committed, GapReason::Rotated));
    assert_eq!(*to, Position::new(2, 0));
    assert_eq!(state.duplicates_stored, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_emptied_in_place_is_a_new_one_behind_a_gap() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut emptied = log(&directory, "emptied", 0, 1);
    for line in 0..100 {
        emptied.line("stdout", &format!("before {line}"));
    }
    let running = Running::start(&collector, directory.path());
    collector.until("100 rows", |state| state.rows.len() == 100).await;
    emptied.truncate();
    emptied.line("stdout", "after 0");
    collector.until("the line after", |state| state.rows.len() == 101).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(state.gaps.len(), 1);
    assert_eq!(state.rows[100].1, Position::new(2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_lost_answers_and_forgotten_sessions_neither_lose_nor_repeat_a_line() {
    for mood in [Mood::Busy, Mood::LosesAnswers, Mood::Forgets] {
        let (collector, directory) = (Collector::start().await, directory());
        collector.state.lock().unwrap().mood = mood;
        let mut log = log(&directory, "c", 100_000, 20);
        let running = Running::start(&collector, directory.path());
        for line in 0..3000 {
            log.line("stdout", &format!("line {line}"));
            if line % 300 == 0 {
                collector.until("what was written", |state| state.rows.len() > line).await;
            }
        }
        collector.until("3000 rows", |state| state.rows.len() >= 3000).await;
        running.stop().await;
        let state = collector.state.lock().unwrap();
        assert_eq!((state.rows.len(), state.duplicates_stored, state.gaps.len()), (3000, 0, 0), "{mood:?}");
        assert!(
            state.rows.iter().enumerate().all(|(index, (_, _, row))| number(&row.message) == index as u64)
        );
        match mood {
            Mood::Busy => assert!(state.refused > 0),
            Mood::LosesAnswers => assert!(state.duplicate_rows > 0),
            _ => assert!(state.sessions > 1),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_even_alone_becomes_a_gap_and_the_others_go_on() {
    let (collector, directory) = (Collector::start().await, directory());
    collector.state.lock().unwrap().mood = Mood::Refuses("poison");
    let mut log = log(&directory, "c", 0, 1);
    let mut poisoned = Position::START;
    for line in 0..200 {
        let word = if line == 77 { "poison" } else { "line" };
        let place = log.line("stdout", &format!("{word} {line}"));
        if line == 77 {
            poisoned = place;
        }
    }
    let running = Running::start(&collector, directory.path());
    collector.until("199 rows", |state| state.rows.len() == 199).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let gaps: Vec<_> = state.gaps.iter().map(|(_, gap, _)| (gap.from, gap.reason)).collect();
    assert_eq!(gaps, [(poisoned, GapReason::Policy)]);
    assert_eq!(state.duplicates_stored, 0);
}

/// A filter that fails after a while.
struct Failing {
    engine: Engine,
    fails: AtomicBool,
    panics: bool,
}

impl Filter for Failing {
    fn scrub(&self, batch: Batch) -> Result<(Scrubbed<Batch>, ScrubCounts), ScrubError> {
        if self.fails.load(Ordering::Relaxed) {
            assert!(!self.panics, "as asked for");
            return Err(ScrubError::Refused { reason: "as asked for".into() });
        }
        let (scrubbed, _) = self.engine.scrub(batch).unwrap();
        Ok((scrubbed, ScrubCounts::default()))
    }

    fn safe_cut(&self, _: &[u8], at_most: usize) -> Result<usize, ScrubError> {
        Ok(at_most)
    }

    fn key_version(&self) -> u32 {
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_stops_shipping_for_good() {
    for panics in [false, true] {
        let (collector, directory) = (Collector::start().await, directory());
        let mut log = log(&directory, "c", 0, 1);
        log.line("stdout", "first 0");
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let filter = Arc::new(Failing { engine, fails: AtomicBool::new(false), panics });
        let agent = Agent::with_filter(config(&collector, directory.path()), filter.clone()).unwrap();
        let running = Running::run(agent);
        collector.until("the first row", |state| state.rows.len() == 1).await;
        filter.fails.store(true, Ordering::Relaxed);
        log.line("stdout", "second 1");
        for _ in 0..200 {
            if !running.agent.status().healthy {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(running.agent.status().problems.iter().any(|problem| problem.contains("filter")));
        filter.fails.store(false, Ordering::Relaxed);
        log.line("stdout", "third 2");
        running.stop().await;
        assert_eq!(collector.messages(), ["first 0"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_container_is_read_to_its_end_and_named_final() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "gone", 0, 1);
    let running = Running::start(&collector, directory.path());
    log.line("stdout", "line 0");
    collector.until("the first row", |state| state.rows.len() == 1).await;
    let at = log.now();
    log.piece("stdout", "last words 1", at);
    log.remove();
    collector.until("the end", |state| state.finals == 1).await;
    assert_eq!(collector.messages(), ["line 0", "last words 1"]);
    running.stop().await;
}

fn spawn(collector: &Collector, directory: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
    command.args(["run", "--docker-host", "none", "--collector", &collector.url]);
    command.arg("--data").arg(directory.join("data"));
    command.arg("--containers-directory").arg(directory.join("containers"));
    command.env("BEEACON_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Scenario: the program is killed again and again while lines, split lines and rotations go on; its state is erased once.
/// Guarantees: every line is stored once and in order; nothing that was planted stands in its own output at trace level.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_loses_and_repeats_nothing() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "c", 200_000, 50);
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut split = None;
        let mut line = 0;
        while !finished.load(Ordering::Relaxed) || split.is_some() {
            match (line % 50, split) {
                (10, None) => {
                    let at = log.now();
                    log.piece("stdout", "planted-8c1f@example.org split ", at);
                    split = Some(at);
                }
                (40, Some(at)) => {
                    log.piece("stdout", &format!("{line}\n"), at);
                    split = None;
                    line += 1;
                    continue;
                }
                _ => {}
            }
            log.line("stderr", &format!("planted-8c1f@example.org line {line}"));
            line += 1;
            if line % 20 == 0 {
                // What Docker keeps lasts for some twenty seconds then, however slow a start is.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        line
    });
    let mut output = Vec::new();
    for round in 0..12u64 {
        let before = collector.state.lock().unwrap().sessions;
        let mut child = spawn(&collector, directory.path());
        // However long a start takes: from there on, the moment of the kill is another one each time.
        collector.until("a session of the new program", |state| state.sessions > before).await;
        tokio::time::sleep(Duration::from_millis(round * 37)).await;
        child.kill().unwrap();
        let printed = child.wait_with_output().unwrap();
        output.extend_from_slice(&printed.stderr);
    }
    done.store(true, Ordering::Relaxed);
    let lines = writing.await.unwrap();
    let mut child = spawn(&collector, directory.path());
    collector.until("every line", |state| state.rows.len() as u64 >= lines).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert!(child.wait().unwrap().success(), "a program that is asked to stop ends well");
    let state = collector.state.lock().unwrap();
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0));
    assert!(state.sessions >= 10, "the program was hardly ever up: {} sessions", state.sessions);
    let mut ids: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    let stderr: Vec<u64> = state
        .rows
        .iter()
        .filter(|(_, _, row)| row.stream == "stderr")
        .map(|(_, _, row)| number(&row.message))
        .collect();
    assert!(stderr.is_sorted(), "order within a stream is kept");
    ids.sort_unstable();
    assert!(ids.iter().enumerate().all(|(index, id)| index as u64 == *id), "lines are missing or doubled");
    let printed = String::from_utf8_lossy(&output);
    assert!(!printed.contains("planted-8c1f"), "text of a line was printed");
    assert!(state.rows.iter().all(|(_, _, row)| row.message.starts_with("<EMAIL> ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_one_row_and_a_key_over_its_lines_is_redacted_whole_though_the_agent_is_stopped_within() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "java", 0, 1);
    let start = |directory: &TempDir| {
        let mut config = config(&collector, directory.path());
        config.selection.multiline =
            vec![(Condition::parse("name:*").unwrap(), Grouping::parse("java").unwrap())];
        // How long the machine takes must not matter.
        config.selection.multiline_wait = Duration::from_secs(3600);
        let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
        Running::run(Agent::new(config, engine, 0).unwrap())
    };
    let mut running = start(&directory);
    for count in 0..60 {
        log.line("stdout", &format!("ERROR failed {count}"));
        log.line("stderr", &format!("plain {count}"));
        if count % 20 == 10 {
            // In the middle of a group, which the collector knows as open by then.
            collector
                .until("the lines before", |state| {
                    state.rows.len() >= usize::try_from(count * 2).unwrap() - 2
                })
                .await;
            running.stop().await;
            running = start(&directory);
        }
        log.line("stdout", "java.lang.Exception: -----BEGIN RSA PRIVATE KEY-----");
        log.line("stdout", "  MIIEpAIBAAKCAQEA0000000000000000000000000000000000000000000000aa");
        log.line("stdout", "  -----END RSA PRIVATE KEY-----");
    }
    log.describe(false, false);
    collector.until("120 rows", |state| state.rows.len() == 120).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let failed: Vec<&str> = state
        .rows
        .iter()
        .filter(|(_, _, row)| row.stream == "stdout")
        .map(|(_, _, row)| row.message.as_str())
        .collect();
    for (count, message) in failed.iter().enumerate() {
        assert!(message.starts_with(&format!("ERROR failed {count}\njava.lang.Exception: <")), "{message}");
        assert!(!message.contains("MIIE"), "{message}");
    }
    assert_eq!(failed.len(), 60);
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_left_out_by_rate_and_sample_are_counted_and_are_no_gap_and_excluded_containers_are_not_read() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut kept = log(&directory, "kept", 0, 1);
    let mut other = log(&directory, "other", 0, 1);
    let mut config = config(&collector, directory.path());
    config.selection.exclude = vec![Condition::parse("name:name-oth*").unwrap()];
    config.selection.sample_millionths = 500_000;
    config.selection.rate = Some(10);
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    let running = Running::run(Agent::new(config, engine, 0).unwrap());
    for line in 0..1000 {
        kept.line("stdout", &format!("line {line}"));
        other.line("stdout", &format!("line {line}"));
    }
    let end = kept.line("stdout", "ERROR the last");
    collector
        .until("all is covered", |state| {
            state.sources.get("docker-file:kept").is_some_and(|known| known.committed > end)
        })
        .await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(state.rows.len() as u64 + state.dropped_rows, 1001);
    assert!(state.rows.len() >= 10 && state.rows.len() < 100, "{}", state.rows.len());
    assert!(state.gaps.is_empty() && state.sources.len() == 1);
}

/// Scenario: a group is open when the agent is stopped, and at the next start its lines are not to be joined any more.
/// Guarantees: what was committed as one group is one row, the lines behind it are rows of their own, none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_an_open_group_are_not_lost_when_the_next_start_joins_no_lines() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "c", 0, 1);
    let start = |grouping: &str| {
        let mut config = config(&collector, directory.path());
        config.selection.multiline =
            vec![(Condition::parse("name:*").unwrap(), Grouping::parse(grouping).unwrap())];
        config.selection.multiline_wait = Duration::from_secs(3600);
        let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
        Running::run(Agent::new(config, engine, 0).unwrap())
    };
    let running = start("indent");
    for text in ["first", "Oops", " at a"] {
        log.line("stdout", text);
    }
    let last = log.line("stdout", " at b");
    collector
        .until("the open group", |state| {
            state.sources.values().any(|source| source.committed > last && !source.open.is_empty())
        })
        .await;
    running.stop().await;
    log.line("stdout", " at c");
    log.line("stdout", "last");
    let running = start("none");
    collector.until("all rows", |state| state.rows.len() == 4).await;
    running.stop().await;
    assert_eq!(collector.messages(), ["first", "Oops\n at a\n at b", " at c", "last"]);
}

/// Scenario: fields and timestamps are taken from lines of one container; one field holds an address.
/// Guarantees: the attribute holds what the filter left of it, escapes are resolved, the time is the line's where it is near
/// Docker's, and another container's lines are as ever.
#[tokio::test(flavor = "multi_thread")]
async fn fields_become_attributes_after_redaction_and_times_come_from_lines() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut json = log(&directory, "json", 0, 1);
    let mut other = log(&directory, "other", 0, 1);
    let mut config = config(&collector, directory.path());
    let condition = Condition::parse("name:name-json").unwrap();
    config.selection.attributes =
        vec![(condition.clone(), Picks::parse("user as who, http.path, n").unwrap())];
    config.selection.timestamp = vec![(condition, LineTime::parse("auto").unwrap())];
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    let running = Running::run(Agent::new(config, engine, 0).unwrap());
    // Docker's clock stands at 2023-11-14T22:13:20 here.
    let near = "2023-11-14T22:13:19.5Z";
    json.line(
        "stdout",
        &format!(r#"{{"ts":"{near}","user":"bob@example.org","http":{{"path":"/a\"b"}},"n":7}}"#),
    );
    json.line("stdout", r#"ts=2001-01-01T00:00:00Z user="bob@example.org" n=8"#);
    let line = format!("{near} user=bob@example.org n=9");
    other.line("stdout", &line);
    collector.until("three rows", |state| state.rows.len() == 3).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let of = |source: &str| -> Vec<&crate::collector::Row> {
        let rows = state.rows.iter().filter(|(name, ..)| name.ends_with(source));
        rows.map(|(_, _, row)| row).collect()
    };
    let rows = of("json");
    assert_eq!(rows[0].attributes, [pair("who", "<EMAIL>"), pair("http.path", "/a\"b"), pair("n", "7")]);
    assert_eq!(rows[1].attributes, [pair("who", "<EMAIL>"), pair("n", "8")]);
    let near: jiff::Timestamp = near.parse().unwrap();
    assert_eq!(i128::from(rows[0].timestamp_ns), near.as_nanosecond());
    assert!(rows[1].timestamp_ns > rows[0].timestamp_ns, "a time of long ago is not believed");
    assert!(of("other")[0].attributes.is_empty() && of("other")[0].timestamp_ns > rows[0].timestamp_ns);
    assert!(!format!("{:?}", state.rows).contains("bob@"));
}

/// Scenario: while lines are written, the configuration's file is replaced again and again: lines are joined and not, by one rule
/// and by another, another profile scrubs, the collector loses answers; now and then the file is faulty.
/// Guarantees: every line is stored once and in order, alone or in its group; a faulty file changes nothing and its faults are in
/// the status; the last configuration is the one in use.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_configuration_lose_and_repeat_no_line_and_faulty_ones_change_nothing() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "c", 100_000, 50);
    let base = config(&collector, directory.path());
    let file = directory.path().join("beeacon.toml");
    let write = |text: &str| {
        let temporary = file.with_extension("new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, &file).unwrap();
    };
    write("");
    let (path, defaults) = (file.clone(), base.clone());
    let load: Load = Arc::new(move || {
        let text = std::fs::read_to_string(&path).unwrap();
        let document = beeacon_settings::Document::parse("b.toml", &text, &beeacon_settings::Nothing);
        let mut section = document.root().section("agent");
        let config = defaults.clone().read(&document, &mut section);
        section.close();
        let filter = FilterConfig::read_document(&document);
        document.finish().map_err(|faults| faults.to_string())?;
        Ok((config, filter))
    });
    let filter = FilterConfig::default();
    let pollen = filter.engine(&base.data).unwrap();
    let running = Running::run(Agent::with_pollen(base, pollen, filter.key_version).unwrap());
    let agent = running.agent.clone();
    tokio::spawn(reload::follow(agent.clone(), Some(file.clone()), filter, load, running.stop.clone()));
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut line = 0;
        while !finished.load(Ordering::Relaxed) {
            let indent = if line % 4 == 0 { "" } else { "  " };
            let stream = if line % 3 == 0 { "stderr" } else { "stdout" };
            log.line(stream, &format!("{indent}bob@example.org {line}"));
            line += 1;
            std::thread::sleep(Duration::from_micros(500));
        }
        line
    });
    collector.state.lock().unwrap().mood = Mood::LosesAnswers;
    let mut wanted = 0;
    for round in 0..8 {
        let text = match round % 4 {
            0 => "[agent]\nmultiline = [\"name:* => indent\"]\n",
            1 => "[agent]\nmultiline = [\"name:* => start:^b\"]\n[filter]\nprofile = \"gdpr\"\n",
            2 => "[agent]\nmultilin = []\n[filter]\nprofile = \"gdpr\"\n",
            _ => "[agent]\nhost = \"other\"\nflush_after = \"5 ms\"\n",
        };
        let before = agent.status().reload;
        write(text);
        for _ in 0..600 {
            if agent.status().reload != before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let after = agent.status().reload;
        if round % 4 == 2 {
            assert_eq!((after.refused, after.taken), (before.refused + 1, before.taken));
            assert!(after.faults.contains("agent.multilin"), "{}", after.faults);
            continue;
        }
        wanted += 1;
        assert_eq!((after.taken, after.faults.as_str()), (wanted, ""));
    }
    collector.state.lock().unwrap().mood = Mood::Well;
    done.store(true, Ordering::Relaxed);
    let lines: u64 = writing.await.unwrap();
    let of = |message: &str| -> Vec<u64> { message.lines().map(number).collect() };
    collector
        .until("every line", |state| {
            state.rows.iter().map(|(_, _, row)| row.message.lines().count() as u64).sum::<u64>() >= lines
        })
        .await;
    assert_eq!(agent.config().host, "other");
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0));
    let mut seen: Vec<u64> = state.rows.iter().flat_map(|(_, _, row)| of(&row.message)).collect();
    seen.sort_unstable();
    assert!(
        seen.iter().enumerate().all(|(index, line)| index as u64 == *line),
        "lines are missing or doubled"
    );
    assert_eq!(seen.len() as u64, lines);
    for stream in ["stdout", "stderr"] {
        let rows = state.rows.iter().filter(|(_, _, row)| row.stream == stream);
        assert!(rows.flat_map(|(_, _, row)| of(&row.message)).is_sorted(), "order within {stream}");
    }
    let groups = state.rows.iter().filter(|(_, _, row)| row.message.contains('\n')).count();
    assert!(groups > 10 && groups < state.rows.len(), "{groups} of {} rows", state.rows.len());
    assert!(state.rows.iter().all(|(_, _, row)| !row.message.contains("example.org")));
}

/// Scenario: the program itself gets SIGHUP with another configuration, then with a faulty one.
/// Guarantees: the first is in use without a new start, the second changes nothing, and both are said.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_takes_another_configuration_at_sighup() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "c", 0, 1);
    let file = directory.path().join("b.toml");
    std::fs::write(&file, "[agent]\nexclude = [\"name:*\"]\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
    command.args(["run", "--docker-host", "none", "--collector", &collector.url]);
    command.arg("--config").arg(&file).arg("--data").arg(directory.path().join("data"));
    command.arg("--containers-directory").arg(directory.path().join("containers"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let signal = |signal| {
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    };
    log.line("stdout", "line 0");
    collector.until("a session", |state| state.sessions == 1).await;
    std::fs::write(&file, "[agent]\nlabels = []\n").unwrap();
    signal(rustix::process::Signal::HUP);
    collector.until("the line of what was left out", |state| state.rows.len() == 1).await;
    std::fs::write(&file, "[agent]\nexclude = [\"planted\"]\n").unwrap();
    signal(rustix::process::Signal::HUP);
    log.line("stdout", "line 1");
    collector.until("lines go on", |state| state.rows.len() == 2).await;
    // The signal is taken in the background; what it said is in the log by the time that the next one is.
    std::fs::write(&file, "[agent]\nflush_after = \"30 ms\"\n").unwrap();
    let sessions = collector.state.lock().unwrap().sessions;
    collector.until("the next one", |state| state.sessions > sessions).await;
    signal(rustix::process::Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("another configuration is in use"), "{printed}");
    assert!(printed.contains("is refused") && printed.contains("agent.exclude"), "{printed}");
}

/// Scenario: containers with names, images and labels of all kinds; some labels ask for less of their logs, some for a weaker filter.
/// Guarantees: exactly those are read that the configuration and the labels leave; a label names the service where that changes no
/// rule, and a profile where the host offers it; neither makes less of what is redacted.
#[tokio::test(flavor = "multi_thread")]
async fn containers_are_chosen_and_their_labels_never_weaken_redaction() {
    let (collector, directory) = (Collector::start().await, directory());
    let table: &[(&str, &str, &str, Option<&str>)] = &[
        ("shop-web", "shop/web:1", "{}", Some("shop-web")),
        ("other", "shop/api:1", "{}", Some("other")),
        ("other-2", "bar:1", "{}", None),
        ("shop-not", "shop/web:1", r#"{"logs":"off"}"#, None),
        ("shop-on", "shop/web:1", r#"{"logs":"on"}"#, Some("shop-on")),
        ("shop-tmp", "scratch:1", "{}", None),
        ("shop-less", "shop/web:1", r#"{"beeacon.enable":"false"}"#, None),
        ("shop-named", "shop/web:1", r#"{"beeacon.service":"till"}"#, Some("till")),
        (
            "shop-weak",
            "shop/web:1",
            r#"{"beeacon.service":"lab-1","beeacon.profile":"secrets"}"#,
            Some("shop-weak"),
        ),
        ("shop-strict", "shop/web:1", r#"{"beeacon.profile":"hipaa"}"#, Some("shop-strict")),
        ("bar", "bar:1", r#"{"beeacon.enable":"true"}"#, None),
    ];
    let mut logs = Vec::new();
    for (name, image, labels, _) in table {
        let mut log = log(&directory, name, 0, 1);
        let text = format!(
            r#"{{"ID":"{name}","Name":"/{name}","Config":{{"Tty":false,"Image":"{image}","Labels":{labels}}},
               "State":{{"Running":true,"StartedAt":"2024-01-01T00:00:00Z"}}}}"#
        );
        std::fs::write(directory.path().join("containers").join(name).join("config.v2.json"), text).unwrap();
        log.line("stdout", "mail bob@example.org from 10.1.2.3");
        logs.push(log);
    }
    let mut config = config(&collector, directory.path());
    let conditions = |texts: &[&str]| -> Vec<Condition> {
        texts.iter().map(|text| Condition::parse(text).unwrap()).collect()
    };
    config.selection.include = conditions(&["name:shop-*", "image:shop/*"]);
    config.selection.exclude = conditions(&["label:logs=off", "image:scratch:?"]);
    let weak = Scope::new(&["lab-*".into()], &[], Some("secrets"), vec![]).unwrap();
    let options = EngineOptions { scopes: vec![weak, Scope::chosen("hipaa")], ..EngineOptions::default() };
    let engine = Arc::new(Engine::new(options).unwrap());
    // The scope is weaker: without the guard the last container's address would pass.
    assert!(!engine.treats_alike(("shop-weak", &[]), ("lab-1", &[])));
    let running = Running::run(Agent::new(config, engine, 0).unwrap());
    let wanted: Vec<(&str, &str)> =
        table.iter().filter_map(|(name, _, _, service)| Some((*name, (*service)?))).collect();
    collector.until("all that is wanted", |state| state.rows.len() >= wanted.len()).await;
    for log in &mut logs {
        log.line("stdout", "mail bob@example.org from 10.1.2.3");
    }
    collector.until("the second lines", |state| state.rows.len() >= 2 * wanted.len()).await;
    let status = running.agent.status();
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(state.rows.len(), 2 * wanted.len());
    for (source, _, row) in &state.rows {
        let address = if source.ends_with("shop-strict") { "<IPV4>" } else { "10.1.2.0" };
        assert_eq!(row.message, format!("mail <EMAIL> from {address}"), "{source}");
    }
    for (name, service) in wanted {
        let rows = state.rows.iter().filter(|(source, ..)| *source == format!("docker-file:{name}"));
        assert!(rows.map(|(_, _, row)| row.service.as_str()).eq([service, service]), "{name}");
    }
    assert!(status.containers.iter().all(|container| container.name != "bar"));
}
