//! The network between an agent and a real collector goes wrong: cut, cut one way, flapping, slow and lossy. At the drill's scale each
//! fault lasts a minute.

use std::time::{Duration, Instant};

use crate::harness::docker::Driver;
use crate::harness::link::{Fault, Link};
use crate::harness::oracle::Printed;
use crate::harness::poll::{seconds, try_wait_for, wait_until};
use crate::harness::probe::{need_docker, skip};
use crate::harness::world::{Plan, World, scale};
use crate::whole_way::{Cast, assert_zeros, secrets_of};

/// How much more memory than before the faults the agent may take, in bytes: two frames, what waits of a third, and what an
/// allocator keeps.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

/// A link, or a visible skip.
fn link(test: &str) -> Option<Link> {
    Link::make().inspect_err(|reason| skip(test, reason)).ok()
}

/// How long a fault lasts: the time itself is what is tested, nothing waits for its end.
fn lasts(span: Duration) {
    let started = Instant::now();
    try_wait_for(span, || (started.elapsed() > span).then_some(()));
}

struct Faults<'a> {
    world: &'a World,
    span: Duration,
}

impl Faults<'_> {
    fn link(&self) -> &Link {
        self.world.link.as_ref().unwrap()
    }

    /// Attempts of the agent to reach the collector that did not work, so far.
    fn attempts(&self) -> f64 {
        self.world.agent_metrics().sum("beeacon_agent_retries_total")
    }

    /// Lets the fault be for the span, then waits until lines flow again. Gives how often the agent tried meanwhile.
    fn during(&self, what: &str, run: impl FnOnce(&Link)) -> f64 {
        let before = self.attempts();
        let started = Instant::now();
        run(self.link());
        let (tried, span) = (self.attempts() - before, started.elapsed().as_secs_f64());
        self.link().impair(None).unwrap();
        let mended = Instant::now();
        self.wait_for_new_lines();
        println!(
            "{what} for {span:.0} s: {tried} attempts, lines flow {:.1} s after it",
            mended.elapsed().as_secs_f64()
        );
        // A few come quickly, for most faults are short; then it is less than one a second.
        assert!(tried <= span + 5.0, "{what}: {tried} attempts in {span:.0} s");
        tried
    }

    fn wait_for_new_lines(&self) {
        let rows = "select count(*) as n from logs";
        let before = self.world.sql.number(rows);
        wait_until("lines to flow again", seconds(100), || {
            self.world.sql.try_number(rows).is_ok_and(|n| n > before + 500)
        });
    }

    /// One fault from its beginning to its end.
    fn single(&self, what: &str, fault: Fault) -> f64 {
        self.during(what, |link| {
            link.impair(Some(fault)).unwrap();
            lasts(self.span);
        })
    }
}

/// Scenario: lines flow from containers of both readers to a collector across a router that drops everything, drops one way only, does
/// so every other second, and lets a megabit pass of which it loses a fifth.
/// Guarantees: nothing missing, nothing twice, in order; attempts stay below one a second; the spool takes over; memory stays flat.
#[test]
fn a_link_that_is_cut_half_cut_flapping_slow_or_lossy_loses_and_repeats_nothing() {
    let test = "a_link_that_is_cut_half_cut_flapping_slow_or_lossy_loses_and_repeats_nothing";
    need_docker!(test);
    let Some(link) = link(test) else { return };
    let world = World::start("links", Plan { link: Some(link), ..Plan::default() });
    let seed = world.seed;
    let span_s = 10 + (scale() - 1) * 50 / 14;
    // As many lines as are printed until the faults are over, with some behind.
    let printing_s = 9 * span_s + 60;
    let cast = [
        Cast::new(seed, "file", 250 * printing_s, Driver::JsonFile).rate(250),
        Cast::new(seed, "rotated", 150 * printing_s, Driver::Rotated { max_size: "1m", max_file: 50 })
            .rate(150),
        Cast::new(seed, "api", 120 * printing_s, Driver::Local).rate(120),
    ];
    cast.iter().for_each(|member| drop(member.run(&world)));
    for member in &cast {
        world.wait_rows(&member.printed.container, 100, 60);
    }
    let faults = Faults { world: &world, span: seconds(span_s) };
    faults.wait_for_new_lines();
    let memory_before = world.agent.resident_bytes().unwrap();
    let mut tried = faults.single("cut", Fault::Cut);
    tried += faults.single("what the agent sends is lost", Fault::FromAgent);
    tried += faults.single("what the agent is sent is lost", Fault::ToAgent);
    tried += faults.during("flapping every second", |link| {
        for second in 0..2 * span_s {
            link.impair((second % 2 == 0).then_some(Fault::Cut)).unwrap();
            lasts(seconds(1));
        }
    });
    faults.during("a megabit with a fifth lost", |link| {
        link.slow(Some(1_000)).unwrap();
        link.impair(Some(Fault::Loss(20))).unwrap();
        lasts(seconds(2 * span_s));
        link.slow(None).unwrap();
    });
    let metrics = world.agent_metrics();
    let spooled = metrics.sum("beeacon_agent_spooled_frames_total");
    let grown = world.agent.resident_bytes().unwrap().saturating_sub(memory_before);
    println!("sometimes: attempts {tried}, frames spooled {spooled}; memory grew by {} KiB", grown >> 10);

    let printed: Vec<Printed> = cast.iter().map(|member| member.printed.clone()).collect();
    let verdicts = world.judge_all(&printed, 120 + printing_s);
    assert_zeros(&cast, &verdicts);
    assert_eq!(world.duplicates(), 0);
    assert!(spooled > 0.0, "no fault was noticed: the spool was never used, so the story tested nothing");
    assert!(grown < GROWTH_BYTES_MAX, "the agent's memory grew by {} MiB", grown >> 20);
    world.search(secrets_of(&cast)).assert_clean();
}

/// Scenario: dockerd is on another host, and the way to it vanishes without a word while a stream is silent.
/// Guarantees: the agent notices within a minute, tries again, and nothing is missing or twice once the way is back.
#[test]
fn a_half_open_connection_to_a_daemon_elsewhere_is_noticed_within_a_minute() {
    let test = "a_half_open_connection_to_a_daemon_elsewhere_is_noticed_within_a_minute";
    need_docker!(test);
    let Some(link) = link(test) else { return };
    let plan = Plan { link: Some(link), is_docker_far: true, reader: Some("api"), ..Plan::default() };
    let world = World::start("half_open", plan);
    let cast = [Cast::new(world.seed, "far", 3_000, Driver::JsonFile).gate(1_000).rate(1_000)];
    cast[0].run(&world);
    world.wait_rows("far", 1_000, 60);
    let attaches = || world.agent_metrics().sum("beeacon_agent_attaches_total");
    let before = attaches();
    let link = world.link.as_ref().unwrap();
    link.impair(Some(Fault::Cut)).unwrap();
    let cut = Instant::now();
    world.open_gate("far");
    wait_until("the agent to notice", seconds(75), || attaches() > before);
    println!("noticed after {:.0} s", cut.elapsed().as_secs_f64());
    link.impair(None).unwrap();
    let verdicts = world.judge_all(&[cast[0].printed.clone()], 120);
    assert_zeros(&cast, &verdicts);
    assert_eq!(world.duplicates(), 0);
}
