use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beeacon_agent::spool::SpoolConfig;
use beeacon_agent::status::AgentStatus;
use beeacon_agent::{Agent, AgentConfig};
use beeacon_filters::{Engine, EngineOptions};
use beeacon_record::Position;
use tempfile::TempDir;

use crate::collector::{Collector, Mood, Row, State};
use crate::stories::{Running, config, directory, log, number};

fn start(collector: &Collector, directory: &TempDir, spool: SpoolConfig) -> Running {
    let spool = SpoolConfig { patience: Duration::from_millis(100), free_bytes_min: 0, ..spool };
    let config = AgentConfig { spool, ..config(collector, directory.path()) };
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    Running::run(Agent::new(config, engine, 0).unwrap())
}

async fn until(running: &Running, what: &str, holds: impl Fn(&AgentStatus) -> bool) {
    for _ in 0..600 {
        if holds(&running.agent.status()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("after 30 s still not so: {what}; {:?}", running.agent.status());
}

fn lag(status: &AgentStatus) -> u64 {
    status.containers.iter().map(|container| container.lag_bytes).sum()
}

fn waiting(status: &AgentStatus) -> u64 {
    status.spool.map_or(0, |spool| spool.frames)
}

fn in_order(state: &State) -> bool {
    let numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    numbers.iter().enumerate().all(|(index, number)| index as u64 == *number)
}

/// Scenario: the collector goes away; Docker removes what was read meanwhile; the agent is started again, still without a
/// collector, and reads on; a container is created meanwhile; the collector comes back.
/// Guarantees: every line once and in order, no gap; reading went on without a session.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_docker_removes_while_the_collector_is_away_come_from_the_spool() {
    let (collector, directory) = (Collector::start().await, directory());
    // About 1,800 lines a file: what is written at once below is still there when it is read, and gone before it is sent.
    let mut old = log(&directory, "old", 200_000, 2);
    let running = start(&collector, &directory, SpoolConfig::default());
    let mut line = 0;
    let mut write = |log: &mut crate::dockerd::Log, count: u64| {
        for _ in 0..count {
            log.line("stdout", &format!("mail bob@example.org line {line}"));
            line += 1;
        }
    };
    write(&mut old, 50);
    collector.until("the first rows", |state| state.rows.len() == 50).await;
    collector.state.lock().unwrap().mood = Mood::Down;
    for lines in [1550, 3050, 4550] {
        write(&mut old, 1500);
        until(&running, "lines are read", |status| status.lines >= lines && lag(status) == 0).await;
    }
    until(&running, "the outage is spooled", |status| waiting(status) > 0).await;
    running.stop().await;
    write(&mut old, 30);
    let running = start(&collector, &directory, SpoolConfig::default());
    for lines in [30, 1530, 3030] {
        until(&running, "reading goes on", |status| status.lines >= lines && lag(status) == 0).await;
        write(&mut old, if lines < 3000 { 1500 } else { 0 });
    }
    assert_eq!(running.agent.status().epoch, 0, "there was no session");
    collector.state.lock().unwrap().mood = Mood::Well;
    collector.until("all of it", |state| state.rows.len() == 7580).await;
    // Past the spool again.
    until(&running, "the spool is empty", |status| waiting(status) == 0).await;
    write(&mut old, 20);
    collector.until("the last rows", |state| state.rows.len() == 7600).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert!(in_order(&state));
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0, "{:?}", state.gaps);
    assert!(state.rows.iter().all(|(_, _, row)| row.message.starts_with("mail <EMAIL> ")));
}

/// Scenario: while a long backlog is sent, with every second answer lost, another container prints.
/// Guarantees: its lines do not wait for the backlog; every line is stored once, in the order of its source.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_does_not_keep_fresh_lines_of_others_waiting() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut many = log(&directory, "many", 0, 1);
    let running = start(&collector, &directory, SpoolConfig::default());
    many.line("stdout", "line 0");
    collector.until("the first row", |state| state.rows.len() == 1).await;
    collector.state.lock().unwrap().mood = Mood::Down;
    for round in 0..40 {
        for line in 0..50 {
            many.line("stdout", &format!("line {}", 1 + round * 50 + line));
        }
        until(&running, "a round", |status| status.lines > (round + 1) * 50).await;
    }
    until(&running, "a backlog", |status| waiting(status) > 20).await;
    collector.state.lock().unwrap().mood = Mood::LosesAnswers;
    let mut few = log(&directory, "few", 0, 1);
    few.line("stdout", "line 0");
    collector
        .until("the fresh line", |state| state.rows.iter().any(|(name, ..)| name.ends_with("few")))
        .await;
    many.line("stdout", "line 2001");
    collector.until("everything", |state| state.rows.len() == 2003).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let place = state.rows.iter().position(|(name, ..)| name.ends_with("few")).unwrap();
    assert!(place < 2002, "the fresh line came last of all");
    let numbers: Vec<u64> = state
        .rows
        .iter()
        .filter(|(name, ..)| name.ends_with("many"))
        .map(|(_, _, row)| number(&row.message))
        .collect();
    assert!(numbers.iter().enumerate().all(|(index, number)| index as u64 == *number));
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0);
}

/// Scenario: the collector goes away, and the one that comes in its place is older and reads the first version of frames only.
/// Guarantees: what was kept in a newer version is sent in the older one, and so is what comes after it; every line once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_collector_gets_frames_that_it_can_read_also_those_from_the_spool() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "c", 0, 1);
    let running = start(&collector, &directory, SpoolConfig::default());
    let mut write = |lines: std::ops::Range<u64>| {
        for line in lines {
            log.line("stdout", &format!("mail bob@example.org line {line}"));
        }
    };
    write(0..500);
    collector.until("the first rows", |state| state.rows.len() == 500).await;
    collector.state.lock().unwrap().mood = Mood::Down;
    write(500..1000);
    until(&running, "the outage is spooled", |status| waiting(status) > 0 && lag(status) == 0).await;
    {
        let mut state = collector.state.lock().unwrap();
        assert_eq!(std::mem::take(&mut state.newest_taken), beeacon_record::FRAME_VERSION);
        (state.mood, state.frame_version) = (Mood::Well, None);
    }
    collector.until("what was spooled", |state| state.rows.len() == 1000).await;
    write(1000..1500);
    collector.until("the rest", |state| state.rows.len() == 1500).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert!(in_order(&state) && state.gaps.is_empty() && state.duplicates_stored == 0);
    assert_eq!(state.newest_taken, 1);
}

/// Scenario: two collectors over one store, of which now the one and now the other does not answer.
/// Guarantees: the other one takes its place; every line once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn another_collector_takes_the_place_of_one_that_does_not_answer() {
    let (first, directory) = (Collector::start().await, directory());
    let second = first.beside().await;
    let mut log = log(&directory, "c", 0, 1);
    let config = AgentConfig {
        fallback_collectors: vec![second.url.clone()],
        spool: SpoolConfig { free_bytes_min: 0, ..SpoolConfig::default() },
        ..config(&first, directory.path())
    };
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    let running = Running::run(Agent::new(config, engine, 0).unwrap());
    let mut line = 0;
    for (round, (down, up)) in [(&second, &first), (&first, &second), (&second, &first)].iter().enumerate() {
        up.is_down.store(false, Ordering::Relaxed);
        down.is_down.store(true, Ordering::Relaxed);
        for _ in 0..500 {
            log.line("stdout", &format!("line {line}"));
            line += 1;
        }
        first.until("a round", |state| state.rows.len() == 500 * (round + 1)).await;
    }
    running.stop().await;
    let state = first.state.lock().unwrap();
    assert!(in_order(&state) && state.gaps.is_empty() && state.duplicates_stored == 0);
    assert!(state.sessions >= 3, "no other collector was asked: {} sessions", state.sessions);
}

/// Scenario: the collector answers every frame, too slowly for what a container writes and Docker keeps.
/// Guarantees: the agent says how soon lines would be lost, and takes them into the spool; every line once, in order, no gap.
#[tokio::test(flavor = "multi_thread")]
async fn unread_lines_that_docker_is_about_to_remove_go_to_the_spool() {
    let (collector, directory) = (Collector::start().await, directory());
    collector.state.lock().unwrap().mood = Mood::Slow;
    let mut log = log(&directory, "c", 8 << 20, 3);
    let options = r#"{"LogConfig":{"Type":"json-file","Config":{"max-size":"8m","max-file":"3"}}}"#;
    std::fs::write(directory.path().join("containers/c/hostconfig.json"), options).unwrap();
    let spool =
        SpoolConfig { patience: Duration::from_secs(60), free_bytes_min: 0, ..SpoolConfig::default() };
    let config = AgentConfig { spool, ..config(&collector, directory.path()) };
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    let running = Running::run(Agent::new(config, engine, 0).unwrap());
    until(&running, "a first look", |status| !status.containers.is_empty()).await;
    let text = "x".repeat(1000);
    let mut lines = 0;
    // Twenty megabytes at once, in files that are all still there.
    while lines < 20_000 {
        log.line("stdout", &format!("{text} {lines}"));
        lines += 1;
    }
    until(&running, "a time to loss", |status| {
        status.containers.iter().any(|container| container.time_to_loss_seconds.is_some())
    })
    .await;
    until(&running, "the spool is used", |status| waiting(status) > 0).await;
    until(&running, "everything has been read", |status| status.lines >= 20_000 && lag(status) == 0).await;
    collector.state.lock().unwrap().mood = Mood::Well;
    collector.until("everything", |state| state.rows.len() == 20_000).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert!(in_order(&state) && state.gaps.is_empty() && state.duplicates_stored == 0);
}

fn spawn(collector: &Collector, directory: &TempDir) -> Child {
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, "[agent.spool]\npatience = \"100 ms\"\nfree_bytes_min = 0\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
    command.args(["run", "--docker-host", "none", "--collector", &collector.url]);
    command.arg("--config").arg(path);
    command.arg("--data").arg(directory.path().join("data"));
    command.arg("--containers-directory").arg(directory.path().join("containers"));
    command.env("BEEACON_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Scenario: the program is killed again and again while the collector comes and goes and Docker removes most of what was
/// written.
/// Guarantees: every line is stored once or lies in a declared gap, never both; order is kept; the spool was used.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_with_a_spool_accounts_for_every_line() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = log(&directory, "c", 150_000, 4);
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut line = 0u64;
        while !finished.load(Ordering::Relaxed) {
            for _ in 0..10 {
                log.line("stdout", &format!("planted-8c1f@example.org line {line}"));
                line += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        line
    });
    let mut printed = String::new();
    let mood = |mood| collector.state.lock().unwrap().mood = mood;
    // The moments of the kills and of the collector's falls are others each time.
    let pause = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
    for round in 0..5u64 {
        for step in 0..3 {
            let before = collector.state.lock().unwrap().sessions;
            mood([Mood::Well, Mood::Down, Mood::LosesAnswers][step]);
            let mut child = spawn(&collector, &directory);
            match step {
                1 => pause(700 + round * 29).await,
                _ => collector.until("a session", |state| state.sessions > before).await,
            }
            pause(round * 17).await;
            match step {
                0 => mood(Mood::Down),
                1 if round % 2 == 0 => mood(Mood::Well),
                _ => {}
            }
            pause(if step == 0 { 300 } else { 20 } + round * 31).await;
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            printed.push_str(&String::from_utf8_lossy(&output.stderr));
        }
    }
    done.store(true, Ordering::Relaxed);
    let lines = writing.await.unwrap();
    collector.state.lock().unwrap().mood = Mood::Well;
    let mut child = spawn(&collector, &directory);
    let is_last = |row: &Row| number(&row.message) + 1 == lines;
    collector.until("the last line", |state| state.rows.iter().any(|(_, _, row)| is_last(row))).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert!(child.wait().unwrap().success(), "a program that is asked to stop ends well");
    let state = collector.state.lock().unwrap();
    assert_eq!(state.duplicates_stored, 0);
    assert!(state.rows.is_sorted_by_key(|(_, position, _)| *position), "order is kept");
    // A row after another one is the next line, or what is between them was declared missing.
    let (mut missing, mut before) = (0, None);
    for (_, position, row) in &state.rows {
        let line = number(&row.message);
        let (expected, from) = before.map_or((0, Position::START), |(line, at)| (line + 1, at));
        if line != expected {
            assert!(line > expected, "line {line} comes where {expected} should");
            missing += line - expected;
            let declared = state.gaps.iter().any(|(_, gap, to)| from < gap.from && to <= position);
            let declared = declared || before.is_none();
            assert!(declared, "lines {expected} to {line} are missing between {from} and {position}");
        }
        before = Some((line, *position));
    }
    assert_eq!(state.rows.len() as u64 + missing, lines);
    let spooled = printed.matches("frames go to the spool").count();
    let emptied = printed.matches("everything in the spool has been shipped").count();
    println!(
        "{lines} lines, {missing} missing in {} gaps, spooled {spooled} times, emptied {emptied} times",
        state.gaps.len()
    );
    assert!(spooled >= 4 && emptied >= 2, "the spool was hardly used: {spooled}, {emptied}");
    assert!(!printed.contains("planted-8c1f"), "text of a line was printed");
}
