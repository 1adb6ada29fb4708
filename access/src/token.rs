//! Tokens: made here, shown once, kept as their SHA-256.
//!
//! What always holds: a token's text is in no error, log or `Debug`; a token is compared with every known one, in constant time each,
//! so that neither the answer nor its time says how near a guess came. A token has 256 random bits, so its hash needs no slowness.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::limits::{TOKEN_NAME_BYTES_MAX, TOKENS_MAX};
use crate::role::Role;

/// What every token that is made here begins with, so that people and scanners recognise one.
pub const TOKEN_PREFIX: &str = "beeacon_";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Makes a token: the prefix, and 256 random bits in the 64 letters of URLs.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_token() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(spelled(&bytes))
}

fn spelled(bytes: &[u8]) -> String {
    let mut text = TOKEN_PREFIX.to_owned();
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut put = |six: u32| {
        let letter = usize::try_from(six & 63).ok().and_then(|at| ALPHABET.get(at));
        text.push(letter.map_or('A', |letter| char::from(*letter)));
    };
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 6 {
            held -= 6;
            put(bits >> held);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        put(bits << (6 - held));
    }
    text
}

/// The SHA-256 of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token's text.
    pub fn of(token: &str) -> Self {
        TokenHash(Sha256::digest(token.as_bytes()).into())
    }

    /// From 64 hexadecimal digits, of either case; none if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
                _ => None,
            })
            .collect();
        bytes?.try_into().ok().map(TokenHash)
    }

    /// As 64 hexadecimal digits.
    pub fn to_hexadecimal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name of the token, as configured.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// Why a set of tokens cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Two have one name.
    #[error("two tokens are named \"{name}\"")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that cannot stand in logs.
    #[error(
        "a token's name has 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, dots, dashes, underscores or spaces"
    )]
    Name,
    /// Too many.
    #[error("there are {count} tokens, at most {TOKENS_MAX} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// The tokens that open the doors.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    known: Vec<(TokenHash, Principal)>,
}

impl Tokens {
    /// None: see [`Tokens::add`].
    pub fn new() -> Self {
        Tokens::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// When its name is taken or unusable, or there are too many.
    pub fn add(&mut self, name: &str, role: Role, hash: TokenHash) -> Result<(), TokenError> {
        let is_usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
        if name.is_empty() || name.len() > TOKEN_NAME_BYTES_MAX || !name.chars().all(is_usable) {
            return Err(TokenError::Name);
        }
        if self.known.iter().any(|(_, principal)| principal.name == name) {
            return Err(TokenError::Twice { name: name.to_owned() });
        }
        if self.known.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany { count: self.known.len() + 1 });
        }
        self.known.push((hash, Principal { name: name.to_owned(), role }));
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The names whose tokens are others in `after`, or not there: who has come in with one of them has to show another.
    pub fn gone(&self, after: &Tokens) -> BTreeSet<String> {
        let is_gone = |(hash, principal): &&(TokenHash, Principal)| {
            !after.known.iter().any(|(other, same)| other == hash && same == principal)
        };
        self.known.iter().filter(is_gone).map(|(_, principal)| principal.name.clone()).collect()
    }

    /// Whether somebody of this name has one.
    pub fn has(&self, name: &str) -> bool {
        self.principals().any(|principal| principal.name == name)
    }

    /// Who has one, in their order.
    pub fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.known.iter().map(|(_, principal)| principal)
    }

    /// Whose token this is.
    pub fn principal(&self, token: &[u8]) -> Option<&Principal> {
        let given: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        // All are compared, whether one has been found or not.
        for (hash, principal) in &self.known {
            if bool::from(hash.0.ct_eq(&given)) {
                found = Some(principal);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_opens() {
        let mut tokens = Tokens::new();
        tokens.add("grafana", Role::Viewer, TokenHash::of("swordfish-swordfish")).unwrap();
        tokens.add("web-1", Role::Agent, TokenHash::of("another-token-here")).unwrap();
        assert_eq!(tokens.principal(b"swordfish-swordfish").unwrap().role, Role::Viewer);
        assert_eq!(tokens.principal(b"another-token-here").unwrap().name, "web-1");
        for wrong in ["", "swordfish-swordfis", "swordfish-swordfish ", "Swordfish-swordfish"] {
            assert_eq!(tokens.principal(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Tokens::new().principal(b""), None);
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_never_debugged() {
        let hash = TokenHash::of("abc");
        let text = hash.to_hexadecimal();
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(TokenHash::parse(&text.to_uppercase()).unwrap(), hash);
        for wrong in ["", "ba78", text.trim_start_matches('b'), &format!("{text}00"), &text.replace('b', "x")]
        {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{hash:?}").contains("ba78"));
    }

    #[test]
    fn made_tokens_are_long_and_never_the_same() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), TOKEN_PREFIX.len() + 43);
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')), "{one}");
        assert_eq!(spelled(&[0; 3]), "beeacon_AAAA");
        assert_eq!(spelled(&[0xff, 0xff]), "beeacon___8");
    }

    #[test]
    fn a_token_that_is_another_or_has_another_role_is_gone() {
        let of = |all: &[(&str, Role, &str)]| {
            let mut tokens = Tokens::new();
            for (name, role, token) in all {
                tokens.add(name, *role, TokenHash::of(token)).unwrap();
            }
            tokens
        };
        let before = of(&[
            ("stays", Role::Viewer, "1"),
            ("rotated", Role::Viewer, "2"),
            ("lowered", Role::Admin, "3"),
            ("revoked", Role::Agent, "4"),
        ]);
        let after = of(&[
            ("stays", Role::Viewer, "1"),
            ("new", Role::Viewer, "5"),
            ("lowered", Role::Viewer, "3"),
            ("rotated", Role::Viewer, "6"),
        ]);
        let gone: Vec<String> = before.gone(&after).into_iter().collect();
        assert_eq!(gone, ["lowered", "revoked", "rotated"]);
        assert!(before.gone(&before).is_empty());
    }

    #[test]
    fn names_are_unique_and_fit_into_logs() {
        let mut tokens = Tokens::new();
        tokens.add("a", Role::Viewer, TokenHash::of("1")).unwrap();
        let again = tokens.add("a", Role::Admin, TokenHash::of("2"));
        assert_eq!(again, Err(TokenError::Twice { name: "a".to_owned() }));
        for name in ["", "a\nb", "ü", &"x".repeat(65)] {
            assert_eq!(tokens.add(name, Role::Viewer, TokenHash::of("3")), Err(TokenError::Name), "{name}");
        }
        for n in 1..TOKENS_MAX {
            tokens.add(&format!("t{n}"), Role::Viewer, TokenHash::of("x")).unwrap();
        }
        assert!(matches!(tokens.add("z", Role::Viewer, TokenHash::of("x")), Err(TokenError::TooMany { .. })));
    }
}
