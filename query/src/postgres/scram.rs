//! SCRAM-SHA-256 (RFC 5802, 7677), the server's side. Pure: randomness is given.
//!
//! Neither the token nor anything it could be made from is kept: the stored key tells whether a client knows the token, the
//! server key proves to the client that we do. Proofs are compared in constant time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The name of the mechanism.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// How often a password is hashed: PostgreSQL's own number. A token is random, so more would gain nothing.
const ITERATIONS: u32 = 4_096;

type Key = [u8; 32];

/// Why a login failed. It never says which part was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client broke the rules.
    Malformed,
    /// It does not know the token.
    Wrong,
}

/// What is kept of a token.
#[derive(Clone)]
pub(crate) struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    pub(crate) fn new(token: &str, salt: [u8; 16]) -> Self {
        let salt = salt.to_vec();
        let mut block = salt.clone();
        block.extend_from_slice(&1_u32.to_be_bytes());
        let mut last = mac(token.as_bytes(), &block);
        let mut salted = last;
        for _ in 1..ITERATIONS {
            last = mac(token.as_bytes(), &last);
            salted = xor(salted, last);
        }
        let stored_key = Sha256::digest(mac(&salted, b"Client Key")).into();
        Verifier { salt, iterations: ITERATIONS, stored_key, server_key: mac(&salted, b"Server Key") }
    }

    /// From PostgreSQL's own form, `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix(MECHANISM)?.strip_prefix('$')?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| decoded(text)?.try_into().ok();
        let salt = decoded(salt).filter(|salt| (8..=64).contains(&salt.len()))?;
        let iterations = iterations.parse().ok().filter(|count| (ITERATIONS..=1_000_000).contains(count))?;
        Some(Verifier { salt, iterations, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }

    /// In PostgreSQL's own form.
    pub(crate) fn spelled(&self) -> String {
        let (salt, stored_key) = (encoded(&self.salt), encoded(&self.stored_key));
        format!("{MECHANISM}${}:{salt}${stored_key}:{}", self.iterations, encoded(&self.server_key))
    }

    /// One that no password fits, for users who are not known: they are answered like others, until the last message.
    pub(crate) fn of_nobody(salt: [u8; 16], key: [u8; 32]) -> Self {
        Verifier { salt: salt.to_vec(), iterations: ITERATIONS, stored_key: key, server_key: key }
    }

    /// Takes the client's first message and gives the answer, with what has to be kept for its last one.
    pub(crate) fn begin(&self, first: &str, nonce: [u8; 18]) -> Result<(String, Exchange), Refused> {
        let mut parts = first.splitn(3, ',');
        let (binding, identity) = (parts.next(), parts.next());
        let bare = parts.next().ok_or(Refused::Malformed)?;
        // "y" is a client that could bind to the channel and believes that we cannot, which is so.
        if !matches!(binding, Some("n" | "y")) {
            return Err(Refused::Malformed);
        }
        let header = format!("{},{},", binding.unwrap_or_default(), identity.unwrap_or_default());
        let client_nonce =
            bare.split(',').find_map(|part| part.strip_prefix("r=")).ok_or(Refused::Malformed)?;
        let nonce = format!("{client_nonce}{}", encoded(&nonce));
        let answer = format!("r={nonce},s={},i={}", encoded(&self.salt), self.iterations);
        let exchange = Exchange { signed: format!("{bare},{answer}"), nonce, header };
        Ok((answer, exchange))
    }

    /// Checks the client's last message and gives the proof that we know the token, too.
    pub(crate) fn finish(&self, exchange: &Exchange, last: &str) -> Result<String, Refused> {
        let (unsigned, proof) = last.rsplit_once(",p=").ok_or(Refused::Malformed)?;
        let part = |prefix: &str| unsigned.split(',').find_map(|part| part.strip_prefix(prefix));
        if part("c=") != Some(encoded(exchange.header.as_bytes()).as_str())
            || part("r=") != Some(exchange.nonce.as_str())
        {
            return Err(Refused::Malformed);
        }
        let proof: Key = decoded(proof).and_then(|proof| proof.try_into().ok()).ok_or(Refused::Malformed)?;
        let signed = format!("{},{unsigned}", exchange.signed);
        let client_key = xor(proof, mac(&self.stored_key, signed.as_bytes()));
        let stored_key: Key = Sha256::digest(client_key).into();
        if !bool::from(stored_key.ct_eq(&self.stored_key)) {
            return Err(Refused::Wrong);
        }
        Ok(format!("v={}", encoded(&mac(&self.server_key, signed.as_bytes()))))
    }
}

/// A login between its two messages.
pub(crate) struct Exchange {
    signed: String,
    nonce: String,
    header: String,
}

fn mac(key: &[u8], data: &[u8]) -> Key {
    // A key of any length will do, so this never fails.
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(data);
            mac.finalize().into_bytes().into()
        }
        Err(_) => [0; 32],
    }
}

fn xor(mut left: Key, right: Key) -> Key {
    left.iter_mut().zip(right).for_each(|(left, right)| *left ^= right);
    left
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4_usize {
            let six = usize::try_from(bits >> (18 - 6 * index) & 63).unwrap_or(0);
            let letter = ALPHABET.get(six).copied().unwrap_or(b'A');
            text.push(if index <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - bare.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for letter in bare.bytes() {
        let six = ALPHABET.iter().position(|known| *known == letter)?;
        bits = bits << 6 | u32::try_from(six).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 255).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc_is_followed() {
        let salt: [u8; 16] = decoded("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let verifier = Verifier::new("pencil", salt);
        let first = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let answer = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let exchange = Exchange {
            signed: format!("{first},{answer}"),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
            header: "n,,".to_owned(),
        };
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let proof = verifier.finish(&exchange, last).unwrap();
        assert_eq!(proof, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = Verifier::new("pencils", salt);
        assert_eq!(wrong.finish(&exchange, last), Err(Refused::Wrong));
        let other = last.replace("r=rOpr", "r=xOpr");
        assert_eq!(verifier.finish(&exchange, &other), Err(Refused::Malformed));
    }

    #[test]
    fn a_verifier_is_read_as_it_is_written_and_is_not_the_token() {
        let verifier = Verifier::new("swordfish", [7; 16]);
        let text = verifier.spelled();
        let again = Verifier::parse(&text).unwrap();
        assert_eq!(again.spelled(), text);
        assert_eq!(again.stored_key, verifier.stored_key);
        assert!(
            text.starts_with("SCRAM-SHA-256$4096:BwcHBwcHBwcHBwcHBwcHBw==$") && !text.contains("swordfish")
        );
        for wrong in [
            "",
            "SCRAM-SHA-256",
            text.trim_end_matches('='),
            &text.replace("$4096", "$1"),
            &text.replace("256", "1"),
        ] {
            assert!(Verifier::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_first_message_out_of_order_is_refused() {
        let verifier = Verifier::new("swordfish", [7; 16]);
        for first in ["", "n", "n,,", "p=tls-unique,,n=,r=abc", "n,,n=user", "x,,r=abc"] {
            assert!(verifier.begin(first, [1; 18]).is_err(), "{first}");
        }
        let (answer, exchange) = verifier.begin("y,,n=,r=abc", [1; 18]).unwrap();
        assert!(answer.starts_with("r=abc") && answer.ends_with(",i=4096"), "{answer}");
        for last in ["", "c=eSws", "c=biws,r=abc,p=AAAA", "p=AAAA"] {
            assert!(verifier.finish(&exchange, last).is_err(), "{last}");
        }
    }

    #[test]
    fn base64_is_read_as_it_is_written() {
        for length in 0..40_u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            assert_eq!(decoded(&encoded(&bytes)), Some(bytes));
        }
        for wrong in ["A", "A===", "A_==", "====", "AAA"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
