//! That files are left out, shown by counting files, not only by looking at rows.

use crate::world::{HOUR_NS, NOON_NS, World, said};

/// Six files: two services in each of three hours.
async fn six_files() -> World {
    let world = World::new().await;
    for hour in 0..3 {
        for service in ["web", "db"] {
            let at = NOON_NS + hour * HOUR_NS;
            world
                .publish_and_flush(
                    "default",
                    &[said(service, at, "a"), said(service, at + 60_000_000_000, "b")],
                )
                .await;
        }
    }
    world
}

/// How many files the physical plan of a query reads.
async fn files_read(world: &World, text: &str) -> usize {
    let plan = world.cells(&format!("explain {text}")).await;
    let physical = plan.iter().find(|row| row[0] == "physical_plan").expect("no physical plan");
    physical[1].matches(".parquet").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_on_time_and_service_leave_files_out() {
    let world = six_files().await;
    // (filter, files that are read, rows that match)
    let table = [
        ("true", 6, 12),
        ("timestamp >= '2026-01-05T13:00:00Z'", 4, 8),
        ("timestamp > '2026-01-05T13:01:00Z'", 2, 4),
        ("timestamp < timestamp '2026-01-05 13:00:00'", 2, 4),
        ("timestamp between '2026-01-05T13:00:00Z' and '2026-01-05T13:59:59Z'", 2, 4),
        ("'2026-01-05T14:00:00Z' <= timestamp", 2, 4),
        ("timestamp = to_timestamp_nanos(1767614400000000000)", 2, 2),
        ("timestamp >= now() - interval '1 hour'", 0, 0),
        ("timestamp >= now() - interval '100 years'", 6, 12),
        ("service = 'web'", 3, 6),
        ("service in ('web', 'nobody')", 3, 6),
        ("service = 'web' or service = 'db'", 6, 12),
        ("service = 'nobody'", 0, 0),
        ("service <> 'web'", 6, 6),
        ("service like 'w%'", 6, 6),
        ("service = 'web' and timestamp >= '2026-01-05T13:30:00Z'", 1, 2),
        ("service = 'web' or timestamp >= '2026-01-05T13:30:00Z'", 6, 8),
        ("date_trunc('hour', timestamp) = '2026-01-05T13:00:00Z'", 2, 4),
        ("date_bin(interval '1 hour', timestamp) >= '2026-01-05T14:00:00Z'", 2, 4),
        ("cast(timestamp as date) = '2026-01-05'", 6, 12),
        ("cast(timestamp as date) >= '2026-01-06'", 0, 0),
        ("timestamp::timestamp >= '2026-01-05 14:00:00'", 2, 4),
        ("message = 'a' and not (timestamp < '2026-01-05T14:00:00Z')", 2, 2),
    ];
    for (filter, files, rows) in table {
        let text = format!("select message from logs where {filter}");
        assert_eq!(files_read(&world, &text).await, files, "{filter}");
        let before = world.query.statistics();
        assert_eq!(world.cells(&text).await.len(), rows, "{filter}");
        let after = world.query.statistics();
        let seen = after.files - before.files;
        let skipped = after.files_skipped - before.files_skipped;
        assert_eq!((seen, seen - skipped), (6, files as u64), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scan_of_a_query_reads_only_its_own_files() {
    let world = six_files().await;
    let text = "select (select count(*) from logs where timestamp < '2026-01-05T12:30:00Z' and message = 'a') as early, \
                (select count(*) from logs where timestamp > '2026-01-05T13:30:00Z' and message = 'a') as late";
    assert_eq!(files_read(&world, text).await, 4);
    assert_eq!(world.cells(text).await, [["2", "2"]]);
    let join = "select count(*) from logs a join logs b on a.position_minor = b.position_minor \
                where a.service = 'web' and b.timestamp > '2026-01-05T13:30:00Z'";
    assert_eq!(world.one(join).await, "2");
    let exists = "select count(*) from logs a where service = 'web' and exists \
                  (select 1 from logs b where b.service = 'db' and b.timestamp = a.timestamp)";
    assert_eq!(world.one(exists).await, "6");
    let with = "with w as (select * from logs where service = 'web'), d as (select * from logs where service = 'db') \
                select (select count(*) from w) + (select count(*) from d)";
    assert_eq!(world.one(with).await, "12");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redactions_are_taken_from_the_counts_of_files_and_from_no_line() {
    let world = six_files().await;
    let found = |at, count| {
        let mut line = said("web", at, "a");
        line.redactions = vec![("email", count)];
        line
    };
    world.publish_and_flush("default", &[found(NOON_NS, 1), found(NOON_NS + 2 * HOUR_NS, 2)]).await;
    world.publish("default", &[found(NOON_NS + 2 * HOUR_NS + 59_000_000_000, 4)]).await;
    let filter = "where minute >= '2026-01-05T14:00:00Z' and service = 'web'";
    for (text, expected) in [
        (format!("select sum(count) from redactions {filter}"), "6"),
        ("select sum(count) from redactions".to_owned(), "7"),
        ("select sum(count) from redactions where minute < '2026-01-05T12:00:30Z'".to_owned(), "1"),
        ("select count(*) from redactions where service = 'db'".to_owned(), "0"),
        ("select sum(count) from redactions where date_trunc('hour', minute) = '2026-01-05T14:00:00Z'".to_owned(), "6"),
        ("select sum(r.count) from redactions r join logs l on l.timestamp = r.minute and l.service = r.service and l.message = 'a'".to_owned(), "14"),
    ] {
        assert_eq!(world.one(&text).await, expected, "{text}");
    }
    assert_eq!(files_read(&world, &format!("select * from redactions {filter}")).await, 0);
    // A snapshot is as narrow as the question.
    let before = world.query.statistics();
    world.cells(&format!("select * from redactions {filter}")).await;
    let after = world.query.statistics();
    assert_eq!((after.files - before.files, after.files_skipped - before.files_skipped), (7, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_reach_the_parquet_reader_through_the_union_with_fresh_rows() {
    let world = six_files().await;
    world.publish("default", &[said("web", NOON_NS + 3 * HOUR_NS, "fresh")]).await;
    let text = "explain analyze select timestamp, message from logs where level = 'info' and message = 'b'";
    let plan = world.cells(text).await;
    assert!(plan[0][1].contains("UnionExec"), "{}", plan[0][1]);
    let parquet = plan[0][1].lines().find(|line| line.contains("file_type=parquet")).expect("no file scan");
    assert!(parquet.contains("predicate="), "{parquet}");
    assert!(parquet.contains("pushdown_rows_pruned=6"), "{parquet}");
}

/// Each group of files that the plan reads: how many, and whether something is compared in them.
async fn comparisons(world: &World, filter: &str) -> Vec<(usize, bool)> {
    let plan = world.cells(&format!("explain select message from logs where {filter}")).await;
    let physical = plan.iter().find(|row| row[0] == "physical_plan").expect("no physical plan");
    let scans = physical[1].lines().filter(|line| line.contains(".parquet"));
    let mut scans: Vec<_> =
        scans.map(|line| (line.matches(".parquet").count(), line.contains("predicate="))).collect();
    scans.sort_unstable();
    scans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_compared_in_files_that_lie_within_what_is_asked_for() {
    let world = six_files().await;
    let both = [said("web", NOON_NS + 3 * HOUR_NS, "a"), said("db", NOON_NS + 3 * HOUR_NS, "b")];
    world.publish_and_flush("default", &both).await;
    let fresh = [said("web", NOON_NS + HOUR_NS + 1, "fresh"), said("web", NOON_NS - HOUR_NS, "early")];
    world.publish("default", &fresh).await;
    // (filter, files read and whether with a comparison, rows that match)
    let table = [
        ("timestamp >= '2026-01-05T12:00:00Z'", vec![(7, false)], 15),
        (
            "timestamp between '2026-01-05T12:30:00Z' and '2026-01-05T14:00:30Z'",
            vec![(2, false), (2, true)],
            7,
        ),
        ("timestamp > '2026-01-05T12:00:00Z' and timestamp < '2026-01-05T12:01:00Z'", vec![(2, true)], 0),
        ("service in ('web', 'db')", vec![(7, false)], 16),
        ("service = 'web'", vec![(1, true), (3, false)], 9),
        ("service = 'web' and timestamp >= '2026-01-05T14:00:30Z'", vec![(2, true)], 2),
        ("service = 'web' and message = 'a'", vec![(1, true), (3, true)], 4),
        ("service = 'web' or service = 'db' and timestamp >= '2026-01-05T14:00:30Z'", vec![(7, true)], 11),
    ];
    for (filter, files, rows) in table {
        assert_eq!(comparisons(&world, filter).await, files, "{filter}");
        let text = format!("select message from logs where {filter}");
        assert_eq!(world.cells(&text).await.len(), rows, "{filter}");
        let count = format!("select count(*) from logs where {filter}");
        assert_eq!(world.one(&count).await, rows.to_string(), "{filter}");
    }
}
