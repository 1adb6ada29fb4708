use proptest::prelude::*;

use super::*;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_764_150_000_000 + milliseconds).unwrap()
}

fn rule(what: Counted, at_least: u64) -> StreamCount {
    StreamCount { what, service: None, by_service: true, window: Duration::from_secs(60), at_least }
}

fn line<'a>(service: &'a str, redactions: &'a [(&'a str, u64)]) -> StreamLine<'a> {
    StreamLine { service, level: "error", message: "connection refused by peer", redactions }
}

#[test]
fn each_kind_counts_what_it_names_and_nothing_else() {
    let hits = [("email", 2), ("ipv4", 1)];
    for (what, expected) in [
        (Counted::Redaction(None), Some(3.0)),
        (Counted::Redaction(Some("email".into())), Some(2.0)),
        (Counted::Redaction(Some("iban".into())), None),
        (Counted::Level("error".into()), Some(1.0)),
        (Counted::Level("err".into()), None),
        (Counted::Text("refused".into()), Some(1.0)),
        (Counted::Text("Refused".into()), None),
        (Counted::Lines, Some(1.0)),
    ] {
        let rule = rule(what, 1);
        let mut state = StreamState::default();
        assert_eq!(state.observe(&rule, at(0), [line("a", &hits)]), expected.is_some(), "{rule:?}");
        assert_eq!(state.rows(&rule, at(0)).first().map(|row| row.value), expected, "{rule:?}");
    }
}

#[test]
fn services_are_counted_apart_or_together() {
    let lines = || [line("a", &[]), line("b", &[]), line("b", &[])];
    let mut apart = StreamState::default();
    let by_service = rule(Counted::Lines, 2);
    apart.observe(&by_service, at(0), lines());
    let rows = apart.rows(&by_service, at(0));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].labels, Labels::from_iter([("service", "b")]));

    let together = StreamCount { by_service: false, ..rule(Counted::Lines, 3) };
    let mut state = StreamState::default();
    assert!(state.observe(&together, at(0), lines()));
    assert!(state.rows(&together, at(0))[0].labels.is_empty());

    let one = StreamCount { service: Some("a".into()), ..rule(Counted::Lines, 1) };
    let mut state = StreamState::default();
    state.observe(&one, at(0), lines());
    assert_eq!(
        state.rows(&one, at(0)),
        [Sample { labels: Labels::from_iter([("service", "a")]), value: 1.0 }]
    );
}

#[test]
fn a_number_is_reached_once_and_again_only_after_it_was_left() {
    let rule = rule(Counted::Lines, 2);
    let mut state = StreamState::default();
    assert!(!state.observe(&rule, at(0), [line("a", &[])]));
    assert!(state.observe(&rule, at(100), [line("a", &[])]));
    assert!(!state.observe(&rule, at(200), [line("a", &[])]));
    assert!(state.rows(&rule, at(61_000)).is_empty());
    assert!(!state.observe(&rule, at(62_000), [line("a", &[])]));
    assert!(state.observe(&rule, at(62_000), [line("a", &[])]));
}

#[test]
fn more_series_than_the_limit_are_refused_and_told_until_old_ones_are_empty() {
    let rule = rule(Counted::Lines, 1);
    let mut state = StreamState::default();
    for number in 0..STREAM_SERIES_MAX + 5 {
        state.observe(&rule, at(0), [line(&format!("service-{number}"), &[])]);
    }
    assert_eq!(state.refused, 5);
    state.observe(&rule, at(120_000), [line("late", &[])]);
    assert_eq!(state.refused, 5);
    assert_eq!(state.rows(&rule, at(120_000)).len(), 1);
}

#[test]
fn a_state_that_was_written_and_read_goes_on_counting() {
    let rule = rule(Counted::Lines, 3);
    let mut state = StreamState::default();
    state.observe(&rule, at(0), [line("a", &[]), line("a", &[])]);
    let mut read: StreamState = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!(read, state);
    assert!(read.observe(&rule, at(1_000), [line("a", &[])]));
}

proptest! {
    /// Guarantees: the counts are those of a list of all events, looked at part by part, however time jumps.
    #[test]
    fn the_window_counts_as_a_list_of_events_does(
        steps in proptest::collection::vec((-5_000_i64..90_000, 0_u8..3, 1_u64..50), 1..60), at_least in 1_u64..60,
    ) {
        let rule = rule(Counted::Redaction(None), at_least);
        let mut state = StreamState::default();
        let mut events: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
        let mut newest: BTreeMap<String, i64> = BTreeMap::new();
        let mut now = 0;
        for (step, service, count) in steps {
            now += step;
            let part = (1_764_150_000_000 + now).div_euclid(1_000);
            let service = format!("s{service}");
            // Time that runs backwards adds to the newest part the series has.
            let newest_of_it = newest.entry(service.clone()).or_insert(part);
            *newest_of_it = part.max(*newest_of_it);
            let newest_part = *newest_of_it;
            let list = events.entry(service.clone()).or_default();
            let sum = |list: &[(i64, u64)]| -> u64 {
                list.iter().filter(|(at, _)| *at > newest_part - 60).map(|(_, count)| count).sum()
            };
            let before = sum(list);
            list.push((newest_part, count));
            let expected = before < at_least && sum(list) >= at_least;
            let hits = [("any", count)];
            prop_assert_eq!(state.observe(&rule, at(now), [line(&service, &hits)]), expected);
            let total = state.series.get(&service).unwrap().total;
            prop_assert_eq!(total, sum(events.get(&service).unwrap()));
        }
    }
}
