//! Where an error says it is.

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_where_in_the_query_they_are() {
    let world = World::new().await;
    // (query, code, line, column)
    let table = [
        ("select\n  nope from logs", "plan", 2, 3),
        ("select message from logs\nwhere servise = 'web'", "plan", 2, 7),
        ("select count(*) from logs group by\n   nope", "plan", 2, 4),
        ("select l.nope from logs l", "plan", 1, 8),
        ("select *\nfrom nope", "plan", 2, 6),
        ("select message,\n fooo(1) from logs", "plan", 2, 2),
        ("select * form logs", "syntax", 1, 10),
        ("select message from logs where", "syntax", 1, 31),
        ("select\n  1 +\n", "syntax", 2, 6),
        ("selec 1", "syntax", 1, 1),
        ("select 'abc", "syntax", 1, 8),
        ("select (1", "syntax", 1, 10),
    ];
    for (query, code, line, column) in table {
        let error = world.error(query).await;
        let place = error.place().map(|place| (place.line, place.column));
        assert_eq!(
            (error.code(), place),
            (code, Some((line, column))),
            "{query:?}: {}",
            error.for_the_asker()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_error_prints_in_a_log_holds_no_text_of_query_or_data() {
    let world = World::new().await;
    let table = [
        "select hunter2 from logs",
        "select * from hunter2",
        "select hunter2(1)",
        "select 'hunter2",
        "select cast('hunter2' as int)",
        "select 1 from hunter2 hunter2 hunter2",
        "select cast(a as int) from (values ('hunter2')) v(a)",
    ];
    for query in table {
        let error = world.error(query).await;
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{query}");
        assert!(
            error.for_the_asker().contains("hunter2") || query.ends_with("'hunter2"),
            "{query}: {}",
            error.for_the_asker()
        );
    }
}
