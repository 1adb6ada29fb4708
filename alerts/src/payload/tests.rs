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

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Injection {
    kind: String,
    text: String,
}

#[derive(serde::Deserialize)]
struct Injections {
    payload: Vec<Injection>,
}

fn injections() -> Vec<Injection> {
    let read: Injections = toml::from_str(include_str!("../../data/injection.toml")).unwrap();
    assert!(read.payload.len() >= 100, "there are only {}", read.payload.len());
    read.payload
}

fn email() -> Receiver {
    let yaml = "route: {receiver: hook}\nreceivers: [{name: hook, email: {to: [ops@example.org, Öps <o@example.org>], \
                from: Beeacon <bee@example.org>, smarthost: \"mx.example.org:25\"}}]";
    Config::read(yaml).unwrap_or_else(|error| panic!("{error}")).receivers.remove(0)
}

/// The parts of a mail: its head, and both texts out of quoted-printable.
fn parts(mail: &str) -> (String, String, String) {
    let (head, rest) = mail.split_once("\r\n\r\n").unwrap();
    let parts: Vec<&str> = rest.split("--=_msg_0123").collect();
    assert_eq!(parts.len(), 4, "a mail has two parts: {mail}");
    let text = |part: &str| {
        let (head, body) = part.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("quoted-printable"), "{head}");
        let (body, mut out) = (body.replace("=\r\n", ""), Vec::new());
        let mut bytes = body.bytes();
        while let Some(byte) = bytes.next() {
            let mut digit = || char::from(bytes.next().unwrap()).to_digit(16).unwrap();
            out.push(if byte == b'=' { u8::try_from(digit() * 16 + digit()).unwrap() } else { byte });
        }
        String::from_utf8(out).unwrap()
    };
    (head.replace("\r\n ", " "), text(parts[1]), text(parts[2]))
}

/// What a terminal, a header or a CSV reader would obey: control characters other than those of plain text.
fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// Guarantees: whatever a label and a text hold, they are data in every format: JSON gives them back as they were or without
/// control characters, a chat's markup is escaped, HTML has no tag of theirs, no template runs them, and a mail has the headers
/// and parts it always has.
#[test]
fn what_a_line_holds_is_data_in_every_format() {
    let tags = |html: &str| html.matches('<').count();
    let harmless = notification(vec![alert(&[("alertname", "PiiLeak"), ("service", "x")], "x", false)]);
    let (_, _, expected_html) = parts(&made(&email(), &harmless));
    for Injection { kind, text } in injections() {
        let alert = alert(&[("alertname", "PiiLeak"), ("service", &text), (&text, "x")], &text, false);
        let mut hostile = notification(vec![alert]);
        hostile.group_labels.set("service", text.clone());
        for body in [WebhookBody::Alertmanager, WebhookBody::Grafana] {
            let made = made(&webhook(body, 0), &hostile);
            assert!(!has_control(&made) && !made.contains('<'), "{kind} {text:?}: {made}");
            let value: serde_json::Value = serde_json::from_str(&made).unwrap();
            assert_eq!(value["alerts"][0]["labels"]["service"], text.as_str(), "{kind}");
        }
        let pushed = push::bodies(&hostile.alerts, std::time::Duration::from_secs(60), hostile.at).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&pushed[0]).unwrap();
        assert_eq!(value[0]["annotations"]["summary"], text.as_str(), "{kind}");

        let url = || Secret::new("https://example.com/");
        for (name, receiver, marks) in [
            ("slack", ReceiverKind::Slack { url: url(), channel: None }, "<>"),
            ("teams", ReceiverKind::Teams { url: url() }, ""),
            ("pagerduty", ReceiverKind::PagerDuty { url: String::new(), routing_key: url() }, ""),
        ] {
            let made = made(&super::tests::receiver(receiver), &hostile);
            let value: serde_json::Value = serde_json::from_str(&made).unwrap();
            for shown in texts(&value) {
                assert!(!has_control(&shown), "{name}: {kind} {text:?}: {shown:?}");
                assert!(!shown.contains(|c| marks.contains(c)), "{name}: {kind} {text:?}: {shown:?}");
            }
        }
        let template = "{{ alerts[0].labels.service }}|{{ alerts[0].annotations.summary }}";
        let made_text = made(&webhook(WebhookBody::Template(template.into()), 0), &hostile);
        let plain = crate::template::plain(&text);
        assert_eq!(made_text, format!("{plain}|{plain}"), "{kind}");

        let mail = made(&email(), &hostile);
        assert!(mail.is_ascii() && !has_control(&mail), "{kind} {text:?}: {mail:?}");
        let (head, shown, html) = parts(&mail);
        let names: Vec<&str> = head.split("\r\n").map(|line| line.split_once(": ").unwrap().0).collect();
        let expected = [
            "From",
            "Subject",
            "Date",
            "Message-ID",
            "References",
            "Auto-Submitted",
            "X-Beeacon-Message",
            "To",
            "MIME-Version",
            "Content-Type",
        ];
        assert_eq!(names, expected, "{kind} {text:?}");
        assert!(!has_control(&shown) && !has_control(&html), "{kind} {text:?}: {shown:?}");
        assert!(
            shown.replace("\r\n", "\n").contains(&plain.replace("\r\n", "\n")),
            "{kind} {text:?}: {shown:?}"
        );
        // The label that is named by the text is a row more: three tags and their ends.
        assert_eq!(tags(&html), tags(&expected_html) + 6, "{kind} {text:?}: {html}");
    }
}

/// All texts in a value.
fn texts(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::String(text) => vec![text.clone()],
        serde_json::Value::Array(values) => values.iter().flat_map(texts).collect(),
        serde_json::Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_mail_is_that_of_its_golden_file() {
    let made = made(&email(), &hostile());
    if let Ok(folder) = std::env::var("BEEACON_WRITE_GOLDEN") {
        std::fs::write(format!("{folder}/hostile-mail.eml"), &made).unwrap();
        return;
    }
    assert_eq!(made, include_str!("../../golden/hostile-mail.eml"));
}

/// Guarantees: what is pushed ends four resends after it is sent, whenever the message was made; what ended has its end; no
/// label is lost to a name that Alertmanager would refuse.
#[test]
fn what_an_alertmanager_is_told_ends_by_itself_unless_it_is_told_again() {
    let mut ended = critical();
    ended.ends_at = Some("2026-11-20T09:30:00.5Z".parse().unwrap());
    ended.labels.set("a.b", "1");
    ended.labels.set("a_b", "2");
    ended.labels.set("1x", "3");
    ended.generator_url.clear();
    let now = "2026-11-20T12:00:00Z".parse().unwrap();
    let bodies = push::bodies(&[critical(), ended], std::time::Duration::from_secs(60), now).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&bodies[0]).unwrap();
    assert_eq!(value[0]["startsAt"], "2026-11-20T09:23:33.481504475Z");
    assert_eq!(value[0]["endsAt"], "2026-11-20T12:04:00Z");
    assert_eq!(value[1]["endsAt"], "2026-11-20T09:30:00.5Z");
    assert_eq!((&value[1]["labels"]["a_b"], &value[1]["labels"]["_1x"]), (&"2".into(), &"3".into()));
    assert_eq!(value[1].get("generatorURL"), None);
    let many: Vec<_> = (0..130).map(|_| critical()).collect();
    assert_eq!(push::bodies(&many, std::time::Duration::from_secs(60), now).unwrap().len(), 3);
}
