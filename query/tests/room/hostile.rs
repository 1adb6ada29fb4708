//! Queries meant to bring the process down. Each ends with an error that names a limit, and the next query is answered.

use std::time::Duration;

use beeacon_query::QueryOptions;
use futures_util::StreamExt;

use crate::world::{NOON_NS, World, said};

#[path = "../../../tests/shared/hostile.rs"]
mod queries;

use queries::{HOSTILE, chain, doubling, hostile};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_deep_queries_are_refused_before_they_are_planned() {
    let world = World::new().await;
    let table = [
        (chain("select 1 from logs where host = 'a'", " or host = 'a'", 1_000), "query_too_many_tokens"),
        (chain("select 1 from logs where true", " or 1", 20_000), "query_too_long"),
        (chain("select 1", "+1", 20_000), "query_too_many_tokens"),
        (chain("select ", "(", 30_000), "query_too_deep"),
        (format!("select {}1{}", "(".repeat(51), ")".repeat(51)), "query_too_deep"),
        (chain("select ", "[", 60), "query_too_deep"),
        (chain("select ", "case when ", 60), "query_too_deep"),
        (chain("select ", "not ", 1_900) + "true", "query_too_deep"),
        (chain("select ", "- ", 1_900) + "1", "query_too_deep"),
        (format!("select '{}'", "x".repeat(70_000)), "query_too_long"),
        ("select repeat('x', 1000000000)".into(), "query_growth"),
        ("select repeat(repeat(repeat('x', 1000), 1000), 1000)".into(), "query_growth"),
        ("select repeat('x', value) from generate_series(1, 1000000000)".into(), "query_growth"),
        ("with a as (select repeat('x', 4000) x) select repeat(x, 4000) from a".into(), "query_growth"),
        ("select lpad('x', 1000000000, 'y')".into(), "query_growth"),
        ("select range(1, 10000000000)".into(), "query_growth"),
        ("select generate_series(1, 10000000000)".into(), "query_growth"),
        ("select array_repeat(1, 10000000000)".into(), "query_growth"),
        (doubling(40), "query_growth"),
    ];
    for (query, code) in table {
        let error = world.error(&query).await;
        assert_eq!(error.code(), code, "{}", query.chars().take(60).collect::<String>());
        assert!(error.to_string().chars().any(|c| c.is_ascii_digit()), "{error}");
    }
    assert_eq!(world.one("select 1").await, "1");
}

/// What is just within the limits is planned and run: an overflow of the stack would end this test's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_queries_allowed_do_not_overflow_the_stack() {
    let world = World::new().await;
    world.publish_and_flush("default", &[said("web", NOON_NS, "one")]).await;
    world.publish("default", &[said("web", NOON_NS, "two")]).await;
    let table = [
        chain("select 1", "+1", 990),
        chain("select position_minor", "+1", 990) + " from logs",
        chain("select count(*) from logs where message = 'a'", " or message like 'b%'", 490),
        chain("select count(*) from logs where position_minor > 1", " and position_minor <> 7", 490),
        chain("select ''", " || message", 900) + " from logs where false",
        format!("select {}1{}", "(".repeat(45), ")".repeat(45)),
        format!("select {}1{}", "abs(".repeat(45), ")".repeat(45)),
        format!("select * from {}logs{}", "(select * from ".repeat(40), ")".repeat(40)),
        format!("select {} 1 {}", "case when true then ".repeat(45), " end".repeat(45)),
        chain("select 1", " union all select 1", 480),
        chain("select 1", " union select 1", 100),
        format!("select count(*) from logs where position_minor in (1{})", ",2".repeat(900)),
        format!("select 1 where {} true", "not ".repeat(50)),
        chain("select 1 from logs a", " cross join logs b", 0),
    ];
    for query in table {
        let answered = world.batches(&query).await;
        let shown: String = query.chars().take(50).collect();
        match answered {
            Ok(_) => {}
            Err(error) => panic!("{shown}: {} {}", error.code(), error.for_the_asker()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_without_end_meet_the_time_limit_and_stop() {
    let options = QueryOptions { time_max: Duration::from_secs(1), partitions: 2, ..QueryOptions::default() };
    let world = World::with(options).await;
    let table = [
        "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        "select sum(value % 7) from generate_series(1, 100000000000)",
        "select sum(a.value * b.value) from generate_series(1, 3000000) a join generate_series(1, 3000000) b on a.value % 7 <> b.value % 5",
        "with recursive r as (select 1 n union all select n + 1 from r) select count(*) from r",
        "select max(a.value) from generate_series(1, 100000000000) a where a.value % 3 = 5",
    ];
    for query in table {
        let error = world.error(query).await;
        assert_eq!(error.code(), "limit_time", "{query}: {}", error.for_the_asker());
        assert!(error.to_string().contains("1 s"), "{error}");
        println!("stopping {query}");
        world.idle().await;
    }
    assert_eq!(world.one("select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_need_too_much_memory_end_with_the_memory_limit() {
    let options = QueryOptions { memory_bytes_max: 16 << 20, partitions: 2, ..QueryOptions::default() };
    let world = World::with(options.clone()).await;
    let table = [
        "select value from generate_series(1, 20000000) order by value % 1000, value desc",
        "select count(*) from (select count(*) as c from generate_series(1, 20000000) group by value * 7919 % 20000003)",
        "select count(*) from generate_series(1, 5000000) a join generate_series(1, 5000000) b on a.value = b.value",
        "select count(*) from generate_series(1, 20000000) a, generate_series(1, 20000000) b where a.value + b.value = 3",
        "select max(n * value) from (select value, row_number() over (order by value * 7919 % 20000003) as n from generate_series(1, 20000000))",
    ];
    for query in table {
        let error = world.error(query).await;
        assert_eq!(error.code(), "limit_memory", "{query}: {}", error.for_the_asker());
        assert!(error.to_string().contains("16777216"), "{error}");
    }
    assert_eq!(world.one("select 1").await, "1");
    // The same sort is possible where it may spill.
    let spill = world.directory.path().join("spill");
    let world = World::with(QueryOptions { spill_directory: Some(spill.clone()), ..options }).await;
    let sorted = "select count(*) from (select row_number() over (order by value % 1000, value desc) as n \
                  from generate_series(1, 3000000)) where n > 5";
    assert_eq!(world.one(sorted).await, "2999995");
    world.idle().await;
    assert_eq!(std::fs::read_dir(&spill).unwrap().count(), 0, "spilled files stay behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_too_many_rows_ends_with_the_row_limit() {
    let world = World::with(QueryOptions { rows_max: 1_000, ..QueryOptions::default() }).await;
    assert_eq!(world.cells("select value from generate_series(1, 1000)").await.len(), 1_000);
    let error = world.error("select value from generate_series(1, 1001)").await;
    assert_eq!((error.code(), error.to_string().contains("1000")), ("limit_rows", true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_turn_in_time_is_told_so() {
    let options = QueryOptions {
        running_max: 1,
        waiting_max: 1,
        wait_max: Duration::from_millis(20),
        ..QueryOptions::default()
    };
    let world = World::with(options).await;
    let mut held = world.query.sql("default", "select value from generate_series(1, 1000000)").await.unwrap();
    assert!(held.next().await.unwrap().is_ok());
    assert_eq!(world.error("select 1").await.code(), "busy");
    drop(held);
    world.idle().await;
    assert_eq!(world.one("select 1").await, "1");
    assert_eq!(world.query.statistics().abandoned, 1);
}

/// What this process holds in memory, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// Five hundred hostile queries, four at a time, while lines are taken in: each ends within its limits, and taking in goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_hostile_queries_interrupt_nothing_and_stay_within_memory() {
    const MEMORY: usize = 32 << 20;
    let options = QueryOptions {
        memory_bytes_max: MEMORY,
        time_max: Duration::from_millis(300),
        wait_max: Duration::from_secs(60),
        rows_max: 10_000,
        partitions: 2,
        ..QueryOptions::default()
    };
    let world = std::sync::Arc::new(World::with(options).await);
    world.publish_and_flush("default", &[said("web", NOON_NS, "aaaaaaaaaaaaaaaaaaaaaaaaaaaab")]).await;
    let before = resident_bytes();
    let asked = futures_util::stream::iter((0..HOSTILE).map(hostile));
    let peak = std::sync::Mutex::new((0_u64, 0_usize));
    let ended = tokio::sync::Notify::new();
    let asking = asked.for_each_concurrent(4, |query| {
        let (world, peak, ended) = (world.clone(), &peak, &ended);
        async move {
            let shown: String = query.chars().take(60).collect();
            if let Err(error) = world.batches(&query).await {
                assert_ne!(error.code(), "internal", "{shown}: {}", error.for_the_asker());
            }
            let mut peak = peak.lock().unwrap();
            *peak = (peak.0.max(resident_bytes()), peak.1 + 1);
            ended.notify_one();
        }
    });
    let taking_in = async {
        let mut longest = Duration::ZERO;
        for index in 0.. {
            let began = std::time::Instant::now();
            world.publish("default", &[said("web", NOON_NS + index, "a line")]).await;
            longest = longest.max(began.elapsed());
            if peak.lock().unwrap().1 == HOSTILE {
                break;
            }
            // One line for each query that ends: what is taken in stays in memory here.
            ended.notified().await;
        }
        longest
    };
    let ((), longest) = tokio::join!(asking, taking_in);
    world.idle().await;
    let grown = peak.lock().unwrap().0.saturating_sub(before);
    println!("peak {} MiB above the start, the slowest commit took {longest:?}", grown >> 20);
    // Four queries with their memory, and as much again that no pool sees.
    assert!(grown < (8 * MEMORY as u64) + (256 << 20), "{} MiB", grown >> 20);
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert_eq!(world.one("select 1").await, "1");
}
