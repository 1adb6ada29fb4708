//! Signatures of requests, so that a receiver knows who sent them: Grafana's scheme and Standard Webhooks, both ways.
//!
//! Grafana's: the lower-case hex HMAC-SHA256 of `<unix seconds>:<body>` in [`GRAFANA_HEADER`], the seconds in
//! [`GRAFANA_TIMESTAMP_HEADER`]; the secret is used as its bytes. Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of
//! `<id>.<unix seconds>.<body>` in `webhook-signature`, with `webhook-id` and `webhook-timestamp` beside it; the secret is
//! `whsec_` and base64.
//!
//! What always holds: comparisons take constant time; a time further away than [`SIGNATURE_WINDOW`] is refused before the
//! signature is looked at; several secrets may hold at once, so that one can be changed. The window alone does not keep a
//! request from being played again within it: whoever receives keeps the ids of five minutes.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::limits::SIGNATURE_WINDOW;

/// Carries Grafana's signature.
pub const GRAFANA_HEADER: &str = "X-Grafana-Alerting-Signature";
/// Carries the time that Grafana's signature covers.
pub const GRAFANA_TIMESTAMP_HEADER: &str = "X-Grafana-Alerting-Signature-Timestamp";

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The time is no whole number of seconds.
    #[error("the timestamp is no whole number of seconds")]
    Timestamp,
    /// The time is too far away.
    #[error("the timestamp is more than {}s away", SIGNATURE_WINDOW.as_secs())]
    Window,
    /// No secret makes this signature.
    #[error("the signature is that of no known secret")]
    Mismatch,
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().into())
}

/// Grafana's signature of a body.
///
/// ```
/// let signature = beeacon_alerts::sign::grafana("topsecret", 1_700_000_000, b"{}");
/// assert_eq!(signature.len(), 64);
/// ```
#[must_use]
pub fn grafana(secret: &str, unix_seconds: i64, body: &[u8]) -> String {
    let time = unix_seconds.to_string();
    // HMAC takes keys of every length.
    hex(&mac(secret.as_bytes(), &[time.as_bytes(), b":", body]).unwrap_or_default())
}

/// The headers of a body signed by Standard Webhooks. None when the secret is none of the scheme's.
#[must_use]
pub fn standard(secret: &str, id: &str, unix_seconds: i64, body: &[u8]) -> Option<String> {
    let key = standard_key(secret)?;
    let time = unix_seconds.to_string();
    let digest = mac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body])?;
    Some(format!("v1,{}", base64_of(&digest)))
}

/// The key in a secret of Standard Webhooks: `whsec_`, which may be left out, and base64 of 24 to 64 bytes.
#[must_use]
pub fn standard_key(secret: &str) -> Option<Vec<u8>> {
    let key = base64_read(secret.strip_prefix("whsec_").unwrap_or(secret))?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// Whether Grafana's signature holds for one of the secrets.
///
/// # Errors
///
/// When the time is none or too far away, or no secret makes the signature.
pub fn verify_grafana(
    secrets: &[&str],
    now: Timestamp,
    timestamp: &str,
    signature: &str,
    body: &[u8],
) -> Result<(), SignatureError> {
    let seconds = check_time(now, timestamp)?;
    let holds = secrets.iter().fold(false, |holds, secret| {
        holds | bool::from(grafana(secret, seconds, body).as_bytes().ct_eq(signature.as_bytes()))
    });
    if holds { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Whether one of the signatures of Standard Webhooks holds for one of the secrets.
///
/// # Errors
///
/// When the time is none or too far away, or no secret makes a signature of the header.
pub fn verify_standard(
    secrets: &[&str],
    now: Timestamp,
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
) -> Result<(), SignatureError> {
    let seconds = check_time(now, timestamp)?;
    let mut holds = false;
    for secret in secrets {
        let Some(expected) = standard(secret, id, seconds, body) else { continue };
        for signature in signatures.split(' ').take(16) {
            holds |= bool::from(expected.as_bytes().ct_eq(signature.as_bytes()));
        }
    }
    if holds { Ok(()) } else { Err(SignatureError::Mismatch) }
}

fn check_time(now: Timestamp, text: &str) -> Result<i64, SignatureError> {
    let seconds: i64 = text.parse().map_err(|_| SignatureError::Timestamp)?;
    // `1` and `+1` would be two writings of one time.
    if seconds.to_string() != text {
        return Err(SignatureError::Timestamp);
    }
    if seconds.abs_diff(now.as_second()) > SIGNATURE_WINDOW.as_secs() {
        return Err(SignatureError::Window);
    }
    Ok(seconds)
}

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first sixteen bytes of a digest in hex: enough for an id.
pub(crate) fn short_hex(digest: &[u8]) -> String {
    hex(digest.get(..16).unwrap_or(digest))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_of(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or(0);
            let letter = BASE64.get(index).copied().unwrap_or(b'=');
            out.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

fn base64_read(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let plain = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let (mut out, mut group, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in plain.bytes() {
        let value = BASE64.iter().position(|letter| *letter == byte)?;
        group = group << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(group >> bits & 0xFF).ok()?);
        }
    }
    // One writing for each key.
    (base64_of(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_signature_of_standard_webhooks_is_that_of_its_specification() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = b"{\"test\": 2432232314}";
        let signature = standard(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let verify = |now, signatures: &str, secrets: &[&str]| {
            verify_standard(secrets, at(now), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", signatures, body)
        };
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(verify(1_614_265_630, &signature, &[other, secret]), Ok(()));
        assert_eq!(verify(1_614_265_330, &format!("v2,x {signature}"), &[secret]), Ok(()));
        assert_eq!(verify(1_614_265_631, &signature, &[secret]), Err(SignatureError::Window));
        assert_eq!(verify(1_614_265_029, &signature, &[secret]), Err(SignatureError::Window));
        assert_eq!(verify(1_614_265_330, &signature, &[other]), Err(SignatureError::Mismatch));
        assert_eq!(verify(1_614_265_330, "", &[secret]), Err(SignatureError::Mismatch));
    }

    /// Computed by Python's hmac module over the same bytes.
    #[test]
    fn the_signature_of_grafana_is_bare_lower_case_hex_over_time_and_body() {
        let signature = grafana("synthetic-secret", 1_764_150_000, b"{\"status\":\"firing\"}\n");
        assert_eq!(signature, "0820490e00d417a97bf3b563167a088d16b57011310c2879ee17f5855b5e0268");
        let verify = |now, timestamp: &str, signature: &str, body: &[u8]| {
            verify_grafana(&["old", "synthetic-secret"], at(now), timestamp, signature, body)
        };
        let body = b"{\"status\":\"firing\"}\n";
        assert_eq!(verify(1_764_150_300, "1764150000", &signature, body), Ok(()));
        assert_eq!(verify(1_764_150_301, "1764150000", &signature, body), Err(SignatureError::Window));
        assert_eq!(verify(1_764_150_000, "1764150001", &signature, body), Err(SignatureError::Mismatch));
        assert_eq!(verify(1_764_150_000, "1764150000", &signature, b"{}"), Err(SignatureError::Mismatch));
        assert_eq!(
            verify(1_764_150_000, "1764150000", &signature.to_uppercase(), body),
            Err(SignatureError::Mismatch)
        );
        for timestamp in ["+1764150000", "01764150000", "1764150000.0", "", "x"] {
            assert_eq!(verify(1_764_150_000, timestamp, &signature, body), Err(SignatureError::Timestamp));
        }
    }

    #[test]
    fn base64_is_written_and_read_in_one_way_only() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64_of(bytes.as_bytes()), text);
            assert_eq!(base64_read(text), Some(bytes.as_bytes().to_vec()));
        }
        for text in ["Zh==", "Zg=", "Zg", "Z===", "Zm9*", "===="] {
            assert_eq!(base64_read(text), None, "{text}");
        }
        assert_eq!(standard_key("whsec_Zm9v"), None);
    }
}
