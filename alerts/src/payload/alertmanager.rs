//! Alertmanager's webhook payload, version 4, and Grafana's, which has the same skeleton.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::labels::Labels;
use crate::notify::{ActiveAlert, Notification};
use crate::template::plain;

type Map = BTreeMap<String, String>;

/// The payload. The fields stand in Alertmanager's order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Whom it is for.
    pub receiver: String,
    /// `firing` when one of its alerts is, else `resolved`.
    pub status: String,
    /// What it says.
    pub alerts: Vec<AlertPart>,
    /// The labels that the group is made by.
    #[serde(rename = "groupLabels")]
    pub group_labels: Map,
    /// The labels that all of its alerts have.
    #[serde(rename = "commonLabels")]
    pub common_labels: Map,
    /// The texts that all of its alerts have.
    #[serde(rename = "commonAnnotations")]
    pub common_annotations: Map,
    /// Where this server can be found.
    #[serde(rename = "externalURL")]
    pub external_url: String,
    /// The payload's version.
    pub version: String,
    /// Names the group.
    #[serde(rename = "groupKey")]
    pub group_key: String,
    /// The alerts that were left out.
    #[serde(rename = "truncatedAlerts")]
    pub truncated_alerts: usize,
}

/// An alert in the payload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertPart {
    /// `firing` or `resolved`.
    pub status: String,
    /// Its labels.
    pub labels: Map,
    /// Its texts.
    pub annotations: Map,
    /// When it began.
    #[serde(rename = "startsAt")]
    pub starts_at: String,
    /// When it ended; Go's zero time while it has not.
    #[serde(rename = "endsAt")]
    pub ends_at: String,
    /// Where it can be looked at.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    /// Names its labels.
    pub fingerprint: String,
}

impl Message {
    /// The message for what people read: without the control characters of labels and texts, line ends and tabs excepted.
    #[must_use]
    pub fn plain(&self) -> Message {
        let mut message = self.clone();
        for map in [&mut message.group_labels, &mut message.common_labels, &mut message.common_annotations] {
            *map = plain_map(map);
        }
        for alert in &mut message.alerts {
            alert.labels = plain_map(&alert.labels);
            alert.annotations = plain_map(&alert.annotations);
            alert.generator_url = plain(&alert.generator_url);
        }
        message.group_key = plain(&message.group_key);
        message
    }
}

fn plain_map(map: &Map) -> Map {
    map.iter().map(|(name, value)| (plain(name), plain(value))).collect()
}

/// The zero time of Go, which stands for an end that has not come.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A time as Go's encoder writes it: nanoseconds without zeros at their end.
#[must_use]
pub fn go_time(time: Timestamp) -> String {
    time.to_string()
}

fn map(labels: &Labels) -> Map {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The payload of a message with its first alerts.
#[must_use]
pub fn message(notification: &Notification, external_url: &str, alerts_max: usize) -> Message {
    let kept: Vec<&ActiveAlert> = notification.alerts.iter().take(alerts_max).collect();
    let is_firing = kept.iter().any(|alert| alert.is_firing());
    let common = |part: fn(&ActiveAlert) -> &Labels| {
        let mut parts = kept.iter().map(|alert| part(alert));
        let first = parts.next().cloned().unwrap_or_default();
        map(&parts.fold(first, |common, labels| common.common(labels)))
    };
    Message {
        receiver: notification.receiver.clone(),
        status: status(is_firing),
        alerts: kept.iter().map(|alert| part(alert)).collect(),
        group_labels: map(&notification.group_labels),
        common_labels: common(|alert| &alert.labels),
        common_annotations: common(|alert| &alert.annotations),
        external_url: external_url.to_owned(),
        version: "4".to_owned(),
        group_key: notification.group_key.clone(),
        truncated_alerts: notification.alerts.len() - kept.len(),
    }
}

fn status(is_firing: bool) -> String {
    if is_firing { "firing" } else { "resolved" }.to_owned()
}

fn part(alert: &ActiveAlert) -> AlertPart {
    AlertPart {
        status: status(alert.is_firing()),
        labels: map(&alert.labels),
        annotations: map(&alert.annotations),
        starts_at: go_time(alert.starts_at),
        ends_at: alert.ends_at.map_or_else(|| ZERO_TIME.to_owned(), go_time),
        generator_url: alert.generator_url.clone(),
        fingerprint: alert.labels.fingerprint().to_string(),
    }
}

/// Grafana's payload: the same skeleton, with its own fields behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrafanaMessage {
    receiver: String,
    status: String,
    alerts: Vec<GrafanaAlert>,
    #[serde(rename = "groupLabels")]
    group_labels: Map,
    #[serde(rename = "commonLabels")]
    common_labels: Map,
    #[serde(rename = "commonAnnotations")]
    common_annotations: Map,
    #[serde(rename = "externalURL")]
    external_url: String,
    version: String,
    #[serde(rename = "groupKey")]
    group_key: String,
    #[serde(rename = "truncatedAlerts")]
    truncated_alerts: usize,
    #[serde(rename = "orgId")]
    org_id: u64,
    title: String,
    state: String,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct GrafanaAlert {
    #[serde(flatten)]
    part: AlertPart,
    #[serde(rename = "silenceURL")]
    silence_url: String,
    #[serde(rename = "dashboardURL")]
    dashboard_url: String,
    #[serde(rename = "panelURL")]
    panel_url: String,
    values: BTreeMap<String, f64>,
    #[serde(rename = "valueString")]
    value_string: String,
}

/// Grafana's payload of a message.
#[must_use]
pub fn grafana(message: &Message, notification: &Notification) -> GrafanaMessage {
    let alerts =
        message.alerts.iter().zip(&notification.alerts).map(|(part, alert)| grafana_alert(part, alert));
    let is_firing = message.status == "firing";
    GrafanaMessage {
        receiver: message.receiver.clone(),
        status: message.status.clone(),
        alerts: alerts.collect(),
        group_labels: message.group_labels.clone(),
        common_labels: message.common_labels.clone(),
        common_annotations: message.common_annotations.clone(),
        external_url: message.external_url.clone(),
        version: "1".to_owned(),
        group_key: message.group_key.clone(),
        truncated_alerts: message.truncated_alerts,
        org_id: 1,
        title: super::title(message),
        state: if is_firing { "alerting" } else { "ok" }.to_owned(),
        message: text(message),
    }
}

fn grafana_alert(part: &AlertPart, alert: &ActiveAlert) -> GrafanaAlert {
    // A number that JSON cannot write stands in the text only.
    let value = alert.value.parse().ok().filter(|value: &f64| value.is_finite());
    GrafanaAlert {
        part: part.clone(),
        silence_url: String::new(),
        dashboard_url: part.annotations.get("dashboard_url").cloned().unwrap_or_default(),
        panel_url: part.annotations.get("panel_url").cloned().unwrap_or_default(),
        values: value.map(|value| ("value".to_owned(), value)).into_iter().collect(),
        value_string: format!("[ var='value' labels={} value={} ]", alert.labels, alert.value),
    }
}

/// The message as plain text, an alert a line.
#[must_use]
pub fn text(message: &Message) -> String {
    let mut out = String::new();
    for alert in &message.alerts {
        let name = alert.labels.get("alertname").map_or("", String::as_str);
        let said = ["summary", "description"].iter().find_map(|name| alert.annotations.get(*name));
        out.push_str(&format!("{}: {name}", alert.status.to_uppercase()));
        if let Some(said) = said {
            out.push_str(&format!(": {}", said.trim().replace('\n', " ")));
        }
        out.push('\n');
    }
    if message.truncated_alerts > 0 {
        out.push_str(&format!("and {} more\n", message.truncated_alerts));
    }
    out
}
