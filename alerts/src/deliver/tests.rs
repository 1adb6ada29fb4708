//! Deliveries to a real server, which takes, refuses, breaks off and redirects, and by a process that is killed.

mod alertmanager;
mod kill;
mod mail;

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::labels::Labels;
use crate::ledger::Step;
use crate::notify::{ActiveAlert, Notification, Reason};
use crate::outbound::{Network, Policy};
use crate::sign;

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    /// Answers with a status and a body.
    Answer(u16, &'static str),
    /// Reads the request and ends the connection.
    BreakOff,
}

#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    did: Do,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server on a port of its own, for as long as the process lives.
#[derive(Clone)]
struct Hook {
    address: SocketAddr,
    seen: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

impl Hook {
    /// A server that asks a function what to do with its n-th request.
    async fn start(decide: fn(usize, &str) -> Do) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Hook { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let server = hook.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                let service = hyper::service::service_fn(move |request| {
                    let server = server.clone();
                    async move { server.on(request, decide).await }
                });
                // A client that was killed ends its connection with an error.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        hook
    }

    async fn on(
        &self,
        request: Request<Incoming>,
        decide: fn(usize, &str) -> Do,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (parts, body) = request.into_parts();
        // Half of a request is none.
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
        let path = parts.uri.to_string();
        let did = {
            let (seen, changed) = &*self.seen;
            let mut seen = seen.lock().unwrap();
            let did = decide(seen.len(), &path);
            seen.push(Seen { path: path.clone(), headers: parts.headers, body, did });
            changed.notify_all();
            did
        };
        match did {
            Do::Answer(status, text) => Ok(Response::builder()
                .status(status)
                .header("retry-after", if path.starts_with("/status/") { "30" } else { "0" })
                .header("location", "/status/200")
                .body(Full::from(text))
                .unwrap()),
            Do::BreakOff => Err(std::io::Error::other("as told")),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.0.lock().unwrap().clone()
    }

    fn policy(&self) -> Policy {
        Policy {
            networks: vec![Network::read("127.0.0.0/8").unwrap()],
            ports: vec![self.address.port()],
            names: Vec::new(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Says that a test cannot run here; where everything has to run, that is a failure.
fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test} {reason}");
    assert!(
        std::env::var_os("BEEACON_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test}: {reason}"
    );
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_764_187_200 + seconds).unwrap()
}

fn message(receiver: &str, group: &str, number: usize) -> Notification {
    Notification {
        id: format!("msg_{receiver}_{group}_{number}"),
        receiver: receiver.to_owned(),
        group_key: format!("{{}}:{{a=\"{group}\"}}"),
        group_labels: Labels::from_iter([("a", group)]),
        reason: Reason::First,
        alerts: vec![ActiveAlert {
            labels: Labels::from_iter([("alertname", "A"), ("n", &number.to_string())]),
            annotations: Labels::new(),
            starts_at: at(0),
            ends_at: None,
            value: "1".into(),
            generator_url: String::new(),
            event_id: format!("evt_{number}"),
        }],
        at: at(0),
    }
}

/// A courier over a ledger of its own that holds messages.
async fn courier(yaml: &str, policy: Policy, messages: Vec<Notification>) -> (tempfile::TempDir, Courier) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&directory.path().join("alerts.db")).await.unwrap();
    ledger.commit(&Step { messages, ..Step::default() }).await.unwrap();
    let config = Config::read(yaml).unwrap_or_else(|error| panic!("{error}"));
    let sender = Sender::new(policy, None, "http://beeacon").unwrap();
    (directory, Courier::new(Arc::new(ledger), Arc::new(config), Arc::new(sender), Retry::default()))
}

fn by_path(_: usize, path: &str) -> Do {
    match path {
        "/ok" => Do::Answer(200, "ok"),
        "/json" => Do::Answer(200, "{\"ok\":true}"),
        "/sorry" => Do::Answer(200, "no_service"),
        "/break" => Do::BreakOff,
        status => Do::Answer(status.trim_start_matches("/status/").parse().unwrap(), ""),
    }
}

#[tokio::test]
async fn each_answer_ends_a_message_or_brings_it_back_as_it_means() {
    let hook = Hook::start(by_path).await;
    for (kind, path, expected) in [
        ("webhook", "/status/200", (1, 0, 0)),
        ("webhook", "/status/204", (1, 0, 0)),
        ("webhook", "/status/500", (0, 1, 0)),
        ("webhook", "/status/503", (0, 1, 0)),
        ("webhook", "/status/429", (0, 1, 0)),
        ("webhook", "/status/408", (0, 1, 0)),
        ("webhook", "/break", (0, 1, 0)),
        ("webhook", "/status/400", (0, 0, 1)),
        ("webhook", "/status/404", (0, 0, 1)),
        ("webhook", "/status/302", (0, 0, 1)),
        ("teams", "/status/202", (1, 0, 0)),
        ("slack", "/ok", (1, 0, 0)),
        ("slack", "/json", (1, 0, 0)),
        ("slack", "/sorry", (0, 0, 1)),
    ] {
        let yaml = format!(
            "route: {{receiver: a}}\nreceivers: [{{name: a, {kind}: {{url: \"{}\"}}}}]",
            hook.url(path)
        );
        let (_directory, courier) = courier(&yaml, hook.policy(), vec![message("a", "g", 1)]).await;
        let round = courier.round(at(0)).await.unwrap();
        assert_eq!((round.delivered, round.again, round.given_up), expected, "{kind} {path}");
        if expected.1 == 1 {
            let pause = courier.ledger.next_due().await.unwrap().unwrap().duration_since(at(0));
            // The server that answers asks for 30 seconds; one that does not gets the first pause.
            assert_eq!(pause.as_secs() == 30, path != "/break", "{path}: {pause:?}");
            assert_eq!(
                courier.round(at(0)).await.unwrap(),
                Round::default(),
                "it comes back before its time"
            );
        }
    }
    assert!(
        hook.seen().iter().all(|seen| seen.path != "/status/200" || seen.headers.contains_key("webhook-id"))
    );
    assert_eq!(hook.seen().len(), 14, "a redirect was followed");
}

#[tokio::test]
async fn what_is_sent_is_signed_and_holds_for_whoever_knows_the_secret() {
    let hook = Hook::start(by_path).await;
    let yaml = format!(
        r#"
route: {{receiver: plain}}
receivers:
  - {{name: plain, webhook: {{url: "{0}"}}}}
  - {{name: grafana, webhook: {{url: "{0}", body: grafana, signing: grafana, secret: synthetic-secret}}}}
  - {{name: standard, webhook: {{url: "{0}", signing: standard, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}}}
  - {{name: text, webhook: {{url: "{0}", template: "{{{{ status }}}}"}}}}
"#,
        hook.url("/status/200")
    );
    let messages = ["plain", "grafana", "standard", "text", "gone"].map(|name| message(name, "g", 1));
    let (_directory, courier) = courier(&yaml, hook.policy(), messages.into()).await;
    let round = courier.round(at(0)).await.unwrap();
    assert_eq!((round.delivered, round.again, round.given_up), (4, 0, 1));
    let seen = |name: &str| {
        let id = format!("msg_{name}_g_1");
        hook.seen().into_iter().find(|seen| seen.header("webhook-id") == id).unwrap()
    };
    let plain = seen("plain");
    assert_eq!(plain.header("content-type"), "application/json");
    assert!(plain.body.starts_with(b"{\"receiver\":\"plain\",\"status\":\"firing\""));
    let grafana = seen("grafana");
    sign::verify_grafana(
        &["synthetic-secret"],
        at(10),
        grafana.header(sign::GRAFANA_TIMESTAMP_HEADER),
        grafana.header(sign::GRAFANA_HEADER),
        &grafana.body,
    )
    .unwrap();
    let standard = seen("standard");
    sign::verify_standard(
        &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        at(10),
        "msg_standard_g_1",
        standard.header("webhook-timestamp"),
        standard.header("webhook-signature"),
        &standard.body,
    )
    .unwrap();
    let text = seen("text");
    assert_eq!(
        (text.body.as_slice(), text.header("content-type")),
        (&b"firing"[..], "text/plain; charset=utf-8")
    );
}

/// Guarantees: neither an address of the inside nor a name that resolves to one is connected to, and the message waits.
#[tokio::test]
async fn what_the_policy_refuses_is_not_connected_to() {
    let hook = Hook::start(by_path).await;
    let port = hook.address.port();
    for (url, names, networks) in [
        (hook.url("/ok"), vec![], vec![]),
        (format!("http://localhost:{port}/ok"), vec![], vec!["127.0.0.0/8", "::1"]),
        (format!("http://localhost:{port}/ok"), vec!["localhost"], vec![]),
        (format!("http://localhost:{port}/ok"), vec!["localhost"], vec!["10.0.0.0/8"]),
    ] {
        let yaml = format!("route: {{receiver: a}}\nreceivers: [{{name: a, webhook: {{url: \"{url}\"}}}}]");
        let policy = Policy {
            networks: networks.into_iter().map(|text| Network::read(text).unwrap()).collect(),
            ports: vec![port],
            names: names.into_iter().map(str::to_owned).collect(),
        };
        let (_directory, courier) = courier(&yaml, policy, vec![message("a", "g", 1)]).await;
        assert_eq!(courier.round(at(0)).await.unwrap().again, 1, "{url}");
    }
    assert_eq!(hook.seen().len(), 0);
}

/// Guarantees: while the first message of a group waits, the second does; another group does not.
#[tokio::test]
async fn no_message_overtakes_another_of_its_group() {
    let hook = Hook::start(|number, _| Do::Answer(if number < 2 { 500 } else { 200 }, "")).await;
    let yaml =
        format!("route: {{receiver: a}}\nreceivers: [{{name: a, webhook: {{url: \"{}\"}}}}]", hook.url("/"));
    let messages = vec![message("a", "g", 1), message("a", "g", 2), message("a", "h", 3)];
    let (_directory, courier) = courier(&yaml, hook.policy(), messages).await;
    for minute in 0..4 {
        courier.round(at(minute * 60)).await.unwrap();
    }
    let ids: Vec<_> = hook.seen().iter().map(|seen| seen.header("webhook-id").to_owned()).collect();
    let place = |id: &str| ids.iter().rposition(|seen| seen == id).unwrap();
    assert_eq!(ids.len(), 5, "{ids:?}");
    assert!(place("msg_a_g_1") < place("msg_a_g_2"), "{ids:?}");
    assert_eq!(courier.ledger.counts().await.unwrap().delivered, 3);
}
