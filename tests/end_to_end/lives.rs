//! What happens to containers and to dockerd in their lives. Docker's own logs are the judge: what it has kept must be stored, line
//! by line, and nothing else.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::docker::{Driver, Spec};
use crate::harness::oracle::rows;
use crate::harness::poll::{seconds, try_wait_for, wait_until};
use crate::harness::probe::{need_docker, program, skip};
use crate::harness::world::{Plan, World, scale};

/// Prints numbers on both outputs until it is ended, an unfinished line at every start.
const TICKER: &str =
    "printf \"begins \"; i=0; while :; do echo \"out $i\"; echo \"err $i\" >&2; i=$((i+1)); sleep 0.02; done";

/// Prints a few lines and last words without a newline, and ends.
const BRIEF: &str = "echo first; echo between >&2; echo second; printf 'last words'";

fn shell(name: &str, driver: Driver, script: &str) -> Spec {
    Spec { driver, ..Spec::new(name, &["sh", "-c", script]) }
}

/// Rows of one output of a container, in the order of their positions.
fn stored(world: &World, id: &str, output: &str) -> Vec<String> {
    let query = format!(
        "select message from logs where container_id = '{id}' and stream = '{output}' \
         order by source, position_major, position_minor"
    );
    world.sql.rows(&query).iter().map(|row| row["message"].as_str().unwrap().to_owned()).collect()
}

/// Waits until what Docker has of a container is stored.
///
/// # Panics
/// When it is not within the limit, or when there is more, twice or in another order.
fn assert_as_docker_has_it(world: &World, name: &str, id: &str, limit: Duration) -> usize {
    let mut total = 0;
    for output in ["stdout", "stderr"] {
        let kept = world.docker.lines(id, output);
        let count =
            format!("select count(*) as n from logs where container_id = '{id}' and stream = '{output}'");
        try_wait_for(limit, || {
            world.sql.try_number(&count).is_ok_and(|n| n >= kept.len() as u64).then_some(())
        });
        let stored = stored(world, id, output);
        let differs = stored.iter().zip(&kept).position(|(stored, kept)| stored != kept);
        assert!(
            stored == kept,
            "{name}, {output}: {} lines stored, {} kept by Docker, first difference at {differs:?}",
            stored.len(),
            kept.len()
        );
        total += kept.len();
    }
    total
}

/// Scenario: containers of both readers are ended and started in a loop, as fast as Docker can, and leave last words each time; others
/// are restarted, paused, renamed and stopped for a while in the midst of printing.
/// Guarantees: everything that Docker has is stored once and in order; the last words of a run stand alone; a new name counts from then
/// on, and the source stays; nothing was taken for a stream that hangs.
#[test]
fn whatever_containers_go_through_everything_that_docker_has_is_stored_once() {
    need_docker!("whatever_containers_go_through_everything_that_docker_has_is_stored_once");
    let mut world = World::start("lives", Plan::default());
    let drivers = [("file", Driver::JsonFile), ("api", Driver::Local)];
    let mut ids = Vec::new();
    for (kind, driver) in drivers {
        for (role, script) in [("looped", BRIEF), ("ticker", TICKER), ("paused", TICKER), ("renamed", TICKER)]
        {
            let name = format!("{role}-{kind}");
            ids.push((role, name.clone(), world.docker.run(&shell(&name, driver, script))));
        }
    }
    let of = |role: &str| ids.iter().filter(|(own, ..)| *own == role).cloned().collect::<Vec<_>>();
    for (_, name, _) in ids.iter().filter(|(role, ..)| *role != "looped") {
        world.wait_rows(name, 10, 60);
    }
    let paused_at = Instant::now();
    of("paused").iter().for_each(|(_, _, id)| world.docker.post(id, "pause"));
    for (_, name, id) in of("renamed") {
        world.docker.post(&id, &format!("rename?name=new-{name}"));
    }

    let runs = 15 * scale();
    let started = Instant::now();
    for _ in 1..runs {
        for (_, _, id) in of("looped") {
            world.docker.wait(&id, seconds(30));
            world.docker.start_container(&id);
        }
    }
    let rate = 2.0 * (runs - 1) as f64 / started.elapsed().as_secs_f64();
    println!("{runs} runs each of two containers, {rate:.1} starts per second");
    for (_, name, id) in of("ticker") {
        world.docker.post(&id, "restart?t=0");
        let restarted = Instant::now();
        let running = format!(
            "select count(*) as n from logs where container_id = '{id}' and message = 'begins out 0'"
        );
        wait_until("the next run", seconds(20), || world.sql.try_number(&running).is_ok_and(|n| n >= 2));
        println!("{name}: first line after a restart within {:.1} s", restarted.elapsed().as_secs_f64());
        world.docker.post(&id, "stop?t=0");
    }
    // An agent that comes later finds what was printed meanwhile, and the next run.
    world.agent.kill();
    of("ticker").iter().for_each(|(_, _, id)| world.docker.start_container(id));
    world.agent.start();
    for (_, name, _) in of("renamed") {
        world.wait_rows(&format!("new-{name}"), 10, 30);
    }
    // Longer than a stream may be silent before it is looked at.
    wait_until("the pause to be long", seconds(90), || paused_at.elapsed() > seconds(45));
    let healed = world.agent_metrics().sum("beeacon_agent_healed_streams_total");
    of("paused").iter().for_each(|(_, _, id)| world.docker.post(id, "unpause"));
    for (_, name, id) in of("paused") {
        let before = world.docker.lines(&id, "stdout").len() as u64;
        world.wait_rows(&name, 2 * before, 60);
    }
    for (role, _, id) in ids.iter().filter(|(role, ..)| *role != "looped") {
        world.docker.post(id, if *role == "ticker" { "kill" } else { "stop?t=0" });
    }
    for (_, name, id) in &ids {
        world.docker.wait(id, seconds(30));
        let lines = assert_as_docker_has_it(&world, name, id, seconds(30));
        println!("{name}: {lines} lines, as Docker has them");
    }
    assert!(healed < 0.5, "{healed} streams were taken for such that hang");

    for (_, name, id) in of("looped") {
        let last = "select count(*) as n from logs where message = 'last words' and attributes['truncated'] = 'eof' \
                    and container_id = ";
        assert_eq!(world.sql.number(&format!("{last}'{id}'")), runs, "{name}");
    }
    for (_, name, id) in of("renamed") {
        let query = format!(
            "select container, count(*) as n, count(distinct source) as sources from logs where container_id = '{id}' \
             and stream = 'stdout' group by container order by container"
        );
        let names: Vec<Value> = world.sql.rows(&query).iter().map(|row| row["container"].clone()).collect();
        assert_eq!(names, [Value::from(format!("new-{name}")), Value::from(name)]);
    }
    assert_eq!(world.duplicates(), 0);
    assert_eq!(world.sql.number("select count(*) as n from gaps"), 0);
}

/// Scenario: one line stays open for long while the other output prints and the agent is killed; another container prints nothing for
/// more than two minutes and then again. At the drill's scale the line is open for five minutes.
/// Guarantees: nobody is delayed, the open line comes once and whole, and the quiet stream was never opened anew.
#[test]
fn a_line_that_stays_open_for_long_comes_once_and_a_quiet_stream_is_not_cut() {
    need_docker!("a_line_that_stays_open_for_long_comes_once_and_a_quiet_stream_is_not_cut");
    let mut world = World::start("long", Plan::default());
    let open_s = if scale() >= 15 { 300 } else { 40 };
    let open = format!(
        "head -c 20000 /dev/zero | tr '\\0' a; i=0; while [ $i -lt {} ]; do echo \"tick $i\" >&2; i=$((i+1)); sleep 0.2; done; \
         echo \" closes\"; echo behind",
        open_s * 5
    );
    let quiet = "echo before; sleep 125; echo after";
    let drivers = [("file", Driver::JsonFile), ("api", Driver::Local)];
    let mut ids = Vec::new();
    for (kind, driver) in drivers {
        for (role, script) in [("open", open.as_str()), ("quiet", quiet)] {
            let name = format!("{role}-{kind}");
            ids.push((name.clone(), world.docker.run(&shell(&name, driver, script))));
        }
    }
    world.wait_rows("open-file", 20, 60);
    world.wait_rows("open-api", 20, 60);
    world.wait_rows("quiet-api", 1, 30);
    for _ in 0..3 {
        world.agent.kill();
        world.agent.start();
        let ticks = "select count(*) as n from logs where message like 'tick %'";
        let before = world.sql.number(ticks);
        wait_until("ticks while the line is open", seconds(20), || {
            world.sql.try_number(ticks).is_ok_and(|n| n > before + 10)
        });
    }
    assert_eq!(world.sql.number("select count(*) as n from logs where message like '%closes'"), 0);
    let attaches = || world.agent_metrics().sum("beeacon_agent_attaches_total");
    for (name, id) in ids.iter().filter(|(name, _)| name.starts_with("open")) {
        world.docker.wait(id, seconds(open_s + 60));
        assert_as_docker_has_it(&world, name, id, seconds(60));
        let rows = rows(world.sql, name);
        let closed: Vec<usize> =
            rows.iter().filter(|row| row.message.ends_with("closes")).map(|row| row.message.len()).collect();
        assert_eq!(closed, [20_000 + " closes".len()], "{name}");
    }
    let before = attaches();
    for (name, id) in ids.iter().filter(|(name, _)| name.starts_with("quiet")) {
        let is_running = world.docker.inspect(id).unwrap()["State"]["Running"] == true;
        println!("{name} is still quiet: {is_running}");
        world.wait_rows(name, 1, 5);
    }
    wait_until("the quiet container's second line", seconds(150), || {
        world.sql.try_number("select count(*) as n from logs where message = 'after'") == Ok(2)
    });
    // The end of a container is one more attach, to see that nothing is behind it; the line came before it.
    let healed = world.agent_metrics().sum("beeacon_agent_healed_streams_total");
    println!("{before} attaches before the quiet stream spoke, {} after", attaches());
    assert!(healed < 0.5, "a quiet stream was opened anew");
    for (name, id) in &ids {
        assert_as_docker_has_it(&world, name, id, seconds(30));
    }
    assert_eq!((world.duplicates(), world.sql.number("select count(*) as n from gaps")), (0, 0));
}

/// Scenario: drivers of other kinds: one that drops what it has no room for, syslog with Docker's own cache beside it, the same with
/// that cache off, and none; and an agent that leaves syslog containers out.
/// Guarantees: lines of the first are labelled lossy; the second is read from the cache; the others are shown as unsupported, once,
/// and disturb nobody; what is excluded is not read.
#[test]
fn other_drivers_are_read_where_docker_can_and_said_to_be_unsupported_where_it_cannot() {
    need_docker!("other_drivers_are_read_where_docker_can_and_said_to_be_unsupported_where_it_cannot");
    let syslog = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address: &'static str = Box::leak(format!("udp://{}", syslog.local_addr().unwrap()).into_boxed_str());
    let cached: &'static [(&str, &str)] = Box::leak(Box::new([("syslog-address", address)]));
    let bare: &'static [(&str, &str)] =
        Box::leak(Box::new([("syslog-address", address), ("cache-disabled", "true")]));
    let lossy = Driver::Other { name: "json-file", options: &[("mode", "non-blocking")] };
    let config = "exclude = [\"label:team=secret\"]\n";
    let world = World::start("drivers", Plan { agent_config: config, ..Plan::default() });
    let script =
        "i=0; while [ $i -lt 300 ]; do echo \"out $i\"; echo \"err $i\" >&2; i=$((i+1)); done; sleep 30";
    let cast = [
        ("lossy", lossy),
        ("cached", Driver::Other { name: "syslog", options: cached }),
        ("uncached", Driver::Other { name: "syslog", options: bare }),
        ("nothing", Driver::Other { name: "none", options: &[] }),
        ("plain", Driver::JsonFile),
    ];
    let ids: Vec<String> =
        cast.iter().map(|(name, driver)| world.docker.run(&shell(name, *driver, script))).collect();
    let left_out = Driver::Other { name: "syslog", options: cached };
    let left_out = Spec { labels: vec![("team", "secret")], ..shell("left-out", left_out, script) };
    world.docker.run(&left_out);
    for name in ["lossy", "cached", "plain"] {
        world.wait_rows(name, 600, 60);
    }
    let labelled = "select count(*) as n from logs where labels['beeacon.origin'] = 'lossy' and container = ";
    assert_eq!(world.sql.number(&format!("{labelled}'lossy'")), 600);
    assert_eq!(world.sql.number(&format!("{labelled}'plain'")), 0);
    for (index, name) in [(0, "lossy"), (1, "cached"), (4, "plain")] {
        let outputs = ["stdout", "stderr"].map(|output| world.docker.lines(&ids[index], output).len());
        println!("{name}: Docker has {outputs:?} lines");
        assert_as_docker_has_it(&world, name, &ids[index], seconds(20));
    }
    let others = "select count(*) as n from logs where container in ('uncached', 'nothing', 'left-out')";
    assert_eq!(world.sql.number(others), 0);
    let said = world.agent.output();
    let count = |text: &str| said.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("docker cannot read the log driver, container is left out"), 1);
    assert_eq!(count("log driver cannot be read, container is left out"), 1);
    assert_eq!(world.duplicates(), 0);
}

/// Scenario: dockerd is killed without a warning under load, and stopped and started in order, with containers that go on meanwhile and
/// with such that end with it. Guarantees: what Docker has is stored, once and in order, and what it lost itself is all that is missing.
#[test]
fn what_docker_kept_is_stored_once_however_dockerd_ends() {
    need_docker!("what_docker_kept_is_stored_once_however_dockerd_ends");
    let mut world = World::start("dockerd", Plan::default());
    let drivers = [("file", Driver::JsonFile), ("api", Driver::Local)];
    let ids: Vec<(String, String)> = drivers
        .iter()
        .map(|(kind, driver)| {
            let name = format!("ticker-{kind}");
            (name.clone(), world.docker.run(&shell(&name, *driver, TICKER)))
        })
        .collect();
    for round in 0..4 * scale() {
        for (name, id) in &ids {
            if world.docker.inspect(id).unwrap()["State"]["Running"] != true {
                world.docker.start_container(id);
            }
            let count = format!("select count(*) as n from logs where container_id = '{id}'");
            let before = world.sql.number(&count);
            wait_until("lines to flow", seconds(30), || {
                world.sql.try_number(&count).is_ok_and(|n| n > before + 20)
            });
            assert!(world.agent.runs(), "{name}");
        }
        // Each of the four ways once in four rounds. Containers follow the setting under which they run.
        match round % 4 {
            0 | 1 => world.docker.kill_dockerd(),
            _ => world.docker.stop_dockerd(),
        }
        world.docker.let_live(round % 2 == 1);
        world.docker.start_dockerd();
    }
    for (name, id) in &ids {
        world.docker.post(id, "stop?t=0");
        let lines = assert_as_docker_has_it(&world, name, id, seconds(60));
        println!("{name}: {lines} lines, as Docker has them");
    }
    assert_eq!((world.duplicates(), world.sql.number("select count(*) as n from gaps")), (0, 0));
}

/// Scenario: the log of a container that is read through the API is emptied from outside, as copytruncate does, while it is written.
/// Guarantees: lines written after it are stored within a minute; nothing comes twice.
#[test]
fn a_log_emptied_under_the_api_reader_goes_on_within_a_minute() {
    need_docker!("a_log_emptied_under_the_api_reader_goes_on_within_a_minute");
    let world = World::start("emptied", Plan { reader: Some("api"), ..Plan::default() });
    let id = world.docker.run(&shell("emptied", Driver::JsonFile, TICKER));
    world.wait_rows("emptied", 100, 60);
    let file = world.docker.json_files(&id).pop().unwrap();
    let count = || world.sql.number("select count(*) as n from logs where container = 'emptied'");
    for round in 0..2 {
        std::fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
        let emptied = Instant::now();
        let before = count();
        wait_until("lines after it", seconds(60), || count() > before + 200);
        println!(
            "round {round}: lines flow {:.1} s after the log was emptied",
            emptied.elapsed().as_secs_f64()
        );
    }
    world.docker.post(&id, "stop?t=0");
    let kept = world.docker.lines(&id, "stdout");
    let last = kept.last().unwrap();
    let query = format!("select count(*) as n from logs where container = 'emptied' and message = '{last}'");
    wait_until("the last line", seconds(30), || world.sql.try_number(&query) == Ok(1));
    assert_eq!(world.duplicates(), 0);
    let stored = stored(&world, &id, "stdout");
    let mut seen = std::collections::BTreeSet::new();
    assert!(stored.iter().all(|line| seen.insert(line)), "a line was stored twice");
    assert!(kept.iter().all(|line| seen.contains(line)), "a line that Docker has is not stored");
}

/// Scenario: the agent runs as a user who may speak to Docker and may not look into its directories.
/// Guarantees: logs are read through the API.
#[test]
fn an_agent_that_may_not_read_dockers_files_reads_through_the_api() {
    let test = "an_agent_that_may_not_read_dockers_files_reads_through_the_api";
    need_docker!(test);
    let Some(setpriv) = program("setpriv") else { return skip(test, "setpriv is not installed") };
    const NOBODY: u32 = 65_534;
    let mut world = World::prepare("unreadable", Plan::default(), crate::harness::docker::Docker::start());
    world.server.start();
    let copy = world.path("beeacon-agent");
    std::fs::copy(crate::harness::processes::beeacon_agent(), &copy).unwrap();
    std::fs::create_dir_all(world.path("agent-data")).unwrap();
    std::os::unix::fs::chown(world.path("agent-data"), Some(NOBODY), Some(NOBODY)).unwrap();
    for path in [world.path(""), world.path("docker.sock")] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned);
    let through = std::iter::once(setpriv.to_str().unwrap().to_owned()).chain(words).collect();
    world.agent.replace(copy, through);
    world.agent.start();
    let script = "i=0; while [ $i -lt 500 ]; do echo \"out $i\"; i=$((i+1)); done";
    let id = world.docker.run(&shell("unreadable", Driver::JsonFile, script));
    world.wait_rows("unreadable", 500, 60);
    assert_as_docker_has_it(&world, "unreadable", &id, seconds(20));
    let sources = world.sql.rows("select distinct source from logs");
    assert_eq!(sources.len(), 1);
    assert!(sources[0]["source"].as_str().unwrap().starts_with("docker-api:"), "{sources:?}");
}
