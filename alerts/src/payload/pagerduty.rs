//! PagerDuty's events, version 2.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::alertmanager::{Message, text};
use crate::notify::Notification;
use crate::sign::hex;
use crate::template::cut;

/// PagerDuty cuts a summary at 1,024 characters.
const SUMMARY_BYTES_MAX: usize = 1_024;
/// The alerts told in full; more are counted.
const DETAILS_BYTES_MAX: usize = 64 << 10;

/// The event of a message. One group is one incident: its key is the hash of the group's, as Alertmanager makes it.
pub(super) fn event(message: &Message, notification: &Notification, routing_key: &str) -> Value {
    let dedup_key = hex(&Sha256::digest(notification.group_key.as_bytes()));
    if message.status != "firing" {
        return json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup_key});
    }
    let part = |is_firing: bool| {
        let mut part = message.clone();
        part.alerts.retain(|alert| (alert.status == "firing") == is_firing);
        if !is_firing {
            part.truncated_alerts = 0;
        }
        cut(text(&part), DETAILS_BYTES_MAX)
    };
    let label = |name: &str| message.common_labels.get(name).cloned();
    let links: Vec<Value> = message
        .alerts
        .iter()
        .find(|alert| !alert.generator_url.is_empty())
        .map(|alert| json!({"href": alert.generator_url, "text": "Beeacon"}))
        .into_iter()
        .collect();
    json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "Beeacon",
        "client_url": message.external_url,
        "payload": {
            "summary": cut(super::title(message), SUMMARY_BYTES_MAX),
            "source": label("service").or_else(|| label("host")).unwrap_or_else(|| "beeacon".to_owned()),
            "severity": severity(label("severity").as_deref()),
            "timestamp": notification.at.to_string(),
            "component": label("service").unwrap_or_default(),
            "group": notification.group_key,
            "class": label("alertname").unwrap_or_default(),
            "custom_details": {
                "firing": part(true),
                "resolved": part(false),
                "num_firing": message.alerts.iter().filter(|alert| alert.status == "firing").count().to_string(),
                "num_resolved": message.alerts.iter().filter(|alert| alert.status != "firing").count().to_string(),
            },
        },
        "links": links,
    })
}

/// PagerDuty knows four severities and refuses others.
fn severity(label: Option<&str>) -> &'static str {
    match label {
        Some("warning" | "medium") => "warning",
        Some("info" | "low") => "info",
        Some("error" | "high") => "error",
        _ => "critical",
    }
}
