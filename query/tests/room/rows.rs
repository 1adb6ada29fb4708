//! What the tables hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use beeacon_record::{AgentId, GapReason, Position, Source};
use beeacon_store::GapRow;

use crate::world::{HOUR_NS, NOON_NS, World, commit, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_found_fresh_flushed_and_both_at_once() {
    let world = World::new().await;
    assert_eq!(world.one("select count(*) from logs").await, "0");
    world.publish("default", &[said("web", NOON_NS, "one"), said("db", NOON_NS + 1, "two")]).await;
    let text = "select service, message from logs order by timestamp";
    let first = [vec!["web", "one"], vec!["db", "two"]];
    assert_eq!(world.cells(text).await, first);
    world.store.flush().await.unwrap();
    assert_eq!(world.cells(text).await, first);
    world.publish("default", &[said("web", NOON_NS + 2, "three")]).await;
    assert_eq!(world.cells(text).await, [vec!["web", "one"], vec!["db", "two"], vec!["web", "three"]]);
    let last = "select message from logs where service = 'web' order by timestamp desc limit 1";
    assert_eq!(world.one(last).await, "three");
    let bounds = "select min(message), max(message), count(*), min(timestamp) = max(timestamp) from logs";
    assert_eq!(world.cells(bounds).await, [["one", "two", "3", "false"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_flushed_rows_opens_no_file() {
    let world = World::new().await;
    world.publish_and_flush("default", &[said("web", NOON_NS, "one"), said("web", NOON_NS + 9, "two")]).await;
    // Were a file opened, its absence would be an error.
    std::fs::remove_dir_all(world.directory.path().join("parquet/tenants")).unwrap();
    assert_eq!(world.one("select count(*) from logs").await, "2");
    let bounds =
        world.cells("select cast(min(timestamp) as bigint), cast(max(timestamp) as bigint) from logs").await;
    assert_eq!(bounds, [[NOON_NS.to_string(), (NOON_NS + 9).to_string()]]);
    assert_eq!(world.error("select message from logs").await.code(), "store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_attributes_are_maps_wherever_the_row_is() {
    let world = World::new().await;
    world.publish_and_flush("default", &[said("web", NOON_NS, "stored")]).await;
    world
        .publish("default", &[said("db", NOON_NS + 1, "fresh"), said("api", NOON_NS + 2, "fresh too")])
        .await;
    let text = "select labels['com.docker.compose.project'], labels['tier'], labels['none'], attributes['trace_id'] \
                from logs order by timestamp";
    let cells = world.cells(text).await;
    let expected =
        [["shop", "web-tier", "", "t0"], ["shop", "db-tier", "", "t0"], ["shop", "api-tier", "", "t1"]];
    assert_eq!(cells, expected);
    assert_eq!(world.one("select message from logs where labels['tier'] = 'web-tier'").await, "stored");
    let grouped = "select labels['tier'] as tier, count(*) from logs group by tier order by tier limit 1";
    assert_eq!(world.cells(grouped).await, [["api-tier", "1"]]);
    let types = "select column_name, data_type from information_schema.columns \
                 where table_name = 'logs' and column_name in ('labels', 'attributes') order by 1";
    let types = world.cells(types).await;
    assert!(types.len() == 2 && types.iter().all(|row| row[1] == "json"), "{types:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redactions_are_counted_per_minute_service_and_rule() {
    let world = World::new().await;
    let mut lines = vec![said("web", NOON_NS, "a"), said("web", NOON_NS + 30_000_000_000, "b")];
    lines[0].redactions = vec![("email", 2), ("iban", 1)];
    lines[1].redactions = vec![("email", 3)];
    world.publish_and_flush("default", &lines).await;
    let mut lines = vec![said("db", NOON_NS + HOUR_NS, "c"), said("db", NOON_NS + HOUR_NS, "without any")];
    lines[0].redactions = vec![("email", 4)];
    world.publish("default", &lines).await;
    let text = "select date_part('hour', minute), service, rule, count from redactions order by minute, rule";
    let expected = [["12", "web", "email", "5"], ["12", "web", "iban", "1"], ["13", "db", "email", "4"]];
    assert_eq!(world.cells(text).await, expected);
    let statistics = world.query.pollen_filter_statistics("default").await.unwrap();
    let json = serde_json::to_value(&statistics).unwrap();
    let expected = serde_json::json!({
        "redactions": 10,
        "rules": [{"name": "email", "count": 9}, {"name": "iban", "count": 1}],
        "services": [{"name": "web", "count": 6}, {"name": "db", "count": 4}],
    });
    assert_eq!(json, expected);
    assert_eq!(world.query.pollen_filter_statistics("nobody").await.unwrap().redactions, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_show_where_and_how_much() {
    let world = World::new().await;
    let mut with_gap = commit(world.take_lsn(), "default", &[said("web", NOON_NS, "after")]);
    with_gap.gaps = vec![GapRow {
        tenant: "default".into(),
        agent: AgentId::from_bytes([1; 16]),
        source: Source::new("docker-file:4f2a").unwrap(),
        host: "h1".into(),
        service: "web".into(),
        container: "web-1".into(),
        container_id: "4f2a".into(),
        from: Position::new(1, 10),
        to: Position::new(2, 90),
        reason: GapReason::Rotated,
        bytes: 1_234,
        timestamp_before_ns: NOON_NS - 7,
        timestamp_after_ns: 0,
        received_ns: NOON_NS,
    }];
    world.store.publish(with_gap).await.unwrap();
    let text = "select source, service, from_major, from_minor, to_major, to_minor, reason, bytes, \
                cast(timestamp_before as bigint), timestamp_after is null from gaps where reason = 'rotated'";
    let before = (NOON_NS - 7).to_string();
    let expected =
        [["docker-file:4f2a", "web", "1", "10", "2", "90", "rotated", "1234", before.as_str(), "true"]];
    assert_eq!(world.cells(text).await, expected);
    world.store.flush().await.unwrap();
    assert_eq!(world.cells(text).await, expected);
    assert_eq!(world.one("select count(*) from gaps").await, "1");
}

/// Rows are published and flushed all the time while queries count: each count lies between what was published before and
/// after it, no position comes twice, and two scans of one query see the same rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_seen_exactly_once_while_rows_move_to_files() {
    const QUERIES: u64 = 25;
    const ROWS: u64 = 20;
    let world = Arc::new(World::new().await);
    let (begun, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (world, begun, done, over) = (world.clone(), begun.clone(), done.clone(), over.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !over.load(Ordering::SeqCst) {
                begun.fetch_add(ROWS, Ordering::SeqCst);
                let lines: Vec<_> =
                    (0..ROWS).map(|row| said("web", NOON_NS + (number * ROWS + row) as i64, "x")).collect();
                world.publish("default", &lines).await;
                done.fetch_add(ROWS, Ordering::SeqCst);
                number += 1;
                tokio::task::yield_now().await;
            }
            number * ROWS
        })
    };
    let flusher = {
        let (world, over) = (world.clone(), over.clone());
        tokio::spawn(async move {
            let mut flushes = 0;
            while !over.load(Ordering::SeqCst) {
                world.store.flush().await.unwrap();
                flushes += 1;
            }
            flushes
        })
    };
    let text = "select count(*), count(distinct position_minor), (select count(*) from logs where position_minor > 0) as again, \
                (select max(position_minor) from logs) = max(position_minor) as same from logs";
    let mut mixed = 0;
    for _ in 0..QUERIES {
        let at_least = done.load(Ordering::SeqCst);
        let cells = world.cells(text).await;
        let at_most = begun.load(Ordering::SeqCst);
        let count: u64 = cells[0][0].parse().unwrap();
        assert!((at_least..=at_most).contains(&count), "{at_least} <= {count} <= {at_most}");
        assert_eq!(cells[0][1], cells[0][0], "a row came twice or was lost");
        assert_eq!(cells[0][2], cells[0][0], "two scans of one query differ");
        assert!(count == 0 || cells[0][3] == "true", "two scans of one query differ in their last row");
        mixed += u64::from(count > at_least);
    }
    over.store(true, Ordering::SeqCst);
    let written = writer.await.unwrap();
    let flushes = flusher.await.unwrap();
    assert!(flushes > 2, "{flushes} flushes");
    assert_eq!(world.one("select count(*) from logs").await, written.to_string());
    println!(
        "{QUERIES} queries of {written} rows during {flushes} flushes, {mixed} saw rows arrive meanwhile"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_its_own_rows_only() {
    let world = World::new().await;
    world.publish_and_flush("acme", &[said("web", NOON_NS, "acme stored")]).await;
    world.publish_and_flush("umbrella", &[said("web", NOON_NS, "umbrella stored")]).await;
    world.publish("acme", &[said("web", NOON_NS + 1, "acme fresh")]).await;
    world.publish("umbrella", &[said("web", NOON_NS + 1, "umbrella fresh")]).await;
    for tenant in ["acme", "umbrella"] {
        let expected =
            [[format!("{tenant} stored"), tenant.into()], [format!("{tenant} fresh"), tenant.into()]];
        assert_eq!(
            world.cells_of(tenant, "select message, tenant from logs order by timestamp").await,
            expected
        );
        assert_eq!(world.cells_of(tenant, "select count(*) from logs where tenant <> 'x'").await, [["2"]]);
    }
    assert_eq!(world.one("select count(*) from logs").await, "0");
    for text in
        ["select * from acme.logs", "select * from beeacon.acme.logs", "select * from acme.public.logs"]
    {
        assert_eq!(world.error(text).await.code(), "plan", "{text}");
    }
    for tenant in ["../acme", "acme/../umbrella", "", "a\0b"] {
        assert!(world.query.sql(tenant, "select count(*) from logs").await.is_err(), "{tenant:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_describe_themselves() {
    let world = World::new().await;
    let tables = "select table_name from information_schema.tables where table_schema = 'public' order by 1";
    assert_eq!(world.cells(tables).await, [["gaps"], ["logs"], ["redactions"]]);
    let shown = world.cells("show tables").await;
    assert!(
        ["gaps", "logs", "redactions"].iter().all(|name| shown.iter().any(|row| row[2] == *name)),
        "{shown:?}"
    );
    let columns = world.cells("describe logs").await;
    assert_eq!((columns.len(), columns[0][0].as_str()), (18, "timestamp"));
    let columns: Vec<_> =
        world.cells("describe redactions").await.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(columns, ["minute", "service", "rule", "count"]);
}
