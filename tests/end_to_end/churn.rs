//! Many containers come and go, with names that are used again; and a clock that is set while the agent runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::harness::docker::{Driver, Spec};
use crate::harness::oracle::Printed;
use crate::harness::poll::{seconds, try_wait_for, wait_until};
use crate::harness::probe::{need_docker, skip};
use crate::harness::world::{Plan, World, scale};
use crate::payload::{Shape, Streams, line};
use crate::whole_way::{Cast, assert_zeros};

/// How many containers run at once.
const AT_ONCE: usize = 4;

/// Lines of each container.
const LINES: u64 = 20;

/// What an agent has open: descriptors, threads, memory.
fn holds(world: &World) -> (usize, usize, u64) {
    let (descriptors, threads) = world.agent.descriptors_and_threads();
    (descriptors, threads, world.agent.resident_bytes().unwrap())
}

/// Scenario: containers start, print twenty lines and end; half of them are removed by Docker in the same moment, the others a little
/// later; names are used again. At the drill's scale 200 of them, again and again for three minutes.
/// Guarantees: every line stands at the id of its container, once; of those that were not removed at once none is missing; what the
/// agent holds open stays as it was. How many of those that were removed at once were caught is printed.
#[test]
fn lines_of_containers_that_come_and_go_stand_at_their_ids_and_nothing_is_held_open() {
    need_docker!("lines_of_containers_that_come_and_go_stand_at_their_ids_and_nothing_is_held_open");
    let world = World::start("churn", Plan::default());
    let count = if scale() >= 15 { 400 } else { 40 + 10 * scale() };
    let warm = Cast::new(world.seed, "warm", 2_000, Driver::JsonFile);
    warm.run(&world);
    world.wait_rows("warm", 2_000, 60);

    let next = AtomicU64::new(0);
    // What every container printed, and whether it was removed at once, by its id.
    let printed: Mutex<BTreeMap<String, (Printed, bool)>> = Mutex::default();
    let early: Mutex<Option<(usize, usize, u64)>> = Mutex::default();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..AT_ONCE {
            let (world, next, printed, early) = (&world, &next, &printed, &early);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    if number == count / 4 {
                        *early.lock().unwrap() = Some(holds(world));
                    }
                    // The name of the one before it, which is gone: only the id tells them apart.
                    let what = Printed {
                        container: format!("churn-{thread}"),
                        seed: world.seed + number,
                        lines: LINES,
                        shape: Shape::Plain,
                        streams: Streams::Both,
                    };
                    let is_removed = number % 2 == 0;
                    let driver = if number % 8 == 1 { Driver::Local } else { Driver::JsonFile };
                    let spec = Spec {
                        command: what.command(0, None),
                        driver,
                        remove_at_exit: is_removed,
                        ..Spec::new(&what.container, &[])
                    };
                    let id = world.docker.run(&spec);
                    printed.lock().unwrap().insert(id.clone(), (what, is_removed));
                    let is_over = || {
                        world
                            .docker
                            .inspect(&id)
                            .is_none_or(|container| container["State"]["Running"] == false)
                    };
                    wait_until("a container to end", seconds(60), is_over);
                    if !is_removed {
                        let stored = format!("select count(*) as n from logs where container_id = '{id}'");
                        wait_until("its lines", seconds(60), || world.sql.try_number(&stored) == Ok(LINES));
                        world.docker.remove(&id);
                    }
                    wait_until("its name to be free", seconds(60), || world.docker.inspect(&id).is_none());
                }
            });
        }
    });
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("{count} containers, {rate:.1} a second, {} names", AT_ONCE);

    let rows = world.sql.rows(
        "select container_id, container, stream, message from logs where container like 'churn-%' \
         order by container_id, source, position_major, position_minor",
    );
    let printed = printed.into_inner().unwrap();
    let mut of: BTreeMap<&str, Vec<(char, &str)>> = BTreeMap::new();
    for row in &rows {
        let id = row["container_id"].as_str().unwrap();
        let (what, _) = printed.get(id).unwrap_or_else(|| panic!("no container has the id {id}"));
        assert_eq!(row["container"], what.container.as_str());
        let stream = if row["stream"] == "stderr" { 'e' } else { 'o' };
        of.entry(id).or_default().push((stream, row["message"].as_str().unwrap()));
    }
    let (mut caught, mut at_once) = (0, 0);
    for (id, (what, is_removed)) in &printed {
        let stored = of.remove(id.as_str()).unwrap_or_default();
        at_once += u64::from(*is_removed);
        caught += u64::from(*is_removed && stored.len() as u64 == LINES);
        assert!(*is_removed || stored.len() as u64 == LINES, "{id}: {} lines", stored.len());
        let mut seen = BTreeSet::new();
        for (stream, message) in stored {
            // The text is a function of seed, name, stream and id, so a line of another container is seen.
            let number = message.strip_prefix("id=").unwrap().split(' ').next().unwrap().parse().unwrap();
            let expected = line(what.seed, &what.container, stream, number, what.shape);
            assert!(message.starts_with(&expected.head), "{id}: a line of another container: {message}");
            assert!(seen.insert((stream, number)), "{id}: {stream} {number} twice");
        }
    }
    println!("removed in the moment of their end: {caught} of {at_once} whole");
    assert!(caught * 10 >= at_once * 9, "only {caught} of {at_once} were caught");
    assert_eq!(world.duplicates(), 0);

    let early = early.into_inner().unwrap().unwrap();
    let slack = |count: usize| count + count / 20 + 2;
    let is_flat = |now: (usize, usize, u64)| {
        now.0 <= slack(early.0) && now.1 <= slack(early.1) && now.2 <= early.2 + early.2 / 4 + (8 << 20)
    };
    // A source whose end was just confirmed is let go at the next look.
    try_wait_for(seconds(20), || is_flat(holds(&world)).then_some(()));
    let now = holds(&world);
    println!("descriptors, threads, bytes: {early:?} after a quarter, {now:?} at the end");
    assert!(is_flat(now), "the agent holds more than before: {early:?}, {now:?}");
}

/// Scenario: the agent's clock is set forward by an hour, back by two, and forward again, while lines flow; it is killed once at each.
/// Guarantees: nothing missing, nothing twice, in order.
#[test]
fn a_clock_that_is_set_under_the_agent_loses_and_repeats_nothing() {
    let test = "a_clock_that_is_set_under_the_agent_loses_and_repeats_nothing";
    need_docker!(test);
    let Some(library) = faketime() else { return skip(test, "libfaketime is not installed") };
    let mut world = World::prepare("clock", Plan::default(), crate::harness::docker::Docker::start());
    let clock = world.path("clock");
    let set = |offset: &str| {
        let draft = clock.with_extension("draft");
        std::fs::write(&draft, offset).unwrap();
        std::fs::rename(draft, &clock).unwrap();
    };
    set("+0");
    for (name, value) in [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        world.agent.variable(name, value);
    }
    world.server.start();
    world.agent.start();
    let cast = [
        Cast::new(world.seed, "file", 12_000, Driver::JsonFile).rate(400),
        Cast::new(world.seed, "api", 9_000, Driver::Local).rate(300),
        Cast::new(world.seed, "tty", 9_000, Driver::JsonFile).tty().rate(300),
    ];
    cast.iter().for_each(|member| drop(member.run(&world)));
    let rows = "select count(*) as n from logs";
    let flow = |world: &World| {
        let before = world.sql.number(rows);
        wait_until("lines to flow", seconds(30), || {
            world.sql.try_number(rows).is_ok_and(|n| n > before + 200)
        });
    };
    for offset in ["+3600", "-3600", "+0"] {
        flow(&world);
        set(offset);
        flow(&world);
        world.agent.kill();
        world.agent.start();
    }
    // Whether the clock was set at all: the agent says when it saw a line.
    let seen = "select count(*) as n from logs where observed_timestamp > timestamp + interval '50 minutes' or \
                observed_timestamp < timestamp - interval '50 minutes'";
    assert!(world.sql.number(seen) > 0, "the agent's clock was never set, so the story tested nothing");
    let printed: Vec<Printed> = cast.iter().map(|member| member.printed.clone()).collect();
    assert_zeros(&cast, &world.judge_all(&printed, 120));
    assert_eq!(world.duplicates(), 0);
}

/// The library that sets a process' clock.
fn faketime() -> Option<String> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let files = folders.map(|folder| format!("{folder}/faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| std::path::Path::new(file).is_file())
}
