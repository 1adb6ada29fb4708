//! Every output format, read back by somebody else's reader.

use std::sync::Arc;

use arrow_ipc::reader::StreamReader;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimestampNanosecondType, UInt64Type};
use serde_json::{Value, json};

use crate::client::{answer, ask, send_raw, serve};
use crate::world::{HOUR_NS, NOON_NS, World, said};

const ROWS: &str = "select timestamp, service, message, labels, attributes, redactions, position_minor, \
                    cast(null as int) as nothing, 1.5 as number, arrow_cast(18446744073709551615, 'UInt64') as large \
                    from logs order by timestamp";

async fn world() -> World {
    let world = World::new().await;
    let mut line = said("web", NOON_NS + 1, "=1+1, \"quoted\"\r\nand more");
    line.redactions = vec![("email", 2)];
    world.publish_and_flush("default", &[line]).await;
    world.publish("default", &[said("db", NOON_NS + 2, "plain")]).await;
    world
}

fn expected() -> Value {
    let row = |ns: i64, service: &str, message: &str, redactions: Value, minor: u64| {
        json!({
            "timestamp": format!("2026-01-05T12:00:00.{:09}Z", ns), "service": service, "message": message,
            "labels": {"com.docker.compose.project": "shop", "tier": format!("{service}-tier")},
            "attributes": {"trace_id": "t0"}, "redactions": redactions, "position_minor": minor,
            "nothing": null, "number": 1.5, "large": 18446744073709551615_u64,
        })
    };
    json!([
        row(1, "web", "=1+1, \"quoted\"\r\nand more", json!([{"rule": "email", "count": 2}]), 1_000_000),
        row(2, "db", "plain", json!([]), 2_000_000),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_an_array_of_exact_values() {
    let world = world().await;
    let address = serve(&world.query).await;
    for accept in ["application/json", "*/*", "text/html, application/json;q=0.5"] {
        let answer = ask(address, accept, ROWS).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        assert!(answer.head.contains("content-type: application/json"));
        assert_eq!(answer.json(), expected());
    }
    assert_eq!(ask(address, "*/*", "select 1 where false").await.json(), json!([]));
    let twice =
        ask(address, "*/*", "select a.value, b.value from generate_series(1, 1) a, generate_series(2, 2) b")
            .await;
    assert_eq!(twice.json(), json!([{"value": 1, "value_2": 2}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_lines_are_one_object_each() {
    let world = world().await;
    let answer = ask(serve(&world.query).await, "application/x-ndjson", ROWS).await;
    let rows: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((answer.complete, Value::Array(rows)), (true, expected()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csv_has_a_header_and_disarms_formulas() {
    let world = world().await;
    let address = serve(&world.query).await;
    let text = "select message, labels, position_minor, 'x' as x, cast(null as varchar) as nothing, -1 as minus from logs order by timestamp";
    let schema = Arc::new(Schema::new(
        ["message", "labels", "position_minor", "x", "nothing", "minus"]
            .map(|name| Field::new(name, DataType::Utf8, true))
            .to_vec(),
    ));
    for (accept, first) in [
        ("text/csv", "'=1+1, \"quoted\"\r\nand more"),
        ("text/csv; formulas=raw", "=1+1, \"quoted\"\r\nand more"),
    ] {
        let answer = ask(address, accept, text).await;
        assert!(answer.head.contains("content-type: text/csv") && answer.complete);
        assert!(
            answer.text().starts_with("message,labels,position_minor,x,nothing,minus\r\n"),
            "{}",
            answer.text()
        );
        let mut reader =
            arrow_csv::ReaderBuilder::new(schema.clone()).with_header(true).build(&answer.body[..]).unwrap();
        let rows = reader.next().unwrap().unwrap();
        assert_eq!(rows.num_rows(), 2);
        let cell = |column: usize, row: usize| rows.column(column).as_string::<i32>().value(row).to_owned();
        assert_eq!((cell(0, 0).as_str(), cell(0, 1).as_str()), (first, "plain"));
        let labels: Value = serde_json::from_str(&cell(1, 0)).unwrap();
        assert_eq!(labels["tier"], "web-tier");
        assert_eq!((cell(2, 0).as_str(), cell(3, 0).as_str(), cell(5, 0).as_str()), ("1000000", "x", "-1"));
        assert!(rows.column(4).is_null(0));
    }
    let empty = ask(address, "text/csv", "select 1 as a where false").await;
    assert_eq!((empty.text(), empty.complete), ("a\r\n", true));
    let cells = "select * from (values ('@a'), ('+a'), ('-a'), ('\ta'), ('a=b'), ('')) v(a)";
    let armed = ask(address, "text/csv", cells).await;
    assert_eq!(armed.text(), "a\r\n'@a\r\n'+a\r\n'-a\r\n'\ta\r\na=b\r\n\"\"\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_arrow_stream_keeps_types() {
    let world = world().await;
    let address = serve(&world.query).await;
    let answer = ask(address, "application/vnd.apache.arrow.stream", ROWS).await;
    assert!(answer.complete);
    let batches: Vec<_> =
        StreamReader::try_new(&answer.body[..], None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    let last = batches.last().unwrap();
    let row = last.num_rows() - 1;
    assert_eq!(last.column(0).as_primitive::<TimestampNanosecondType>().value(row), NOON_NS + 2);
    assert!(matches!(last.column(3).data_type(), DataType::Map(..)));
    assert_eq!(last.column(9).as_primitive::<UInt64Type>().value(row), u64::MAX);
    let empty = ask(address, "application/vnd.apache.arrow.stream", "select 1 as a where false").await;
    let reader = StreamReader::try_new(&empty.body[..], None).unwrap();
    assert_eq!((reader.schema().field(0).name().as_str(), reader.count()), ("a", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_table_escapes_what_strangers_wrote() {
    let world = World::new().await;
    world.publish("default", &[said("web", NOON_NS, "\u{1b}[31mred\u{7}\u{202e}\nnext\u{9b}2J")]).await;
    let rows = world.batches("select message, labels from logs").await.unwrap();
    let table = beeacon_query::display::table(&rows).unwrap();
    assert!(table.contains(r"\u{1b}[31mred\u{7}\u{202e}\nnext\u{9b}2J"), "{table}");
    assert!(table.chars().all(|c| c == '\n' || !c.is_control()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_bound_by_place_and_by_name_and_misfits_are_refused() {
    let world = World::new().await;
    world.publish("default", &[said("web", NOON_NS, "it's"), said("db", NOON_NS, "two")]).await;
    let address = serve(&world.query).await;
    let asked = async |body: serde_json::Value| {
        let body = body.to_string();
        answer(send_raw(address, "application/json", "application/json", body.as_bytes()).await, Vec::new())
            .await
    };
    let table = [
        (
            serde_json::json!({"query": "select service from logs where message = $1", "parameters": ["it's"]}),
            "web",
        ),
        (
            serde_json::json!({"query": "select service from logs where message = $text", "parameters": {"text": "two"}}),
            "db",
        ),
        (
            serde_json::json!({"query": "select service from logs where timestamp >= $1 and message <> $2 and $3", "parameters": ["2026-01-05T12:00:00Z", "two", true]}),
            "web",
        ),
    ];
    for (body, service) in table {
        let answer = asked(body).await;
        assert_eq!(answer.json(), serde_json::json!([{ "service": service }]), "{}", answer.text());
    }
    for parameters in [
        serde_json::json!(null),
        serde_json::json!("x"),
        serde_json::json!([[1]]),
        serde_json::json!({"a": {}}),
    ] {
        let answer = asked(serde_json::json!({"query": "select $1", "parameters": parameters})).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (400, Some("parameters")),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_says_how_many_files_were_skipped() {
    let world = World::new().await;
    for hour in 0..4 {
        world.publish_and_flush("default", &[said("web", NOON_NS + hour * HOUR_NS, "one")]).await;
    }
    for explain in ["explain", "explain analyze"] {
        let rows = world
            .cells(&format!("{explain} select * from logs where timestamp < '2026-01-05T13:30:00Z'"))
            .await;
        let files = rows.iter().find(|row| row[0] == "files").unwrap_or_else(|| panic!("{rows:?}"));
        assert_eq!(
            files[1],
            "logs: 2 of 4 files and 0 fresh batches; 2 files skipped by time and service, 0 damaged"
        );
    }
    let rows = world.cells("explain analyze select * from logs where message = 'none'").await;
    assert!(rows.iter().any(|row| row[1].contains("rows_pruned")), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parquet_answer_is_read_by_a_parquet_reader_and_one_cut_off_is_not() {
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReader;
    let world = world().await;
    let address = serve(&world.query).await;
    let answer = ask(address, "application/vnd.apache.parquet", ROWS).await;
    assert!(answer.complete && answer.head.contains("application/vnd.apache.parquet"));
    let body = bytes::Bytes::from(answer.body);
    let rows: Vec<_> =
        ParquetRecordBatchReader::try_new(body.clone(), 100).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    assert_eq!(rows[0].column(9).as_primitive::<UInt64Type>().value(0), u64::MAX);
    assert!(ParquetRecordBatchReader::try_new(body.slice(..body.len() - 1), 100).is_err());
    let many = ask(
        address,
        "application/vnd.apache.parquet",
        "select value, repeat('x', 100) from generate_series(1, 300000)",
    )
    .await;
    let rows = ParquetRecordBatchReader::try_new(bytes::Bytes::from(many.body), 8_192).unwrap();
    assert_eq!(rows.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 300_000);
    let unfit = ask(address, "application/vnd.apache.parquet", "select interval '1 month'").await;
    assert_eq!((unfit.status, unfit.json()["error"]["code"].as_str()), (406, Some("format")));
}
