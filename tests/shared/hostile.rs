//! Queries meant to bring a server down, for the tests of the query room and of the whole way.

/// How many of them there are.
pub(crate) const HOSTILE: usize = 500;

/// A text and many times another one.
pub(crate) fn chain(first: &str, more: &str, count: usize) -> String {
    let mut text = first.to_owned();
    (0..count).for_each(|_| text.push_str(more));
    text
}

/// `with a0 as (select 'x' v), a1 as (select v || v v from a0), …`
pub(crate) fn doubling(levels: usize) -> String {
    let mut text = "with a0 as (select 'x' v)".to_owned();
    for level in 1..=levels {
        text.push_str(&format!(", a{level} as (select v || v v from a{})", level - 1));
    }
    format!("{text} select * from a{levels}")
}

/// One of the hostile queries, of 25 families and 20 sizes.
pub(crate) fn hostile(number: usize) -> String {
    let (family, size) = (number % 25, number / 25);
    let many = 1 << (size % 20);
    let deep = 3 + size * 7;
    match family {
        0 => chain("select 1 from logs where host = 'a'", " or host = 'b'", many),
        1 => chain("select 1 from logs where host <> 'a'", " and host <> 'b'", many),
        2 => chain("select 1", "+1", many),
        3 => chain("select message from logs where message = ''", " || 'x'", many),
        4 => format!("select {}1{}", "(".repeat(deep), ")".repeat(deep)),
        5 => format!("select {}true", "not ".repeat(deep)),
        6 => format!("select {}1{}", "case when true then ".repeat(deep), " end".repeat(deep)),
        7 => format!("select * from {}logs{}", "(select * from ".repeat(deep), ")".repeat(deep)),
        8 => chain("select 1", " union all select 1", many),
        9 => chain("select 1", " except select 2", many),
        10 => format!("select 1 from logs where position_minor in (1{})", ",2".repeat(many)),
        11 => doubling(deep),
        12 => format!("select repeat('x', {many}0000)"),
        13 => format!("select lpad(message, {many}000, 'y') from logs"),
        14 => format!("select array_agg(value) from generate_series(1, {many}0000)"),
        15 => format!(
            "select count(*) from generate_series(1, {many}0) a, generate_series(1, {many}0) b, generate_series(1, {many}0) c"
        ),
        16 => format!(
            "with recursive r as (select {size} n union all select n + 1 from r) select max(n) from r"
        ),
        17 => format!("select regexp_like(message, '{}') from logs", "(a*)*".repeat(size + 1)),
        18 => format!("select regexp_like(message, '(a{{1,{many}}}){{1,{many}}}') from logs"),
        19 => format!("select json_get('{}', '0')", "[".repeat(many.min(60_000))),
        20 => format!(
            "select sum(value) over (order by value rows {many} preceding) from generate_series(1, {many}00)"
        ),
        21 => format!("select string_agg(repeat('x', 4000), '') from generate_series(1, {many}0)"),
        22 => format!("select value from generate_series(1, {many}000) order by value % 17, value desc"),
        23 => format!("select count(distinct value * {size}) from generate_series(1, {many}000)"),
        _ => format!(
            "select time_bucket('{many} seconds', timestamp), {} from logs",
            "a.".repeat(size + 1) + "b"
        ),
    }
}
