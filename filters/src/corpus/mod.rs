//! A deterministic mixed corpus for benches and tests: web server, JSON, key=value, system and Java lines, with an item that a rule
//! finds in about one of sixty lines. Not part of the crate's interface.
//!
//! Digits are many on purpose (times, ids, latencies): they are what makes such text hard to scan.

pub mod labelled;
pub mod score;
mod values;

use std::fmt::Write;

const WORDS: &[&str] = &[
    "order",
    "user",
    "service",
    "cache",
    "request",
    "timeout",
    "retry",
    "connection",
    "pool",
    "payment",
    "gateway",
    "session",
    "upstream",
    "worker",
    "queue",
    "message",
    "consumer",
    "offset",
    "partition",
    "leader",
    "replica",
    "shard",
    "index",
    "commit",
    "rollback",
    "batch",
    "token",
    "expired",
    "refresh",
    "config",
    "deploy",
    "node",
    "container",
    "limit",
    "exceeded",
    "disk",
    "latency",
    "slow",
    "query",
    "rows",
    "lookup",
    "evicted",
];
/// Pieces that make text slow to scan where they stand over and over, with their names: each looks like the beginning of something.
pub const SLOW: [(&str, &str); 10] = [
    ("digits", "1234567890"),
    ("card prefixes", "4539 1488 0343 646 "),
    ("dots and digits", "1.2.3."),
    ("colons and digits", "a:1:b:2:"),
    ("at signs", "a@b."),
    ("token starts", "eyJhbGci.eyJ-"),
    ("keys without values", "password= token: "),
    ("long words", "abcdefghijklmnop"),
    ("dashes and digits", "123-45-678-"),
    ("user addresses", "http://a:b "),
];

/// Lines of `line_bytes` bytes in which a piece of ASCII stands over and over, about `bytes` bytes together and one line at least.
pub fn slow(piece: &str, line_bytes: usize, bytes: usize) -> String {
    let line: String = piece.chars().cycle().take(line_bytes).chain(['\n']).collect();
    line.repeat((bytes / line_bytes).max(1))
}

const PATHS: &[&str] =
    &["/", "/api/v1/orders/", "/api/v2/search?page=", "/static/app.", "/healthz", "/cart/add?sku="];
const AGENTS: &[&str] = &[
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "curl/8.5.0",
    "kube-probe/1.29",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
];
const CLASSES: &[&str] =
    &["OrderService", "PaymentClient", "DispatcherServlet", "KafkaConsumer", "HikariPool"];
const LEVELS: &[&str] = &["INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"];

/// A small generator of numbers (xorshift with a multiplier): the same seed gives the same corpus everywhere.
pub struct Dice(u64);

impl Dice {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `from..=to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + (self.draw() >> 11) % (to - from + 1)
    }

    fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.draw() >> 11).unwrap_or(0) % from.len().max(1);
        from.get(at).copied().unwrap_or("")
    }

    /// Characters from an alphabet.
    pub fn text(&mut self, alphabet: &str, count: usize) -> String {
        let characters: Vec<char> = alphabet.chars().collect();
        let draw = |dice: &mut Dice| {
            let at = usize::try_from(dice.draw() >> 11).unwrap_or(0) % characters.len().max(1);
            characters.get(at).copied().unwrap_or('x')
        };
        (0..count).map(|_| draw(self)).collect()
    }

    fn hex(&mut self, count: usize) -> String {
        self.text("0123456789abcdef", count)
    }

    fn digits(&mut self, count: usize) -> String {
        self.text("0123456789", count)
    }

    fn words(&mut self, from: u64, to: u64) -> String {
        let count = self.within(from, to);
        (0..count).map(|_| self.choose(WORDS)).collect::<Vec<_>>().join(" ")
    }
}

const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The digits of a number with its Luhn digit.
pub fn with_luhn_digit(digits: &str) -> String {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let value = u32::from(byte - b'0');
            if at % 2 == 0 { if value > 4 { value * 2 - 9 } else { value * 2 } } else { value }
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

/// Something that a rule finds, in the words around it; and the value itself.
pub fn planted(dice: &mut Dice) -> (String, String) {
    let (around, value) = match dice.within(0, 13) {
        0..=2 => ("user {} logged in", format!("{}.{}@example.org", dice.choose(WORDS), dice.within(1, 99))),
        3 => ("card {} declined", with_luhn_digit(&format!("4{}", dice.digits(14)))),
        4 => (
            "applicant ssn {} verified",
            format!("{:03}-{:02}-{:04}", dice.within(1, 665), dice.within(1, 99), dice.within(1, 9999)),
        ),
        5 => ("sms to {} delivered", format!("+49151{}", dice.digits(8))),
        6 => ("using access key {}", format!("AKIA{}", dice.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16))),
        7 => ("git clone with {}", format!("ghp_{}", dice.text(LETTERS, 36))),
        8 => ("login failed password={}", dice.text(LETTERS, 14)),
        9 => ("Authorization: Bearer {}", dice.text(LETTERS, 40)),
        10 => ("connecting to postgres://anna:{}@db1.internal:5432/app", dice.text(LETTERS, 12)),
        11 => ("device {} associated", (0..6).map(|_| dice.hex(2)).collect::<Vec<_>>().join(":")),
        12 => ("peer {} connected", format!("2001:db8:{}::{}:1f", dice.hex(4), dice.hex(4))),
        _ => (
            "got {}",
            format!("eyJ{}.eyJ{}.{}", dice.text(LETTERS, 30), dice.text(LETTERS, 60), dice.text(LETTERS, 43)),
        ),
    };
    (around.replace("{}", &value), value)
}

/// One line, without its end.
pub fn line(dice: &mut Dice, clock_ms: &mut u64) -> String {
    *clock_ms += dice.within(0, 50);
    let (second, millisecond) = (*clock_ms / 1000, *clock_ms % 1000);
    let time = format!("{:02}:{:02}:{:02}", second / 3600 % 24, second / 60 % 60, second % 60);
    let tail = if dice.within(0, 62) == 0 { format!(" {}", planted(dice).0) } else { String::new() };
    let mut out = String::new();
    let kind = dice.within(0, 98);
    let written = match kind {
        0..=37 => {
            let address = [223, 255, 255, 254].map(|most| dice.within(1, most).to_string()).join(".");
            let (path, number, status, bytes) = (
                dice.choose(PATHS),
                dice.within(1, 9_999_999),
                dice.within(200, 504),
                dice.within(0, 90_000),
            );
            let (agent, request) = (dice.choose(AGENTS), dice.hex(32));
            write!(
                out,
                "{address} - - [20/Nov/2026:{time} +0000] \"GET {path}{number} HTTP/1.1\" {status} {bytes} \"-\" \"{agent}\" 0.{millisecond:03} {request}{tail}"
            )
        }
        38..=63 => {
            let (level, class, trace, span) =
                (dice.choose(LEVELS), dice.choose(CLASSES), dice.hex(32), dice.hex(16));
            let (number, duration, user, order) =
                (dice.draw() >> 1, dice.within(0, 5000), dice.within(1, 9_999_999), dice.digits(16));
            let words = dice.words(4, 10);
            write!(
                out,
                "{{\"ts\":\"2026-11-20T{time}.{millisecond:03}Z\",\"level\":\"{level}\",\"logger\":\"com.acme.{class}\",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",\"dd.trace_id\":\"{number}\",\"duration_ms\":{duration},\"user_id\":{user},\"order_id\":\"{order}\",\"msg\":\"{words}{tail}\",\"epoch\":{clock_ms}}}"
            )
        }
        64..=87 => {
            let (level, component, pod) = (dice.choose(LEVELS), dice.choose(WORDS), dice.hex(10));
            let (bytes, id, request, words) = (
                dice.within(10, 9_999_999),
                dice.within(100_000_000_000, 9_999_999_999_999),
                dice.hex(12),
                dice.words(4, 10),
            );
            write!(
                out,
                "ts=2026-11-20T{time}.{millisecond:03}Z level={level} component={component} pod={component}-{pod} dur={duration}.{millisecond:03}ms bytes={bytes} req_id={request} id={id} msg=\"{words}{tail}\"",
                duration = dice.within(0, 900)
            )
        }
        88..=96 => {
            let (node, process, words) = (dice.within(1, 60), dice.within(100, 99_999), dice.words(5, 14));
            let accent = if dice.within(0, 30) == 0 { " é✓" } else { "" };
            write!(
                out,
                "Nov 20 {time} node-{node:02} kubelet[{process}]: {words} (3.{}.1){accent}{tail}",
                node / 3
            )
        }
        _ => {
            let (class, other, at) = (dice.choose(CLASSES), dice.choose(CLASSES), dice.within(20, 1400));
            write!(
                out,
                "\tat com.acme.{class}.process({other}.java:{at}) ~[acme-2.{}.1.jar:?]{tail}",
                at % 20
            )
        }
    };
    debug_assert!(written.is_ok(), "writing into a String does not fail");
    out
}

/// Lines of about `bytes` in all, each ended by a newline.
pub fn mixed(seed: u64, bytes: usize) -> String {
    let (mut dice, mut clock_ms, mut out) =
        (Dice::new(seed), 1_795_161_600_000, String::with_capacity(bytes + 1024));
    while out.len() < bytes {
        out.push_str(&line(&mut dice, &mut clock_ms));
        out.push('\n');
    }
    out
}
