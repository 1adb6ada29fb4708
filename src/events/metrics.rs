//! Levels of the log of events and of its streams.

use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Events;
use super::limits::STREAMS_MAX;

pub(super) struct Shown {
    events: Events,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl Shown {
    pub(super) fn new(events: Events) -> Shown {
        Shown { events }
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let inner = &self.events.0;
        let streams = (STREAMS_MAX - inner.streams.available_permits().min(STREAMS_MAX)) as u64;
        for (name, help, level) in [
            ("last_sequence", "The number of the last event in the log", *inner.log.last().borrow()),
            ("kept", "Events in the log", inner.kept.load(Ordering::Relaxed)),
            ("streams", "Streams of server-sent events that are open", streams),
            (
                "journal_lsn",
                "The last record of the journal whose findings are written as events",
                inner.place.borrow().unwrap_or(0),
            ),
        ] {
            let level: ConstGauge<i64> = ConstGauge::new(i64::try_from(level).unwrap_or(i64::MAX));
            let name = format!("beeacon_events_{name}");
            level.encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, count) in [
            ("heard", "Messages of other servers that were heard over Redis", &inner.heard.messages),
            (
                "left_out",
                "Messages of other servers that came faster than they were written",
                &inner.heard.left_out,
            ),
            ("subscriptions", "How often Redis was subscribed to", &inner.heard.subscriptions),
        ] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            let name = format!("beeacon_events_{name}");
            count.encode(encoder.encode_descriptor(&name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}
