//! Tables that the program brings, and rows as numbers with labels.

use std::sync::{Arc, Mutex};

use beeacon_query::relation::{ColumnKind, Relation, RelationError, RelationRows, Value, Wanted};
use beeacon_query::{Ask, QueryOptions};

use crate::world::{HOUR_NS, NOON_NS, World, said};

#[derive(Debug)]
struct Pets {
    /// Whether its rows fit its columns.
    fits: bool,
    /// What was wanted last.
    wanted: Arc<Mutex<Wanted>>,
}

impl Relation for Pets {
    fn name(&self) -> &'static str {
        "pets"
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        &[
            ("name", ColumnKind::Text),
            ("legs", ColumnKind::Number),
            ("weight", ColumnKind::Real),
            ("is_tame", ColumnKind::Flag),
            ("born", ColumnKind::Time),
        ]
    }

    fn narrowed_by(&self) -> Option<(&'static str, &'static str)> {
        Some(("born", "name"))
    }

    fn rows(&self, tenant: &str, wanted: &Wanted) -> RelationRows {
        let (tenant, fits) = (tenant.to_owned(), self.fits);
        self.wanted.lock().unwrap().clone_from(wanted);
        Box::pin(async move {
            if tenant == "nowhere" {
                return Err(RelationError("the pets are out".to_owned()));
            }
            let legs = if fits { Value::Number(4) } else { Value::Text("four".to_owned()) };
            let cat = vec![
                Value::Text("cat".to_owned()),
                legs,
                Value::Real(4.5),
                Value::Flag(true),
                Value::Time(NOON_NS),
            ];
            let ant =
                vec![Value::Text("ant".to_owned()), Value::Number(6), Value::Null, Value::Null, Value::Null];
            Ok(vec![cat, ant])
        })
    }
}

async fn world(fits: bool) -> World {
    watched(fits).await.0
}

/// A world with pets, and what was wanted of them last.
async fn watched(fits: bool) -> (World, Arc<Mutex<Wanted>>) {
    let wanted = Arc::<Mutex<Wanted>>::default();
    let relations: Vec<Arc<dyn Relation>> = vec![Arc::new(Pets { fits, wanted: wanted.clone() })];
    let world = World::with(QueryOptions { partitions: 2, relations, ..QueryOptions::default() }).await;
    (world, wanted)
}

/// Guarantees: who brings a table is told what a query narrows by time and text and which columns it reads; the query looks itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_program_brings_is_told_what_is_wanted_of_it() {
    let (world, wanted) = watched(true).await;
    let day = "timestamp '2026-01-05T00:00:00Z'";
    let text = format!(
        "select legs from pets where born between {day} and {day} + interval '1 day' and name = 'cat'"
    );
    assert_eq!(world.one(&text).await, "4");
    let midnight = NOON_NS - 12 * HOUR_NS;
    let expected = Wanted {
        time_ns: Some((midnight, midnight + 24 * HOUR_NS)),
        texts: Some(["cat".to_owned()].into()),
        columns: Some([0, 1, 4].into()),
    };
    assert_eq!(*wanted.lock().unwrap(), expected);
    assert_eq!(world.cells("select legs from pets where name = 'dog'").await.len(), 0);
    assert_eq!(world.one("select count(*) from pets").await, "2");
    let all = Wanted { columns: Some([].into()), ..Wanted::default() };
    assert_eq!(*wanted.lock().unwrap(), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_program_brings_is_read_joined_and_described_like_the_others() {
    let world = world(true).await;
    world.publish("default", &[said("cat", NOON_NS, "miaow")]).await;
    let text =
        "select name, legs, weight, is_tame, born = timestamp '2026-01-05T12:00:00Z' from pets order by legs";
    assert_eq!(world.cells(text).await, [["cat", "4", "4.5", "true", "true"], ["ant", "6", "", "", ""]]);
    let joined = "select message from logs join pets on service = name where legs = 4";
    assert_eq!(world.one(joined).await, "miaow");
    let tables = "select table_name from information_schema.tables where table_schema = 'public' order by 1";
    assert_eq!(world.cells(tables).await, [["gaps"], ["logs"], ["pets"], ["redactions"]]);
    assert_eq!(
        world.one("select 'pets'::regclass::oid = oid from pg_class where relname = 'pets'").await,
        "true"
    );
    let columns = "select count(*) from pg_attribute where attrelid = 'pets'::regclass";
    assert_eq!(world.one(columns).await, "5");
    assert_eq!(world.error("insert into pets values ('x')").await.code(), "read_only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_rows_to_give_or_with_rows_that_do_not_fit_is_an_error_and_no_other_table_suffers() {
    let world = world(false).await;
    assert_eq!(world.error("select * from pets").await.code(), "internal");
    let gone = world.query.sql("nowhere", "select * from pets").await.err().unwrap();
    assert_eq!(gone.code(), "relation");
    assert!(gone.for_the_asker().contains("the pets are out") && !gone.to_string().contains("pets are out"));
    assert_eq!(world.one("select count(*) from logs").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_become_numbers_with_labels_and_what_is_none_is_an_error() {
    let world = world(true).await;
    let ask = |text: &'static str, rows_max| world.query.labelled(Ask::new("default", text), rows_max);
    let text = "select name, legs as value, weight, '' as empty from pets order by legs";
    let rows = ask(text, 2).await.unwrap();
    let labels = |row: usize| -> Vec<(&str, &str)> {
        rows[row].labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    };
    assert_eq!((labels(0), rows[0].value), (vec![("name", "cat"), ("weight", "4.5")], 4.0));
    assert_eq!((labels(1), rows[1].value), (vec![("name", "ant")], 6.0));
    assert_eq!(
        ask("select name, weight as value from pets", 2).await.unwrap().len(),
        1,
        "a number that is null"
    );
    for (text, rows_max, code) in [
        ("select name, legs as value from pets", 1, "limit_rows"),
        ("select name from pets", 9, "plan"),
        ("select name as value from pets", 9, "format"),
        ("select 1 as value where", 9, "syntax"),
    ] {
        assert_eq!(ask(text, rows_max).await.unwrap_err().code(), code, "{text}");
    }
}
