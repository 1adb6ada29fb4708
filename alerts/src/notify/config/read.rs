//! The YAML of [`Config`], with every fault at once and where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::kinds::{read_alertmanager, read_email};
use super::{
    Config, GroupBy, InhibitRule, Receiver, ReceiverKind, Route, RouteOptions, Secret, Signing, Webhook,
    WebhookBody,
};
use crate::limits::{
    ALERTMANAGER_LOOK_INTERVAL, GROUP_INTERVAL_DEFAULT, GROUP_WAIT_DEFAULT, PAGERDUTY_URL,
    REPEAT_INTERVAL_DEFAULT, ROUTE_DEPTH_MAX,
};
use crate::matchers::Matcher;
use crate::notify::mute::{
    TimeInterval, read_days_of_month, read_minute, read_months, read_offset, read_weekdays, read_years,
};
use crate::rules::RuleFileError;
use crate::yaml::{Faults, Node, Place, Taker};

impl Config {
    /// Reads the file. `${NAME}` in its values has been put in by whoever read it.
    ///
    /// # Errors
    ///
    /// With all faults of the file; of a file that is no YAML, with the first.
    pub fn read(text: &str) -> Result<Config, RuleFileError> {
        let root = crate::yaml::read(text).map_err(|faults| RuleFileError { faults })?;
        let mut faults = Faults::default();
        let config = read_config(root, &mut faults);
        let faults = faults.finish();
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(RuleFileError { faults }),
        }
    }
}

const KEYS: [&str; 4] = ["route", "receivers", "inhibit_rules", "time_intervals"];

fn read_config(root: Node, faults: &mut Faults) -> Option<Config> {
    let mut taker = Taker::new(root, "the file", faults)?;
    let place = taker.place;
    let receivers = read_receivers(&mut taker, faults);
    let intervals = read_intervals(&mut taker, faults);
    let inhibit_rules = taker
        .list("inhibit_rules", faults)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| read_inhibit_rule(node, faults))
        .collect();
    let names = Names {
        receivers: receivers.iter().map(|receiver| receiver.name.clone()).collect(),
        intervals: intervals.iter().map(|(name, _)| name.clone()).collect(),
    };
    let root = match taker.node("route") {
        Some(node) => read_route(node, None, &names, 0, faults),
        None => {
            faults.add(place, "the file has no `route`");
            None
        }
    };
    taker.finish(&KEYS, faults);
    let mut root = root?;
    leave_grouping(&mut root, &receivers);
    name_routes(&mut root, &mut BTreeMap::new());
    Some(Config { root, receivers, inhibit_rules, intervals })
}

/// What goes to an Alertmanager is grouped, held back and repeated there: here it is one group that is told at once, and again
/// before it would end there. Nodes below have what was written, not this.
fn leave_grouping(route: &mut Route, receivers: &[Receiver]) {
    let kind = receivers.iter().find(|known| known.name == route.options.receiver).map(|known| &known.kind);
    if let Some(ReceiverKind::Alertmanager(alertmanager)) = kind {
        route.options.group_by = GroupBy::Names(BTreeSet::new());
        route.options.group_wait = Duration::ZERO;
        route.options.group_interval = ALERTMANAGER_LOOK_INTERVAL.min(alertmanager.resend);
        route.options.repeat_interval = alertmanager.resend;
    }
    for child in &mut route.routes {
        leave_grouping(child, receivers);
    }
}

/// Two nodes with the same matchers, one of which continues to the other, are two nodes: each has groups of its own.
fn name_routes(route: &mut Route, seen: &mut BTreeMap<String, usize>) {
    let options = &mut route.options;
    let count = seen.entry(options.key.clone()).or_default();
    *count += 1;
    options.id = if *count == 1 { options.key.clone() } else { format!("{}#{count}", options.key) };
    for child in &mut route.routes {
        name_routes(child, seen);
    }
}

/// What routes may name.
struct Names {
    receivers: BTreeSet<String>,
    intervals: BTreeSet<String>,
}

const ROUTE_KEYS: [&str; 10] = [
    "receiver",
    "group_by",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "matchers",
    "mute_time_intervals",
    "active_time_intervals",
    "continue",
    "routes",
];

fn read_route(
    node: Node,
    parent: Option<&RouteOptions>,
    names: &Names,
    depth: usize,
    faults: &mut Faults,
) -> Option<Route> {
    let mut taker = Taker::new(node, "a route", faults)?;
    let place = taker.place;
    if depth > ROUTE_DEPTH_MAX {
        faults.add(place, format!("routes are nested deeper than {ROUTE_DEPTH_MAX}"));
        return None;
    }
    let matchers = read_matchers(&mut taker, "matchers", faults);
    let receiver = taker.text("receiver", faults);
    let (receiver_place, receiver) = match (receiver, parent) {
        (Some(receiver), _) => receiver,
        (None, Some(parent)) => (place, parent.receiver.clone()),
        (None, None) => {
            faults.add(place, "the first route has no `receiver`");
            return None;
        }
    };
    if !names.receivers.contains(&receiver) {
        faults.add(receiver_place, format!("there is no receiver `{receiver}`"));
    }
    if parent.is_none() && !matchers.is_empty() {
        faults.add(place, "the first route has no `matchers`: it takes everything");
    }
    let options = RouteOptions {
        key: route_key(parent, &matchers),
        // Known when the whole tree is.
        id: String::new(),
        receiver,
        group_by: read_group_by(&mut taker, faults)
            .or_else(|| parent.map(|parent| parent.group_by.clone()))
            .unwrap_or_else(|| GroupBy::Names(BTreeSet::new())),
        group_wait: wait(
            &mut taker,
            "group_wait",
            parent.map(|parent| parent.group_wait),
            GROUP_WAIT_DEFAULT,
            faults,
        ),
        group_interval: positive(
            &mut taker,
            "group_interval",
            parent.map(|parent| parent.group_interval),
            GROUP_INTERVAL_DEFAULT,
            faults,
        ),
        repeat_interval: positive(
            &mut taker,
            "repeat_interval",
            parent.map(|parent| parent.repeat_interval),
            REPEAT_INTERVAL_DEFAULT,
            faults,
        ),
        mute: read_interval_names(&mut taker, "mute_time_intervals", names, faults),
        active: read_interval_names(&mut taker, "active_time_intervals", names, faults),
    };
    let goes_on = taker.flag("continue", faults).unwrap_or(false);
    let routes = taker
        .list("routes", faults)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| read_route(node, Some(&options), names, depth + 1, faults))
        .collect();
    taker.finish(&ROUTE_KEYS, faults);
    Some(Route { options, matchers, goes_on, routes })
}

/// A node's key as Alertmanager makes it: the matchers of all nodes down to it.
fn route_key(parent: Option<&RouteOptions>, matchers: &[Matcher]) -> String {
    let mut texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    texts.sort();
    let own = format!("{{{}}}", texts.join(","));
    parent.map_or_else(|| own.clone(), |parent| format!("{}/{own}", parent.key))
}

fn wait(
    taker: &mut Taker,
    key: &str,
    parent: Option<Duration>,
    default: Duration,
    faults: &mut Faults,
) -> Duration {
    taker.duration(key, faults).or(parent).unwrap_or(default)
}

fn positive(
    taker: &mut Taker,
    key: &str,
    parent: Option<Duration>,
    default: Duration,
    faults: &mut Faults,
) -> Duration {
    let duration = wait(taker, key, parent, default, faults);
    if duration.is_zero() {
        faults.add(taker.place, format!("`{key}` is longer than nothing"));
    }
    duration
}

fn read_group_by(taker: &mut Taker, faults: &mut Faults) -> Option<GroupBy> {
    let names = taker.texts("group_by", faults)?;
    let place = names.first().map_or(taker.place, |(place, _)| *place);
    let names: BTreeSet<String> = names.into_iter().map(|(_, name)| name).collect();
    if !names.contains("...") {
        return Some(GroupBy::Names(names));
    }
    if names.len() > 1 {
        faults.add(place, "`...` in `group_by` means all labels and stands alone");
    }
    Some(GroupBy::All)
}

fn read_interval_names(taker: &mut Taker, key: &str, names: &Names, faults: &mut Faults) -> Vec<String> {
    let mut out = Vec::new();
    for (place, name) in taker.texts(key, faults).unwrap_or_default() {
        if !names.intervals.contains(&name) {
            faults.add(place, format!("there is no time interval `{name}`"));
        }
        out.push(name);
    }
    out
}

fn read_matchers(taker: &mut Taker, key: &str, faults: &mut Faults) -> Vec<Matcher> {
    let texts = taker.texts(key, faults).unwrap_or_default();
    texts
        .into_iter()
        .filter_map(|(place, text)| {
            Matcher::read(&text).map_err(|error| faults.add(place, error.to_string())).ok()
        })
        .collect()
}

fn read_inhibit_rule(node: Node, faults: &mut Faults) -> Option<InhibitRule> {
    let mut taker = Taker::new(node, "an inhibit rule", faults)?;
    let place = taker.place;
    let rule = InhibitRule {
        source_matchers: read_matchers(&mut taker, "source_matchers", faults),
        target_matchers: read_matchers(&mut taker, "target_matchers", faults),
        equal: taker.texts("equal", faults).unwrap_or_default().into_iter().map(|(_, name)| name).collect(),
    };
    if rule.source_matchers.is_empty() || rule.target_matchers.is_empty() {
        faults.add(place, "an inhibit rule has `source_matchers` and `target_matchers`");
    }
    taker.finish(&["source_matchers", "target_matchers", "equal"], faults);
    Some(rule)
}

fn read_receivers(taker: &mut Taker, faults: &mut Faults) -> Vec<Receiver> {
    let mut receivers: Vec<Receiver> = Vec::new();
    for node in taker.list("receivers", faults).unwrap_or_default() {
        let place = node.place;
        let Some(receiver) = read_receiver(node, faults) else { continue };
        if receivers.iter().any(|known| known.name == receiver.name) {
            faults.add(place, format!("the receiver `{}` is there twice", receiver.name));
        }
        receivers.push(receiver);
    }
    receivers
}

const RECEIVER_KEYS: [&str; 8] =
    ["name", "send_resolved", "webhook", "slack", "teams", "pagerduty", "email", "alertmanager"];

fn read_receiver(node: Node, faults: &mut Faults) -> Option<Receiver> {
    let mut taker = Taker::new(node, "a receiver", faults)?;
    let place = taker.place;
    let name = taker.text("name", faults).map(|(_, name)| name).unwrap_or_default();
    if name.is_empty() {
        faults.add(place, "the receiver has no `name`");
    }
    let send_resolved = taker.flag("send_resolved", faults);
    let mut kinds = Vec::new();
    for key in ["webhook", "slack", "teams", "pagerduty", "email", "alertmanager"] {
        if let Some(node) = taker.node(key) {
            kinds.push(match key {
                "email" => read_email(node, faults),
                "alertmanager" => read_alertmanager(node, faults),
                _ => read_kind(key, node, faults),
            });
        }
    }
    taker.finish(&RECEIVER_KEYS, faults);
    if kinds.len() > 1 {
        faults.add(place, "a receiver has one of webhook, slack, teams, pagerduty, email and alertmanager");
    }
    let kind = match kinds.pop() {
        // A receiver with faults keeps its name: routes that name it are right.
        Some(kind) => kind.unwrap_or(ReceiverKind::Nobody),
        None => ReceiverKind::Nobody,
    };
    // As Alertmanager: Slack and mail are told of no ends unless it is asked for.
    let default = !matches!(kind, ReceiverKind::Slack { .. } | ReceiverKind::Email(_));
    Some(Receiver { name, kind, send_resolved: send_resolved.unwrap_or(default) })
}

fn read_kind(key: &'static str, node: Node, faults: &mut Faults) -> Option<ReceiverKind> {
    let mut taker = Taker::new(node, key, faults)?;
    let place = taker.place;
    let url = taker.text("url", faults);
    let needed = |url: Option<(Place, String)>, faults: &mut Faults| match url {
        Some((place, url)) => {
            check_url(place, &url, faults);
            Some(Secret::new(url))
        }
        None => {
            faults.add(place, "`url` is missing");
            None
        }
    };
    match key {
        "webhook" => {
            let url = needed(url, faults);
            read_webhook(taker, url, faults).map(ReceiverKind::Webhook)
        }
        "slack" => {
            let channel = taker.text("channel", faults).map(|(_, channel)| channel);
            taker.finish(&["url", "channel"], faults);
            Some(ReceiverKind::Slack { url: needed(url, faults)?, channel })
        }
        "teams" => {
            taker.finish(&["url"], faults);
            Some(ReceiverKind::Teams { url: needed(url, faults)? })
        }
        _ => {
            let routing_key = taker.text("routing_key", faults);
            taker.finish(&["url", "routing_key"], faults);
            if let Some((place, url)) = &url {
                check_url(*place, url, faults);
            }
            let Some((_, routing_key)) = routing_key else {
                faults.add(place, "`routing_key` is missing");
                return None;
            };
            let url = url.map_or_else(|| PAGERDUTY_URL.to_owned(), |(_, url)| url);
            Some(ReceiverKind::PagerDuty { url, routing_key: Secret::new(routing_key) })
        }
    }
}

/// The address itself is a secret, so a fault does not repeat it.
pub(super) fn check_url(place: Place, url: &str, faults: &mut Faults) {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        faults.add(place, "`url` begins with https:// or http://");
    }
}

fn read_webhook(mut taker: Taker, url: Option<Secret>, faults: &mut Faults) -> Option<Webhook> {
    let place = taker.place;
    let body = taker.text("body", faults);
    let template = taker.text("template", faults);
    let max_alerts = taker.count("max_alerts", faults).unwrap_or(0);
    let signing = taker.text("signing", faults);
    let secret = taker.text("secret", faults).map(|(_, secret)| Secret::new(secret));
    taker.finish(&["url", "body", "template", "max_alerts", "signing", "secret"], faults);
    let body = match (body.as_ref().map(|(_, body)| body.as_str()), template) {
        (None | Some("alertmanager"), None) => WebhookBody::Alertmanager,
        (Some("grafana"), None) => WebhookBody::Grafana,
        (None, Some((place, template))) => {
            if let Err(error) = crate::payload::template::check(&template) {
                faults.add(place, error.to_string());
            }
            WebhookBody::Template(template)
        }
        (Some(_), Some(_)) => {
            faults.add(place, "a webhook has `body` or `template`, not both");
            return None;
        }
        (Some(_), None) => {
            faults.add(body.map_or(place, |(place, _)| place), "`body` is alertmanager or grafana");
            return None;
        }
    };
    let signing = match (signing.as_ref().map(|(_, word)| word.as_str()), secret) {
        (None | Some("none"), None) => Signing::None,
        (Some("grafana"), Some(secret)) => Signing::Grafana(secret),
        (Some("standard"), Some(secret)) => {
            if crate::sign::standard_key(secret.reveal()).is_none() {
                faults.add(place, "`secret` of Standard Webhooks is whsec_ and base64 of 24 to 64 bytes");
            }
            Signing::Standard(secret)
        }
        (Some("grafana" | "standard"), None) => {
            faults.add(place, "`secret` is missing: what is signed with");
            return None;
        }
        (None | Some("none"), Some(_)) => {
            faults.add(place, "`secret` needs `signing`: grafana or standard");
            return None;
        }
        _ => {
            faults.add(signing.map_or(place, |(place, _)| place), "`signing` is none, grafana or standard");
            return None;
        }
    };
    Some(Webhook { url: url?, body, max_alerts: usize::try_from(max_alerts).unwrap_or(usize::MAX), signing })
}

fn read_intervals(taker: &mut Taker, faults: &mut Faults) -> Vec<(String, Vec<TimeInterval>)> {
    let mut out: Vec<(String, Vec<TimeInterval>)> = Vec::new();
    for node in taker.list("time_intervals", faults).unwrap_or_default() {
        let Some(mut named) = Taker::new(node, "a time interval", faults) else { continue };
        let place = named.place;
        let name = named.text("name", faults).map(|(_, name)| name).unwrap_or_default();
        if name.is_empty() || out.iter().any(|(known, _)| *known == name) {
            faults.add(place, "a time interval has a `name` of its own");
        }
        let parts = named.list("time_intervals", faults).unwrap_or_default();
        let intervals = parts.into_iter().filter_map(|node| read_interval(node, faults)).collect();
        named.finish(&["name", "time_intervals"], faults);
        out.push((name, intervals));
    }
    out
}

fn read_interval(node: Node, faults: &mut Faults) -> Option<TimeInterval> {
    let mut taker = Taker::new(node, "a time interval", faults)?;
    let mut times = Vec::new();
    for node in taker.list("times", faults).unwrap_or_default() {
        let Some(mut time) = Taker::new(node, "a time", faults) else { continue };
        let place = time.place;
        let minute = |text: Option<(Place, String)>| text.and_then(|(_, text)| read_minute(&text));
        let (start, end) = (minute(time.text("start_time", faults)), minute(time.text("end_time", faults)));
        time.finish(&["start_time", "end_time"], faults);
        match (start, end) {
            (Some(start), Some(end)) if start < end => times.push((start, end)),
            _ => faults.add(place, "a time has `start_time` before `end_time`, as \"09:00\" and \"17:00\""),
        }
    }
    let offset = taker.text("location", faults).and_then(|(place, text)| {
        let offset = read_offset(&text);
        if offset.is_none() {
            faults.add(place, "`location` is UTC or an offset like \"+02:00\"");
        }
        offset
    });
    let interval = TimeInterval {
        times,
        weekdays: ranges(&mut taker, "weekdays", read_weekdays, faults),
        days_of_month: ranges(&mut taker, "days_of_month", read_days_of_month, faults),
        months: ranges(&mut taker, "months", read_months, faults),
        years: ranges(&mut taker, "years", read_years, faults),
        offset: offset.unwrap_or(jiff::tz::Offset::UTC),
    };
    taker.finish(&["times", "weekdays", "days_of_month", "months", "years", "location"], faults);
    Some(interval)
}

fn ranges<T>(taker: &mut Taker, key: &str, read: fn(&str) -> Option<T>, faults: &mut Faults) -> Vec<T> {
    let texts = taker.texts(key, faults).unwrap_or_default();
    texts
        .into_iter()
        .filter_map(|(place, text)| {
            let range = read(&text.to_ascii_lowercase());
            if range.is_none() {
                faults.add(place, format!("`{key}` has a part that is no range: write FROM:TO"));
            }
            range
        })
        .collect()
}
