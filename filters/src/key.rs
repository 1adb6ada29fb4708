//! The key of keyed hashes.
//!
//! What always holds: the bytes are wiped when the key goes, and there is no way to print them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::limits::{HASH_CHARACTERS, KEY_BYTES_MAX, KEY_BYTES_MIN};

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A secret key with its version. The version is written into every token, so that tokens of two keys are told apart.
#[derive(Clone)]
pub struct Key {
    version: u32,
    bytes: Zeroizing<Vec<u8>>,
}

impl Key {
    /// Takes a key of [`KEY_BYTES_MIN`] to [`KEY_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// When the length is outside, or all bytes are alike.
    pub fn new(version: u32, bytes: &[u8]) -> Result<Key, KeyError> {
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
            return Err(KeyError::Length { bytes: bytes.len(), min: KEY_BYTES_MIN, max: KEY_BYTES_MAX });
        }
        if bytes.windows(2).all(|pair| pair.first() == pair.last()) {
            return Err(KeyError::Constant);
        }
        Ok(Key { version, bytes: Zeroizing::new(bytes.to_vec()) })
    }

    /// Which key this is.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// HMAC-SHA-256 over `kind`, a zero byte and `value`, as base32.
    pub(crate) fn token(&self, kind: &str, value: &[u8]) -> Option<[u8; HASH_CHARACTERS]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.bytes).ok()?;
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(value);
        let digest = mac.finalize().into_bytes();
        Some(base32(&digest))
    }
}

fn base32(bytes: &[u8]) -> [u8; HASH_CHARACTERS] {
    let mut characters = [b'a'; HASH_CHARACTERS];
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut rest = bytes.iter();
    for slot in &mut characters {
        if held < 5 {
            bits = (bits << 8) | u32::from(rest.next().copied().unwrap_or(0));
            held += 8;
        }
        held -= 5;
        let index = usize::try_from((bits >> held) & 31).unwrap_or(0);
        *slot = BASE32.get(index).copied().unwrap_or(b'a');
    }
    characters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_the_one_of_rfc_4648_in_lower_case() {
        assert_eq!(&base32(b"foobarfoobar\0"), b"mzxw6ytbojtg633cmfza");
    }

    #[test]
    fn a_token_depends_on_key_kind_and_value() {
        let one = Key::new(1, b"0123456789abcdef").unwrap();
        let other = Key::new(1, b"0123456789abcdeX").unwrap();
        let token = one.token("EMAIL", b"a@b.c").unwrap();
        assert_eq!(token, one.token("EMAIL", b"a@b.c").unwrap());
        assert_ne!(token, other.token("EMAIL", b"a@b.c").unwrap());
        assert_ne!(token, one.token("EMAI", b"La@b.c").unwrap());
        assert_ne!(token, one.token("EMAIL", b"a@b.d").unwrap());
    }

    #[test]
    fn short_long_and_constant_keys_are_refused() {
        assert!(matches!(Key::new(1, b"short"), Err(KeyError::Length { bytes: 5, .. })));
        assert!(matches!(Key::new(1, &[7; 2000]), Err(KeyError::Length { .. })));
        assert_eq!(Key::new(1, &[7; 32]).err(), Some(KeyError::Constant));
    }
}
