//! From the journal to the counts: every stored row is shown to the streaming rules once, as of when it came.

use std::time::Duration;

use beeacon_alerts::runner::{Handle, Lines, Observed};
use beeacon_alerts::stream::StreamLine;
use beeacon_collector::{Claim, Collector, CollectorError, Followed, FollowedRows};
use jiff::Timestamp;
use tokio::sync::watch;

use super::FOLLOWER;
use crate::doors;

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
pub(super) async fn run(collector: Collector, handle: Handle, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = doors::until_stopped(&mut stop) => {}
        ended = follow(&collector, &handle) => if let Err(error) = ended {
            let error = anyhow::Error::new(error);
            tracing::error!(error = format!("{error:#}"), "streaming rules see no more lines");
        }
    }
}

async fn follow(collector: &Collector, handle: &Handle) -> Result<(), CollectorError> {
    let place = *handle.place().borrow();
    let mut follower = collector.follow(FOLLOWER, place).await?;
    let claim = follower.claim();
    if handle.observe(Observed::From(follower.place())).await.is_err() {
        return Ok(());
    }
    let showing = async {
        loop {
            for observed in shown(follower.next(handle.counts_lines()).await?) {
                if handle.observe(observed).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    tokio::select! {
        shown = showing => shown,
        claimed = keep_claim(&claim, handle.place()) => claimed,
    }
}

fn shown(met: Followed) -> Vec<Observed> {
    match met {
        Followed::Rows { lsn, received_ns, lost_records, rows } => {
            let mut observed = Vec::with_capacity(2);
            if lost_records > 0 {
                observed.push(Observed::Passed { place: lsn - 1, lost_records });
            }
            let at = Timestamp::from_nanosecond(i128::from(received_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
            observed.push(Observed::Lines { place: lsn, at, lines: Box::new(Rows(rows)) });
            observed
        }
        Followed::Passed { upto, lost_records } => {
            vec![Observed::Passed { place: upto, lost_records }]
        }
        Followed::Current => vec![Observed::Current],
    }
}

/// Lets go of what is written down.
async fn keep_claim(claim: &Claim, mut place: watch::Receiver<Option<u64>>) -> Result<(), CollectorError> {
    loop {
        if place.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let written = *place.borrow_and_update();
        if let Some(written) = written {
            claim.done_with(written).await?;
        }
        tokio::time::sleep(CLAIM_EVERY).await;
    }
}
