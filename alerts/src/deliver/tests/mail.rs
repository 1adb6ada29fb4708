//! Mail to a real server, Python's aiosmtpd, in every way it can be guarded.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::*;
use crate::deliver::send::{Outcome, Sender};
use crate::notify::config::Receiver;

#[path = "../../../../tests/shared/certificates.rs"]
mod certificates;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/deliver/tests/mail_server.py");
/// Debian's, which has Debian's aiosmtpd.
const PYTHON: &str = "/usr/bin/python3";

struct MailServer {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
    directory: tempfile::TempDir,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl MailServer {
    /// A server in a mode of the script; none when this machine has not what it needs.
    fn start(test: &str, mode: &str) -> Option<MailServer> {
        let has = |program: &str, arguments: &[&str]| {
            let quiet =
                Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
            quiet.is_ok_and(|status| status.success())
        };
        if !has(PYTHON, &["-c", "import aiosmtpd"]) || !has("openssl", &["version"]) {
            skip(test, "openssl or python3-aiosmtpd is not there");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        certificates::make(directory.path(), "mail", "DNS:localhost,IP:127.0.0.1", None);
        let mut child = Command::new(PYTHON)
            .args(["-W", "ignore", SERVER, mode])
            .args((mode != "plain").then(|| file("mail.crt")))
            .args((mode != "plain").then(|| file("mail.key")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it says about handshakes that are meant to fail.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        Some(MailServer { child, lines, port: port.trim().parse().unwrap(), directory })
    }

    /// What it says next: a mail.
    fn said(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn sender(&self, trusts: bool) -> Sender {
        let policy = Policy {
            networks: vec![Network::read("127.0.0.0/8").unwrap(), Network::read("::1").unwrap()],
            ports: vec![self.port],
            names: vec!["localhost".into()],
        };
        let certificate = self.directory.path().join("mail.crt");
        Sender::new(policy, trusts.then_some(Path::new(&certificate)), "http://beeacon").unwrap()
    }

    fn receiver(&self, rest: &str) -> Receiver {
        receiver(&format!("smarthost: \"localhost:{}\", {rest}", self.port))
    }
}

fn receiver(rest: &str) -> Receiver {
    let yaml = format!(
        "route: {{receiver: a}}\nreceivers: [{{name: a, email: {{from: Beeacon <bee@example.org>, {rest}}}}}]"
    );
    Config::read(&yaml).unwrap_or_else(|error| panic!("{error}")).receivers.remove(0)
}

async fn sent(sender: &Sender, receiver: &Receiver) -> Outcome {
    sender.send(receiver, &message("a", "g", 1), at(0)).await
}

fn header<'a>(mail: &'a str, name: &str) -> Vec<&'a str> {
    let head = mail.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// Guarantees: a mail arrives over each kind of connection, to whoever is not refused, and a second sending of the same
/// message is the same mail.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_arrives_over_every_kind_of_connection_and_its_repeat_is_the_same() {
    for (mode, rest) in [
        ("plain", "to: [ops@example.org], tls: none"),
        ("starttls", "to: [ops@example.org, never@example.org]"),
        ("tls", "to: [ops@example.org], tls: tls"),
        ("login", "to: [ops@example.org], auth_username: bee, auth_password: honey"),
    ] {
        let Some(mut server) = MailServer::start("mail", mode) else { return };
        let (sender, receiver) = (server.sender(mode != "plain"), server.receiver(rest));
        assert_eq!(sent(&sender, &receiver).await, Outcome::Delivered, "{mode}");
        let first = server.said();
        let mail = first["mail"].as_str().unwrap();
        assert_eq!(first["to"], serde_json::json!(["ops@example.org"]), "{mode}");
        assert_eq!(first["tls"], Value::from(matches!(mode, "starttls" | "login")), "{mode}");
        assert_eq!(first["user"].as_str(), (mode == "login").then_some("bee"));
        assert_eq!(header(mail, "Subject"), ["[FIRING:1] g (A 1)"], "{mail}");
        assert_eq!(header(mail, "Message-ID"), ["<msg_a_g_1@example.org>"]);
        assert_eq!(header(mail, "Auto-Submitted"), ["auto-generated"]);
        assert_eq!(sent(&sender, &receiver).await, Outcome::Delivered, "{mode}");
        assert_eq!(server.said(), first, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_ends_a_mail_or_brings_it_back_as_it_means() {
    let Some(server) = MailServer::start("mail", "login") else { return };
    let sender = server.sender(true);
    for (rest, expected) in [
        // Nobody is left.
        ("to: [never@example.org], auth_username: bee, auth_password: honey", "never: took none"),
        // One is refused for now: nobody gets it yet.
        (
            "to: [ops@example.org, later@example.org], auth_username: bee, auth_password: honey",
            "again: answered 451",
        ),
        ("to: [ops@example.org], auth_username: bee, auth_password: wrong", "never: answered 535"),
        ("to: [ops@example.org]", "never: answered 530"),
    ] {
        let outcome = match sent(&sender, &server.receiver(rest)).await {
            Outcome::Delivered => "delivered".to_owned(),
            Outcome::Again { why, .. } => format!("again: {why}"),
            Outcome::Never(why) => format!("never: {why}"),
        };
        let (kind, text) = expected.split_once(": ").unwrap();
        assert!(outcome.starts_with(kind) && outcome.contains(text), "{rest}: {outcome}");
        assert!(!outcome.contains("honey") && !outcome.contains("wrong"), "{outcome}");
    }
}

/// Guarantees: neither a certificate that is not trusted, nor a server without TLS, nor one that is not on this host gets a mail.
#[tokio::test(flavor = "multi_thread")]
async fn no_mail_goes_where_its_way_is_not_guarded() {
    let Some(server) = MailServer::start("mail", "starttls") else { return };
    let to = "to: [ops@example.org]";
    for (sender, receiver, word) in [
        (server.sender(false), server.receiver(to), "no TLS with localhost"),
        // TLS from the first byte, which this server does not speak.
        (server.sender(true), server.receiver(&format!("{to}, tls: tls")), "no TLS with localhost"),
    ] {
        let Outcome::Again { why, .. } = sent(&sender, &receiver).await else { panic!() };
        assert!(why.contains(word), "{why}");
    }
    let Some(plain) = MailServer::start("mail", "plain") else { return };
    let Outcome::Again { why, .. } = sent(&plain.sender(false), &plain.receiver(to)).await else { panic!() };
    assert!(why.contains("has no STARTTLS"), "{why}");
    let Outcome::Again { why, .. } = Sender::new(Policy::default(), None, "")
        .unwrap()
        .send(&receiver(&format!("{to}, smarthost: \"10.0.0.1:587\"")), &message("a", "g", 1), at(0))
        .await
    else {
        panic!()
    };
    assert!(why.contains("is not public"), "{why}");
    let refused = Config::read(
        "route: {receiver: a}\nreceivers: [{name: a, email: {from: a@b.example, to: [c@d.example], tls: none, smarthost: \"mx.example.org:25\"}}]",
    );
    assert!(refused.unwrap_err().to_string().contains("on this host"));
}

/// Guarantees: an answer that somebody puts behind the consent to STARTTLS, in the clear, is not taken for one of the guarded
/// server; TLS ends over it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_slipped_in_before_tls_ends_the_exchange() {
    let Some(mut server) = MailServer::start("mail", "inject") else { return };
    let receiver = server.receiver("to: [ops@example.org], auth_username: bee, auth_password: honey");
    assert!(matches!(sent(&server.sender(true), &receiver).await, Outcome::Again { .. }));
    let said = server.said();
    assert!(said.get("broken").is_some(), "{said}");
}
