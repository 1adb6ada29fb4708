//! `docs/sql.md` says what is so: its queries give the rows that stand below them.

use crate::world::World;

const PAGE: &str = include_str!("../../../docs/sql.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queries_of_the_page_give_its_rows() {
    let world = World::new().await;
    let blocks = PAGE.split("```sql rows\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for block in blocks {
        let mut lines = block.lines().peekable();
        while let Some(query) = lines.next() {
            let query =
                query.strip_suffix(';').unwrap_or_else(|| panic!("{query} does not end with a semicolon"));
            let mut expected = Vec::new();
            while let Some(row) = lines.next_if(|line| !line.ends_with(';')) {
                expected.push(row.to_owned());
            }
            let rows: Vec<_> = world.cells(query).await.iter().map(|row| row.join("|")).collect();
            assert_eq!(rows, expected, "{query}");
            count += 1;
        }
    }
    assert!(count >= 5, "the page has {count} queries");
}

#[test]
fn the_page_names_the_limits_as_they_are() {
    use beeacon_query::limits;
    for (shown, limit) in [
        (
            "64 KiB, 2,000, 50",
            (limits::QUERY_TEXT_BYTES_MAX, limits::QUERY_TOKENS_MAX, limits::QUERY_DEPTH_MAX)
                == (65_536, 2_000, 50),
        ),
        (
            "128, 256, 32",
            (limits::POSTGRES_CONNECTIONS_MAX, limits::POSTGRES_STATEMENTS_MAX, limits::POSTGRES_PORTALS_MAX)
                == (128, 256, 32),
        ),
        ("| parameters | 1,000 |", limits::PARAMETERS_MAX == 1_000),
        ("4,096-fold", limits::GROWTH_MAX == 4_096),
    ] {
        assert!(PAGE.contains(shown) && limit, "{shown}");
    }
}
