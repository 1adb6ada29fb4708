//! Who follows the journal: what they see, where they go on, and what they can't do to anybody else.

use beeacon_collector::{Followed, Follower};
use beeacon_record::{Gap, GapReason, Position};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::harness::{Agent, House, Settings, interval, tens};
use crate::room::{fill, small_journal};

const NAME: &str = "watch";

async fn house(settings: Settings) -> (House, Agent) {
    let house = House::with(Settings { followers: vec![NAME.to_owned()], ..settings }).await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    (house, agent)
}

/// What a follower sees until it is current: messages, lost records, the last place.
async fn seen(follower: &mut Follower) -> (Vec<String>, u64, u64) {
    let (mut messages, mut lost, mut place) = (Vec::new(), 0, follower.place());
    loop {
        match follower.next(true).await.unwrap() {
            Followed::Rows { lsn, lost_records, rows, received_ns } => {
                assert!(lsn > place && received_ns > 0);
                (place, lost) = (lsn, lost + lost_records);
                rows.visit(&mut |rows| messages.extend(rows.iter().map(|row| row.message.to_owned())));
            }
            Followed::Passed { upto, lost_records } => (place, lost) = (upto, lost + lost_records),
            Followed::Current => return (messages, lost, place),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_every_stored_row_once_and_goes_on_where_it_was_done() {
    let (house, agent) = house(Settings::default()).await;
    house.take(agent.tens(0, 100)).await;
    house.take(agent.tens(50, 150)).await;
    let mut follower = house.collector.follow(NAME, None).await.unwrap();
    let (messages, lost, place) = seen(&mut follower).await;
    assert_eq!((messages, lost), ([tens(0, 100), tens(100, 150)].concat(), 0), "the overlap is seen twice");

    // Nothing was said to be done: after a kill everything is seen again, and from a place of one's own only the rest.
    let again = house.killed().await;
    let all = seen(&mut again.collector.follow(NAME, None).await.unwrap()).await.0;
    assert_eq!(all.len(), 15);
    let rest = seen(&mut again.collector.follow(NAME, Some(place - 1)).await.unwrap()).await.0;
    assert_eq!(rest, tens(100, 150));
    follower.claim().done_with(place).await.unwrap();
    house.take(agent.tens(150, 200)).await;
    let again = house.killed().await;
    let new = seen(&mut again.collector.follow(NAME, None).await.unwrap()).await.0;
    assert_eq!(new, tens(150, 200));
}

/// How many records followers were shown from `memory` or from the `journal`.
fn followed(house: &House, from: &str) -> u64 {
    let mut registry = Registry::default();
    house.collector.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let name = format!("beeacon_collector_followed_records_total{{from=\"{from}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(name.as_str())).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_up_is_shown_from_memory_what_the_journal_has() {
    let (house, mut agent) = house(Settings::default()).await;
    let mut close = house.collector.follow(NAME, None).await.unwrap();
    seen(&mut close).await;
    let before = followed(&house, "journal");
    let mut late = house.collector.follow(NAME, Some(close.place())).await.unwrap();
    house.take(agent.tens(0, 100)).await;
    house.take(agent.tens(50, 150)).await;
    house.begin(&mut agent).await;
    let mut declared = interval("s", 200, 300);
    declared.gap = Some(Gap {
        from: Position::new(1, 150),
        reason: GapReason::Rotated,
        bytes: 50,
        timestamp_before_ns: 1,
        timestamp_after_ns: 2,
    });
    house.take(agent.frame(&[200, 250], declared)).await;
    let told = |met: Followed| match met {
        Followed::Rows { lsn, lost_records, rows, .. } => {
            let mut messages = Vec::new();
            rows.visit(&mut |rows| messages.extend(rows.iter().map(|row| row.message.to_owned())));
            (lsn, lost_records, Some((messages, rows.gaps().to_vec())))
        }
        Followed::Passed { upto, lost_records } => (upto, lost_records, None),
        Followed::Current => panic!("it was current before"),
    };
    let mut shown = Vec::new();
    for _ in 0..4 {
        shown.push(told(close.next(true).await.unwrap()));
    }
    assert_eq!((followed(&house, "memory"), followed(&house, "journal")), (4, before));
    assert_eq!(shown.last().unwrap().2.as_ref().unwrap().1.len(), 1, "the gap");
    drop(late.next(true).await.unwrap());
    assert_eq!(followed(&house, "memory"), 5, "a slower one finds what is kept for it");
    drop((close, late));
    // Nobody followed, so nothing is kept: the same, read anew.
    let mut again = house.collector.follow(NAME, Some(shown[0].0 - 1)).await.unwrap();
    for expected in shown {
        assert_eq!(told(again.next(true).await.unwrap()), expected);
    }
    assert_eq!(followed(&house, "journal"), before + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_wants_no_rows_is_told_how_far_the_journal_is() {
    let (house, agent) = house(Settings::default()).await;
    house.take(agent.tens(0, 100)).await;
    let mut follower = house.collector.follow(NAME, None).await.unwrap();
    let Followed::Passed { upto, lost_records: 0 } = follower.next(false).await.unwrap() else {
        panic!("rows were read that nobody wanted");
    };
    assert_eq!(upto, house.collector.status().journal.synced_lsn);
    assert!(matches!(follower.next(false).await.unwrap(), Followed::Current));
    house.take(agent.tens(100, 150)).await;
    let Followed::Rows { rows, .. } = follower.next(true).await.unwrap() else { panic!("no rows") };
    rows.visit(&mut |rows| assert_eq!(rows.len(), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_sleeps_loses_its_claim_when_the_journal_needs_room_and_every_record_is_accounted_for()
 {
    let (house, agent) = house(Settings { journal: Some(small_journal()), ..Settings::default() }).await;
    let collector = house.collector.clone();
    tokio::spawn(async move { collector.run(std::future::pending()).await });
    fill(&house, &agent, 0..60).await;
    let mut follower = house.collector.follow(NAME, None).await.unwrap();
    let before = follower.place();
    let (messages, lost, place) = seen(&mut follower).await;
    assert!(before > 0, "its place was not moved");
    assert_eq!(place - before, messages.len() as u64 + lost);
    assert_eq!(place, house.collector.status().journal.synced_lsn);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_not_named_any_more_does_not_hold_the_journal_and_a_new_one_sees_what_comes() {
    let (house, agent) = house(Settings::default()).await;
    house.take(agent.tens(0, 100)).await;
    let without = house.killed_with(Settings::default()).await;
    let again =
        without.killed_with(Settings { followers: vec![NAME.to_owned()], ..Settings::default() }).await;
    let mut follower = again.collector.follow(NAME, None).await.unwrap();
    assert_eq!(seen(&mut follower).await.0, Vec::<String>::new(), "the past is shown to a new follower");
}
