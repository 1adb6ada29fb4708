//! What the agent counts. Names are `beeacon_agent_…` with the unit last; the encoder appends `_total` to counters.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Counters and gauges of one agent; clones count together.
#[derive(Clone, Default)]
#[expect(missing_docs, reason = "each has its help text in register, below")]
pub struct Metrics {
    pub lines: Counter,
    pub line_bytes: Counter,
    pub source_bytes: Counter,
    pub damaged_bytes: Counter,
    pub destroyed_characters: Counter,
    pub daemon_errors: Counter,
    pub shipped_rows: Counter,
    pub duplicate_rows: Counter,
    pub shipped_frames: Counter,
    pub shipped_bytes: Counter,
    pub gaps: Counter,
    pub redactions: Counter,
    pub filter_seconds: Counter<f64, AtomicU64>,
    pub dropped_rows: Counter,
    pub sampled_rows: Counter,
    pub rate_limited_rows: Counter,
    pub quarantined_rows: Counter,
    pub own_timestamps: Counter,
    pub reloads: Counter,
    pub refused_reloads: Counter,
    pub compression_level: Gauge,
    pub frames_in_flight: Gauge,
    pub frames_in_flight_max: Gauge,
    pub in_flight_bytes: Gauge,
    pub credit_bytes: Gauge,
    pub retries: Counter,
    pub refusals: Counter,
    pub rewinds: Counter,
    pub sessions: Counter,
    pub pushed_lines: Counter,
    pub push_refusals: Counter,
    pub spooled_frames: Counter,
    pub spooled_bytes: Counter,
    pub drained_frames: Counter,
    pub spool_frames: Gauge,
    pub spool_bytes: Gauge,
    pub attaches: Counter,
    pub healed_streams: Counter,
    pub lists: Counter,
    pub containers: Gauge,
    pub lag_bytes: Gauge,
    pub open_line_bytes: Gauge,
    pub healthy: Gauge,
    pub time_to_loss_seconds: Family<[(&'static str, String); 1], Gauge>,
}

impl Metrics {
    /// Says how soon Docker removes what has not been read, of the containers for which that can be said.
    pub fn set_times_to_loss<'a>(&self, times: impl Iterator<Item = (&'a str, u64)>) {
        self.time_to_loss_seconds.clear();
        for (container, seconds) in times {
            let gauge = self.time_to_loss_seconds.get_or_create(&[("container", container.to_owned())]);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// A frame of so many bytes stands in the spool.
    pub fn note_spooled(&self, bytes: usize) {
        self.spooled_frames.inc();
        self.spooled_bytes.inc_by(bytes as u64);
    }

    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("beeacon_agent");
        let bytes = || Unit::Bytes;
        registry.register(
            "lines",
            "Lines read and put into a batch, again after a rewind.",
            self.lines.clone(),
        );
        registry.register_with_unit("line", "Text of these lines.", bytes(), self.line_bytes.clone());
        registry.register_with_unit(
            "source",
            "Log files read, as written by Docker.",
            bytes(),
            self.source_bytes.clone(),
        );
        registry.register_with_unit(
            "damaged",
            "Bytes in logs that are no records: torn writes and holes.",
            bytes(),
            self.damaged_bytes.clone(),
        );
        registry.register(
            "destroyed_characters",
            "Characters that Docker replaced because they were no UTF-8.",
            self.destroyed_characters.clone(),
        );
        registry.register(
            "daemon_errors",
            "Errors that Docker reported within a log stream.",
            self.daemon_errors.clone(),
        );
        registry.register("shipped_rows", "Rows that the collector stored.", self.shipped_rows.clone());
        registry.register(
            "duplicate_rows",
            "Rows that the collector had already stored.",
            self.duplicate_rows.clone(),
        );
        registry.register(
            "shipped_frames",
            "Frames that the collector acknowledged.",
            self.shipped_frames.clone(),
        );
        registry.register_with_unit("shipped", "Size of these frames.", bytes(), self.shipped_bytes.clone());
        registry.register(
            "gaps",
            "Gaps declared: lines that Docker removed before they were read.",
            self.gaps.clone(),
        );
        registry.register("redactions", "What the pollen filter took out.", self.redactions.clone());
        registry.register_with_unit(
            "filter",
            "Time that the pollen filter took, on the clock.",
            Unit::Seconds,
            self.filter_seconds.clone(),
        );
        registry.register("sampled_rows", "Rows left out by sampling.", self.sampled_rows.clone());
        registry.register(
            "rate_limited_rows",
            "Rows left out because a container wrote faster than its rate.",
            self.rate_limited_rows.clone(),
        );
        registry.register("dropped_rows", "Rows that a rule dropped.", self.dropped_rows.clone());
        registry.register(
            "quarantined_rows",
            "Rows that the collector refuses even alone.",
            self.quarantined_rows.clone(),
        );
        registry.register(
            "own_timestamps",
            "Rows whose timestamp stood in their line.",
            self.own_timestamps.clone(),
        );
        registry.register("reloads", "Changed configurations that were taken.", self.reloads.clone());
        registry.register(
            "refused_reloads",
            "Changed configurations that were refused: the one before stays.",
            self.refused_reloads.clone(),
        );
        registry.register(
            "compression_level",
            "The zstd level of frames now.",
            self.compression_level.clone(),
        );
        registry.register(
            "frames_in_flight",
            "Frames under way to the collector, those of the spool included.",
            self.frames_in_flight.clone(),
        );
        registry.register(
            "frames_in_flight_max",
            "How many fresh frames may be under way to this collector now.",
            self.frames_in_flight_max.clone(),
        );
        registry.register_with_unit(
            "in_flight",
            "Size of frames under way.",
            bytes(),
            self.in_flight_bytes.clone(),
        );
        registry.register_with_unit(
            "credit",
            "How much the collector said that it takes beside what it has taken; -1 where it does not say.",
            bytes(),
            self.credit_bytes.clone(),
        );
        registry.register(
            "retries",
            "Requests to the collector that were tried again.",
            self.retries.clone(),
        );
        registry.register("refusals", "Frames that the collector refused.", self.refusals.clone());
        registry.register(
            "rewinds",
            "How often reading started again at the collector's positions.",
            self.rewinds.clone(),
        );
        registry.register("sessions", "Sessions opened with the collector.", self.sessions.clone());
        registry.register(
            "pushed_lines",
            "Lines taken in from standard input, syslog and other senders, and answered.",
            self.pushed_lines.clone(),
        );
        registry.register(
            "push_refusals",
            "Requests of senders that were not kept, for want of room or because of a failure.",
            self.push_refusals.clone(),
        );
        registry.register("spooled_frames", "Frames put into the spool.", self.spooled_frames.clone());
        registry.register_with_unit("spooled", "Size of these frames.", bytes(), self.spooled_bytes.clone());
        registry.register(
            "drained_frames",
            "Frames of the spool that the collector acknowledged.",
            self.drained_frames.clone(),
        );
        registry.register(
            "spool_frames",
            "Frames in the spool that the collector has not acknowledged.",
            self.spool_frames.clone(),
        );
        registry.register_with_unit(
            "spool",
            "What the spool takes of the disk.",
            bytes(),
            self.spool_bytes.clone(),
        );
        registry.register("attaches", "Log streams opened through the Docker API.", self.attaches.clone());
        registry.register(
            "healed_streams",
            "Log streams that did not bring what Docker had, and were opened anew.",
            self.healed_streams.clone(),
        );
        registry.register("lists", "How often containers were listed.", self.lists.clone());
        registry.register("containers", "Containers whose logs are read.", self.containers.clone());
        registry.register_with_unit(
            "lag",
            "Log files' bytes that have not been read yet.",
            bytes(),
            self.lag_bytes.clone(),
        );
        registry.register_with_unit(
            "open_line",
            "Text of lines whose end has not come yet.",
            bytes(),
            self.open_line_bytes.clone(),
        );
        registry.register_with_unit(
            "time_to_loss",
            "In how long Docker removes the first line that has not been read, by container; absent where it will not.",
            Unit::Seconds,
            self.time_to_loss_seconds.clone(),
        );
        registry.register("healthy", "1 while everything works, else 0.", self.healthy.clone());
    }
}

/// What a registry holds, in Prometheus' text format.
///
/// # Errors
/// When something in it cannot be written.
pub fn exposed(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(prometheus_text(&text))
}

/// OpenMetrics as the older Prometheus text format, which every scraper and promtool read: there a counter's metadata
/// carries the sample's full name, and there are no units and no end mark.
fn prometheus_text(open_metrics: &str) -> String {
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let metadata = line.strip_prefix("# HELP ").map(|rest| ("# HELP ", rest));
        let metadata = metadata.or_else(|| line.strip_prefix("# TYPE ").map(|rest| ("# TYPE ", rest)));
        match metadata.and_then(|(kind, rest)| rest.split_once(' ').map(|(name, rest)| (kind, name, rest))) {
            Some((kind, name, rest)) if counters.contains(&name) => {
                text.push_str(&format!("{kind}{name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_their_full_name_in_the_prometheus_text() {
        let open = "# HELP a_lines Lines.\n# TYPE a_lines counter\na_lines_total 3\n# HELP b_bytes B.\n\
                    # TYPE b_bytes gauge\n# UNIT b_bytes bytes\nb_bytes 1\n# EOF\n";
        assert_eq!(
            prometheus_text(open),
            "# HELP a_lines_total Lines.\n# TYPE a_lines_total counter\na_lines_total 3\n# HELP b_bytes B.\n\
             # TYPE b_bytes gauge\nb_bytes 1\n"
        );
    }
}
