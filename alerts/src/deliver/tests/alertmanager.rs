//! Pushes to a real Alertmanager, Debian's, asked by its own amtool.

use std::net::TcpListener as StdListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::notify::Notifier;
use crate::state::{Alert, Change, Phase, Transition};

/// How long the server may take to start, or to see an alert.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    async fn start() -> Option<Server> {
        let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !has("prometheus-alertmanager") || !has("amtool") {
            skip("alertmanager", "prometheus-alertmanager is not there");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, port, _directory: directory };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "Alertmanager does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(server)
    }

    /// The alerts that fire there, as amtool tells them.
    fn alerts(&self) -> Vec<Value> {
        let output = Command::new("amtool")
            .arg(format!("--alertmanager.url=http://127.0.0.1:{}", self.port))
            .args(["alert", "query", "--output=json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Option<Vec<Value>>>(&output.stdout).unwrap().unwrap_or_default()
    }

    /// Waits until so many fire.
    async fn alerts_until(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let alerts = self.alerts();
            if alerts.len() == count {
                return alerts;
            }
            assert!(Instant::now() < deadline, "{} alerts fire, not {count}", alerts.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn yaml(&self, resend: &str) -> String {
        format!(
            "route: {{receiver: am, group_by: [alertname], group_wait: 10m}}\n\
             receivers: [{{name: am, alertmanager: {{url: \"http://127.0.0.1:{}/\", resend: {resend}}}}}]",
            self.port
        )
    }

    fn policy(&self) -> Policy {
        Policy {
            networks: vec![Network::read("127.0.0.1").unwrap()],
            ports: vec![self.port],
            names: Vec::new(),
        }
    }
}

fn transition(number: usize, change: Change, now: Timestamp, began: Timestamp) -> Transition {
    let labels = Labels::from_iter([("alertname", "Leak"), ("service.name", &format!("s{number}"))]);
    Transition {
        event_id: format!("evt_{number}_{}", change as u8),
        alert: Alert {
            labels,
            annotations: Labels::from_iter([("summary", "<b>& \"x\"")]),
            phase: if change == Change::Firing { Phase::Firing } else { Phase::Resolved },
            value: 1.0,
            active_at: began,
            fired_at: Some(began),
            kept_since: None,
            resolved_at: None,
        },
        change,
        at: now,
    }
}

/// Guarantees: what fires here fires there, with its start, at once and whatever the route waits for; it lasts while it is sent
/// again, its end there is its end here, and what is not sent again ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_end_in_a_real_alertmanager_as_they_do_here() {
    let Some(server) = Server::start().await else { return };
    let (_directory, courier) = courier(&server.yaml("2s"), server.policy(), Vec::new()).await;
    let began = Timestamp::now() - jiff::SignedDuration::from_secs(30);
    let mut notifier = Notifier::new((*courier.config()).clone(), Default::default(), began);
    // More than one request takes.
    let fires: Vec<_> = (0..100).map(|number| transition(number, Change::Firing, began, began)).collect();
    notifier.on(began, "http://beeacon/rules", &fires);
    let say = async |notifier: &mut Notifier, now: Timestamp| {
        let messages = notifier.tick(now);
        let step = Step { messages: messages.clone(), ..Step::default() };
        courier.ledger.commit(&step).await.unwrap();
        // Delivery's own clock is the present: what fires ends by it, not by when the message was made.
        while courier.round(Timestamp::now()).await.unwrap().delivered > 0 {}
        messages.len()
    };
    assert_eq!(say(&mut notifier, began).await, 1);
    let alerts = server.alerts_until(100).await;
    let one = &alerts[0];
    assert_eq!(one["labels"]["service_name"].as_str().map(|name| name.starts_with('s')), Some(true), "{one}");
    assert_eq!(one["annotations"]["summary"], "<b>& \"x\"");
    assert_eq!(one["generatorURL"], "http://beeacon/rules");
    let starts_at: Timestamp = one["startsAt"].as_str().unwrap().parse().unwrap();
    assert!((starts_at - began).get_milliseconds().abs() <= 1, "{starts_at} {began}");

    // One ends, and is told within the look interval; the others end by themselves after eight seconds without a resend.
    let ended = began + jiff::SignedDuration::from_secs(10);
    notifier.on(ended, "", &[transition(7, Change::Resolved, ended, began)]);
    assert_eq!(say(&mut notifier, ended).await, 1);
    let alerts = server.alerts_until(99).await;
    assert!(alerts.iter().all(|alert| alert["labels"]["service_name"] != "s7"));
    server.alerts_until(0).await;
    // They still fire here: the next resend has them back.
    assert_eq!(say(&mut notifier, ended + jiff::SignedDuration::from_secs(3)).await, 1);
    server.alerts_until(99).await;
}

/// Guarantees: while Alertmanager is away its messages wait, and the repeats in between are not told a hundred times.
#[tokio::test]
async fn an_alertmanager_that_was_away_is_told_once_what_holds_now() {
    let Some(server) = Server::start().await else { return };
    let (_directory, courier) = courier(&server.yaml("1s"), server.policy(), Vec::new()).await;
    let port = server.port;
    drop(server);
    let mut notifier = Notifier::new((*courier.config()).clone(), Default::default(), at(0));
    notifier.on(at(0), "", &[transition(1, Change::Firing, at(0), at(0))]);
    for second in 0..60 {
        let step = Step { messages: notifier.tick(at(second)), ..Step::default() };
        assert_eq!(step.messages.len(), 1, "there is a resend each second");
        courier.ledger.commit(&step).await.unwrap();
        courier.round(at(second)).await.unwrap();
    }
    let counts = courier.ledger.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.delivered), (1, 0), "on port {port}");
}
