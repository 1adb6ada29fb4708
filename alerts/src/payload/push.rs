//! What an Alertmanager is told: the body of its `POST /api/v2/alerts`.
//!
//! The meaning is that of Prometheus: an alert that fires ends by itself after four missed resends (`endsAt` lies that far
//! ahead), one that ended carries its end. The same labels are the same alert, so a repeat changes nothing there. Label names
//! with other characters than letters, digits and `_` are rewritten with `_`, for Alertmanager before 0.27 refuses them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::alertmanager::go_time;
use crate::labels::{Labels, is_plain_name};
use crate::limits::{ALERTMANAGER_BATCH_ALERTS, ALERTMANAGER_RESENDS_MISSED_MAX};
use crate::notify::ActiveAlert;

/// An alert as Alertmanager's API takes it.
#[derive(Debug, Serialize)]
struct PostableAlert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "String::is_empty")]
    generator_url: String,
}

/// The bodies that tell of some alerts at a moment.
pub(super) fn bodies(
    alerts: &[ActiveAlert],
    resend: Duration,
    now: Timestamp,
) -> serde_json::Result<Vec<Vec<u8>>> {
    let ends_by_itself =
        now.checked_add(resend.saturating_mul(ALERTMANAGER_RESENDS_MISSED_MAX)).unwrap_or(Timestamp::MAX);
    alerts
        .chunks(ALERTMANAGER_BATCH_ALERTS)
        .map(|batch| {
            let alerts: Vec<PostableAlert> =
                batch.iter().map(|alert| postable(alert, ends_by_itself)).collect();
            super::json::go_line(&alerts)
        })
        .collect()
}

fn postable(alert: &ActiveAlert, ends_by_itself: Timestamp) -> PostableAlert {
    PostableAlert {
        labels: with_plain_names(&alert.labels),
        annotations: with_plain_names(&alert.annotations),
        starts_at: go_time(alert.starts_at),
        ends_at: go_time(alert.ends_at.unwrap_or(ends_by_itself)),
        generator_url: alert.generator_url.clone(),
    }
}

fn with_plain_names(labels: &Labels) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    // What has a plain name keeps it; another that would come to the same one is left out.
    let (plain, other): (Vec<_>, Vec<_>) = labels.iter().partition(|(name, _)| is_plain_name(name));
    for (name, value) in plain.into_iter().chain(other) {
        out.entry(plain_name(name)).or_insert_with(|| value.to_owned());
    }
    out
}

fn plain_name(name: &str) -> String {
    if is_plain_name(name) {
        return name.to_owned();
    }
    let first = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    let rest = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' });
    first.chars().chain(rest).collect()
}
