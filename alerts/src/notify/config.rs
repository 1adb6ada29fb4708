//! Who is told: receivers and the tree of routes, from a YAML file in the shape of Alertmanager's.
//!
//! ```yaml
//! route:
//!   receiver: team
//!   group_by: [alertname, service]
//!   routes:
//!     - matchers: ['severity="critical"']
//!       receiver: pager
//!       continue: true
//! receivers:
//!   - name: team
//!     webhook: {url: "https://hooks.example.org/alerts", signing: standard, secret: "${HOOK_SECRET}"}
//!   - name: pager
//!     pagerduty: {routing_key: "${PAGERDUTY_KEY}"}
//!   - name: mail
//!     email: {to: [ops@example.org], from: beeacon@example.org, smarthost: "smtp.example.org:587"}
//!   - name: alertmanager
//!     alertmanager: {url: "https://alertmanager.example.org"}
//! inhibit_rules:
//!   - source_matchers: ['alertname="AgentLost"']
//!     target_matchers: ['alertname="ServiceSilent"']
//!     equal: [host]
//! time_intervals:
//!   - name: nights
//!     time_intervals: [{times: [{start_time: "22:00", end_time: "24:00"}], weekdays: ["monday:friday"]}]
//! ```

mod kinds;
mod read;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use lettre::message::Mailbox;

use super::mute::TimeInterval;
use crate::labels::Labels;
use crate::matchers::{Matcher, all_match};

/// Everything about who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    root: Route,
    /// Who can be told.
    pub receivers: Vec<Receiver>,
    /// Which alerts keep others quiet.
    pub inhibit_rules: Vec<InhibitRule>,
    intervals: Vec<(String, Vec<TimeInterval>)>,
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) options: RouteOptions,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) goes_on: bool,
    pub(crate) routes: Vec<Route>,
}

/// What a node says, with what it has from those above it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteOptions {
    /// The matchers down to the node, in Alertmanager's writing. Nodes with the same matchers have the same.
    pub key: String,
    /// Names the node: its key, with its number among those of that key from the second one on.
    pub id: String,
    /// Who is told.
    pub receiver: String,
    /// By which labels alerts are grouped.
    pub group_by: GroupBy,
    /// How long a new group waits for more.
    pub group_wait: Duration,
    /// How often a group is looked at.
    pub group_interval: Duration,
    /// After which time what was said is said again.
    pub repeat_interval: Duration,
    /// Intervals in which nobody is told.
    pub mute: Vec<String>,
    /// Intervals outside of which nobody is told.
    pub active: Vec<String>,
}

/// By which labels alerts are grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// By all: `['...']`.
    All,
    /// By these.
    Names(BTreeSet<String>),
}

/// Alerts that keep others quiet.
#[derive(Clone, Debug, PartialEq)]
pub struct InhibitRule {
    /// Whoever meets these keeps others quiet.
    pub source_matchers: Vec<Matcher>,
    /// Whoever meets these is kept quiet.
    pub target_matchers: Vec<Matcher>,
    /// The labels that have to be equal on both.
    pub equal: Vec<String>,
}

/// Somebody who can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// How.
    pub kind: ReceiverKind,
    /// Whether it is told of ends.
    pub send_resolved: bool,
}

/// How a receiver is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ReceiverKind {
    /// Nobody is told: for routes that only keep alerts out of others.
    Nobody,
    /// An HTTP request.
    Webhook(Webhook),
    /// Slack's incoming webhook.
    Slack {
        /// Its address, which is a secret.
        url: Secret,
        /// Overrides the channel, where the webhook may.
        channel: Option<String>,
    },
    /// A workflow of Teams.
    Teams {
        /// Its address, which is a secret.
        url: Secret,
    },
    /// PagerDuty's events.
    PagerDuty {
        /// Where events are posted.
        url: String,
        /// The integration's key.
        routing_key: Secret,
    },
    /// Mail.
    Email(Box<Email>),
    /// An Alertmanager, which groups and repeats itself.
    Alertmanager(Alertmanager),
}

/// Mail over SMTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Email {
    /// Whom it goes to.
    pub to: Vec<Mailbox>,
    /// Whom it comes from.
    pub from: Mailbox,
    /// The mail server's host; an IPv6 address stands in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the way to it is guarded.
    pub security: MailSecurity,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// minijinja templates of the subject, the text and its HTML form.
    pub subject: String,
    /// The text.
    pub text: String,
    /// The same in HTML.
    pub html: String,
}

/// How the way to a mail server is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// By TLS that the server's `STARTTLS` begins. A server that has none is not spoken to.
    StartTls,
    /// By TLS from the first byte.
    Tls,
    /// Not at all: to a server on this host.
    None,
}

/// An Alertmanager that alerts are pushed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Alertmanager {
    /// Its address; `/api/v2/alerts` is put behind it.
    pub url: Secret,
    /// How often alerts that fire are sent again.
    pub resend: Duration,
    /// What it asks for, as `Authorization: Bearer`.
    pub bearer_token: Option<Secret>,
}

/// An HTTP request per message.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Its address.
    pub url: Secret,
    /// What is in the body.
    pub body: WebhookBody,
    /// The most alerts of a message; none is all.
    pub max_alerts: usize,
    /// How it is signed.
    pub signing: Signing,
}

/// What is in a webhook's body.
#[derive(Clone, Debug, PartialEq)]
pub enum WebhookBody {
    /// Alertmanager's payload, version 4.
    Alertmanager,
    /// Grafana's payload.
    Grafana,
    /// What a minijinja template makes.
    Template(String),
}

/// How a request is signed.
#[derive(Clone, Debug, PartialEq)]
pub enum Signing {
    /// Not at all.
    None,
    /// Grafana's way: `X-Grafana-Alerting-Signature`, with a timestamp.
    Grafana(Secret),
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    Standard(Secret),
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl RouteOptions {
    /// The labels that make the group of an alert.
    #[must_use]
    pub fn group_labels(&self, labels: &Labels) -> Labels {
        match &self.group_by {
            GroupBy::All => labels.clone(),
            GroupBy::Names(names) => labels.iter().filter(|(name, _)| names.contains(*name)).collect(),
        }
    }
}

impl Config {
    /// A receiver by its name.
    #[must_use]
    pub fn receiver(&self, name: &str) -> Option<&Receiver> {
        self.receivers.iter().find(|receiver| receiver.name == name)
    }

    /// The nodes that alerts with these labels come to.
    #[must_use]
    pub fn routes_of(&self, labels: &Labels) -> Vec<&RouteOptions> {
        let mut found = Vec::new();
        descend(&self.root, labels, &mut found);
        found
    }

    /// A node by its id.
    #[must_use]
    pub fn route(&self, id: &str) -> Option<&RouteOptions> {
        let mut left = vec![&self.root];
        while let Some(route) = left.pop() {
            if route.options.id == id {
                return Some(&route.options);
            }
            left.extend(&route.routes);
        }
        None
    }

    /// Whether a node tells nobody at a time.
    #[must_use]
    pub fn is_muted(&self, route: &RouteOptions, now: Timestamp) -> bool {
        let holds = |name: &String| {
            self.intervals.iter().any(|(known, intervals)| {
                known == name && intervals.iter().any(|interval| interval.holds(now))
            })
        };
        route.mute.iter().any(holds) || (!route.active.is_empty() && !route.active.iter().any(holds))
    }
}

/// Down the tree; answers whether the node matched.
fn descend<'a>(route: &'a Route, labels: &Labels, found: &mut Vec<&'a RouteOptions>) -> bool {
    if !all_match(&route.matchers, labels) {
        return false;
    }
    let before = found.len();
    for child in &route.routes {
        if descend(child, labels, found) && !child.goes_on {
            break;
        }
    }
    if found.len() == before {
        found.push(&route.options);
    }
    true
}
