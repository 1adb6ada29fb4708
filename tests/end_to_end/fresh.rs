//! How soon a line that a container prints can be read in SQL.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::harness::docker::Driver;
use crate::harness::poll::{seconds, try_wait_for};
use crate::harness::probe::need_docker;
use crate::harness::world::{Plan, World, scale};
use crate::whole_way::{Cast, assert_zeros};

/// Lines per second.
const RATE: u64 = 10_000;

/// What a look at SQL found: when it was asked for, in nanoseconds since 1970, and how many rows there were.
struct Look {
    answered_ns: u128,
    rows: u64,
}

/// Scenario: ten thousand lines a second, for ten seconds, or for two minutes at the drill's scale; SQL is asked again and again how many there are.
/// Guarantees: of a hundred lines ninety-nine can be read within three seconds of Docker's time of them, and within one where the machine
/// has nothing else to do, as in the drill.
#[test]
fn a_new_line_can_be_read_in_sql_within_a_second_at_ten_thousand_lines_a_second() {
    need_docker!("a_new_line_can_be_read_in_sql_within_a_second_at_ten_thousand_lines_a_second");
    let world = World::start("fresh", Plan::default());
    let lines = RATE * if scale() >= 15 { 120 } else { 10 };
    let cast = [Cast::new(world.seed, "fresh", lines, Driver::JsonFile).rate(RATE)];
    cast[0].run(&world);
    let mut looks = Vec::new();
    let started = Instant::now();
    try_wait_for(seconds(lines / RATE + 60), || {
        let rows = world.sql.try_number("select count(*) as n from logs where container = 'fresh'").ok()?;
        let answered_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        looks.push(Look { answered_ns, rows });
        (rows >= lines).then_some(())
    });
    let took = started.elapsed().as_secs_f64();
    // Rows become readable in the order of the file, so the n-th of them was there when so many were counted.
    let query = "select cast(timestamp as bigint) as ns from logs where container = 'fresh' order by position_major, position_minor";
    let times: Vec<u128> =
        world.sql.rows(query).iter().map(|row| u128::from(row["ns"].as_u64().unwrap())).collect();
    let mut looks = looks.into_iter().peekable();
    let mut waits_ms: Vec<u64> = Vec::new();
    for (index, time_ns) in times.iter().enumerate() {
        while looks.next_if(|look| look.rows <= index as u64).is_some() {}
        let Some(look) = looks.peek() else { break };
        waits_ms.push(u64::try_from(look.answered_ns.saturating_sub(*time_ns) / 1_000_000).unwrap());
    }
    assert_eq!(waits_ms.len() as u64, lines, "not every line was seen");
    waits_ms.sort_unstable();
    let at = |share: usize| waits_ms[(waits_ms.len() - 1) * share / 1000];
    println!(
        "{lines} lines in {took:.1} s; readable in SQL after {} ms (median), {} ms (99 %), {} ms (99.9 %), {} ms at most",
        at(500),
        at(990),
        at(999),
        at(1000)
    );
    let limit_ms = if scale() >= 15 { 1_000 } else { 3_000 };
    assert!(at(990) <= limit_ms, "99 % only after {} ms", at(990));
    assert_zeros(&cast, &world.judge_all(&[cast[0].printed.clone()], 30));
}
