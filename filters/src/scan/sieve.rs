//! A first look at every position: could one of the literals begin here?
//!
//! Four bytes, folded ([`fold`]), are hashed to one of 16,384 bytes of a table and to two bits in it; the bits of all literals are
//! set. The table stays in the nearest cache, a position costs the same whatever it holds and however many literals there are, and of
//! ordinary text few positions pass.
//! Vector fingerprints (halves of bytes, in buckets) were tried first: with nine hundred literals their buckets fill up, and a third
//! of all positions pass.

use std::collections::HashMap;
use std::sync::OnceLock;

pub(crate) use super::simd::{DEPTH, fold};
use super::simd::{SIEVE_BYTES, SieveTable};
use crate::corpus;

/// How much made-up log text is counted, in bytes.
const SAMPLE_BYTES: usize = 48 << 10;

/// How many ways of hashing are tried: the one is taken by which least of ordinary text passes by chance.
const TRIES: u16 = 24;

/// Made-up log text, and where in it each four folded bytes stand.
struct Sample {
    text: Vec<u8>,
    places: HashMap<[u8; DEPTH], Vec<u32>>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut places: HashMap<_, Vec<u32>> = HashMap::new();
        let text = corpus::mixed(7, SAMPLE_BYTES).into_bytes();
        let folded: Vec<u8> = text.iter().copied().map(fold).collect();
        for (four, place) in folded.array_windows().zip(0..) {
            places.entry(*four).or_default().push(place);
        }
        Sample { text, places }
    })
}

/// How much of made-up log text begins with these four folded bytes, and how much of it with eight bytes that are alike, from 0 to 1.
pub(crate) fn shares(folded: [u8; DEPTH], is_alike: impl Fn([u8; 8]) -> bool) -> (f64, f64) {
    let sample = sample();
    let places = sample.places.get(&folded).map_or(&[][..], Vec::as_slice);
    let at = |place: &&u32| {
        let from = usize::try_from(**place).ok().and_then(|place| sample.text.get(place..));
        from.and_then(<[u8]>::first_chunk).is_some_and(|eight| is_alike(*eight))
    };
    let share = |count: usize| {
        f64::from(u32::try_from(count).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(SAMPLE_BYTES).unwrap_or(u32::MAX))
    };
    (share(places.len()), share(places.iter().filter(at).count()))
}

/// Lets positions pass that hold one of these, folded.
pub(crate) fn of(keys: &[[u8; DEPTH]]) -> SieveTable {
    let passing = |table: &SieveTable| -> usize {
        let passing = sample().places.iter().filter(|(four, _)| holds(table, **four));
        passing.map(|(_, places)| places.len()).sum()
    };
    let mut best = with(0, keys);
    let mut least = passing(&best);
    for number in 1..TRIES {
        let table = with(number, keys);
        let count = passing(&table);
        if count < least {
            (best, least) = (table, count);
        }
    }
    best
}

/// Whether four folded bytes pass.
fn holds(table: &SieveTable, four: [u8; DEPTH]) -> bool {
    let (row, bits) = table.place(four);
    table.rows.get(row).is_none_or(|row| row & bits == bits)
}

fn with(number: u16, keys: &[[u8; DEPTH]]) -> SieveTable {
    let odd = |start: u16, step: u16| start.wrapping_add(step.wrapping_mul(number)) | 1;
    let multipliers =
        [[odd(0x9e37, 0x3c6e), odd(0x79b1, 0x58f2)], [odd(0x85eb, 0x2b5a), odd(0xca6b, 0x6d14)]];
    let mut table = SieveTable { multipliers, rows: Box::new([0; SIEVE_BYTES]) };
    for key in keys {
        let (row, bits) = table.place(*key);
        if let Some(row) = table.rows.get_mut(row) {
            *row |= bits;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_passes_and_few_other_bytes_do() {
        let four = |number: u32| number.wrapping_mul(0x0101_4f2b).to_le_bytes().map(fold);
        let keys: Vec<[u8; DEPTH]> = (0..2000).map(four).collect();
        let table = of(&keys);
        assert!(keys.iter().all(|key| holds(&table, *key)));
        let others = (2000..22_000).filter(|number| holds(&table, four(*number))).count();
        assert!(others < 800, "{others} of 20000");
    }
}
