//! What is sent: the body of a message for each kind of receiver. Pure, and pinned by golden files.
//!
//! What always holds: a body has at most [`BODY_BYTES_MAX`] bytes: alerts are left out from its end, and the body says how
//! many; what a label or an annotation holds is data in every format, never markup of it where the format allows that; what
//! people read holds no control character of it. `alerts/data/injection.toml` is run through all of them.

pub mod alertmanager;
pub mod chat;
pub(crate) mod json;
pub mod mail;
pub mod pagerduty;
pub mod push;
pub mod template;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::limits::BODY_BYTES_MAX;
use crate::notify::Notification;
use crate::notify::config::{Receiver, ReceiverKind, WebhookBody};

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The receiver's template failed.
    #[error("the template of the receiver {receiver} failed in line {line}: {kind}")]
    Template {
        /// The receiver.
        receiver: String,
        /// Where.
        line: usize,
        /// What kind of failure.
        kind: String,
    },
    /// It cannot be written as a mail.
    #[error("the mail for the receiver {receiver} has no writing")]
    Mail {
        /// The receiver.
        receiver: String,
    },
    /// It cannot be written as JSON.
    #[error("the body for the receiver {receiver} cannot be written as JSON")]
    Json {
        /// The receiver.
        receiver: String,
    },
    /// Even with one alert it is too long.
    #[error(
        "the body for the receiver {receiver} has {bytes} bytes with one alert, the limit is {BODY_BYTES_MAX}"
    )]
    Large {
        /// The receiver.
        receiver: String,
        /// Its length.
        bytes: usize,
    },
}

/// What a message is sent as: none when the receiver is nobody, several for an Alertmanager that is told of many alerts, else
/// one. `now` is when it is sent.
///
/// # Errors
///
/// When the receiver's template fails, or a body cannot be written or is too long with one alert.
pub fn bodies(
    receiver: &Receiver,
    notification: &Notification,
    external_url: &str,
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, PayloadError> {
    match &receiver.kind {
        ReceiverKind::Alertmanager(alertmanager) => {
            push::bodies(&notification.alerts, alertmanager.resend, now)
                .map_err(|_| PayloadError::Json { receiver: receiver.name.clone() })
        }
        _ => Ok(body(receiver, notification, external_url)?.into_iter().collect()),
    }
}

/// The one body of a message. None when the receiver is nobody, or told by [`push`].
///
/// # Errors
///
/// When the receiver's template fails, or the body cannot be written or is too long with one alert.
fn body(
    receiver: &Receiver,
    notification: &Notification,
    external_url: &str,
) -> Result<Option<Vec<u8>>, PayloadError> {
    // Halving ends: with one alert it fits or never will.
    let mut alerts_max = match &receiver.kind {
        ReceiverKind::Webhook(webhook) if webhook.max_alerts > 0 => webhook.max_alerts,
        _ => usize::MAX,
    }
    .min(notification.alerts.len());
    loop {
        let Some(body) = body_of(receiver, notification, external_url, alerts_max)? else { return Ok(None) };
        if body.len() <= BODY_BYTES_MAX {
            return Ok(Some(body));
        }
        if alerts_max <= 1 {
            return Err(PayloadError::Large { receiver: receiver.name.clone(), bytes: body.len() });
        }
        alerts_max /= 2;
    }
}

fn body_of(
    receiver: &Receiver,
    notification: &Notification,
    external_url: &str,
    alerts_max: usize,
) -> Result<Option<Vec<u8>>, PayloadError> {
    let message = alertmanager::message(notification, external_url, alerts_max);
    Ok(Some(match &receiver.kind {
        ReceiverKind::Nobody | ReceiverKind::Alertmanager(_) => return Ok(None),
        ReceiverKind::Email(email) => {
            mail::mail(email, &message.plain(), notification).map_err(|error| match error {
                mail::MailError::Template(line, kind) => {
                    PayloadError::Template { receiver: receiver.name.clone(), line, kind }
                }
                mail::MailError::Writing => PayloadError::Mail { receiver: receiver.name.clone() },
            })?
        }
        ReceiverKind::Webhook(webhook) => match &webhook.body {
            WebhookBody::Alertmanager => line(receiver, &message)?,
            WebhookBody::Grafana => line(receiver, &alertmanager::grafana(&message, notification))?,
            WebhookBody::Template(source) => {
                template::render(source, template::Form::Text, &message.plain(), notification)
                    .map_err(|(line, kind)| PayloadError::Template {
                        receiver: receiver.name.clone(),
                        line,
                        kind,
                    })?
                    .into_bytes()
            }
        },
        ReceiverKind::Slack { channel, .. } => {
            line(receiver, &chat::slack(&message.plain(), channel.as_deref()))?
        }
        ReceiverKind::Teams { .. } => line(receiver, &chat::teams(&message.plain()))?,
        ReceiverKind::PagerDuty { routing_key, .. } => {
            line(receiver, &pagerduty::event(&message.plain(), notification, routing_key.reveal()))?
        }
    }))
}

fn line<T: Serialize>(receiver: &Receiver, value: &T) -> Result<Vec<u8>, PayloadError> {
    json::go_line(value).map_err(|_| PayloadError::Json { receiver: receiver.name.clone() })
}

/// The headline that Alertmanager's default templates make: `[FIRING:2] PiiLeak (a critical)`.
#[must_use]
pub fn title(message: &alertmanager::Message) -> String {
    let firing = message.alerts.iter().filter(|alert| alert.status == "firing").count();
    let status = message.status.to_uppercase();
    let count = if message.status == "firing" { format!(":{firing}") } else { String::new() };
    let group: Vec<&str> = message.group_labels.values().map(String::as_str).collect();
    let rest: Vec<&str> = message
        .common_labels
        .iter()
        .filter(|(name, _)| !message.group_labels.contains_key(*name))
        .map(|(_, value)| value.as_str())
        .collect();
    let mut title = format!("[{status}{count}] {}", group.join(" "));
    if !rest.is_empty() {
        title.push_str(&format!(" ({})", rest.join(" ")));
    }
    title.trim_end().to_owned()
}
