//! What a query may not do.

use beeacon_query::QueryError;

use crate::world::{NOON_NS, World, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_reading_is_possible() {
    let world = World::new().await;
    world.publish_and_flush("default", &[said("web", NOON_NS, "one")]).await;
    let outside = world.directory.path().join("outside.csv");
    std::fs::write(&outside, "a,b\n1,2\n").unwrap();
    let outside = outside.display();
    let parquet = world.directory.path().join("parquet");
    // (statement, code)
    let table = [
        ("insert into logs select * from logs".to_owned(), "read_only"),
        ("create table a as select 1".to_owned(), "read_only"),
        ("create view a as select 1".to_owned(), "read_only"),
        (format!("create external table a stored as csv location '{outside}'"), "read_only"),
        (format!("copy logs to '{outside}'"), "read_only"),
        (format!("copy (select 1) to '{outside}' stored as csv"), "read_only"),
        (format!("explain copy logs to '{outside}'"), "read_only"),
        ("explain analyze insert into logs select * from logs".to_owned(), "read_only"),
        ("set datafusion.execution.batch_size = 1".to_owned(), "read_only"),
        ("reset datafusion.execution.batch_size".to_owned(), "read_only"),
        ("drop table logs".to_owned(), "read_only"),
        ("drop view redactions".to_owned(), "read_only"),
        ("delete from logs".to_owned(), "read_only"),
        ("update logs set message = ''".to_owned(), "read_only"),
        ("truncate table logs".to_owned(), "read_only"),
        ("begin".to_owned(), "read_only"),
        ("prepare p as select 1".to_owned(), "read_only"),
        ("create function f() returns int return 1".to_owned(), "read_only"),
        ("select 1; drop table logs".to_owned(), "query_statements"),
        ("select 1; select 2".to_owned(), "query_statements"),
        ("".to_owned(), "query_empty"),
        (";".to_owned(), "query_empty"),
        (format!("select * from '{outside}'"), "plan"),
        (format!("select * from \"{outside}\""), "plan"),
        (format!("select * from 'file://{outside}'"), "plan"),
        (format!("select * from read_csv('{outside}')"), "plan"),
        (format!("select * from read_parquet('{}')", parquet.display()), "plan"),
        (format!("select * from parquet_metadata('{}')", parquet.display()), "plan"),
        (format!("select * from parquet_scan('{}')", parquet.display()), "plan"),
        ("select * from pg_read_file('/etc/passwd')".to_owned(), "plan"),
        ("select getenv('HOME')".to_owned(), "plan"),
        ("select @@version".to_owned(), "plan"),
    ];
    for (statement, code) in table {
        let error = world.error(&statement).await;
        assert_eq!(error.code(), code, "{statement}: {}", error.for_the_asker());
    }
    for statement in
        ["select * into a from logs", "with a as (insert into logs select * from logs returning 1) select 1"]
    {
        let error = world.error(statement).await;
        assert!(matches!(error.code(), "read_only" | "plan" | "syntax"), "{statement}: {}", error.code());
    }
    assert_eq!(std::fs::read_to_string(world.directory.path().join("outside.csv")).unwrap(), "a,b\n1,2\n");
    assert_eq!(world.one("select count(*) from logs").await, "1");
    let allowed = world.error("drop table logs").await.to_string();
    assert!(allowed.contains("SELECT") && allowed.contains("EXPLAIN"), "{allowed}");
}

/// A catalog that has mixed up two tenants' files: the file's own footer is what stops the rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_names_another_tenant_stops_the_query() {
    let (acme, bolt) = (World::new().await, World::new().await);
    acme.publish_and_flush("acme", &[said("web", NOON_NS, "of acme")]).await;
    bolt.publish_and_flush("bolt", &[said("web", NOON_NS, "of bolt")]).await;
    let file = |world: &World, tenant: &str| {
        let day = world.directory.path().join(format!("parquet/tenants/{tenant}/2026-01-05"));
        std::fs::read_dir(day).unwrap().next().unwrap().unwrap().path()
    };
    let plan = acme.cells_of("acme", "explain select message from logs").await;
    let plan = plan.iter().map(|row| row[1].as_str()).collect::<String>();
    assert!(plan.contains(".parquet") && !plan.contains("tenants/"), "{plan}");
    let (from, to) = (file(&acme, "acme"), file(&bolt, "bolt"));
    let size = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(size(&from), size(&to), "the test needs files of one size");
    std::fs::copy(from, to).unwrap();
    let rows = bolt.query.sql("bolt", "select message from logs").await;
    let error = rows.map(|_| ()).unwrap_err();
    assert!(matches!(error, QueryError::ForeignFile), "{error}");
    assert_eq!(acme.cells_of("acme", "select message from logs").await, [["of acme"]]);
}
