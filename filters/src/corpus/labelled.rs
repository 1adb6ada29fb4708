//! Lines with labels: which bytes of them are personal data or secrets, and which only look like it.
//!
//! Three kinds: *mixed* is a stream of services' logs with a value now and then; *hard* is made of what confuses filters: nested and
//! escaped JSON, query strings, audit logs, keys over many lines, and beside them hashes, ids, versions and numbers that fail a
//! check by little. Every address, token and key is made up from the seed.

use super::values;
use super::{CLASSES, Dice, LEVELS, WORDS};

/// A value in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where it starts, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// What it is: the name of a maker in `values`.
    pub kind: &'static str,
}

/// A line, without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// What is to be redacted in it.
    pub labels: Vec<Label>,
}

impl Labelled {
    fn say(mut self, text: &str) -> Labelled {
        self.text.push_str(text);
        self
    }

    fn value(mut self, kind: &'static str, value: &str) -> Labelled {
        let start = self.text.len();
        self.text.push_str(value);
        self.labels.push(Label { start, end: self.text.len(), kind });
        self
    }

    fn made(self, dice: &mut Dice, kind: &'static str) -> Labelled {
        let value = values::make(dice, kind);
        self.value(kind, &value)
    }
}

/// Which values stand in what words: kind, text before, text after.
const PLACES: &[(&str, &str, &str)] = &[
    ("email", "user ", " logged in"),
    ("email", "sending mail to ", " now"),
    ("email", "invite sent email=", ""),
    ("email", "customer <", "> not found"),
    ("card", "card ", " declined"),
    ("card", "payment with pan=", " failed"),
    ("card", "charge card number ", " amount 12.99"),
    ("ssn", "applicant ssn ", " verified"),
    ("ssn", "SSN: ", ""),
    ("ssn", "filed under ", " by clerk"),
    ("phone", "sms to ", " delivered"),
    ("phone", "callback phone=", " scheduled"),
    ("iban", "transfer to ", " queued"),
    ("iban", "iban=", " invalid"),
    ("aws_key", "using access key ", ""),
    ("aws_key", "AWS_ACCESS_KEY_ID=", ""),
    ("github", "git clone with ", ""),
    ("github", "remote auth ", " ok"),
    ("jwt", "got id ", ""),
    ("jwt", "session cookie sid=", ""),
    ("slack", "posting with ", ""),
    ("stripe", "payments client ", " ready"),
    ("password", "login failed password=", ""),
    ("password", "config db.passwd=", ""),
    ("password", "secret: ", ""),
    ("password", "api_key=", ""),
    ("password", "refresh_token=", ""),
    ("bearer", "Authorization: Bearer ", ""),
    ("bearer", "auth header bearer ", ""),
    ("google_api", "maps key ", ""),
    ("sendgrid", "mailer using ", ""),
    ("gitlab", "runner registered ", ""),
    ("mac", "device ", " associated"),
    ("ipv6", "peer ", " connected"),
    ("ipv4", "blocked address ", " for abuse"),
];

/// A line of a service, with a value in one of `one_in`.
fn mixed_line(dice: &mut Dice, clock_ms: &mut u64, one_in: u64) -> Labelled {
    *clock_ms += dice.within(0, 50);
    let time = values::time(*clock_ms);
    let line = Labelled::default();
    let planted = dice.within(1, one_in) == 1;
    match dice.within(0, 98) {
        0..=37 => {
            let (path, id) = (values::path(dice), dice.hex(32));
            let tail = format!(
                " - - [20/Nov/2026:{time} +0000] \"GET {path} HTTP/1.1\" {} {} \"-\" \"curl/8.5.0\" 0.{:03} {id}",
                dice.within(200, 504),
                dice.within(0, 90_000),
                dice.within(0, 999)
            );
            let line = line.made(dice, "ipv4").say(&tail);
            if planted { placed(dice, line.say(" "), false) } else { line }
        }
        38..=63 => {
            let head = format!(
                "{{\"ts\":\"2026-11-20T{time}Z\",\"level\":\"{}\",\"logger\":\"com.acme.{}\",\"trace_id\":\"{}\",\"span_id\":\"{}\",\"dd.trace_id\":\"{}\",\"user_id\":{},\"order_id\":\"{}\",\"msg\":\"{}",
                dice.choose(LEVELS),
                dice.choose(CLASSES),
                dice.hex(32),
                dice.hex(16),
                dice.draw() >> 1,
                dice.within(1, 9_999_999),
                dice.digits(16),
                dice.words(4, 10)
            );
            let line = line.say(&head);
            let line = if planted { placed(dice, line.say(" "), true) } else { line };
            line.say(&format!("\",\"epoch\":{clock_ms}}}"))
        }
        64..=87 => {
            let head = format!(
                "ts=2026-11-20T{time}Z level=info component={} pod={}-{}-{} dur={}.{:03}ms bytes={} req_id={} id={} msg=\"{}",
                dice.choose(WORDS),
                dice.choose(WORDS),
                dice.hex(10),
                dice.hex(5),
                dice.within(0, 900),
                dice.within(0, 999),
                dice.within(10, 9_999_999),
                values::uuid(dice),
                dice.within(100_000_000_000, 9_999_999_999_999),
                dice.words(4, 10)
            );
            let line = line.say(&head);
            let line = if planted { placed(dice, line.say(" "), true) } else { line };
            line.say("\"")
        }
        88..=96 => {
            let accent = if dice.within(0, 30) == 0 { " é✓" } else { "" };
            let (node, process) = (dice.within(1, 60), dice.within(100, 99_999));
            let words = dice.words(5, 14);
            let line = line.say(&format!(
                "Nov 20 {time} node-{node:02} kubelet[{process}]: {words} (3.{}.1){accent}",
                node / 3
            ));
            if planted { placed(dice, line.say(" "), false) } else { line }
        }
        _ => {
            let (class, at) = (dice.choose(CLASSES), dice.within(20, 1400));
            line.say(&format!(
                "\tat com.acme.{class}.process({class}.java:{at}) ~[acme-2.{}.1.jar:?]",
                at % 20
            ))
        }
    }
}

/// One of [`PLACES`]. Inside quotes a value ends at a quote.
fn placed(dice: &mut Dice, line: Labelled, is_quoted: bool) -> Labelled {
    let index = usize::try_from(dice.draw() >> 11).unwrap_or(0) % PLACES.len();
    let (kind, before, after) = PLACES.get(index).copied().unwrap_or(("email", "", ""));
    let after = if is_quoted { after.replace('"', "\\\"") } else { after.to_owned() };
    line.say(before).made(dice, kind).say(&after)
}

/// Lines of about `bytes` in all; of `one_in` lines one has a planted value.
pub fn mixed(seed: u64, bytes: usize, one_in: u64) -> Vec<Labelled> {
    let (mut dice, mut clock_ms) = (Dice::new(seed), 1_795_161_600_000);
    let (mut lines, mut sum) = (Vec::new(), 0);
    while sum < bytes {
        let line = mixed_line(&mut dice, &mut clock_ms, one_in);
        sum += line.text.len() + 1;
        lines.push(line);
    }
    lines
}

/// Lines of about `bytes` in all, made to confuse: about half of them hold a value, the others only what looks like one.
pub fn hard(seed: u64, bytes: usize) -> Vec<Labelled> {
    let mut dice = Dice::new(seed);
    let (mut lines, mut sum) = (Vec::new(), 0);
    while sum < bytes {
        let before = lines.len();
        match dice.within(0, 25) {
            0 => key_block(&mut dice, &mut lines),
            kind if kind < 14 => lines.push(hard_value(&mut dice, kind)),
            _ => lines.push(decoy(&mut dice)),
        }
        sum += lines.iter().skip(before).map(|line| line.text.len() + 1).sum::<usize>();
    }
    lines
}

/// A private key as it stands in a log: every line of it is redacted.
fn key_block(dice: &mut Dice, lines: &mut Vec<Labelled>) {
    let kind =
        dice.choose(&["RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "PRIVATE KEY"]).to_owned();
    lines.push(Labelled::default().value("private_key", &format!("-----BEGIN {kind}-----")));
    for _ in 0..dice.within(3, 24) {
        let body = dice.text(values::BASE64, 64);
        lines.push(Labelled::default().value("private_key", &body));
    }
    lines.push(Labelled::default().value("private_key", &format!("-----END {kind}-----")));
}

fn hard_value(dice: &mut Dice, kind: u64) -> Labelled {
    let line = Labelled::default();
    let (id, order) = (values::uuid(dice), dice.digits(16));
    match kind {
        1 => line
            .say(&format!("{{\"event\":\"signup\",\"id\":\"{id}\",\"user\":{{\"contact\":{{\"email\":\""))
            .made(dice, "email")
            .say("\",\"phones\":[\"")
            .made(dice, "phone")
            .say(&format!("\"]}}}},\"items\":[{{\"order_id\":\"{order}\",\"sku\":{}}}]}}", dice.within(1, 99_999))),
        2 => line
            .say("{\"log\":\"{\\\"level\\\":\\\"warn\\\",\\\"password\\\":\\\"")
            .made(dice, "password")
            .say(&format!("\\\",\\\"request\\\":\\\"{id}\\\"}}\",\"stream\":\"stdout\"}}")),
        3 => line
            .say("{\"log\":\"{\\\"card\\\":\\\"")
            .made(dice, "card")
            .say("\\\",\\\"mail\\\":\\\"")
            .made(dice, "email")
            .say("\\\"}\\n\",\"stream\":\"stderr\"}"),
        4 => line
            .say(&format!("GET /oauth/callback?state={id}&access_token="))
            .made(dice, "token")
            .say(&format!("&order={order} HTTP/1.1")),
        5 => line
            .say("POST /login?user=anna&password=")
            .made(dice, "percent_password")
            .say("&next=%2Fhome 302"),
        6 => line
            .say(&format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"{id}\",\"user\":{{\"username\":\""))
            .made(dice, "email")
            .say("\",\"groups\":[\"system:authenticated\"]},\"sourceIPs\":[\"")
            .made(dice, "ipv4")
            .say(&format!("\"],\"objectRef\":{{\"resource\":\"pods\",\"uid\":\"{id}\",\"resourceVersion\":\"{}\"}}}}", dice.digits(9))),
        7 => line
            .say("connecting to postgres://anna:")
            .made(dice, "token")
            .say(&format!("@db{}.internal:5432/app?sslmode=require", dice.within(1, 9))),
        8 => line
            .say("curl -H 'Authorization: Bearer ")
            .made(dice, "jwt")
            .say(&format!("' -H 'X-Request-Id: {id}' https://api.example.org/v1/orders/{order}")),
        9 => line.say("env: DB_PASSWORD=").made(dice, "password").say(" HOME=/root AWS_ACCESS_KEY_ID=").made(dice, "aws_key"),
        10 => line
            .say(&format!("order {order} paid by "))
            .made(dice, "card")
            .say(" holder ")
            .made(dice, "email")
            .say(&format!(" ref {id}")),
        11 => line
            .say("{\"applicant\":{\"ssn\":\"")
            .made(dice, "ssn")
            .say(&format!("\",\"case\":\"{}-{}-{}\"}}}}", dice.digits(4), dice.digits(2), dice.digits(5))),
        12 => line
            .say(&format!("java.lang.IllegalStateException: no account {} for ", order))
            .made(dice, "iban")
            .say(&format!(" in shard {}", dice.within(1, 64))),
        _ => line
            .say("level=warn msg=\"login refused\" client=[")
            .made(dice, "ipv6")
            .say("]:443 device=")
            .made(dice, "mac")
            .say(&format!(" hash={}", dice.hex(40))),
    }
}

/// Nothing to redact here.
fn decoy(dice: &mut Dice) -> Labelled {
    let (id, words) = (values::uuid(dice), dice.words(3, 8));
    let text = match dice.within(0, 19) {
        0 => format!("order {} shipped {words}", dice.digits(16)),
        1 => format!("{{\"order_id\":\"{}\",\"status\":\"{words}\"}}", dice.digits(16)),
        2 => format!("ticket {:03}-{:02}-0000 closed", dice.within(1, 899), dice.within(1, 99)),
        3 => format!("part 000-{:02}-{:04} {words}", dice.within(1, 99), dice.within(1, 9999)),
        4 => format!("batch 666-{:02}-{:04} {words}", dice.within(1, 99), dice.within(1, 9999)),
        5 => format!("serial {:03}-{:02}-{}", dice.within(1, 899), dice.within(1, 99), dice.digits(5)),
        6 => format!("commit {} by ci, tree {}", dice.hex(40), dice.hex(40)),
        7 => format!("image registry.example.org/app@sha256:{} pulled", dice.hex(64)),
        8 => format!("md5 {} etag \"{}\" {words}", dice.hex(32), dice.hex(32)),
        9 => format!("request {id} parent {} took {}ms", values::uuid(dice), dice.within(1, 9_999)),
        10 => format!(
            "version 10.0.{}.{} of kernel 6.{}.{}",
            dice.within(300, 22_000),
            dice.within(1, 4000),
            dice.within(0, 20),
            dice.within(0, 20)
        ),
        11 => format!(
            "at 2026-11-20 {}: {words} after 1795161{}",
            values::time(dice.draw() >> 30),
            dice.digits(6)
        ),
        12 => format!(
            "\tat com.acme.{}.run({}.java:{}) [app.jar!/:{}.{}.{}]",
            dice.choose(CLASSES),
            dice.choose(CLASSES),
            dice.within(1, 2000),
            dice.within(0, 9),
            dice.within(0, 30),
            dice.within(0, 9)
        ),
        13 => format!("token expired for {words}, secret rotated, password policy ok"),
        14 => format!(
            "{{\"uid\":\"{id}\",\"resourceVersion\":\"{}\",\"generation\":{},\"hash\":\"{}\"}}",
            dice.digits(10),
            dice.within(1, 99),
            dice.hex(10)
        ),
        15 => format!("std::vec::Vec<u8> at {}::{}::run {words}", dice.choose(WORDS), dice.choose(WORDS)),
        16 => format!("range {}-{} of {}", dice.digits(6), dice.digits(7), dice.digits(8)),
        17 => format!(
            "lat=0.{} load={}.{} rss={}KiB gc={}.{}%",
            dice.digits(3),
            dice.within(0, 9),
            dice.digits(2),
            dice.digits(6),
            dice.within(0, 9),
            dice.within(0, 99)
        ),
        18 => {
            format!("max_tokens=4096 token_count={} key_size=256 secret_name=orders-db", dice.within(1, 9000))
        }
        _ => format!("0x{} -> 0x{} {words}", dice.hex(16), dice.hex(12)),
    };
    Labelled { text, labels: Vec::new() }
}
