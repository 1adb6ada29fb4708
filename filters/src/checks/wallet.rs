//! Addresses of crypto currencies: the checksums of Base58Check (Bitcoin, Litecoin, Dogecoin, Dash, Tron) and of Bech32 and Bech32m.

use std::ops::Range;

use sha2::{Digest, Sha256};

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Bytes of a version, a hash of 160 bits and a checksum.
const DECODED_BYTES: usize = 25;

pub(super) fn check_base58(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let mut bytes = [0_u8; DECODED_BYTES];
    for byte in text {
        let mut carry = u32::try_from(BASE58.iter().position(|known| known == byte)?).ok()?;
        for slot in bytes.iter_mut().rev() {
            carry += u32::from(*slot) * 58;
            *slot = u8::try_from(carry % 256).ok()?;
            carry /= 256;
        }
        if carry != 0 {
            return None;
        }
    }
    let (body, sum) = bytes.split_at_checked(DECODED_BYTES - 4)?;
    Sha256::digest(Sha256::digest(body)).starts_with(sum).then_some(span)
}

pub(super) fn check_bech32(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?.to_ascii_lowercase();
    let split = text.iter().rposition(|byte| *byte == b'1')?;
    let (name, data) = (text.get(..split)?, text.get(split + 1..)?);
    let mut state = 1_u32;
    for byte in name {
        state = step(state, u32::from(byte >> 5));
    }
    state = step(state, 0);
    for byte in name {
        state = step(state, u32::from(byte & 31));
    }
    for byte in data {
        state = step(state, u32::try_from(BECH32.iter().position(|known| known == byte)?).ok()?);
    }
    matches!(state, 1 | 0x2bc8_30a3).then_some(span)
}

/// One step of the Bose-Chaudhuri-Hocquenghem code over 32 symbols.
fn step(state: u32, value: u32) -> u32 {
    const GENERATORS: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = state >> 25;
    let mut next = (state & 0x01ff_ffff) << 5 ^ value;
    for (bit, generator) in GENERATORS.iter().enumerate() {
        if top >> bit & 1 == 1 {
            next ^= generator;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn checksums_decide() {
        table(
            check_base58,
            &["1KUCzSr49wPWckUDouJLybJuRYtViF5hfM", "37MaqGePco8NRnndHVmm85hZHwqEtL2LUv"],
            &["1KUCzSr49wPWckUDouJLybJuRYtViF5hfN", "1111111111111111111111111111111111"],
        );
        table(
            check_bech32,
            &[
                "bc1qe592nptpg7mvtd8l9d7laew6yz4rsffsqfk7u9",
                "bc1p4255qfny7xjp7s8th3fvnxf7ke4wkdnxq22clha29qahrejdky3scu7zfc",
            ],
            &["bc1qe592nptpg7mvtd8l9d7laew6yz4rsffsqfk7u8"],
        );
    }
}
