//! Whole numbers in few bytes: LEB128, seven bits a byte, the lowest first, as protocol buffers write them too
//! (<https://protobuf.dev/programming-guides/encoding/#varints>).

/// Writes a number: 1 byte below 128, 10 bytes at most.
///
/// ```
/// use beeacon_record::varint;
/// let mut bytes = Vec::new();
/// varint::write(300, &mut bytes);
/// assert_eq!(bytes, [0xac, 0x02]);
/// assert_eq!(varint::read(&mut bytes.as_slice()), Some(300));
/// ```
pub fn write(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front; nothing where the bytes end within it, or it has more than ten.
pub fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read_as_it_was_written_and_a_part_of_it_is_none() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            write(number, &mut bytes);
            let mut rest = bytes.as_slice();
            assert_eq!((read(&mut rest), rest.len()), (Some(number), 0));
            let (_, part) = bytes.split_last().unwrap();
            assert_eq!(read(&mut { part }), None);
        }
        assert_eq!(read(&mut [0xff_u8; 11].as_slice()), None);
    }
}
