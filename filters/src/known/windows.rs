//! Windows: which places of a text may lie inside a needle.
//!
//! A needle is entered with `STRIDE` windows in a row, each a byte further, so that a look at every `STRIDE`th place of a text
//! falls on exactly one of them. The look is a multiplication and a test of three bits in one word of a filter that is as small as
//! the set allows; what passes is looked up by a keyed hash that cannot be run backwards.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::sketch::Sketch;

/// Room for needles that are entered later, at least: a small set may grow without being made anew.
const ROOM_MIN: usize = 64;

/// Where a needle lies about a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// How far before the window the needle starts.
    pub(super) before: u16,
    /// How long it is; 0 marks a free slot.
    pub(super) bytes: u16,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    tag: u32,
    place: Place,
}

/// How words are hashed for the filter: by one multiplication, so that only the higher bits are good, and to few bits.
#[derive(Clone, Copy)]
pub(super) struct FilterKey(u64);

impl FilterKey {
    pub(super) fn random() -> FilterKey {
        FilterKey(RandomState::new().hash_one(1_u8) | 1)
    }

    #[inline(always)]
    pub(super) fn hash(self, word: u64) -> u64 {
        word.wrapping_mul(self.0)
    }
}

/// Windows of `WIDTH` bytes, looked for at every `STRIDE`th place.
#[derive(Clone)]
pub(super) struct Windows<const WIDTH: usize, const STRIDE: usize> {
    filter_key: FilterKey,
    filter: Vec<u64>,
    filter_mask: usize,
    key: RandomState,
    slots: Vec<Slot>,
    used: usize,
    /// How many needles have room before looks become slow, and how many were entered.
    room: usize,
    needles: usize,
}

/// How many bits of the filter there are for each window, at least. With three bits set of them, 2 % of what is no window passes
/// when there are ten, 0.3 % when there are twenty.
const FILTER_BITS_PER_WINDOW: usize = 10;

/// The smallest filter, in words: 4 KiB. A smaller one saves nothing, and lets more through.
const FILTER_WORDS_MIN: usize = 512;

impl<const WIDTH: usize, const STRIDE: usize> Windows<WIDTH, STRIDE> {
    /// The shortest needle that is sure to be met.
    pub(super) const NEEDLE_BYTES_MIN: usize = WIDTH + STRIDE - 1;

    /// Room for `count` needles and some more, keyed at random.
    pub(super) fn with_room(count: usize, filter_key: FilterKey) -> Self {
        let room = count + count / 8 + ROOM_MIN;
        let windows = room * STRIDE;
        let words = (windows * FILTER_BITS_PER_WINDOW).div_ceil(64).next_power_of_two().max(FILTER_WORDS_MIN);
        let slots = (windows + windows / 3 + 2).next_power_of_two();
        Windows {
            filter_key,
            filter: vec![0; words],
            filter_mask: words - 1,
            key: RandomState::new(),
            slots: vec![Slot::default(); slots],
            used: 0,
            room,
            needles: 0,
        }
    }

    /// Whether this many needles more have room.
    pub(super) fn has_room_for(&self, count: usize) -> bool {
        self.needles + count <= self.room
    }

    /// Enters a needle at the windows that are the rarest in `sketch`.
    pub(super) fn add(&mut self, needle: &[u8], sketch: &Sketch) {
        let Some(last) = needle.len().checked_sub(Self::NEEDLE_BYTES_MIN) else { return };
        let Ok(bytes) = u16::try_from(needle.len()) else { return };
        let words = (0..needle.len()).map_while(|at| word::<WIDTH>(needle, at));
        let counts: Vec<u16> = words.map(|word| sketch.count(self.filter_key.hash(word))).collect();
        let cost = |from: usize| {
            let often = counts.iter().skip(from).take(STRIDE).max().copied().unwrap_or(0);
            // Of equally rare ones, those with digits and capitals: words of small letters stand in any text.
            let stretch = needle.get(from..from + Self::NEEDLE_BYTES_MIN).unwrap_or(&[]);
            let common = stretch.iter().filter(|byte| byte.is_ascii_lowercase()).count();
            (often, common)
        };
        self.needles += 1;
        let first = (0..=last).min_by_key(|from| cost(*from)).unwrap_or(0);
        for at in first..first + STRIDE {
            let (Some(word), Ok(before)) = (word::<WIDTH>(needle, at), u16::try_from(at)) else { continue };
            self.enter(word, Place { before, bytes });
        }
    }

    fn enter(&mut self, word: u64, place: Place) {
        let hash = self.filter_key.hash(word);
        if let Some(slot) = self.filter.get_mut(index(hash) & self.filter_mask) {
            *slot |= bits(hash);
        }
        let wanted = Slot { tag: self.tag(word).1, place };
        let mask = self.slots.len() - 1;
        let mut at = self.tag(word).0 & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == wanted {
                return;
            }
            if slot.place.bytes == 0 {
                *slot = wanted;
                self.used += 1;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Where a word would stand, and how it is known there.
    fn tag(&self, word: u64) -> (usize, u32) {
        let mut hasher = self.key.build_hasher();
        hasher.write_u64(word);
        let hash = hasher.finish();
        (usize::try_from(hash & u64::from(u32::MAX)).unwrap_or(0), u32::try_from(hash >> 32).unwrap_or(0))
    }

    /// Every place that a needle may have about the window at `at`.
    pub(super) fn places(&self, text: &[u8], at: usize) -> impl Iterator<Item = Place> + '_ {
        let found = word::<WIDTH>(text, at).map(|word| self.tag(word));
        let mask = self.slots.len() - 1;
        let (mut at, tag) = found.unwrap_or((0, 0));
        at &= mask;
        std::iter::from_fn(move || {
            found?;
            loop {
                let slot = self.slots.get(at)?;
                at = (at + 1) & mask;
                if slot.place.bytes == 0 {
                    return None;
                }
                if slot.tag == tag {
                    return Some(slot.place);
                }
            }
        })
    }

    #[inline(always)]
    fn may_hold(&self, word: u64) -> bool {
        let hash = self.filter_key.hash(word);
        let wanted = bits(hash);
        self.filter.get(index(hash) & self.filter_mask).copied().unwrap_or(0) & wanted == wanted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.filter.capacity() * 8 + self.slots.capacity() * size_of::<Slot>()
    }

    #[cfg(test)]
    pub(super) fn image(&self, out: &mut Vec<u8>) {
        out.extend(self.filter.iter().flat_map(|word| word.to_le_bytes()));
        for slot in &self.slots {
            out.extend_from_slice(&slot.tag.to_le_bytes());
            out.extend_from_slice(&slot.place.before.to_le_bytes());
            out.extend_from_slice(&slot.place.bytes.to_le_bytes());
        }
    }

    /// The bytes at the places that are left when whole blocks have been looked at.
    fn rest(&self, text: &[u8], from: usize, found: &mut impl FnMut(usize)) {
        for at in (from..text.len()).step_by(STRIDE) {
            if word::<WIDTH>(text, at).is_some_and(|word| self.may_hold(word)) {
                found(at);
            }
        }
    }
}

/// How many places are looked at before anything is done about them: the looks of a block do not wait for one another.
const BLOCK: usize = 16;

impl Windows<8, 4> {
    /// Calls `found` with every place of `text` at which a window may stand, from left to right.
    pub(super) fn candidates(&self, text: &[u8], mut found: impl FnMut(usize)) {
        let even = text.as_chunks::<8>().0.as_chunks::<{ BLOCK / 2 }>().0;
        let odd = text.get(4..).unwrap_or(&[]).as_chunks::<8>().0.as_chunks::<{ BLOCK / 2 }>().0;
        let mut base = 0;
        for (even, odd) in even.iter().zip(odd) {
            let mut seen = 0_u32;
            for (pair, (even, odd)) in even.iter().zip(odd).enumerate() {
                seen |= u32::from(self.may_hold(u64::from_le_bytes(*even))) << (2 * pair);
                seen |= u32::from(self.may_hold(u64::from_le_bytes(*odd))) << (2 * pair + 1);
            }
            while seen != 0 {
                found(base + 4 * bit(seen));
                seen &= seen - 1;
            }
            base += 4 * BLOCK;
        }
        self.rest(text, base, &mut found);
    }
}

impl Windows<4, 2> {
    /// As for the longer windows.
    pub(super) fn candidates(&self, text: &[u8], mut found: impl FnMut(usize)) {
        let even = text.as_chunks::<4>().0.as_chunks::<{ BLOCK / 2 }>().0;
        let odd = text.get(2..).unwrap_or(&[]).as_chunks::<4>().0.as_chunks::<{ BLOCK / 2 }>().0;
        let mut base = 0;
        for (even, odd) in even.iter().zip(odd) {
            let mut seen = 0_u32;
            for (pair, (even, odd)) in even.iter().zip(odd).enumerate() {
                seen |= u32::from(self.may_hold(u32::from_le_bytes(*even).into())) << (2 * pair);
                seen |= u32::from(self.may_hold(u32::from_le_bytes(*odd).into())) << (2 * pair + 1);
            }
            while seen != 0 {
                found(base + 2 * bit(seen));
                seen &= seen - 1;
            }
            base += 2 * BLOCK;
        }
        self.rest(text, base, &mut found);
    }
}

fn bit(mask: u32) -> usize {
    usize::try_from(mask.trailing_zeros()).unwrap_or(0)
}

/// The bytes at `at` as a number; nothing where the text ends before.
pub(super) fn word<const WIDTH: usize>(text: &[u8], at: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..WIDTH)?.copy_from_slice(text.get(at..at + WIDTH)?);
    Some(u64::from_le_bytes(bytes))
}

/// A word of the filter, by the hash's highest 22 bits; the caller masks it. No filter is larger than 32 MiB.
#[inline(always)]
fn index(hash: u64) -> usize {
    usize::try_from(hash >> 42).unwrap_or(0)
}

/// Three bits of a word, by those below.
#[inline(always)]
fn bits(hash: u64) -> u64 {
    (1 << (hash >> 36 & 63)) | (1 << (hash >> 30 & 63)) | (1 << (hash >> 24 & 63))
}
