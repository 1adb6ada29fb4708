//! What Rust programs do with the PostgreSQL door through sqlx. Prints "done", or fails at what does not hold.

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Column, Connection, Executor, PgPool, Row, SqlStr, Statement, TypeInfo};

/// 2026-01-05T12:00:00Z.
const NOON_NS: i64 = 1_767_614_400_000_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), sqlx::Error> {
    let port = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("a port");
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("ada")
        .database("beeacon")
        .ssl_mode(PgSslMode::Prefer);
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
    values(&pool).await?;
    streams(&pool).await?;
    describes(&pool).await?;
    pool.close().await;
    println!("done");
    Ok(())
}

async fn values(pool: &PgPool) -> Result<(), sqlx::Error> {
    let noon = DateTime::<Utc>::from_timestamp_nanos(NOON_NS);
    for (service, expected) in [("web", 3_i64), ("db", 1), ("none", 0)] {
        let counted = "select count(*) from logs where service = $1 and timestamp >= $2";
        let count: i64 = sqlx::query_scalar(counted).bind(service).bind(noon).fetch_one(pool).await?;
        assert_eq!(count, expected, "{service}");
    }
    let one = "select timestamp, message, redactions, array[service, host] from logs where message = $1";
    let row = sqlx::query(one).bind("one").fetch_one(pool).await?;
    let names: Vec<&str> = row.columns().iter().map(|column| column.type_info().name()).collect();
    assert_eq!(names, ["TIMESTAMPTZ", "TEXT", "JSON", "TEXT[]"]);
    assert_eq!(row.get::<DateTime<Utc>, _>(0), noon);
    assert_eq!(row.get::<Value, _>(2), json!([{"rule": "email", "count": 2}]));
    assert_eq!(row.get::<Vec<String>, _>(3), ["web", "h1"]);
    let all = "select $1::smallint, $2::int, $3::bigint, $4::real, $5::double precision, $6::boolean, $7::text, $8::text";
    let row = sqlx::query(all)
        .bind(-7_i16)
        .bind(1_i32 << 30)
        .bind(i64::MIN + 1)
        .bind(1.5_f32)
        .bind(-2.25_f64)
        .bind(true)
        .bind("ü' \\")
        .bind(None::<String>)
        .fetch_one(pool)
        .await?;
    let whole: (i16, i32, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(whole, (-7, 1 << 30, i64::MIN + 1));
    let real: (f32, f64, bool) = (row.get(3), row.get(4), row.get(5));
    assert_eq!(real, (1.5, -2.25, true));
    assert_eq!((row.get::<&str, _>(6), row.get::<Option<&str>, _>(7)), ("ü' \\", None));
    Ok(())
}

async fn streams(pool: &PgPool) -> Result<(), sqlx::Error> {
    let series = "select value from generate_series(1, 100000)";
    let mut rows = sqlx::query_scalar::<_, i64>(series).fetch(pool);
    let mut sum = 0;
    while let Some(value) = rows.try_next().await? {
        sum += value;
    }
    assert_eq!(sum, 100_000 * 100_001 / 2);
    Ok(())
}

async fn describes(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let counted = "select service, count(*) as lines from logs where service = $1 group by 1";
    let prepared = connection.prepare(SqlStr::from_static(counted)).await?;
    let columns: Vec<_> =
        prepared.columns().iter().map(|column| (column.name(), column.type_info().name())).collect();
    assert_eq!(columns, [("service", "TEXT"), ("lines", "INT8")]);

    let mut transaction = connection.begin().await?;
    let refused = sqlx::query("delete from logs").execute(&mut *transaction).await;
    assert_eq!(state_of(refused.map(|_| ())), "25006");
    transaction.rollback().await?;
    let unknown = sqlx::query("select nothing from logs").fetch_one(&mut *connection).await;
    assert_eq!(state_of(unknown.map(|_| ())), "42703");
    connection.ping().await
}

fn state_of(answer: Result<(), sqlx::Error>) -> String {
    let error = answer.expect_err("answered");
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}
