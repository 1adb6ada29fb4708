//! The same promises while the programs die: 20 times each, without a warning, with lines flowing. `make drill` does it 300 times.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::docker::Driver;
use crate::harness::metrics::Metrics;
use crate::harness::oracle::Printed;
use crate::harness::poll::{seconds, try_wait_for, wait_until};
use crate::harness::probe::need_docker;
use crate::harness::world::{Plan, World, scale};
use crate::planted::Numbers;
use crate::whole_way::{Cast, assert_zeros, secrets_of};

/// Kills of each program for every unit of the drill's scale.
const KILLS: u64 = 20;

/// What must have happened at least once for the story to have tested anything, counted over all lives of both programs.
#[derive(Default)]
struct Reached {
    counts: BTreeMap<&'static str, f64>,
}

impl Reached {
    fn add(&mut self, what: &'static str, count: f64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// A life of the server ends: its counters are lost, so they are taken now.
    fn add_server(&mut self, metrics: &Metrics) {
        for (what, name) in SERVER_COUNTERS {
            self.add(what, metrics.sum(name));
        }
    }
}

/// What the server counts.
const SERVER_COUNTERS: [(&str, &str); 3] = [
    ("rows trimmed", "beeacon_collector_duplicate_rows_total"),
    ("records replayed", "beeacon_collector_replayed_records"),
    ("flushes", "beeacon_store_flushes_total"),
];

/// Scenario: lines flow from eight containers while agent and server are killed 20 times each at random moments, some answers
/// are lost after the server has the frame, the agent's disk is erased now and then, and dockerd is restarted once. `make drill` does all
/// of it 15 times as often.
/// Guarantees: the same zeros as without a fault; and a resend, a trim, a replay, a rotation and a flush did happen.
#[test]
fn nothing_is_lost_or_doubled_when_agent_and_server_are_killed_twenty_times_each() {
    need_docker!("nothing_is_lost_or_doubled_when_agent_and_server_are_killed_twenty_times_each");
    let config = "[store]\nflush_age = \"2s\"\n";
    let mut world = World::start("kills", Plan { server_config: Some(config), ..Plan::default() });
    let seed = world.seed;
    let keeps_all = Driver::Rotated { max_size: "1m", max_file: 20 };
    let drops = Driver::Rotated { max_size: "100k", max_file: 2 };
    let (scale, kills) = (scale(), KILLS * scale());
    let cast = [
        Cast::new(seed, "file-out", 30_000 * scale, Driver::JsonFile).rate(550),
        Cast::new(seed, "file-both", 40_000 * scale, Driver::JsonFile).rate(700),
        Cast::new(seed, "api-local", 30_000 * scale, Driver::Local).rate(500),
        Cast::new(seed, "file-tty", 20_000 * scale, Driver::JsonFile).tty().rate(350),
        Cast::new(seed, "keeps-all", 30_000 * scale, keeps_all).rate(500),
        Cast::new(seed, "drops", 40_000 * scale, drops).gate(20).rate(1_200),
        Cast::new(seed, "file-long", 6_000 * scale, Driver::JsonFile).long().rate(100),
        Cast::new(seed, "api-long", 4_000 * scale, Driver::Local).long().rate(70),
    ];
    let ids: Vec<String> = cast.iter().map(|member| member.run(&world)).collect();
    world.wait_rows("drops", 1, 30);
    world.open_gate("drops");

    let mut chance = Numbers::new(seed);
    let mut reached = Reached::default();
    for round in 0..kills {
        if scale > 3 || round % 4 == 1 {
            world.proxy.lose_answers(usize::try_from(scale.div_ceil(4)).unwrap());
        }
        let_flow(&mut chance);
        world.agent.kill();
        if round % 6 == 3 {
            wait_for_rotations(&world, "drops");
        }
        if round % 15 == 7 {
            std::fs::remove_dir_all(world.path("agent-data")).unwrap();
            reached.add("disks of the agent erased", 1.0);
        }
        world.agent.start();
        let_flow(&mut chance);
        reached.add_server(&world.server_metrics());
        world.server.kill();
        world.server.start();
        if round % 30 == 10 {
            restart_dockerd_between_lines(&mut world, &cast);
            reached.add("restarts of dockerd", 1.0);
        }
    }
    println!("seed {seed}, scale {scale}");
    println!("{} starts of the agent, {} of the server", world.agent.starts(), world.server.starts());
    let flowing = ids
        .iter()
        .filter(|id| world.docker.inspect(id).is_some_and(|c| c["State"]["Running"] == true))
        .count();
    println!("{flowing} of {} containers still printed after the last kill", cast.len());

    let printed: Vec<Printed> = cast.iter().map(|member| member.printed.clone()).collect();
    let verdicts = world.judge_all(&printed, 150 * scale);
    reached.add_server(&world.server_metrics());
    reached.add("lines that Docker dropped", verdicts.iter().map(|verdict| verdict.declared as f64).sum());
    reached.add("answers lost", world.proxy.answers_lost() as f64);
    reached.add("frames sent again", frames_sent_again(&world) as f64);
    let rotations =
        cast.iter().zip(&ids).filter(|(member, _)| matches!(member.driver, Driver::Rotated { .. }));
    let files: usize = rotations.map(|(_, id)| world.docker.json_files(id).len() - 1).sum();
    reached.add("rotated files", files as f64);
    for (what, count) in &reached.counts {
        println!("sometimes: {what} {count}");
    }
    assert_zeros(&cast, &verdicts);
    assert_eq!(world.duplicates(), 0);
    for (what, count) in &reached.counts {
        assert!(*count > 0.0, "{what} never happened, so the story tested nothing");
    }
    world.search(secrets_of(&cast)).assert_clean();
}

/// The moment of a kill is random; nothing waits for this pause.
fn let_flow(chance: &mut Numbers) {
    std::thread::sleep(Duration::from_millis(100 + chance.below(900)));
}

/// Waits until a log with two files has lost at least one that nobody read. Inode numbers come again, so sizes tell.
fn wait_for_rotations(world: &World, container: &str) {
    let id = world.docker.inspect(container).unwrap()["Id"].as_str().unwrap().to_owned();
    let size = || std::fs::metadata(world.docker.json_files(&id).pop()?).ok().map(|file| file.len());
    let (mut last, mut rotations) = (0, 0);
    wait_until("three rotations while the agent is down", seconds(20), || {
        let now = size().unwrap_or(last);
        rotations += u32::from(now < last);
        last = now;
        rotations >= 3 || has_ended(world, container)
    });
}

/// How many frames went over the wire whose first position of a source had been sent before.
fn frames_sent_again(world: &World) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    let mut again = 0;
    let mut files: Vec<_> =
        std::fs::read_dir(world.proxy.folder()).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "to_server")) {
        for header in crate::harness::leak::headers_in(&std::fs::read(file).unwrap()) {
            let is_new = |interval: &beeacon_record::Interval| {
                interval.to == interval.from || seen.insert((interval.source.clone(), interval.from))
            };
            again += usize::from(!header.intervals.iter().map(is_new).fold(true, |all, new| all & new));
        }
    }
    again
}

/// dockerd holds lines in memory that its end would lose, and no reader could know. So the containers pause while it restarts;
/// they do not end, and agent and server run on.
fn restart_dockerd_between_lines(world: &mut World, cast: &[Cast]) {
    let shared = world.docker.shared().to_owned();
    std::fs::write(shared.join("hold"), "").unwrap();
    for member in cast {
        let held = shared.join(format!("held.{}", member.printed.container));
        let ended =
            || world.sql.try_number("select 1").is_ok() && has_ended(world, &member.printed.container);
        wait_until("a container to hold", seconds(20), || held.exists() || ended());
    }
    // What was printed before has reached Docker's files when no file grows any more.
    let total = || -> u64 {
        let files = walk(&world.docker.containers_directory());
        files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum()
    };
    let mut last = (0, 0);
    let settled = try_wait_for(seconds(20), || {
        let now = total();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (last.1 > 25).then_some(())
    });
    assert!(settled.is_some(), "Docker's files still grow while nothing prints");
    world.docker.stop_dockerd();
    world.docker.start_dockerd();
    std::fs::remove_file(shared.join("hold")).unwrap();
}

fn has_ended(world: &World, container: &str) -> bool {
    world.docker.inspect(container).is_none_or(|container| container["State"]["Running"] == false)
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
