//! The agent on a Docker API that answers as told: streams that break, clocks that step, events that never come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use beeacon_agent::container::{ReaderChoice, ReaderKind};
use beeacon_agent::{Agent, AgentConfig};
use beeacon_filters::{Engine, EngineOptions};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::collector::{Collector, State};
use crate::scripted::{Attach, Container, Docker, Entry, Since, frame};
use crate::stories::{Running, config, directory, log, number};

const SECOND_NS: i64 = 1_000_000_000;

/// Longer than lists of containers are apart, and than a silent stream is left alone.
const LIST_WITHIN_S: u64 = 60;

fn reading(docker: &Docker, collector: &Collector, directory: &TempDir, reader: ReaderChoice) -> AgentConfig {
    AgentConfig {
        docker_host: Some(docker.host.clone()),
        containers_directory: None,
        reader,
        ..config(collector, directory.path())
    }
}

fn run(config: AgentConfig) -> Running {
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    Running::run(Agent::new(config, engine, 0).unwrap())
}

fn start(docker: &Docker, collector: &Collector, directory: &TempDir) -> Running {
    run(reading(docker, collector, directory, ReaderChoice::Auto))
}

/// A timestamp long before now, in nanoseconds.
fn some_time_ago() -> i64 {
    let now_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    now_ns - 7200 * SECOND_NS
}

/// The messages of one output of a container, in the order of their arrival.
fn messages(state: &State, id: &str, stream: &str) -> Vec<String> {
    let source = format!("docker-api:{id}:{stream}");
    let rows = state.rows.iter().filter(|(name, ..)| *name == source);
    rows.map(|(_, _, row)| row.message.clone()).collect()
}

/// # Panics
/// Unless both outputs of the container are stored whole, once, in order, without a gap.
fn assert_whole(collector: &Collector, id: &str, per_stream: u64) {
    let state = collector.state.lock().unwrap();
    for stream in ["stdout", "stderr"] {
        let numbers: Vec<u64> = messages(&state, id, stream).iter().map(|message| number(message)).collect();
        assert_eq!(numbers, (0..per_stream).collect::<Vec<_>>(), "{stream} of {id}");
    }
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0), "{:?}", state.gaps);
}

fn counter(running: &Running, name: &str) -> f64 {
    let mut registry = Registry::default();
    running.agent.register(&mut registry);
    let text = beeacon_agent::metrics::exposed(&registry).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// Scenario: attach after attach goes wrong in a way of its own, while lines are written, with old and new API versions and both
/// meanings of `since`. Guarantees: each is opened anew; every line of both outputs once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn however_a_stream_breaks_it_is_opened_anew_and_no_line_is_lost_or_doubled() {
    for (version, since) in
        [("1.41", Since::EachEntry), ("1.41", Since::StartPoint), ("1.51", Since::StartPoint)]
    {
        let (collector, directory) = (Collector::start().await, directory());
        let docker = Docker::start(version, since);
        let base = some_time_ago();
        let faults = [
            Attach::Status(500),
            Attach::EndsAfter(3),
            Attach::BreaksAfter(8),
            Attach::EndsAfter(30),
            Attach::BreaksAfter(1_500),
            Attach::EndsAfter(2_003),
            Attach::EndsWith(frame(4, b"what stream is this")),
            Attach::EndsWith(vec![1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'x']),
            Attach::EndsWith(frame(3, b"Error grabbing logs: unexpected end")),
            Attach::EndsWith(frame(1, b"no timestamp at all\n")),
            Attach::Status(502),
        ];
        let mut container = Container::new("broken");
        container.attaches = faults.iter().cloned().collect();
        docker.add("broken", container);
        for line in 0..100 {
            // Several seconds between lines, so that `since` matters.
            let at = base + line * 4 * SECOND_NS;
            docker.line("broken", 1, at, &format!("out {line}"));
            docker.line("broken", 2, at + 5, &format!("err {line}"));
        }
        let running = start(&docker, &collector, &directory);
        let mut written = 100;
        while docker.attaches("broken") <= faults.len() {
            let at = base + written * 4 * SECOND_NS;
            docker.line("broken", 2, at, &format!("err {written}"));
            docker.line("broken", 1, at, &format!("out {written}"));
            written += 1;
            let known = docker.attaches("broken");
            collector.until("one more attach", |_| docker.attaches("broken") > known).await;
        }
        let rows = usize::try_from(2 * written).unwrap();
        collector.until("every line", |state| state.rows.len() >= rows).await;
        assert_whole(&collector, "broken", written.unsigned_abs());
        // The collector would leave out what comes again; it is not even sent.
        assert_eq!(collector.state.lock().unwrap().duplicate_rows, 0);
        assert!(counter(&running, "beeacon_agent_daemon_errors_total") > 0.0);
        assert!(counter(&running, "beeacon_agent_damaged_bytes_total") > 0.0);
        running.stop().await;
        let asked = docker.change(|state| state.container("broken").asked_since.clone());
        assert_eq!(asked.first(), Some(&None));
        assert!(asked.last().unwrap().is_some_and(|since_ns| since_ns > base), "{version} {since:?}");
    }
}

/// Scenario: hundreds of lines with one timestamp, stderr earlier than stdout, the clock set back by a second, a minute, an hour,
/// forward by an hour and back again; the agent is stopped and started among all of them.
/// Guarantees: every line once, in the order of the log, whatever `since` means.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_one_instant_and_of_a_clock_that_steps_are_kept_in_order_over_starts_of_the_agent() {
    for since in [Since::EachEntry, Since::StartPoint] {
        let (collector, directory) = (Collector::start().await, directory());
        let docker = Docker::start("1.51", since);
        docker.add("clock", Container::new("clock"));
        let steps_s = [0, 0, 10, -1, 0, 20, -60, 30, -3600, 3, 3601, 0];
        let (mut at, mut written) = (some_time_ago(), 0_u64);
        for step_s in steps_s {
            let running = start(&docker, &collector, &directory);
            // The clock steps while the agent listens: ten lines of each output come before it, thirty after it.
            for line in 0..40 {
                if line == 10 {
                    let rows = usize::try_from(written * 2).unwrap();
                    collector.until("the lines before the step", |state| state.rows.len() >= rows).await;
                    at += step_s * SECOND_NS;
                }
                docker.line("clock", 1, at, &format!("out {written}"));
                docker.line("clock", 2, at - 7_000, &format!("err {written}"));
                written += 1;
            }
            let rows = usize::try_from(written * 2).unwrap();
            // Half of what came after it has been stored, or all, when the agent goes.
            // A daemon that leaves them out of a stream that is open is found out once that has been silent for half a minute.
            let what = "some lines after the step";
            collector.until_within(60, what, |state| state.rows.len() > rows - 30).await;
            running.stop().await;
        }
        let running = start(&docker, &collector, &directory);
        let rows = usize::try_from(written * 2).unwrap();
        collector.until("every line", |state| state.rows.len() >= rows).await;
        running.stop().await;
        assert_whole(&collector, "clock", written);
        let state = collector.state.lock().unwrap();
        for stream in ["stdout", "stderr"] {
            let source = format!("docker-api:clock:{stream}");
            let places = state.rows.iter().filter(|(name, ..)| *name == source).map(|(_, place, _)| place);
            assert!(places.is_sorted_by(|left, right| left < right), "{since:?} {stream}");
        }
    }
}

/// Scenario: Docker gives again what it has given, many lines and the last one alone, as 20.10 does where it follows a log of the
/// `local` driver that is rotated; the agent is started anew among them.
/// Guarantees: every line once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn what_docker_gives_a_second_time_is_stored_once() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.41", Since::StartPoint);
    docker.add("again", Container::new("again"));
    let base = some_time_ago();
    let write = |lines: std::ops::Range<i64>| {
        for line in lines {
            docker.line("again", 1, base + line * SECOND_NS, &format!("out {line}"));
            docker.line("again", 2, base + line * SECOND_NS + 5, &format!("err {line}"));
        }
    };
    let (mut written, mut running) = (0, start(&docker, &collector, &directory));
    for again in [20, 1, 0, 35] {
        write(written..written + 40);
        written += 40;
        let rows = usize::try_from(2 * written).unwrap();
        collector.until("the lines before", |state| state.rows.len() >= rows).await;
        write(written - again..written);
        write(written..written + 3);
        written += 3;
        let rows = usize::try_from(2 * written).unwrap();
        collector.until("the lines behind", |state| state.rows.len() >= rows).await;
        running.stop().await;
        running = start(&docker, &collector, &directory);
    }
    running.stop().await;
    assert_whole(&collector, "again", written.unsigned_abs());
}

/// Scenario: the clock is set back by an hour while the agent is down, and Docker leaves out each entry below `since`.
/// Guarantees: what was written after it is asked for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn lines_written_after_the_clock_was_set_back_while_the_agent_was_down_are_read() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::EachEntry);
    docker.add("back", Container::new("back"));
    let base = some_time_ago();
    let write = |lines: std::ops::Range<i64>, base: i64| {
        for line in lines {
            docker.line("back", 1, base + line * SECOND_NS, &format!("out {line}"));
            docker.line("back", 2, base + line * SECOND_NS, &format!("err {line}"));
        }
    };
    write(0..20, base);
    let running = start(&docker, &collector, &directory);
    collector.until("lines before the step", |state| state.rows.len() == 40).await;
    running.stop().await;
    let hour_ns = 3600 * SECOND_NS;
    write(20..40, base - hour_ns);
    // The test cannot set the host's clock; it makes the cursors say that the clock stood an hour later when they were written.
    for state in collector.state.lock().unwrap().sources.values_mut() {
        let offset: &mut [u8; 8] = state.cursor.get_mut(9..17).unwrap().try_into().unwrap();
        *offset = (i64::from_le_bytes(*offset) + hour_ns).to_le_bytes();
    }
    let running = start(&docker, &collector, &directory);
    collector.until("lines after the step", |state| state.rows.len() >= 80).await;
    running.stop().await;
    assert_whole(&collector, "back", 40);
}

/// Scenario: a driver that keeps nothing, and one whose cache is off, for which Docker answers 501.
/// Guarantees: neither is asked again and again; a new start of the container is a new question; others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_docker_cannot_read_is_asked_for_once_a_start() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::StartPoint);
    docker.add("none", Container { driver: "none".into(), ..Container::new("none") });
    let answers = [Attach::Status(501), Attach::Status(501)];
    let driver = "syslog".to_owned();
    docker.add("off", Container { driver, attaches: answers.into(), ..Container::new("off") });
    docker.add("good", Container::new("good"));
    let running = start(&docker, &collector, &directory);
    collector.until("the answer 501", |_| docker.attaches("off") == 1).await;
    for line in 0..20 {
        docker.line("good", 1, some_time_ago() + line, &format!("out {line}"));
        collector
            .until("a line of another", |state| messages(state, "good", "stdout").len() as i64 > line)
            .await;
    }
    assert_eq!((docker.attaches("off"), docker.attaches("none"), docker.attaches("good")), (1, 0, 1));
    let is_unsupported = |name: &str| {
        let status = running.agent.status();
        let found = status.containers.iter().find(|container| container.name == name);
        found.is_some_and(|container| container.reader == ReaderKind::Unsupported)
    };
    collector.until("both to be shown so", |_| is_unsupported("off") && is_unsupported("none")).await;
    docker.change(|state| state.stop("off"));
    docker.change(|state| state.start("off"));
    collector.until("another question", |_| docker.attaches("off") == 2).await;
    docker.line("good", 1, some_time_ago() + 99, "out 20");
    collector.until("one more line", |state| messages(state, "good", "stdout").len() == 21).await;
    assert_eq!(docker.attaches("off"), 2);
    running.stop().await;
}

/// Guarantees: a container that is being removed (409) or is gone (404) when it is attached ends its source, without a storm.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_goes_while_it_is_attached_ends_without_a_storm() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::StartPoint);
    docker.add("good", Container::new("good"));
    let running = start(&docker, &collector, &directory);
    for (id, status) in [("removing", 409), ("gone", 404)] {
        docker.add(id, Container { attaches: [Attach::Status(status)].into(), ..Container::new(id) });
        collector.until("an attach", |_| docker.attaches(id) == 1).await;
        docker.change(|state| {
            state.stop(id);
            state.event(id, "destroy");
        });
        let is_known = |id: &str| running.agent.status().containers.iter().any(|one| one.id == id);
        collector.until("it to be forgotten", |_| !is_known(id)).await;
        assert!(docker.attaches(id) <= 2, "{id}");
        docker.change(|state| state.containers.remove(id));
    }
    docker.line("good", 1, some_time_ago(), "out 0");
    collector.until("a line of another", |state| state.rows.len() == 1).await;
    running.stop().await;
}

/// Scenario: a container is started when the list has been made and is not answered yet; its event is told.
/// Guarantees: it is read at once and not at the next list.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_started_between_list_and_subscription_is_read_at_once() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::StartPoint);
    docker.change(|state| {
        state.after_list = Some(Box::new(|state| {
            let entry = Entry { stream: 1, timestamp_ns: SECOND_NS, text: "out 0\n".into() };
            let between = Container { entries: vec![entry], ..Container::new("between") };
            state.containers.insert("between".into(), between);
            state.event("between", "start");
        }));
    });
    let running = start(&docker, &collector, &directory);
    collector.until("its line", |state| state.rows.len() == 1).await;
    assert!(docker.change(|state| state.lists) <= 2, "it was found by the list that comes every half minute");
    running.stop().await;
}

/// Scenario: 300 containers start within two seconds, each prints three lines, and of ten events nine get lost.
/// Guarantees: all of them are read once the next list has been made.
#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_containers_started_at_once_are_all_read_though_most_events_are_lost() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::StartPoint);
    let running = start(&docker, &collector, &directory);
    collector.until("the first lists", |_| docker.change(|state| state.lists) >= 2).await;
    let mut tick = tokio::time::interval(Duration::from_millis(6));
    for index in 0..300 {
        tick.tick().await;
        let id = format!("many{index}");
        let entries = (0..3).map(|line| Entry {
            stream: 1 + u8::from(line == 1),
            timestamp_ns: SECOND_NS + line,
            text: format!("{index} {line}\n"),
        });
        let container = Container { entries: entries.collect(), ..Container::new(&id) };
        docker.change(|state| {
            state.containers.insert(id.clone(), container);
            if index % 10 == 0 {
                state.event(&id, "start");
            }
        });
    }
    collector.until_within(LIST_WITHIN_S, "lines of all", |state| state.rows.len() >= 900).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let mut of: HashMap<&str, Vec<u64>> = HashMap::new();
    for (source, _, row) in &state.rows {
        let id = source.split(':').nth(1).unwrap();
        let (index, line) = row.message.split_once(' ').unwrap();
        assert_eq!(id, format!("many{index}"), "a line at another container");
        of.entry(id).or_default().push(line.parse().unwrap());
    }
    assert_eq!((state.rows.len(), of.len(), state.duplicates_stored), (900, 300, 0));
}

/// Scenario: the stream of events is there and says nothing, while containers come, are renamed and go.
/// Guarantees: the next list tells it, within a minute.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_stream_of_events_does_not_tell_the_next_list_does() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::StartPoint);
    for id in ["renamed", "removed"] {
        docker.add(id, Container::new(id));
        docker.line(id, 1, SECOND_NS, "out 0");
    }
    docker.change(|state| state.tells_events = false);
    let running = start(&docker, &collector, &directory);
    collector.until("the first lines", |state| state.rows.len() == 2).await;
    docker.change(|state| {
        state.container("renamed").name = "new-name".into();
        state.containers.remove("removed");
    });
    docker.add("came", Container::new("came"));
    docker.line("came", 1, SECOND_NS, "out 0");
    let names = || -> Vec<String> {
        running.agent.status().containers.iter().map(|container| container.name.clone()).collect()
    };
    collector.until_within(LIST_WITHIN_S, "the list", |_| names() == ["came", "new-name"]).await;
    docker.line("renamed", 1, 2 * SECOND_NS, "out 1");
    collector.until("a line under the new name", |state| state.rows.len() == 4).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let renamed = state.rows.iter().filter(|(source, ..)| source.contains("renamed"));
    let services: Vec<(&str, &str)> =
        renamed.map(|(source, _, row)| (source.as_str(), row.service.as_str())).collect();
    let source = "docker-api:renamed:stdout";
    assert_eq!(services, [(source, "renamed"), (source, "new-name")]);
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0));
}

/// Scenario: one stream is silent though lines are written; beside it a container that prints nothing, and one that is paused.
/// Guarantees: the first is opened anew within a minute, which is counted, and nothing is lost or doubled; the others are asked for
/// their last entry and left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_silent_while_the_log_grows_is_opened_anew_and_a_quiet_one_is_not() {
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::EachEntry);
    let base = some_time_ago();
    docker.add("hangs", Container { attaches: [Attach::Hangs].into(), ..Container::new("hangs") });
    docker.add("quiet", Container::new("quiet"));
    docker.add("paused", Container { is_paused: true, has_terminal: true, ..Container::new("paused") });
    docker.add("empty", Container::new("empty"));
    docker.line("hangs", 2, base, "err 0");
    docker.line("quiet", 1, base, "out 0");
    docker.line("paused", 1, base, "out 0\r");
    let running = start(&docker, &collector, &directory);
    collector.until("the first lines", |state| state.rows.len() == 3).await;
    for line in 1..50 {
        docker.line("hangs", 2, base + line * SECOND_NS, &format!("err {line}"));
    }
    collector.until_within(60, "what the stream does not bring", |state| state.rows.len() == 52).await;
    assert!((counter(&running, "beeacon_agent_healed_streams_total") - 1.0).abs() < 0.5);
    let looked = |id: &str| docker.change(|state| state.container(id).probes) > 0;
    collector.until("looks at the others", |_| ["quiet", "paused", "empty"].into_iter().all(looked)).await;
    docker.line("quiet", 1, base + SECOND_NS, "out 1");
    docker.line("paused", 1, base + SECOND_NS, "out 1\r");
    docker.line("empty", 1, base, "out 0");
    collector.until("what they print at last", |state| state.rows.len() == 55).await;
    let attaches = ["hangs", "quiet", "paused", "empty"].map(|id| docker.attaches(id));
    assert_eq!(attaches, [2, 1, 1, 1]);
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let numbers: Vec<u64> = messages(&state, "hangs", "stderr").iter().map(|m| number(m)).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0));
}

/// Scenario: a container starts, prints, says last words without a newline and ends, five times a second.
/// Guarantees: every line once, and the last words of a run are a row of their own, marked as cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_a_loop_of_restarts_loses_nothing_and_its_runs_are_kept_apart() {
    const RUNS: i64 = 25;
    let (collector, directory) = (Collector::start().await, directory());
    let docker = Docker::start("1.51", Since::EachEntry);
    docker.add("loop", Container { is_running: false, ..Container::new("loop") });
    let running = start(&docker, &collector, &directory);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let base = some_time_ago();
    for run in 0..RUNS {
        tick.tick().await;
        docker.change(|state| state.start("loop"));
        let at = base + run * SECOND_NS;
        docker.line("loop", 1, at, &format!("first {}", run * 3));
        docker.line("loop", 1, at + 1, &format!("second {}", run * 3 + 1));
        docker.change(|state| {
            let text = format!("last words {}", run * 3 + 2);
            let entry = Entry { stream: 1, timestamp_ns: at + 2, text };
            state.container("loop").entries.push(entry);
            state.stop("loop");
        });
    }
    let rows = usize::try_from(RUNS * 3).unwrap();
    collector.until("every line", |state| state.rows.len() >= rows).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let numbers: Vec<u64> = messages(&state, "loop", "stdout").iter().map(|m| number(m)).collect();
    assert_eq!(numbers, (0..rows as u64).collect::<Vec<_>>());
    for (_, _, row) in &state.rows {
        let is_cut = row.attributes.iter().any(|(name, value)| name == "truncated" && value == "eof");
        assert_eq!(is_cut, row.message.starts_with("last words"), "{}", row.message);
    }
    assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0));
    assert!(docker.attaches("loop") < 4 * usize::try_from(RUNS).unwrap(), "a storm of attaches");
}

/// Scenario: Docker runs in a machine of its own, and the path that it names for a log is none of this host.
/// Guarantees: without the directory the API is read; where the directory is mounted elsewhere the file there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_path_is_none_of_this_host_is_read_through_the_api_or_where_its_directory_is_mounted() {
    for (is_mounted, source) in [(false, "docker-api:far:stdout"), (true, "docker-file:far")] {
        let (collector, directory) = (Collector::start().await, directory());
        let docker = Docker::start("1.51", Since::StartPoint);
        let log_path = "/var/lib/docker-of-another-machine/far-json.log".to_owned();
        docker.add("far", Container { driver: "json-file".into(), log_path, ..Container::new("far") });
        docker.line("far", 1, SECOND_NS, "out 0");
        let mut config = reading(&docker, &collector, &directory, ReaderChoice::Auto);
        let mut file = log(&directory, "far", 0, 1);
        file.line("stdout", "out 0");
        config.containers_directory = is_mounted.then(|| directory.path().join("containers"));
        let running = run(config);
        collector.until("its line", |state| state.rows.len() == 1).await;
        running.stop().await;
        assert_eq!(collector.state.lock().unwrap().rows.first().unwrap().0, source);
    }
}
