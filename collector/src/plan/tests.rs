use beeacon_record::{BatchBuilder, Level, Line, Origin, RuleSetId, Stream};

use super::*;

const AGENT: AgentId = AgentId::from_bytes([7; 16]);

fn at(minor: u64) -> Position {
    Position::new(1, minor)
}

fn source(name: &str) -> Source {
    Source::new(name).unwrap()
}

fn batch(agent: &str, rows: &[(&str, u64)], intervals: Vec<Interval>) -> Scrubbed<Batch> {
    let mut builder = BatchBuilder::new(agent);
    for (name, minor) in rows {
        let origin = Origin { host: "h".into(), service: (*name).into(), ..Origin::default() };
        let origin = builder.origin(&origin, &source(name));
        let line = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 2,
            stream: Stream::Stdout,
            level: Level::Info,
            position: at(*minor),
        };
        builder.push(line, format!("{name} {minor}").as_bytes());
    }
    Scrubbed::seal(builder.finish(intervals).unwrap(), RuleSetId(0))
}

fn known(committed: u64, cursor: &[u8]) -> Known {
    let progress = Progress { committed: at(committed), open: vec![] };
    let memory = Memory { progress, cursor: cursor.to_vec(), is_final: false, received_ns: 1 };
    Known { memory: Some(memory), lost: None }
}

fn texts(plan: &Plan) -> Vec<String> {
    let messages = plan.batch.as_ref().map(|batch| batch.get().messages().clone());
    messages.iter().flatten().flatten().map(str::to_owned).collect()
}

#[test]
fn rows_of_each_source_are_trimmed_by_its_own_position() {
    let rows = [("a", 10), ("b", 10), ("a", 20), ("c", 5), ("b", 20)];
    let intervals = ["a", "b", "c"].map(|name| Interval::new(source(name), at(0), at(30))).to_vec();
    let batch = batch(&AGENT.to_string(), &rows, intervals);
    let plan = Plan::new(AGENT, "t", 9, &batch, &[known(20, &[]), known(30, &[]), Known::default()]).unwrap();
    assert_eq!(texts(&plan), ["a 20", "c 5"]);
    assert_eq!((plan.rows, plan.duplicate_rows), (2, 3));
    let changed: Vec<&str> = plan.after.iter().map(|(source, _)| source.as_str()).collect();
    assert_eq!(changed, ["a", "c"]);
    assert!(plan.committed.iter().all(|committed| committed.position == at(30)));
    assert_eq!(plan.before[2], None);
}

#[test]
fn one_hole_refuses_the_frame_and_tells_where_every_source_stands() {
    let intervals =
        vec![Interval::new(source("a"), at(20), at(30)), Interval::new(source("b"), at(50), at(60))];
    let batch = batch(&AGENT.to_string(), &[("a", 20), ("b", 50)], intervals);
    let plan = Plan::new(AGENT, "t", 9, &batch, &[known(20, &[]), known(30, &[])]);
    let Err(PlanError::Hole { expected }) = plan else { panic!("the hole went unseen") };
    assert_eq!(expected.iter().map(|c| c.position).collect::<Vec<_>>(), [at(20), at(30)]);
}

#[test]
fn an_interval_without_news_changes_nothing_and_one_with_a_new_cursor_or_end_does() {
    let empty = Interval { cursor: vec![1], ..Interval::new(source("a"), at(20), at(20)) };
    let plan = |interval: &Interval| {
        let batch = batch(&AGENT.to_string(), &[], vec![interval.clone()]);
        Plan::new(AGENT, "t", 9, &batch, &[known(20, &[1])]).unwrap()
    };
    assert!(plan(&empty).is_empty());
    assert!(!plan(&Interval { cursor: vec![2], ..empty.clone() }).is_empty());
    assert!(!plan(&Interval { is_final: true, ..empty }).is_empty());
}

#[test]
fn a_declared_gap_becomes_a_row_with_the_origin_of_its_source_and_what_is_known_of_its_size() {
    let gap = |from| {
        Some(Gap {
            from: at(from),
            reason: GapReason::Rotated,
            bytes: 70,
            timestamp_before_ns: 3,
            timestamp_after_ns: 4,
        })
    };
    let plan = |gap, rows: &[(&str, u64)]| {
        let interval = Interval { gap, ..Interval::new(source("docker-file:4f2a"), at(100), at(120)) };
        let batch = batch(&AGENT.to_string(), rows, vec![interval]);
        Plan::new(AGENT, "t", 9, &batch, &[known(30, &[])]).unwrap().gaps
    };
    let exact = plan(gap(30), &[("docker-file:4f2a", 100)]).remove(0);
    assert_eq!((exact.from, exact.to, exact.bytes), (at(30), at(100), 70));
    assert_eq!((exact.host.as_str(), exact.service.as_str()), ("h", "docker-file:4f2a"));
    assert_eq!((exact.container_id.as_str(), exact.received_ns), ("4f2a", 9));
    let partly_there = plan(gap(10), &[]).remove(0);
    assert_eq!((partly_there.from, partly_there.bytes), (at(30), 0), "its bytes are not known");
    assert_eq!(partly_there.host, "");
}

#[test]
fn rows_that_name_another_agent_or_share_a_position_are_found() {
    let check = |agent: &str, rows: &[(&str, u64)]| {
        let intervals = ["a", "b"].map(|name| Interval::new(source(name), at(0), at(90))).to_vec();
        check_rows(AGENT, batch(agent, rows, intervals).get())
    };
    let own = AGENT.to_string();
    assert!(check(&own, &[("a", 1), ("b", 1), ("a", 5), ("a", 3)]).is_ok());
    assert!(check("somebody", &[]).is_ok(), "no row names anybody");
    assert!(matches!(check("somebody", &[("a", 1)]), Err(RowsError::OtherAgent { row: 0 })));
    let twice = check(&own, &[("a", 1), ("a", 5), ("b", 5), ("a", 1)]);
    assert!(matches!(twice, Err(RowsError::Twice { position, .. }) if position == at(1)));
}

#[test]
fn what_a_damaged_record_covered_becomes_a_gap_row() {
    let interval = Interval::new(source("a"), at(50), at(60));
    let batch = batch(&AGENT.to_string(), &[("a", 50)], vec![interval]);
    let lost = Some(Lost { from: at(20), to: at(50) });
    let plan = Plan::new(AGENT, "t", 9, &batch, &[Known { lost, ..known(50, &[]) }]).unwrap();
    let gap = &plan.gaps[0];
    assert_eq!((gap.from, gap.to, gap.reason), (at(20), at(50), GapReason::Damaged));
    assert_eq!(texts(&plan), ["a 50"]);
}
