//! Made-up values of every kind that a label may name.

use super::{Dice, LETTERS, PATHS, with_luhn_digit};

pub(super) const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const PASSWORD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#%*";
const GIVEN: &[&str] =
    &["anna", "bob", "carla", "david", "emma", "grace", "henry", "ines", "jonas", "maria", "quentin", "tina"];
const FAMILY: &[&str] = &["smith", "mueller", "rossi", "novak", "garcia", "dupont", "kowalski", "hansen"];
const DOMAINS: &[&str] =
    &["example.org", "mail.example.com", "acme-corp.io", "example.co.uk", "posteo.example"];

/// A value of a kind; empty for a kind that is not known.
pub(super) fn make(dice: &mut Dice, kind: &str) -> String {
    match kind {
        "email" => email(dice),
        "card" => card(dice),
        "ssn" => ssn(dice),
        "phone" => phone(dice),
        "iban" => iban(dice),
        "ipv4" => ipv4(dice),
        "ipv6" => match dice.within(0, 2) {
            0 => (0..8).map(|_| dice.hex(4)).collect::<Vec<_>>().join(":"),
            1 => format!("2001:db8:{}::{}:1f", dice.hex(4), dice.hex(4)),
            _ => format!("fe80::{}:{}:{}:{}", dice.hex(4), dice.hex(4), dice.hex(4), dice.hex(4)),
        },
        "mac" => (0..6).map(|_| dice.hex(2)).collect::<Vec<_>>().join(":"),
        "aws_key" => format!("{}{}", dice.choose(&["AKIA", "ASIA"]).to_owned(), dice.text(BASE32, 16)),
        "github" => {
            format!("{}{}", dice.choose(&["ghp_", "ghs_", "gho_"]).to_owned(), dice.text(LETTERS, 36))
        }
        "gitlab" => format!("glpat-{}", dice.text(LETTERS, 20)),
        "slack" => format!("xoxb-{}-{}-{}", dice.digits(12), dice.digits(12), dice.text(LETTERS, 24)),
        "stripe" => format!("sk_live_{}", dice.text(LETTERS, 24)),
        "google_api" => format!("AIza{}", dice.text(BASE64_URL, 35)),
        "sendgrid" => format!("SG.{}.{}", dice.text(BASE64_URL, 22), dice.text(BASE64_URL, 43)),
        "jwt" => {
            let claims = format!(
                "{{\"sub\":\"{}\",\"iat\":1795161600,\"name\":\"{}\"}}",
                dice.digits(10),
                dice.choose(GIVEN)
            );
            format!(
                "{}.{}.{}",
                base64_url(b"{\"alg\":\"HS256\",\"typ\":\"JWT\"}"),
                base64_url(claims.as_bytes()),
                dice.text(BASE64_URL, 43)
            )
        }
        "bearer" => dice.text(LETTERS, 40),
        "token" => {
            let length = length(dice, 16, 40);
            dice.text(LETTERS, length)
        }
        "password" => {
            let length = length(dice, 8, 24);
            dice.text(PASSWORD, length)
        }
        "percent_password" => format!("{}%21{}%23", dice.text(LETTERS, 9), dice.text(LETTERS, 4)),
        _ => String::new(),
    }
}

fn length(dice: &mut Dice, from: u64, to: u64) -> usize {
    usize::try_from(dice.within(from, to)).unwrap_or(16)
}

fn email(dice: &mut Dice) -> String {
    let (given, family, domain) = (dice.choose(GIVEN), dice.choose(FAMILY), dice.choose(DOMAINS));
    match dice.within(0, 3) {
        0 => format!("{given}.{family}{}@{domain}", dice.within(1, 99)),
        1 => format!("{given}.{family}+news@{domain}"),
        2 => format!("{given}_{family}@{domain}"),
        _ => format!("{given}.{family}@{domain}"),
    }
}

fn card(dice: &mut Dice) -> String {
    let (prefix, length) = match dice.within(0, 8) {
        0..=2 => ("4".to_owned(), 16),
        3 => (dice.within(51, 55).to_string(), 16),
        4 => (dice.within(2221, 2720).to_string(), 16),
        5 => ("6011".to_owned(), 16),
        6 => (dice.choose(&["34", "37"]).to_owned(), 15),
        7 => (dice.within(3528, 3589).to_string(), 16),
        _ => (dice.choose(&["36", "38"]).to_owned(), 14),
    };
    let digits = with_luhn_digit(&format!("{prefix}{}", dice.digits(length - 1 - prefix.len())));
    let joint = dice.choose(&["", "-", " "]);
    let sizes: &[usize] = if length == 16 { &[4, 4, 4, 4] } else { &[4, 6, 5] };
    let mut rest = digits.as_str();
    let mut groups = Vec::new();
    for size in sizes {
        let (head, tail) = rest.split_at_checked(*size).unwrap_or((rest, ""));
        groups.push(head);
        rest = tail;
    }
    groups.join(joint)
}

fn ssn(dice: &mut Dice) -> String {
    let area = match dice.within(1, 898) {
        area if area >= 666 => area + 1,
        area => area,
    };
    format!("{area:03}-{:02}-{:04}", dice.within(1, 99), dice.within(1, 9999))
}

fn phone(dice: &mut Dice) -> String {
    let (area, exchange, line) = (dice.within(201, 989), dice.within(201, 989), dice.digits(4));
    match dice.within(0, 5) {
        0 => format!("+1 {area}-{exchange}-{line}"),
        1 => format!("({area}) {exchange}-{line}"),
        2 => format!("{area}-{exchange}-{line}"),
        3 => format!("{area}.{exchange}.{line}"),
        4 => format!("+49{}{}", dice.within(151, 179), dice.digits(8)),
        _ => format!("+447{}", dice.digits(9)),
    }
}

fn iban(dice: &mut Dice) -> String {
    let (country, account) = match dice.within(0, 5) {
        0 => ("DE", dice.digits(18)),
        1 => ("FR", dice.digits(23)),
        2 => ("NL", format!("ABNA{}", dice.digits(10))),
        3 => ("GB", format!("NWBK{}", dice.digits(14))),
        4 => ("ES", dice.digits(20)),
        _ => ("AT", dice.digits(16)),
    };
    let remainder = format!("{account}{country}00").bytes().fold(0_u32, |sum, byte| match byte {
        b'0'..=b'9' => (sum * 10 + u32::from(byte - b'0')) % 97,
        _ => (sum * 100 + u32::from(byte.wrapping_sub(b'A')) + 10) % 97,
    });
    let whole = format!("{country}{:02}{account}", 98 - remainder);
    if dice.within(0, 9) < 6 {
        return whole;
    }
    let groups = whole.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(" ")
}

fn ipv4(dice: &mut Dice) -> String {
    [223, 255, 255, 254].map(|most| dice.within(1, most).to_string()).join(".")
}

pub(super) fn uuid(dice: &mut Dice) -> String {
    let (a, b, c, d, e) = (dice.hex(8), dice.hex(4), dice.hex(3), dice.hex(3), dice.hex(12));
    format!("{a}-{b}-4{c}-a{d}-{e}")
}

pub(super) fn path(dice: &mut Dice) -> String {
    let (path, number) = (dice.choose(PATHS), dice.within(1, 9_999_999));
    match dice.within(0, 5) {
        0 => format!("/api/v3/items/{}", uuid(dice)),
        1 => format!("/static/app.{}.js", dice.hex(8)),
        _ => format!("{path}{number}"),
    }
}

/// A time of day with milliseconds.
pub(super) fn time(clock_ms: u64) -> String {
    let second = clock_ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", second / 3600 % 24, second / 60 % 60, second % 60, clock_ms % 1000)
}

fn base64_url(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let index = usize::try_from(word >> (18 - 6 * at) & 63).unwrap_or(0);
            out.extend(BASE64_URL.chars().nth(index));
        }
    }
    out
}
