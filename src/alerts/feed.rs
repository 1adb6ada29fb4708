//! From the journal to the counts: every stored row is shown to the streaming rules and to what counts events, to each once, as of when
//! it came. Both have places of their own and share one way along the journal, so that its records are read and decoded once.

use std::time::Duration;

use beeacon_alerts::runner::{Handle, Lines, Observed};
use beeacon_alerts::stream::StreamLine;
use beeacon_collector::{Claim, Collector, CollectorError, Followed, FollowedRows};
use jiff::Timestamp;
use tokio::sync::watch;

use super::FOLLOWER;
use crate::doors;
use crate::events::Events;

/// How often the place in the journal is moved. Each time costs a sync of the disk; what lies between is kept a little longer.
const CLAIM_EVERY: Duration = Duration::from_secs(5);

struct Rows(FollowedRows);

impl Lines for Rows {
    fn visit(&self, see: &mut dyn FnMut(&[StreamLine<'_>])) {
        self.0.visit(&mut |rows| {
            let lines: Vec<StreamLine<'_>> = rows
                .iter()
                .map(|row| StreamLine {
                    service: row.service,
                    level: row.level,
                    message: row.message,
                    redactions: row.redactions,
                })
                .collect();
            see(&lines);
        });
    }
}

/// Shows what comes until told to stop. What was not shown then is shown at the next start.
pub(super) async fn run(
    collector: Collector,
    handle: Handle,
    events: Events,
    mut stop: watch::Receiver<bool>,
) {
    tokio::select! {
        () = doors::until_stopped(&mut stop) => {}
        ended = follow(&collector, &handle, &events) => if let Err(error) = ended {
            let error = anyhow::Error::new(error);
            tracing::error!(error = format!("{error:#}"), "streaming rules see no more lines");
        }
    }
}

async fn follow(collector: &Collector, handle: &Handle, events: &Events) -> Result<(), CollectorError> {
    let places = [*handle.place().borrow(), *events.place().borrow()];
    let [alerts_place, events_place] = places;
    // Where one of them has written no place yet, the claim is where it begins: it moves only when both have.
    let wanted = alerts_place.zip(events_place).map(|(alerts, events)| alerts.min(events));
    // A place beyond the journal is that of another one: it is gone, and what comes is new.
    let synced = collector.status().journal.synced_lsn;
    let mut follower = collector.follow(FOLLOWER, wanted).await?;
    let claim = follower.claim();
    let start = follower.place();
    let [alerts_place, events_place] = places.map(|place| place.map_or(start, |place| place.min(synced)));
    events.start_from(events_place);
    if handle.observe(Observed::From(alerts_place)).await.is_err() {
        return Ok(());
    }
    let showing = async {
        loop {
            for observed in shown(events, follower.next(true).await?).await {
                if handle.observe(observed).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    tokio::select! {
        shown = showing => shown,
        claimed = keep_claim(&claim, handle.place(), events.place()) => claimed,
    }
}

/// Counts what events are made of, and gives what alerts want to see.
async fn shown(events: &Events, met: Followed) -> Vec<Observed> {
    match met {
        Followed::Rows { lsn, received_ns, lost_records, rows } => {
            let mut observed = Vec::with_capacity(2);
            if lost_records > 0 {
                observed.push(Observed::Passed { place: lsn - 1, lost_records });
            }
            let at = Timestamp::from_nanosecond(i128::from(received_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
            events.observe(lsn, at, lost_records, &rows).await;
            observed.push(Observed::Lines { place: lsn, at, lines: Box::new(Rows(rows)) });
            observed
        }
        Followed::Passed { upto, lost_records } => {
            events.pass(upto, lost_records);
            vec![Observed::Passed { place: upto, lost_records }]
        }
        Followed::Current => vec![Observed::Current],
    }
}

/// Lets go of what both have written down.
async fn keep_claim(
    claim: &Claim,
    mut alerts: watch::Receiver<Option<u64>>,
    mut events: watch::Receiver<Option<u64>>,
) -> Result<(), CollectorError> {
    loop {
        let changed = tokio::select! {
            changed = alerts.changed() => changed,
            changed = events.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
        let written = alerts.borrow_and_update().zip(*events.borrow_and_update());
        if let Some((alerts, events)) = written {
            claim.done_with(alerts.min(events)).await?;
        }
        tokio::time::sleep(CLAIM_EVERY).await;
    }
}
