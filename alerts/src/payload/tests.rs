//! The golden files are `alerts/golden/*.json`. `alertmanager.json` is the body that Alertmanager 0.25 sent for this alert.

use jiff::Timestamp;

use super::*;
use crate::labels::Labels;
use crate::notify::config::{Config, Secret, Signing, Webhook};
use crate::notify::{ActiveAlert, Reason};

fn alert(labels: &[(&str, &str)], summary: &str, ended: bool) -> ActiveAlert {
    ActiveAlert {
        labels: labels.iter().copied().collect(),
        annotations: Labels::from_iter([("summary", summary)]),
        starts_at: "2026-11-20T09:23:33.481504475Z".parse().unwrap(),
        ends_at: ended.then(|| "2026-11-20T09:30:00.5Z".parse().unwrap()),
        value: "7".into(),
        generator_url: "http://beeacon/x".into(),
        event_id: "evt_1".into(),
    }
}

fn notification(alerts: Vec<ActiveAlert>) -> Notification {
    Notification {
        id: "msg_0123".into(),
        receiver: "hook".into(),
        group_key: "{}:{alertname=\"PiiLeak\"}".into(),
        group_labels: Labels::from_iter([("alertname", "PiiLeak")]),
        reason: Reason::First,
        alerts,
        at: Timestamp::from_second(1_795_166_613).unwrap(),
    }
}

fn receiver(kind: ReceiverKind) -> Receiver {
    Receiver { name: "hook".into(), kind, send_resolved: true }
}

fn webhook(body: WebhookBody, max_alerts: usize) -> Receiver {
    receiver(ReceiverKind::Webhook(Webhook {
        url: Secret::new("https://example.com/"),
        body,
        max_alerts,
        signing: Signing::None,
    }))
}

fn made(receiver: &Receiver, notification: &Notification) -> String {
    String::from_utf8(body(receiver, notification, "http://vm:19912").unwrap().unwrap()).unwrap()
}

fn critical() -> ActiveAlert {
    alert(&[("alertname", "PiiLeak"), ("host", "a"), ("severity", "critical")], "x", false)
}

/// One alert of every odd kind: markup of HTML, Slack, Markdown and terminals, and quotes.
fn hostile() -> Notification {
    let first = alert(
        &[("alertname", "PiiLeak"), ("service", "<script>alert(1)</script>&\"'")],
        "=cmd|' /C calc'!A0 <@channel> [x](http://evil.example) {{ 7*7 }} \u{2028}",
        false,
    );
    let second = alert(&[("alertname", "PiiLeak"), ("service", "b")], "fine", true);
    notification(vec![first, second])
}

#[test]
fn the_body_is_alertmanagers_byte_for_byte() {
    let two = notification(vec![critical(), critical()]);
    assert_eq!(
        made(&webhook(WebhookBody::Alertmanager, 1), &two),
        include_str!("../../golden/alertmanager.json")
    );
}

#[test]
fn every_format_is_that_of_its_golden_file() {
    let slack =
        ReceiverKind::Slack { url: Secret::new("https://example.com/"), channel: Some("#alerts".into()) };
    let teams = ReceiverKind::Teams { url: Secret::new("https://example.com/") };
    let pagerduty = ReceiverKind::PagerDuty {
        url: "https://example.com/".into(),
        routing_key: Secret::new("synthetic-key"),
    };
    let template = "{{ status }} {{ alerts|length }} {{ commonLabels.alertname }}: {{ alerts[0].annotations.summary|tojson }}";
    for (name, receiver, golden) in [
        (
            "alertmanager",
            webhook(WebhookBody::Alertmanager, 0),
            include_str!("../../golden/hostile-alertmanager.json"),
        ),
        ("grafana", webhook(WebhookBody::Grafana, 0), include_str!("../../golden/hostile-grafana.json")),
        ("slack", receiver(slack), include_str!("../../golden/hostile-slack.json")),
        ("teams", receiver(teams), include_str!("../../golden/hostile-teams.json")),
        ("pagerduty", receiver(pagerduty), include_str!("../../golden/hostile-pagerduty.json")),
        (
            "template",
            webhook(WebhookBody::Template(template.into()), 0),
            include_str!("../../golden/hostile-template.txt"),
        ),
    ] {
        let made = made(&receiver, &hostile());
        if let Ok(folder) = std::env::var("BEEACON_WRITE_GOLDEN") {
            let end = if name == "template" { "txt" } else { "json" };
            std::fs::write(format!("{folder}/hostile-{name}.{end}"), &made).unwrap();
            continue;
        }
        assert_eq!(made, golden, "{name}");
        if name != "template" {
            serde_json::from_str::<serde_json::Value>(&made).unwrap();
            assert!(!made.contains('<') && !made.contains('\u{2028}'), "{name}");
        }
    }
}

#[test]
fn an_ended_group_resolves_its_incident_with_the_same_key() {
    let kind = ReceiverKind::PagerDuty { url: String::new(), routing_key: Secret::new("synthetic-key") };
    let event = |alerts| -> serde_json::Value {
        serde_json::from_str(&made(&receiver(kind.clone()), &notification(alerts))).unwrap()
    };
    let trigger = event(vec![critical()]);
    let resolve = event(vec![ActiveAlert { ends_at: Some(Timestamp::UNIX_EPOCH), ..critical() }]);
    assert_eq!(
        (trigger["event_action"].as_str(), resolve["event_action"].as_str()),
        (Some("trigger"), Some("resolve"))
    );
    assert_eq!(trigger["dedup_key"], resolve["dedup_key"]);
}

#[test]
fn a_body_is_never_longer_than_its_limit_and_says_what_it_leaves_out() {
    let long = "x".repeat(4_000);
    let alerts: Vec<_> = (0..1_000)
        .map(|number| alert(&[("alertname", "PiiLeak"), ("n", &number.to_string())], &long, false))
        .collect();
    let many = notification(alerts);
    let body = made(&webhook(WebhookBody::Alertmanager, 0), &many);
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    let told = value["alerts"].as_array().unwrap().len();
    assert!(body.len() <= BODY_BYTES_MAX && told > 50);
    assert_eq!(value["truncatedAlerts"].as_u64(), Some(1_000 - u64::try_from(told).unwrap()));
}

#[test]
fn a_template_that_fails_says_where_and_shows_nothing_of_an_alert() {
    for source in [
        "{{ nothing.there }}",
        "{% for a in range(100000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}",
        "{{ alerts[0].labels.alertname|nofilter }}",
    ] {
        let error = body(&webhook(WebhookBody::Template(source.into()), 0), &hostile(), "").unwrap_err();
        assert!(error.to_string().contains("failed in line 1"), "{error}");
        assert!(!error.to_string().contains("script"));
    }
    assert!(template::check("{% if %}").is_err());
    assert!(template::check("{% include 'x' %}").is_err(), "a template reads no other");
    assert!(
        body(&webhook(WebhookBody::Template("{% include '/etc/passwd' %}".into()), 0), &hostile(), "")
            .is_err()
    );
}

#[test]
fn nobody_is_sent_nothing() {
    assert_eq!(body(&receiver(ReceiverKind::Nobody), &hostile(), ""), Ok(None));
    assert!(Config::read("route: {receiver: a}\nreceivers: [{name: a}]").is_ok());
}
