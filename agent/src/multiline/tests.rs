use proptest::prelude::*;

use super::*;
use crate::limits::GROUP_WAIT;

type Given = (Stream, u64, String);

/// Groups whole lines, as the reader does, with `cut` telling after which lines the collector commits and reading starts again.
fn group(grouping: &str, lines: &[(Stream, i64, &str)], cuts: &[usize]) -> Vec<Given> {
    let now = Instant::now();
    let mut grouper = Grouper::new(Grouping::parse(grouping).unwrap().unwrap(), GROUP_WAIT);
    let mut given: Vec<Given> = Vec::new();
    let (mut floor, mut reopened) = (Position::START, Vec::new());
    let mut at = 0;
    let mut cut = cuts.iter().copied();
    let mut next_cut = cut.next();
    while at <= lines.len() {
        if next_cut == Some(at) {
            next_cut = cut.next();
            floor = Position::new(1, at as u64);
            reopened = grouper.open().collect();
            grouper.clear();
            at = reopened.iter().map(|open| usize::try_from(open.minor).unwrap()).min().unwrap_or(at);
        }
        let Some((stream, timestamp_ns, text)) = lines.get(at) else { break };
        let row = Row {
            stream: *stream,
            timestamp_ns: *timestamp_ns,
            position: Position::new(1, at as u64),
            text: text.as_bytes(),
            part: 0,
            end: End::Newline,
        };
        let wants = |position: Position| position >= floor || reopened.contains(&position);
        grouper.push(row, now, Known { floor, reopened: &reopened }, &mut |row| {
            if wants(row.position) {
                let text = String::from_utf8(row.text.to_vec()).unwrap();
                given.push((row.stream, row.position.minor, text));
            }
        });
        at += 1;
    }
    grouper.end(now, &mut |row| {
        given.push((row.stream, row.position.minor, String::from_utf8(row.text.to_vec()).unwrap()));
    });
    given.sort_by_key(|row| row.1);
    given
}

fn texts(grouping: &str, text: &str) -> Vec<String> {
    let lines: Vec<_> = text.split('\n').map(|line| (Stream::Stdout, 0, line)).collect();
    group(grouping, &lines, &[]).into_iter().map(|row| row.2).collect()
}

/// Blocks stand apart by a line `----`; each must come out as one group.
#[test]
fn every_block_of_the_table_is_one_group() {
    let table = include_str!("blocks.txt");
    for part in table.split("==== ").skip(1) {
        let (name, blocks) = part.split_once('\n').unwrap();
        let blocks: Vec<&str> = blocks.trim_end_matches('\n').split("\n----\n").collect();
        assert!(blocks.len() > 2, "{name}");
        assert_eq!(texts(name, &blocks.join("\n")), blocks, "{name}");
    }
}

#[test]
fn patterns_start_or_continue_groups_and_lines_that_are_no_text_are_taken() {
    assert_eq!(texts("start:^\\d", "x\n1 a\nb\n2"), ["x", "1 a\nb", "2"]);
    assert_eq!(texts("continue:^\\+", "a\n+b\n+c\nd"), ["a\n+b\n+c", "d"]);
    for bad in ["", "perl", "start:(", "end:x"] {
        assert!(Grouping::parse(bad).is_err(), "{bad}");
    }
    let long = format!("start:{}", "x".repeat(PATTERN_BYTES_MAX + 1));
    assert!(matches!(Grouping::parse(&long), Err(GroupingError::Length { .. })));
    assert!(matches!(Grouping::parse("start:\\d{1000}{1000}"), Err(GroupingError::Pattern { .. })));
}

#[test]
fn groups_are_bounded_in_lines_bytes_and_time() {
    let many = vec![(Stream::Stdout, 0, " x"); GROUP_LINES_MAX * 2 + 1];
    let lengths: Vec<_> = group("indent", &many, &[]).iter().map(|row| row.2.lines().count()).collect();
    assert_eq!(lengths, [GROUP_LINES_MAX, GROUP_LINES_MAX, 1]);
    let wide = format!(" {}", "y".repeat(GROUP_BYTES_MAX / 2));
    let wide: Vec<_> = (0..4).map(|_| (Stream::Stdout, 0, wide.as_str())).collect();
    assert_eq!(group("indent", &wide, &[]).len(), 4);
    let wait = i64::try_from(GROUP_WAIT.as_nanos()).unwrap();
    let apart =
        [(Stream::Stdout, 0, "a"), (Stream::Stdout, wait, " b"), (Stream::Stdout, wait * 2 + 1, " c")];
    let given: Vec<_> = group("indent", &apart, &[]).into_iter().map(|row| row.2).collect();
    assert_eq!(given, ["a\n b", " c"]);
}

#[test]
fn an_idle_group_is_given_out_and_one_that_was_just_added_to_is_not() {
    let start = Instant::now();
    let mut grouper = Grouper::new(Grouping::Preset(Preset::Java), GROUP_WAIT);
    let row = Row {
        stream: Stream::Stderr,
        timestamp_ns: 1,
        position: Position::new(1, 7),
        text: b"boom",
        part: 0,
        end: End::Newline,
    };
    let known = Known { floor: Position::START, reopened: &[] };
    grouper.push(row, start, known, &mut |_| panic!("nothing is complete"));
    assert!(!grouper.end_idle(start, &mut |_| panic!("nothing is idle")));
    let mut given = 0;
    assert!(grouper.end_idle(start + GROUP_WAIT, &mut |_| given += 1));
    assert_eq!((given, grouper.open().count()), (1, 0));
}

fn line() -> impl Strategy<Value = (Stream, i64, &'static str)> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    let text = prop::sample::select(vec![
        "plain",
        "  at a.b(C.java:1)",
        "",
        "java.lang.Exception: x",
        "Caused by: java.lang.Error",
        "Traceback (most recent call last):",
        "  File \"x\", line 1",
        "ValueError: x",
        "During handling of the above exception, another exception occurred:",
        "panic: x",
        "goroutine 1 [running]:",
        "main.main()",
        "thread 'main' panicked at src/main.rs:1:1:",
        "note: x",
        "/app/x.js:10",
        "x.rb:1:in `a'",
    ]);
    let step = prop_oneof![9 => Just(0i64), 1 => Just(2_000_000_000i64)];
    (stream, step, text)
}

proptest! {
    #[test]
    fn the_same_groups_come_out_wherever_reading_starts_again(
        mut lines in prop::collection::vec(line(), 1..60),
        mut cuts in prop::collection::vec(0usize..60, 0..6),
        preset in prop::sample::select(PRESETS.map(|(name, _)| name).to_vec()),
    ) {
        let mut clock = 0;
        for line in &mut lines {
            clock += line.1;
            line.1 = clock;
        }
        cuts.sort_unstable();
        cuts.dedup();
        cuts.retain(|cut| *cut <= lines.len());
        let once = group(preset, &lines, &[]);
        prop_assert_eq!(group(preset, &lines, &cuts), once.clone());
        let count: usize = once.iter().map(|row| row.2.split('\n').count()).sum();
        prop_assert_eq!(count, lines.len());
    }
}

/// Scenario: three lines are one open group and committed as that; then the configuration changes, and reading starts again.
/// Guarantees: the group comes out whole, and what follows is joined as is said now.
#[test]
fn a_group_that_was_open_when_the_configuration_changed_is_given_out_whole() {
    let lines = ["Oops", " at a", " at b", " at c", "next", "last"];
    for (now, wanted) in [
        (None, vec!["Oops\n at a\n at b", " at c", "next", "last"]),
        (Some("start:."), vec!["Oops\n at a\n at b", " at c", "next", "last"]),
        (Some("indent"), vec!["Oops\n at a\n at b\n at c", "next", "last"]),
        (Some("continue:^l"), vec!["Oops\n at a\n at b", " at c", "next\nlast"]),
    ] {
        let mut grouper = match now {
            Some(text) => Grouper::new(Grouping::parse(text).unwrap().unwrap(), GROUP_WAIT),
            None => Grouper::leftover(),
        };
        let (floor, reopened) = (Position::new(1, 3), [Position::new(1, 0)]);
        let mut given: Vec<String> = Vec::new();
        let mut give = |row: Row<'_>| {
            if row.position >= floor || reopened.contains(&row.position) {
                given.push(String::from_utf8(row.text.to_vec()).unwrap());
            }
        };
        for (at, text) in (0..).zip(lines) {
            let row = Row {
                stream: Stream::Stdout,
                timestamp_ns: 0,
                position: Position::new(1, at),
                text: text.as_bytes(),
                part: 0,
                end: End::Newline,
            };
            grouper.push(row, Instant::now(), Known { floor, reopened: &reopened }, &mut give);
        }
        grouper.end(Instant::now(), &mut give);
        assert_eq!(given, wanted, "{now:?}");
    }
}
