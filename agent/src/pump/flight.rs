//! Frames under way to the collector: which may go beside others, in which order answers count, and what each answer means.
//!
//! What always holds:
//! - answers count in the order in which frames were made, whatever the order in which they come;
//! - a frame goes beside others only where the collector, should it come first, refuses it instead of taking it: every source that
//!   it shares with one of them is known to the collector, moves on in that one, and the frame declares no gap. So nothing is ever
//!   committed past a frame that is not there yet;
//! - only the first one is tried again and again. One beside it that is refused, or does not get through, waits until it is the first.

use std::time::Instant;

use beeacon_record::wire::IngestAnswer;
use beeacon_record::{Interval, Position, Source};
use bytes::Bytes;
use tokio_util::sync::DropGuard;

use super::spooling::Destination;
use super::{Pump, PumpError};
use crate::event::Event;
use crate::progress::Acked;
use crate::ship::verdict::Verdict;

/// A frame, and what it will have committed once it is acknowledged.
pub(super) struct Prepared {
    pub(super) frame: Bytes,
    pub(super) rows: usize,
    pub(super) destination: Destination,
    pub(super) commits: Vec<Commit>,
    /// Whether one of its intervals leaves something out.
    pub(super) declares_gap: bool,
    /// The rows' places, kept only for a batch so small that it may be the one row at fault.
    pub(super) places: Vec<(Source, Position)>,
}

/// What of one source will be committed.
pub(super) struct Commit {
    pub(super) source: Source,
    pub(super) acked: Acked,
    pub(super) is_final: bool,
    /// Whether the interval has a length. One without could not be told from a repeat once later ones are committed.
    moves_on: bool,
}

impl Commit {
    pub(super) fn of(interval: &Interval) -> Self {
        let acked =
            Acked { committed: interval.to, open: interval.open.clone(), cursor: interval.cursor.clone() };
        let (source, is_final) = (interval.source.clone(), interval.is_final);
        Commit { source, acked, is_final, moves_on: interval.from < interval.to }
    }
}

/// A frame under way.
pub(super) struct InFlight {
    id: u64,
    pub(super) prepared: Prepared,
    pub(super) since: Instant,
    way: Way,
}

enum Way {
    /// Without an answer yet.
    Sent {
        /// Whether others were before it.
        is_beside: bool,
        /// Ends the request when it is dropped.
        _request: DropGuard,
    },
    /// Refused, or not got through, while others were before it.
    Waiting,
    /// Committed, but those before it are not answered yet.
    Answered(IngestAnswer),
}

impl Pump {
    /// Hands the prepared frame to the shipper when it may go, and the spool's next one.
    pub(super) fn send(&mut self) -> Result<(), PumpError> {
        self.send_waiting()?;
        if self.session.is_none() {
            return Ok(());
        }
        let is_direct = |prepared: &mut Prepared| prepared.destination == Destination::Direct;
        let Some(prepared) = self.prepared.take_if(is_direct) else { return Ok(()) };
        if !self.may_go(&prepared) {
            self.prepared = Some(prepared);
            return Ok(());
        }
        self.leave_spool_behind()?;
        self.ship_round += 1;
        let way = self.sent(self.ship_round, &prepared, self.in_flight.len());
        self.in_flight.push_back(InFlight { id: self.ship_round, prepared, since: Instant::now(), way });
        Ok(())
    }

    fn may_go(&self, prepared: &Prepared) -> bool {
        if self.in_flight.is_empty() {
            return true;
        }
        let has_waiting = self.in_flight.iter().any(|frame| matches!(frame.way, Way::Waiting));
        let is_safe = |commit: &Commit| {
            let same = |other: &&Commit| other.source == commit.source;
            let mut shared =
                self.in_flight.iter().filter_map(|frame| frame.prepared.commits.iter().find(same));
            shared.all(|other| other.moves_on && self.states.contains_key(&other.source))
        };
        !has_waiting
            && !prepared.declares_gap
            && prepared.commits.iter().all(is_safe)
            && self.parts.collector.window().has_room(
                self.in_flight.len(),
                self.bytes_in_flight(),
                prepared.frame.len(),
            )
    }

    /// Frames of the spool included.
    fn bytes_in_flight(&self) -> usize {
        let fresh: usize = self.in_flight.iter().map(|frame| frame.prepared.frame.len()).sum();
        fresh + self.draining.as_ref().map_or(0, |draining| draining.bytes)
    }

    /// Sends a frame that has so many others before it.
    fn sent(&self, id: u64, prepared: &Prepared, before: usize) -> Way {
        let report = move |verdict| Event::Shipped { round: id, verdict };
        let _request = self.ship(prepared.frame.clone(), before, report);
        Way::Sent { is_beside: before > 0, _request }
    }

    /// Sends a frame that has so many others before it, and reports what the collector says to it, until the guard is dropped.
    pub(super) fn ship(
        &self,
        frame: Bytes,
        others: usize,
        report: impl FnOnce(Verdict) -> Event + Send + 'static,
    ) -> DropGuard {
        let (collector, reports) = (self.parts.collector.clone(), self.reports.clone());
        let (metrics, over) = (self.parts.metrics.clone(), self.over.token().child_token());
        let request = over.clone().drop_guard();
        self.parts.runtime.spawn(async move {
            tokio::select! {
                verdict = collector.ship(frame, others, &metrics) => {
                    // Nobody listens when the agent has stopped.
                    reports.send(report(verdict)).await.ok();
                }
                () = over.cancelled() => {}
            }
        });
        request
    }

    /// There is an answer to a frame, if it still counts.
    pub(super) fn on_verdict(&mut self, id: u64, verdict: Verdict) {
        let Some(place) = self.in_flight.iter().position(|frame| frame.id == id) else { return };
        let Some(frame) = self.in_flight.get_mut(place) else { return };
        let is_beside = matches!(frame.way, Way::Sent { is_beside: true, .. });
        match verdict {
            Verdict::Committed(answer) => {
                frame.way = Way::Answered(answer);
                return self.take_answers();
            }
            Verdict::Rewind(_) | Verdict::Later(_) | Verdict::Refused(_) if is_beside => {
                frame.way = Way::Waiting;
                return self.send_first_again();
            }
            _ => self.parts.metrics.refusals.inc(),
        };
        let Some(InFlight { prepared: shipped, .. }) = self.in_flight.remove(place) else { return };
        match verdict {
            Verdict::Rewind(expected) => {
                let agrees = expected.iter().all(|place| {
                    self.states.get(&place.source).map(|acked| acked.committed).unwrap_or(Position::START)
                        == place.position
                });
                tracing::warn!(sources = expected.len(), "collector expects other positions, reading again");
                self.pause();
                if agrees { self.rewind() } else { self.open_session() }
            }
            Verdict::Elsewhere => self.open_session(),
            Verdict::NoSession => {
                tracing::info!("collector knows no session of this agent, opening one");
                self.pause();
                self.open_session();
            }
            Verdict::Fenced => self.on_fenced(),
            Verdict::Smaller => {
                tracing::warn!(rows = shipped.rows, "collector cannot take a frame, cutting it smaller");
                self.shrink(shipped.rows, &shipped.places);
            }
            // The shipper has tried these again already.
            Verdict::Later(_) | Verdict::Refused(_) => self.rewind(),
            Verdict::Committed(_) => {}
        }
    }

    /// Lets the answers count that have nothing unanswered before them.
    fn take_answers(&mut self) {
        while let Some(InFlight { prepared, way: Way::Answered(answer), .. }) =
            self.in_flight.pop_front_if(|frame| matches!(frame.way, Way::Answered(_)))
        {
            self.answered_at = Instant::now();
            self.on_committed(prepared, &answer);
        }
        self.send_first_again();
    }

    /// What had to wait for others, and has none before it any more.
    fn send_first_again(&mut self) {
        let Some(InFlight { id, prepared, way: Way::Waiting, .. }) = self.in_flight.front() else { return };
        let way = self.sent(*id, prepared, 0);
        if let Some(first) = self.in_flight.front_mut() {
            first.way = way;
        }
    }

    /// Says what is under way, for who measures.
    pub(super) fn report_flight(&self) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &self.parts.metrics;
        metrics.frames_in_flight.set(gauge(self.in_flight.len() + usize::from(self.draining.is_some())));
        metrics.in_flight_bytes.set(gauge(self.bytes_in_flight()));
        let window = self.parts.collector.window();
        metrics.frames_in_flight_max.set(gauge(window.frames()));
        let credit = window.credit_bytes().map_or(-1, |credit| i64::try_from(credit).unwrap_or(i64::MAX));
        metrics.credit_bytes.set(credit);
    }
}
