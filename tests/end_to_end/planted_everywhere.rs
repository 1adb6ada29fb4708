//! Planted secrets are looked for where nobody deletes: on the raw disk beneath the data, freed blocks with it, and in what a process
//! that dies leaves behind.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::disk::SmallDisk;
use crate::harness::docker::{Docker, Driver};
use crate::harness::leak::{Leaks, Secret};
use crate::harness::oracle::Printed;
use crate::harness::poll::{seconds, wait_for, wait_until};
use crate::harness::probe::{is_root, need_docker, skip};
use crate::harness::world::{Folder, Plan, World, scale};
use crate::whole_way::{Cast, assert_zeros, secrets_of};

/// Scenario: the data of agent and server lie on a disk of their own; the collector goes away, so that the spool fills and is emptied
/// again; both are killed; at the end the whole data is deleted, and the raw disk is searched, freed blocks and all. The agent is made to
/// abort in between, where core files are allowed.
/// Guarantees: what was stored is found on the disk, and no secret; the process that died left no core file.
#[test]
fn no_secret_is_on_the_raw_disk_in_freed_blocks_or_in_a_core_file() {
    let test = "no_secret_is_on_the_raw_disk_in_freed_blocks_or_in_a_core_file";
    need_docker!(test);
    if !is_root() {
        return skip(test, "needs root, to mount a disk");
    }
    let folder = Folder::new("disk");
    let Some(disk) = SmallDisk::mount(folder.path(), 400) else {
        return skip(test, "cannot mount a loop ext4");
    };
    let plan = Plan {
        agent_data: Some(disk.path.join("agent")),
        server_data: Some(disk.path.join("server")),
        server_config: Some("[store]\nflush_age = \"1s\"\n"),
        ..Plan::default()
    };
    let mut world = World::prepare("disk", plan, Docker::start());
    world.agent.allow_core_files();
    world.server.start();
    world.agent.start();
    let lines = 12_000 * scale().min(5);
    let cast = [
        Cast::new(world.seed, "file", lines, Driver::JsonFile).rate(1_500),
        Cast::new(world.seed, "long", lines / 10, Driver::JsonFile).long().rate(150),
        Cast::new(world.seed, "api", lines / 2, Driver::Local).rate(700),
        Cast::new(world.seed, "drops", lines, Driver::Rotated { max_size: "200k", max_file: 2 }).rate(1_500),
    ];
    cast.iter().for_each(|member| drop(member.run(&world)));
    for member in &cast {
        world.wait_rows(&member.printed.container, 100, 60);
    }
    // Frames go to the spool, and from there to the server that comes back.
    world.server.kill();
    let spool = disk.path.join("agent/spool");
    let held = || -> u64 {
        let files = std::fs::read_dir(&spool).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    };
    wait_until("the spool to fill", seconds(60), || held() > 64 << 10);
    let agent = i32::try_from(world.agent.id().unwrap()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(agent, Signal::ABORT).unwrap();
    let ended = wait_for("the agent's end", seconds(20), || world.agent.ended());
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!ended.core_dumped(), "the agent left a core file");
    if leaves_core_file(folder.path()) {
        println!("another program, killed in the same way and place, did leave one");
    } else {
        println!(
            "this machine's core_pattern leaves none of any program; the agent's limit is shown by a test of its own"
        );
    }
    world.agent.kill();
    world.agent.start();
    world.server.start();
    let printed: Vec<Printed> = cast.iter().map(|member| member.printed.clone()).collect();
    let verdicts = world.judge_all(&printed, 120);
    assert_zeros(&cast, &verdicts);
    let payloads = stored_payloads(&world);
    world.search(secrets_of(&cast)).assert_clean();
    world.agent.stop();
    world.server.stop();
    for name in ["agent", "server"] {
        std::fs::remove_dir_all(disk.path.join(name)).unwrap();
    }
    let image = disk.unmount();
    let bytes = std::fs::read(&image).unwrap();
    let secrets = secrets_of(&cast);
    let count = secrets.len();
    let mut search = crate::harness::leak::Search::default();
    Leaks::new(secrets).search_bytes("the raw disk", &bytes, &mut search);
    println!(
        "{count} secrets searched on {} MB of raw disk and in {} frames of deleted files",
        bytes.len() >> 20,
        search.frames
    );
    search.assert_clean();
    assert!(search.frames > 0, "no frames of deleted files were found, so the search proves nothing");
    let mut there = crate::harness::leak::Search::default();
    Leaks::new(payloads).search_bytes("the raw disk", &bytes, &mut there);
    assert!(!there.hits.is_empty(), "a text that was stored is not found, so the search proves nothing");
}

/// Pieces of lines that were stored and are no secrets.
fn stored_payloads(world: &World) -> Vec<Secret> {
    let rows = world.sql.rows("select message from logs where container = 'file'");
    let payload = |row: &serde_json::Value| {
        let message = row["message"].as_str()?;
        let value = message.split("payload=").nth(1)?.split(' ').next()?.to_owned();
        Some(Secret { kind: "no secret", origin: message.split(' ').next()?.to_owned(), value })
    };
    rows.iter().filter_map(payload).filter(|payload| payload.value.len() > 8).collect()
}

/// Whether a program that dies of the same signal leaves a core file on this machine, where that is allowed.
fn leaves_core_file(folder: &std::path::Path) -> bool {
    let status =
        Command::new("sh").args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).current_dir(folder).status();
    status.is_ok_and(|status| status.core_dumped())
}
