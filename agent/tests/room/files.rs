//! Plain files: what is rotated, emptied, copied, removed and used again, under an agent that runs or does not.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beeacon_agent::files::FilesConfig;
use beeacon_agent::files::glob::PathGlob;
use beeacon_agent::multiline::Grouping;
use beeacon_agent::timestamp::LineTime;
use beeacon_agent::{Agent, AgentConfig};
use beeacon_filters::{Engine, EngineOptions};
use beeacon_record::GapReason;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::collector::{Collector, Mood, State};
use crate::stories::{Running, config, directory, number};

/// A program that writes a log.
struct Program {
    path: PathBuf,
    file: File,
    next: u64,
}

impl Program {
    fn start(directory: &TempDir) -> Self {
        std::fs::create_dir_all(directory.path().join("logs")).unwrap();
        let path = directory.path().join("logs/app.log");
        Program { file: open(&path), path, next: 0 }
    }

    fn write(&mut self, lines: u64) {
        let mut text = String::new();
        for _ in 0..lines {
            text.push_str(&format!("mail bob@example.org {}\n", self.next));
            self.next += 1;
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// Every rotated file gets the next number.
    fn shift(&self) {
        for place in (1..64).rev().filter(|place| self.rotated(*place).exists()) {
            std::fs::rename(self.rotated(place), self.rotated(place + 1)).unwrap();
        }
    }

    fn rotated(&self, place: u32) -> PathBuf {
        PathBuf::from(format!("{}.{place}", self.path.display()))
    }

    fn rename(&mut self) {
        self.shift();
        std::fs::rename(&self.path, self.rotated(1)).unwrap();
        self.file = open(&self.path);
    }

    fn copy_and_empty(&mut self) {
        self.shift();
        std::fs::copy(&self.path, self.rotated(1)).unwrap();
        self.empty();
    }

    fn empty(&mut self) {
        self.file.set_len(0).unwrap();
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn files(directory: &TempDir, pattern: &str) -> FilesConfig {
    let pattern = format!("{}/logs/{pattern}", directory.path().display());
    FilesConfig {
        include: vec![PathGlob::parse(&pattern).unwrap()],
        close_after: Duration::from_millis(300),
        ..FilesConfig::default()
    }
}

fn with(collector: &Collector, directory: &TempDir, files: FilesConfig) -> AgentConfig {
    AgentConfig { files: vec![files], ..config(collector, directory.path()) }
}

fn start(config: AgentConfig) -> Running {
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    Running::run(Agent::new(config, engine, 0).unwrap())
}

fn numbers(state: &State) -> Vec<u64> {
    let mut numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_plain_files_are_stored_scrubbed_with_service_labels_time_and_groups() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    let time = "2026-11-26T08:00:00Z";
    program
        .file
        .write_all(format!("{time} boom\n  at bob@example.org\n{time} \u{1f41d} ").as_bytes())
        .unwrap();
    program.file.write_all(b"\xff\n").unwrap();
    std::fs::write(directory.path().join("logs/app.log.1.gz"), "not to be read\n").unwrap();
    let files = FilesConfig {
        service: Some("shop".into()),
        grouping: Grouping::parse("indent").unwrap(),
        line_time: LineTime::parse("auto").unwrap(),
        ..files(&directory, "app.log*")
    };
    let running = start(with(&collector, &directory, files));
    collector.until("2 rows", |state| state.rows.len() == 2).await;
    let status = running.agent.status();
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let rows: Vec<_> = state.rows.iter().map(|(_, _, row)| row).collect();
    assert_eq!(rows[0].message, format!("{time} boom\n  at <EMAIL>"));
    assert_eq!(rows[1].message, format!("{time} \u{1f41d} \u{fffd}"));
    assert!(rows.iter().all(|row| row.service == "shop"));
    assert_eq!(status.containers[0].name, program.path.display().to_string());
    assert_eq!(status.containers[0].service, "shop");
    assert!(state.rows.iter().all(|(source, ..)| source.starts_with("file:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_or_deleted_while_it_is_open_is_read_to_its_end() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    program.write(10);
    // The pattern does not lead to rotated files.
    let running = start(with(&collector, &directory, files(&directory, "*.log")));
    collector.until("the first lines", |state| state.rows.len() == 10).await;
    collector.state.lock().unwrap().mood = Mood::Slow;
    let mut old = program.file.try_clone().unwrap();
    program.write(2000);
    program.rename();
    program.write(10);
    // The program has not noticed yet that the log was renamed, and the last line has no newline.
    old.write_all(b"mail bob@example.org 2020\nmail bob@example.org 2021").unwrap();
    program.next = 2022;
    std::fs::remove_file(program.rotated(1)).unwrap();
    let is_found = |state: &State| state.sources.len() == 2;
    collector.until("the new file", is_found).await;
    program.write(1);
    std::fs::remove_file(&program.path).unwrap();
    program.write(1);
    drop(old);
    collector.until("all lines and two ends", |state| state.finals == 2 && state.rows.len() == 2024).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(numbers(&state), (0..2024).collect::<Vec<_>>());
    assert_eq!((state.gaps.len(), state.duplicates_stored), (0, 0));
    let cut = state.rows.iter().find(|(_, _, row)| number(&row.message) == 2021).unwrap();
    assert_eq!(cut.2.attributes, [("truncated".to_owned(), "eof".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_emptied_in_place_loses_nothing_that_was_read_and_repeats_nothing() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    let running = start(with(&collector, &directory, files(&directory, "*.log")));
    for round in 1..=5 {
        program.write(100);
        collector.until("the round", |state| state.rows.len() == round * 100).await;
        program.empty();
        // Longer than before at once: its size alone does not tell.
        if round == 3 {
            program.write(400);
            collector.until("the long one", |state| state.rows.len() >= 700).await;
            program.empty();
            break;
        }
    }
    program.write(1);
    collector.until("the last", |state| state.rows.len() == 701).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(numbers(&state), (0..701).collect::<Vec<_>>());
    assert_eq!((state.gaps.len(), state.duplicates_stored), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_unread_when_a_log_was_emptied_is_a_gap_with_its_bytes() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    program.write(10);
    let running = start(with(&collector, &directory, files(&directory, "*.log")));
    collector.until("the first lines", |state| state.rows.len() == 10).await;
    program.file.write_all(b"a line without an end").unwrap();
    let lag = || running.agent.status().containers.first().map_or(0, |file| file.lag_bytes);
    collector.until("it is seen", |_| lag() == 21).await;
    program.empty();
    program.write(1);
    collector.until("the line behind", |state| state.rows.len() == 11).await;
    running.stop().await;
    // While the agent is down nothing tells how much there was.
    program.write(10);
    program.empty();
    program.write(1);
    let running = start(with(&collector, &directory, files(&directory, "*.log")));
    collector.until("the line behind that", |state| state.rows.len() == 12).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let gaps: Vec<_> = state.gaps.iter().map(|(_, gap, _)| (gap.reason, gap.bytes)).collect();
    assert_eq!(gaps, [(GapReason::Rotated, 21), (GapReason::Unknown, 0)]);
    assert_eq!(state.duplicates_stored, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_left_by_a_writer_that_did_not_notice_the_emptying_is_damage_and_no_line() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    // Not appending: after the emptying it goes on at its own place.
    program.file = File::create(&program.path).unwrap();
    let running = start(with(&collector, &directory, files(&directory, "*.log")));
    program.write(5000);
    collector.until("the lines", |state| state.rows.len() == 5000).await;
    program.empty();
    program.write(10);
    collector.until("the lines behind", |state| state.rows.len() == 5010).await;
    let damaged = || running.agent.status().damaged_bytes;
    collector.until("the hole is counted", |_| damaged() > 100_000).await;
    running.stop().await;
    assert_eq!(numbers(&collector.state.lock().unwrap()), (0..5010).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inode_that_is_used_again_is_another_file() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    program.write(100);
    let config = with(&collector, &directory, files(&directory, "*.log"));
    let running = start(config.clone());
    collector.until("the lines", |state| state.rows.len() == 100).await;
    running.stop().await;
    let inode = std::fs::metadata(&program.path).unwrap().ino();
    let mut others = Vec::new();
    for attempt in 0..1000 {
        std::fs::remove_file(&program.path).ok();
        program = Program { next: 100, ..Program::start(&directory) };
        if std::fs::metadata(&program.path).unwrap().ino() == inode {
            break;
        }
        // Another name holds the inode that was given, so that the next attempt gets another one.
        let other = directory.path().join(format!("other-{attempt}"));
        std::fs::hard_link(&program.path, &other).unwrap();
        others.push(other);
    }
    let is_reused = std::fs::metadata(&program.path).unwrap().ino() == inode;
    if !is_reused {
        let required = std::env::var("BEEACON_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "this file system does not use an inode again");
        writeln!(std::io::stderr(), "SKIPPED: this file system does not use an inode again").unwrap();
        return;
    }
    program.write(200);
    let running = start(config);
    collector.until("all lines", |state| state.rows.len() == 300).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(numbers(&state), (0..300).collect::<Vec<_>>());
    assert_eq!(state.duplicates_stored, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_removed_while_the_agent_is_down_ends_with_a_gap_once() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    program.write(10);
    let config = with(&collector, &directory, files(&directory, "*.log"));
    let running = start(config.clone());
    collector.until("the lines", |state| state.rows.len() == 10).await;
    running.stop().await;
    std::fs::remove_file(&program.path).unwrap();
    for _ in 0..2 {
        let running = start(config.clone());
        collector.until("the end", |state| state.finals == 1).await;
        program = Program { next: program.next, ..Program::start(&directory) };
        program.write(1);
        let rows = usize::try_from(program.next).unwrap();
        collector.until("another file", |state| state.rows.len() == rows).await;
        running.stop().await;
    }
    let state = collector.state.lock().unwrap();
    let reasons: Vec<_> = state.gaps.iter().map(|(_, gap, _)| gap.reason).collect();
    assert_eq!((reasons, state.finals), (vec![GapReason::Unknown], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_line_is_stored_whole_in_parts_though_the_agent_is_stopped_within() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    let config = with(&collector, &directory, files(&directory, "*.log"));
    let letters =
        |word: u32| word.to_string().bytes().map(|digit| char::from(digit + 49)).collect::<String>();
    let text: String = (0..600_000).map(|word| letters(word) + " ").collect();
    let (before, behind) = text.split_at(text.len() / 2);
    program.file.write_all(before.as_bytes()).unwrap();
    let running = start(config.clone());
    collector.until("some parts", |state| !state.rows.is_empty()).await;
    running.stop().await;
    program.file.write_all(behind.as_bytes()).unwrap();
    program.file.write_all(b"\n").unwrap();
    let running = start(config);
    let length = text.len();
    let stored = |state: &State| state.rows.iter().map(|(_, _, row)| row.message.len()).sum::<usize>();
    collector.until("all parts", |state| stored(state) == length).await;
    running.stop().await;
    let mut rows = collector.state.lock().unwrap().rows.clone();
    rows.sort_by_key(|(_, position, _)| *position);
    assert_eq!(rows.iter().map(|(_, _, row)| row.message.as_str()).collect::<String>(), text);
}

/// What happens to a log.
#[derive(Clone, Copy, Debug)]
enum Act {
    Write(u64),
    Rename,
    CopyAndEmpty,
    Restart,
    Stored,
    LosesAnswers,
    DeleteOldest,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (1u64..400).prop_map(Act::Write),
        2 => Just(Act::Rename),
        2 => Just(Act::CopyAndEmpty),
        1 => Just(Act::Restart),
        2 => Just(Act::Stored),
        1 => Just(Act::LosesAnswers),
        1 => Just(Act::DeleteOldest),
    ];
    proptest::collection::vec(act, 1..25)
}

async fn play(acts: &[Act]) {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    let config = with(&collector, &directory, files(&directory, "app.log*"));
    let mut running = start(config.clone());
    let rows = |program: &Program| usize::try_from(program.next).unwrap();
    for act in acts {
        match act {
            Act::Write(lines) => program.write(*lines),
            Act::Rename => program.rename(),
            Act::CopyAndEmpty => program.copy_and_empty(),
            Act::Restart => {
                running.stop().await;
                program.write(3);
                running = start(config.clone());
            }
            Act::Stored => {
                let wanted = rows(&program);
                collector.until("all so far", |state| state.rows.len() >= wanted).await;
            }
            Act::LosesAnswers => {
                let mut state = collector.state.lock().unwrap();
                state.mood = if state.mood == Mood::Well { Mood::LosesAnswers } else { Mood::Well };
            }
            Act::DeleteOldest => {
                let wanted = rows(&program);
                collector.until("all so far", |state| state.rows.len() >= wanted).await;
                if let Some(place) = (1..64).rev().find(|place| program.rotated(*place).exists()) {
                    std::fs::remove_file(program.rotated(place)).unwrap();
                }
            }
        }
    }
    program.write(1);
    let wanted = rows(&program);
    collector.until("every line", |state| state.rows.len() >= wanted).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for number in numbers(&state) {
        *counts.entry(number).or_default() += 1;
    }
    let wrong: Vec<u64> = (0..program.next).filter(|line| counts.get(line) != Some(&1)).collect();
    if let (Some(first), Some(last)) = (wrong.first(), wrong.last()) {
        let times = counts.get(first).copied().unwrap_or(0);
        let rows: Vec<_> = state.rows.iter().filter(|(_, _, row)| number(&row.message) == *first).collect();
        panic!(
            "{} lines from {first} to {last} not once, the first {times} times, at {rows:?}, gaps {:?}, after {acts:?}",
            wrong.len(),
            state.gaps
        );
    }
    assert_eq!(state.duplicates_stored, 0);
}

/// Scenario: a log that is written to, renamed, copied and emptied, with an agent that is started again and answers that are lost.
/// Guarantees: every line once, as long as somebody keeps the rotated files.
#[test]
fn property_test_whatever_rotation_happens_every_line_is_stored_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = ProptestConfig { cases: 10, max_shrink_iters: 0, ..ProptestConfig::default() };
    proptest!(config, |(acts in acts())| {
        runtime.block_on(play(&acts));
    });
}

/// Scenario: the program is killed again and again while a log is written and rotated by renaming; its state is erased once. Guarantees:
/// every line is stored once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_loses_and_repeats_no_line_of_plain_files_that_are_rotated() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut program = Program::start(&directory);
    let file = directory.path().join("agent.toml");
    let path = directory.path().display();
    let text = format!(
        "[agent]\ncollector = \"{}\"\ndata = \"{path}/data\"\ndocker_host = \"none\"\n[[agent.files]]\ninclude = [\"{path}/logs/app.log*\"]\n",
        collector.url
    );
    std::fs::write(&file, text).unwrap();
    let spawn = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
        command.arg("run").arg("--config").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut rounds = 0;
        while !finished.load(Ordering::Relaxed) {
            program.write(20);
            rounds += 1;
            // Files enough for all of the test, so that nothing is ever removed unread.
            if rounds % 100 == 0 && !program.rotated(60).exists() {
                program.rename();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        program.next
    });
    for round in 0..12u64 {
        let before = collector.state.lock().unwrap().sessions;
        let mut child = spawn();
        collector.until("a session of the new program", |state| state.sessions > before).await;
        tokio::time::sleep(Duration::from_millis(round * 37)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        if round == 6 {
            std::fs::remove_dir_all(directory.path().join("data")).unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    let lines = writing.await.unwrap();
    let mut child = spawn();
    collector.until("every line", |state| state.rows.len() as u64 >= lines).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let state = collector.state.lock().unwrap();
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0));
    assert!(state.sessions >= 10, "the program was hardly ever up: {} sessions", state.sessions);
    let mut of: HashMap<&str, Vec<u64>> = HashMap::new();
    for (source, _, row) in &state.rows {
        of.entry(source).or_default().push(number(&row.message));
    }
    assert!(of.len() > 2, "the log was hardly ever rotated");
    assert!(of.values().all(|numbers| numbers.is_sorted()), "the order within a file is kept");
    let mut all: Vec<u64> = of.into_values().flatten().collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..lines), "lines are missing or doubled");
}
