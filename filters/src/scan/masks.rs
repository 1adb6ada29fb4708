//! Byte classes of 64 bytes as bit masks: bit `i` is byte `i`.
//!
//! Portable: comparisons over an array, which the compiler vectorises, then eight flags at a time folded into a byte by one
//! multiplication.

/// Bytes in a window.
pub(crate) const WINDOW_BYTES: usize = 64;

/// How far the window moves: what lies between is looked at from both sides.
pub(crate) const WINDOW_STRIDE: usize = 48;

/// The positions that a window decides: all but one looked back at and fifteen looked ahead at.
pub(crate) const VALID: u64 = ((1 << WINDOW_STRIDE) - 1) << 1;

/// The classes that shapes are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) digit: u64,
    /// 2 to 6: the first digit of a payment card.
    pub(crate) lead: u64,
    pub(crate) dot: u64,
    pub(crate) dash: u64,
    pub(crate) space: u64,
    pub(crate) colon: u64,
    /// Letters, digits and `_`.
    pub(crate) word: u64,
    pub(crate) upper: u64,
    /// The first byte of a line.
    pub(crate) edge: u64,
}

impl Masks {
    pub(crate) fn of(window: &[u8; WINDOW_BYTES], edge: u64) -> Masks {
        let digit = mask(window, |byte| byte.wrapping_sub(b'0') < 10);
        let upper = mask(window, |byte| byte.wrapping_sub(b'A') < 26);
        let letter = mask(window, |byte| (byte | 0x20).wrapping_sub(b'a') < 26);
        Masks {
            digit,
            lead: mask(window, |byte| byte.wrapping_sub(b'2') < 5),
            dot: mask(window, |byte| byte == b'.'),
            dash: mask(window, |byte| byte == b'-'),
            space: mask(window, |byte| byte == b' '),
            colon: mask(window, |byte| byte == b':'),
            word: digit | letter | mask(window, |byte| byte == b'_'),
            upper,
            edge,
        }
    }
}

#[inline(always)]
fn mask(window: &[u8; WINDOW_BYTES], holds: impl Fn(u8) -> bool) -> u64 {
    let mut flags = [0_u8; WINDOW_BYTES];
    for (flag, byte) in flags.iter_mut().zip(window) {
        *flag = u8::from(holds(*byte));
    }
    let mut mask = 0;
    for (index, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        // Each factor of two to the 56 - 7i moves flag i into bit i of the highest byte.
        let folded = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= folded << (8 * index);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_value_is_in_its_classes_at_every_place() {
        for byte in 0..=255_u8 {
            for place in [0, 1, 7, 8, 33, 63] {
                let mut window = [0_u8; WINDOW_BYTES];
                window[place] = byte;
                let masks = Masks::of(&window, 0);
                let bit = |mask: u64| mask == 1 << place;
                assert_eq!(bit(masks.digit), byte.is_ascii_digit());
                assert_eq!(bit(masks.upper), byte.is_ascii_uppercase());
                assert_eq!(bit(masks.word), byte.is_ascii_alphanumeric() || byte == b'_');
                assert_eq!(bit(masks.lead), (b'2'..=b'6').contains(&byte));
                assert_eq!(bit(masks.dot), byte == b'.');
                assert_eq!(bit(masks.colon), byte == b':');
                assert_eq!(bit(masks.dash), byte == b'-');
                assert_eq!(bit(masks.space), byte == b' ');
            }
        }
    }
}
