//! Slack's and Teams' bodies.
//!
//! Both read markup in text, so what alerts hold is escaped: in Slack `&`, `<` and `>` (there are no links and no mentions
//! without them), in Teams' cards every character that Markdown obeys.

use serde_json::{Value, json};

use super::alertmanager::{Message, text};
use crate::template::cut;

/// The alerts of a chat message; the rest is counted.
const CHAT_ALERTS_MAX: usize = 20;
/// Slack shows at most this of a text.
const SLACK_TEXT_BYTES_MAX: usize = 12_000;
/// A Teams message has 28 KB in all.
const TEAMS_TEXT_BYTES_MAX: usize = 1_000;

/// Slack's incoming webhook.
pub(super) fn slack(message: &Message, channel: Option<&str>) -> Value {
    let title = escape_slack(&super::title(message));
    let shown = shown(message);
    let color = if message.status == "firing" { "danger" } else { "good" };
    let mut body = json!({
        "text": title,
        "attachments": [{
            "color": color,
            "fallback": title,
            "title": title,
            "title_link": message.external_url,
            "text": cut(escape_slack(&text(&shown)), SLACK_TEXT_BYTES_MAX),
            "mrkdwn_in": [],
        }],
    });
    if let (Some(channel), Some(body)) = (channel, body.as_object_mut()) {
        body.insert("channel".to_owned(), Value::from(channel));
    }
    body
}

/// An adaptive card for a workflow of Teams.
pub(super) fn teams(message: &Message) -> Value {
    let shown = shown(message);
    let color = if message.status == "firing" { "attention" } else { "good" };
    let mut blocks = vec![json!({
        "type": "TextBlock", "text": escape_markdown(&super::title(message)), "weight": "Bolder", "size": "Medium",
        "wrap": true, "style": "heading", "color": color,
    })];
    for line in text(&shown).lines() {
        let text = cut(escape_markdown(line), TEAMS_TEXT_BYTES_MAX);
        blocks.push(json!({"type": "TextBlock", "text": text, "wrap": true}));
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.2",
                "body": blocks,
                "msteams": {"width": "full"},
            },
        }],
    })
}

fn shown(message: &Message) -> Message {
    let mut shown = message.clone();
    shown.truncated_alerts += shown.alerts.len().saturating_sub(CHAT_ALERTS_MAX);
    shown.alerts.truncate(CHAT_ALERTS_MAX);
    shown
}

fn escape_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '`' | '[' | ']' | '(' | ')' | '#' | '!' | '<' | '>' | '~' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
