//! Secrets that are functions of a number, so that a test knows each one without writing it down anywhere.
//!
//! Shared by the generator, which prints them, and by the oracle, which searches for them.

/// A deterministic source of numbers: splitmix64.
#[derive(Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    /// The numbers that belong to a name and an ordinal.
    pub(crate) fn of(seed: u64, name: &str, ordinal: u64) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut numbers = Numbers(seed ^ hash.rotate_left(17) ^ ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        numbers.next();
        numbers
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(alphabet[self.below(alphabet.len() as u64) as usize])).collect()
    }
}

const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const DIGITS: &[u8] = b"0123456789";

/// How many kinds of secrets there are.
pub(crate) const KINDS: u64 = 14;

/// A secret and the text it stands in.
pub(crate) struct Planted {
    /// What it is.
    pub(crate) kind: &'static str,
    /// What stands right before it and may or may not be kept.
    pub(crate) before: String,
    /// What must never be seen again.
    pub(crate) value: String,
    /// What stands right after it and may or may not be kept.
    pub(crate) after: String,
}

impl Planted {
    /// The whole phrase as a program would print it.
    pub(crate) fn phrase(&self) -> String {
        format!("{}{}{}", self.before, self.value, self.after)
    }
}

/// The secret of this kind made from these numbers.
pub(crate) fn plant(kind: u64, numbers: &mut Numbers) -> Planted {
    let bare = |kind, value| Planted { kind, before: String::new(), value, after: String::new() };
    match kind % KINDS {
        0 => bare(
            "email",
            format!(
                "{}.{}@{}.example",
                numbers.text(LOWER, 8),
                numbers.text(LOWER, 7),
                numbers.text(LOWER, 6)
            ),
        ),
        1 => bare("aws_key", format!("AKIA{}", numbers.text(BASE32, 16))),
        2 => bare("github", format!("ghp_{}", numbers.text(ALNUM, 36))),
        3 => bare("jwt", jwt(numbers)),
        4 => bare("credit_card", credit_card(numbers)),
        5 => bare("ssn", ssn(numbers)),
        6 => Planted {
            kind: "password",
            before: "password=".into(),
            value: format!("{}{}", numbers.text(LOWER, 10), numbers.text(DIGITS, 6)),
            after: String::new(),
        },
        7 => Planted {
            kind: "bearer",
            before: "Bearer ".into(),
            value: numbers.text(ALNUM, 40),
            after: String::new(),
        },
        8 => Planted {
            kind: "basic_auth_url",
            before: format!("postgres://{}:", numbers.text(LOWER, 6)),
            value: numbers.text(ALNUM, 18),
            after: "@db/main".into(),
        },
        9 => bare("slack", format!("xoxb-{}-{}", numbers.text(DIGITS, 12), numbers.text(ALNUM, 24))),
        10 => bare("stripe", format!("sk_live_{}", numbers.text(ALNUM, 28))),
        11 => bare("gitlab", format!("glpat-{}", numbers.text(ALNUM, 20))),
        12 => bare("google_api", format!("AIza{}", numbers.text(ALNUM, 35))),
        _ => bare("iban", iban(numbers)),
    }
}

/// Sixteen digits whose Luhn sum holds.
fn credit_card(numbers: &mut Numbers) -> String {
    let mut digits = vec![4u32];
    digits.extend((0..14).map(|_| numbers.below(10) as u32));
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match place % 2 {
            0 => digit * 2 / 10 + digit * 2 % 10,
            _ => *digit,
        })
        .sum();
    digits.push((10 - sum % 10) % 10);
    digits.into_iter().map(|digit| char::from(b'0' + digit as u8)).collect()
}

fn ssn(numbers: &mut Numbers) -> String {
    let area = 1 + numbers.below(665);
    format!("{area:03}-{:02}-{:04}", 1 + numbers.below(99), 1 + numbers.below(9999))
}

/// A German IBAN whose remainder by 97 is 1.
fn iban(numbers: &mut Numbers) -> String {
    let account = numbers.text(DIGITS, 18);
    // "DE" is 13 and 14, then the two check digits, which are zero while the remainder is taken.
    let remainder = format!("{account}131400")
        .bytes()
        .fold(0u32, |remainder, digit| (remainder * 10 + u32::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - remainder)
}

fn jwt(numbers: &mut Numbers) -> String {
    let header = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = base64url(
        format!(r#"{{"sub":"{}","iat":17{}}}"#, numbers.text(LOWER, 12), numbers.text(DIGITS, 8)).as_bytes(),
    );
    let signature: Vec<u8> = (0..32).map(|_| numbers.below(256) as u8).collect();
    format!("{header}.{claims}.{}", base64url(&signature))
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .enumerate()
            .fold(0u32, |group, (place, byte)| group | u32::from(*byte) << (16 - 8 * place));
        for letter in 0..=chunk.len() {
            text.push(char::from(LETTERS[(group >> (18 - 6 * letter)) as usize & 63]));
        }
    }
    text
}

/// Filler that no rule can take for a secret.
pub(crate) fn words(numbers: &mut Numbers, count: u64) -> String {
    const WORDS: [&str; 24] = [
        "queue", "drained", "worker", "ready", "cache", "warm", "order", "placed", "shard", "moved",
        "reader", "slow", "honey", "comb", "bloom", "meadow", "hive", "clover", "nectar", "swarm", "wax",
        "frame", "smoker", "brood",
    ];
    let mut text = String::new();
    for index in 0..count {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[numbers.below(WORDS.len() as u64) as usize]);
    }
    text
}

/// Letters without a pattern, for ids that must be one token.
pub(crate) fn letters(numbers: &mut Numbers, length: usize) -> String {
    numbers.text(UPPER, length)
}
