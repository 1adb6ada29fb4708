//! The three loops that read every byte, for each kind of processor.
//!
//! - *planes*: a bit for every position whose byte is above 127, and for each of the lower bits, for every other position whose byte
//!   has it;
//! - *sieve*: a bit for every position whose four bytes could start a literal ([`SieveTable`]);
//! - *evaluate*: shifts, ands and the like over such bits ([`Op`]).
//!
//! All paths compute the same function from the same tables; tests hold them equal. This is the only module with `unsafe`: reading
//! from an array into a register, and calling a function for a processor that has been asked whether it has what the function needs.

/// Words of 64 positions that one pass decides.
pub(crate) const WORDS: usize = 64;

/// Positions that one pass decides.
pub(crate) const CHUNK_BYTES: usize = WORDS * 64;

/// Bytes that one pass looks at: the positions, a word behind them, and what a fingerprint reads beyond.
pub(crate) const VIEW_BYTES: usize = CHUNK_BYTES + 128;

/// Words of a lane: those decided, one looked ahead at, and what makes them a multiple of eight.
pub(crate) const LANE_WORDS: usize = 72;

/// A bit for every position of a chunk.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane(pub(crate) [u64; LANE_WORDS]);

impl Lane {
    pub(crate) const EMPTY: Lane = Lane([0; LANE_WORDS]);
}

/// The abilities of a processor that a path of the scan needs. All paths find the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// None.
    Portable,
    /// 256-bit integer vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels that this machine has, the best last.
    pub fn available() -> Vec<Level> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "there is one level only"))]
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                levels.push(Level::Avx2);
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                    levels.push(Level::Avx512);
                }
            }
        }
        levels
    }

    /// The best level that this machine has.
    pub fn best() -> Level {
        Level::available().last().copied().unwrap_or(Level::Portable)
    }
}

/// How many bytes a position of the sieve is judged by.
pub(crate) const DEPTH: usize = 4;

/// Bytes of a sieve's table, which stay in the nearest cache.
pub(crate) const SIEVE_BYTES: usize = 1 << 14;

/// Which positions may begin a literal: those for whose four folded bytes two bits of one byte are set.
#[derive(Clone)]
pub(crate) struct SieveTable {
    /// Odd; for the first and the second pair of bytes: those of the hash that chooses a byte, and those of the bits.
    pub(crate) multipliers: [[u16; 2]; 2],
    pub(crate) rows: Box<[u8; SIEVE_BYTES]>,
}

impl SieveTable {
    /// The byte and the bits in it for four folded bytes.
    #[inline(always)]
    pub(crate) fn place(&self, [a, b, c, d]: [u8; DEPTH]) -> (usize, u8) {
        let pairs = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])];
        let [row, bits] = self.multipliers.map(|[first, second]| {
            let sum = pairs[0].wrapping_mul(first).wrapping_add(pairs[1].wrapping_mul(second));
            sum ^ sum >> 8
        });
        (usize::from(row >> 2), 1 << (bits & 7) | 1 << (bits >> 3 & 7))
    }

    /// The row of a hash.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "a hash without its two lowest bits is a place of the table")]
    fn row(&self, hash: u16) -> u8 {
        self.rows[usize::from(hash >> 2)]
    }
}

/// What a pass of the sieve needs.
pub(crate) struct SieveScratch {
    /// The view, folded.
    pub(crate) folded: [u8; VIEW_BYTES],
    /// For each position, its bits among the eight of its row, and its row.
    bits: [u8; CHUNK_BYTES],
    rows: [u8; CHUNK_BYTES],
}

impl SieveScratch {
    pub(crate) fn new() -> SieveScratch {
        SieveScratch { folded: [0; VIEW_BYTES], bits: [0; CHUNK_BYTES], rows: [0; CHUNK_BYTES] }
    }
}

/// A byte with the case of a letter taken away, and every digit as one: classes of letters and digits become few bytes.
#[inline(always)]
pub(crate) fn fold(byte: u8) -> u8 {
    if byte.wrapping_sub(b'0') < 10 { b'0' } else { byte | 0x20 }
}

#[inline(always)]
fn fold_all(view: &[u8; VIEW_BYTES], out: &mut [u8; VIEW_BYTES]) {
    for (slot, byte) in out.iter_mut().zip(view) {
        *slot = fold(*byte);
    }
}

/// One step over lanes: which are read, and which is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// `to = here & (next >> by)`, 1 to 63.
    Step { here: u16, next: u16, by: u8, to: u16 },
    /// `to = next >> by`.
    Shift { next: u16, by: u8, to: u16 },
    /// `to = one & other`.
    And { one: u16, other: u16, to: u16 },
    /// `to = one | other`.
    Or { one: u16, other: u16, to: u16 },
    /// `to = one & !other`.
    AndNot { one: u16, other: u16, to: u16 },
    /// `to = one | !other`.
    OrNot { one: u16, other: u16, to: u16 },
    /// `to = !one`.
    Not { one: u16, to: u16 },
    /// `to = by & one | !by & other`.
    Choose { by: u16, one: u16, other: u16, to: u16 },
    /// `to`: where `words` begins to hold or ceases to, and at the positions of `starts`.
    Boundary { words: u16, starts: u16, to: u16 },
    /// The positions of a lane go to a list.
    Found { lane: u16, list: u16 },
}

impl Op {
    /// The lanes that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = u16> {
        let lanes = match *self {
            Op::Step { here, next, .. } => [Some(here), Some(next), None],
            Op::Shift { next, .. } => [Some(next), None, None],
            Op::And { one, other, .. }
            | Op::Or { one, other, .. }
            | Op::AndNot { one, other, .. }
            | Op::OrNot { one, other, .. } => [Some(one), Some(other), None],
            Op::Not { one, .. } => [Some(one), None, None],
            Op::Choose { by, one, other, .. } => [Some(by), Some(one), Some(other)],
            Op::Boundary { words, starts, .. } => [Some(words), Some(starts), None],
            Op::Found { lane, .. } => [Some(lane), None, None],
        };
        lanes.into_iter().flatten()
    }

    /// The lane that it writes.
    pub(crate) fn writes(&self) -> Option<u16> {
        match *self {
            Op::Step { to, .. }
            | Op::Shift { to, .. }
            | Op::And { to, .. }
            | Op::Or { to, .. }
            | Op::AndNot { to, .. }
            | Op::OrNot { to, .. }
            | Op::Not { to, .. }
            | Op::Choose { to, .. }
            | Op::Boundary { to, .. } => Some(to),
            Op::Found { .. } => None,
        }
    }

    /// The same with other lanes.
    pub(crate) fn with_lanes(self, lane_of: impl Fn(u16) -> u16) -> Op {
        let mut op = self;
        match &mut op {
            Op::Step { here, next, to, .. } => {
                [here, next, to].into_iter().for_each(|lane| *lane = lane_of(*lane))
            }
            Op::Shift { next, to, .. } => [next, to].into_iter().for_each(|lane| *lane = lane_of(*lane)),
            Op::And { one, other, to }
            | Op::Or { one, other, to }
            | Op::AndNot { one, other, to }
            | Op::OrNot { one, other, to } => {
                [one, other, to].into_iter().for_each(|lane| *lane = lane_of(*lane));
            }
            Op::Not { one, to } => [one, to].into_iter().for_each(|lane| *lane = lane_of(*lane)),
            Op::Choose { by, one, other, to } => {
                [by, one, other, to].into_iter().for_each(|lane| *lane = lane_of(*lane));
            }
            Op::Boundary { words, starts, to } => {
                [words, starts, to].into_iter().for_each(|lane| *lane = lane_of(*lane));
            }
            Op::Found { lane, .. } => *lane = lane_of(*lane),
        }
        op
    }
}

/// A found position in a chunk, and the list it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) at: u16,
    pub(crate) list: u16,
}

impl Level {
    /// Fills lane 7 with the positions of bytes above 127, and lanes 0 to 6 with those of other bytes that have bit 0 to 6, for the
    /// first `words` words (65 at most).
    pub(crate) fn planes(self, view: &[u8; VIEW_BYTES], words: usize, lanes: &mut [Lane]) {
        match self {
            Level::Portable => portable::planes(view, words, lanes),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::call_planes_avx2(view, words, lanes),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::call_planes_avx512(view, words, lanes),
        }
    }

    /// Fills `out` with the positions that pass the sieve, for the first `words` words (64 at most).
    pub(crate) fn sieve(
        self,
        view: &[u8; VIEW_BYTES],
        words: usize,
        table: &SieveTable,
        scratch: &mut SieveScratch,
        out: &mut Lane,
    ) {
        match self {
            Level::Portable => portable::sieve(view, words, table, scratch, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::call_sieve_avx2(view, words, table, scratch, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::call_sieve_avx512(view, words, table, scratch, out),
        }
    }

    /// Runs `ops` over the first `words` words of `lanes`, and collects what is found in the first `decided` words.
    pub(crate) fn evaluate(self, ops: &[Op], lanes: &mut [Lane], extent: Extent, found: &mut Vec<Found>) {
        match self {
            Level::Portable => evaluate(ops, lanes, extent, found, shifted),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::call_evaluate_avx2(ops, lanes, extent, found),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::call_evaluate_avx512(ops, lanes, extent, found),
        }
    }
}

/// How much of a chunk there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Words whose positions are decided, 1 to 64.
    pub(crate) decided: usize,
    /// Whether the byte before the chunk is of a word.
    pub(crate) is_behind_word: bool,
    /// Positions of the last of these words that are decided, as bits.
    pub(crate) last: u64,
}

/// A bit for every position.
const EVERYWHERE: [u64; LANE_WORDS] = [u64::MAX; LANE_WORDS];

/// Words that a whole chunk is computed in: one more than it decides, in eights.
const WHOLE: usize = LANE_WORDS;

#[inline(always)]
fn evaluate(
    ops: &[Op],
    lanes: &mut [Lane],
    extent: Extent,
    found: &mut Vec<Found>,
    shifted: impl Fn(&mut [u64; LANE_WORDS], &[u64; LANE_WORDS], &[u64; LANE_WORDS], u8, usize),
) {
    let words = (extent.decided + 8) / 8 * 8;
    // A step whose lanes are not there, or that writes what it reads, is not made.
    macro_rules! on {
        ([$($lane:expr),*], |$($name:ident),*| $do:expr) => {
            if let Ok([$($name),*]) = lanes.get_disjoint_mut([$(usize::from($lane)),*]) {
                $do
            }
        };
    }
    for op in ops {
        match *op {
            Op::Step { here, next, by, to } if here == next => {
                on!([next, to], |next, to| shifted(&mut to.0, &next.0, &next.0, by, words));
            }
            Op::Step { here, next, by, to } => {
                on!([here, next, to], |here, next, to| shifted(&mut to.0, &next.0, &here.0, by, words));
            }
            Op::Shift { next, by, to } => {
                on!([next, to], |next, to| shifted(&mut to.0, &next.0, &EVERYWHERE, by, words));
            }
            Op::And { one, other, to } => {
                on!([one, other, to], |one, other, to| paired(to, one, other, words, |one, other| one
                    & other));
            }
            Op::Or { one, other, to } => {
                on!([one, other, to], |one, other, to| paired(to, one, other, words, |one, other| one
                    | other));
            }
            Op::AndNot { one, other, to } => {
                on!([one, other, to], |one, other, to| paired(to, one, other, words, |one, other| one
                    & !other));
            }
            Op::OrNot { one, other, to } => {
                on!([one, other, to], |one, other, to| paired(to, one, other, words, |one, other| one
                    | !other));
            }
            Op::Not { one, to } => {
                on!([one, to], |one, to| paired(to, one, one, words, |one, _| !one));
            }
            Op::Choose { by, one, other, to } => {
                on!([by, one, other, to], |by, one, other, to| chosen(to, by, one, other, words));
            }
            Op::Boundary { words: of_words, starts, to } => {
                on!([of_words, starts, to], |of_words, starts, to| {
                    let mut before = u64::from(extent.is_behind_word);
                    let parts = to.0.iter_mut().zip(&of_words.0).zip(&starts.0).take(words);
                    for ((slot, word), start) in parts {
                        *slot = (word ^ (word << 1 | before)) | start;
                        before = word >> 63;
                    }
                });
            }
            Op::Found { lane, list } => {
                if let Some(lane) = lanes.get(usize::from(lane)) {
                    collect(&lane.0, extent, list, found);
                }
            }
        }
    }
}

/// `out = here & (next >> by)`. A whole chunk is computed in a loop of known length, which becomes vectors.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the lengths are constants, and less than the arrays'")]
fn shifted(
    out: &mut [u64; LANE_WORDS],
    next: &[u64; LANE_WORDS],
    here: &[u64; LANE_WORDS],
    by: u8,
    words: usize,
) {
    let (right, left) = (u32::from(by) & 63, (64 - u32::from(by)) & 63);
    if words == WHOLE {
        for at in 0..WHOLE - 1 {
            out[at] = here[at] & (next[at] >> right | next[at + 1] << left);
        }
    } else {
        let (_, behind) = next.split_at(1);
        for (((out, here), low), high) in out.iter_mut().zip(here).zip(next).zip(behind).take(words) {
            *out = here & (low >> right | high << left);
        }
    }
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the lengths are constants, and less than the arrays'")]
fn paired(
    Lane(out): &mut Lane,
    Lane(one): &Lane,
    Lane(other): &Lane,
    words: usize,
    with: impl Fn(u64, u64) -> u64,
) {
    if words == WHOLE {
        for at in 0..WHOLE {
            out[at] = with(one[at], other[at]);
        }
    } else {
        for ((out, one), other) in out.iter_mut().zip(one).zip(other).take(words) {
            *out = with(*one, *other);
        }
    }
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the lengths are constants, and less than the arrays'")]
fn chosen(Lane(out): &mut Lane, Lane(by): &Lane, Lane(one): &Lane, Lane(other): &Lane, words: usize) {
    if words == WHOLE {
        for at in 0..WHOLE {
            out[at] = by[at] & one[at] | !by[at] & other[at];
        }
    } else {
        for (((out, by), one), other) in out.iter_mut().zip(by).zip(one).zip(other).take(words) {
            *out = by & one | !by & other;
        }
    }
}

#[inline(always)]
fn collect(lane: &[u64; LANE_WORDS], extent: Extent, list: u16, found: &mut Vec<Found>) {
    let words = lane.split_at(extent.decided.min(WORDS)).0;
    let Some((last, before)) = words.split_last() else { return };
    if before.iter().fold(last & extent.last, |all, word| all | word) == 0 {
        return;
    }
    positions(before, last & extent.last, |at| found.push(Found { at, list }));
}

/// Calls for every position that is set.
#[inline(always)]
pub(crate) fn positions(before: &[u64], last: u64, mut call: impl FnMut(u16)) {
    let words = before.iter().copied().chain(std::iter::once(last));
    for (base, mut word) in (0_u16..).step_by(64).zip(words) {
        while word != 0 {
            // At most 63: it fits.
            call(base + u16::try_from(word.trailing_zeros()).unwrap_or(0));
            word &= word - 1;
        }
    }
}

mod portable {
    use super::{DEPTH, Lane, SieveScratch, SieveTable, VIEW_BYTES, fold_all};

    /// Bit `8i + j` of the answer is bit `8j + i` of `x`: eight bytes become a byte for each of their bits.
    fn transpose(x: u64) -> u64 {
        let mut x = x;
        let mut swapped = (x ^ (x >> 7)) & 0x00aa_00aa_00aa_00aa;
        x ^= swapped ^ (swapped << 7);
        swapped = (x ^ (x >> 14)) & 0x0000_cccc_0000_cccc;
        x ^= swapped ^ (swapped << 14);
        swapped = (x ^ (x >> 28)) & 0x0000_0000_f0f0_f0f0;
        x ^ swapped ^ (swapped << 28)
    }

    pub(super) fn planes(view: &[u8; VIEW_BYTES], words: usize, lanes: &mut [Lane]) {
        for (word, block) in view.as_chunks::<64>().0.iter().take(words).enumerate() {
            let mut rows = [[0_u8; 8]; 8];
            for (row, eight) in block.as_chunks::<8>().0.iter().enumerate() {
                let turned = transpose(u64::from_le_bytes(*eight)).to_le_bytes();
                for (column, bits) in rows.iter_mut().zip(turned) {
                    if let Some(slot) = column.get_mut(row) {
                        *slot = bits;
                    }
                }
            }
            let above = u64::from_le_bytes(rows[7]);
            for (bit, (lane, row)) in lanes.iter_mut().zip(rows).enumerate() {
                if let Some(slot) = lane.0.get_mut(word) {
                    *slot = if bit == 7 { above } else { u64::from_le_bytes(row) & !above };
                }
            }
        }
    }

    pub(super) fn sieve(
        view: &[u8; VIEW_BYTES],
        words: usize,
        table: &SieveTable,
        scratch: &mut SieveScratch,
        out: &mut Lane,
    ) {
        fold_all(view, &mut scratch.folded);
        let mut quads = scratch.folded.array_windows::<DEPTH>();
        for slot in out.0.iter_mut().take(words) {
            let mut mask = 0_u64;
            for (at, quad) in quads.by_ref().take(64).enumerate() {
                let (row, bits) = table.place(*quad);
                let row = table.rows.get(row).copied().unwrap_or(u8::MAX);
                mask |= u64::from(row & bits == bits) << at;
            }
            *slot = mask;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vectors: loads from arrays, and calls after the processor was asked")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{DEPTH, Extent, Found, LANE_WORDS, Lane, Op, SieveScratch, SieveTable, VIEW_BYTES, fold_all};

    /// Which half-byte, below eight, as a bit.
    const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

    /// Vectors of a lane.
    const BLOCKS: usize = LANE_WORDS / 8;

    /// What is read for one word of the sieve.
    const BLOCK_BYTES: usize = 64 + DEPTH;

    macro_rules! call {
        ($name:ident, $path:ident, ($($arg:ident : $type:ty),*)) => {
            pub(super) fn $name($($arg: $type),*) {
                // SAFETY: this level is only chosen where `is_x86_feature_detected!` has found what the function is compiled for.
                unsafe { $path($($arg),*) }
            }
        };
    }
    call!(call_planes_avx2, planes_avx2, (view: &[u8; VIEW_BYTES], words: usize, lanes: &mut [Lane]));
    call!(call_planes_avx512, planes_avx512, (view: &[u8; VIEW_BYTES], words: usize, lanes: &mut [Lane]));
    call!(call_sieve_avx2, sieve_avx2, (view: &[u8; VIEW_BYTES], words: usize, table: &SieveTable, scratch: &mut SieveScratch, out: &mut Lane));
    call!(call_sieve_avx512, sieve_avx512, (view: &[u8; VIEW_BYTES], words: usize, table: &SieveTable, scratch: &mut SieveScratch, out: &mut Lane));
    call!(call_evaluate_avx512, evaluate_avx512, (ops: &[Op], lanes: &mut [Lane], extent: Extent, found: &mut Vec<Found>));
    call!(call_evaluate_avx2, evaluate_avx2, (ops: &[Op], lanes: &mut [Lane], extent: Extent, found: &mut Vec<Found>));

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load<const AT: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> __m256i {
        const { assert!(AT + 32 <= BYTES) };
        // SAFETY: 32 bytes from AT on are inside the array, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().add(AT).cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn both_halves(table: &[u8; 16]) -> __m256i {
        // SAFETY: the array has the 16 bytes that are read, and the load asks for no alignment.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn bits(mask: __m256i) -> u64 {
        u64::from(_mm256_movemask_epi8(mask).cast_unsigned())
    }

    #[target_feature(enable = "avx2")]
    fn planes_avx2(view: &[u8; VIEW_BYTES], words: usize, lanes: &mut [Lane]) {
        for (word, block) in view.as_chunks::<64>().0.iter().take(words).enumerate() {
            let (mut one, mut other) = (load::<0, 64>(block), load::<32, 64>(block));
            let above = bits(one) | bits(other) << 32;
            // From the highest bit: it is what can be read, and doubling moves the next one there.
            for (lane, hidden) in lanes.iter_mut().take(8).rev().zip([0].into_iter().chain([above; 7])) {
                if let Some(slot) = lane.0.get_mut(word) {
                    *slot = (bits(one) | bits(other) << 32) & !hidden;
                }
                (one, other) = (_mm256_add_epi8(one, one), _mm256_add_epi8(other, other));
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store<const AT: usize, const BYTES: usize>(bytes: &mut [u8; BYTES], value: __m256i) {
        const { assert!(AT + 32 <= BYTES) };
        // SAFETY: 32 bytes from AT on are inside the array, and the store asks for no alignment.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().add(AT).cast(), value) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes(value: __m256i) -> [u16; 16] {
        // SAFETY: both are 32 bytes in which every bit pattern means something.
        unsafe { std::mem::transmute::<__m256i, [u16; 16]>(value) }
    }

    /// Every position's row of the table: what no vector does.
    #[inline(always)]
    fn rows(table: &SieveTable, even: &[u16], odd: &[u16], out: &mut [u8]) {
        for (pair, (even, odd)) in out.as_chunks_mut::<2>().0.iter_mut().zip(even.iter().zip(odd)) {
            *pair = [table.row(*even), table.row(*odd)];
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn sieve_avx2(
        view: &[u8; VIEW_BYTES],
        words: usize,
        table: &SieveTable,
        scratch: &mut SieveScratch,
        out: &mut Lane,
    ) {
        fold_all(view, &mut scratch.folded);
        let SieveScratch { folded, bits: places, rows: found } = scratch;
        let numbers =
            table.multipliers.map(|pair| pair.map(|number| _mm256_set1_epi16(number.cast_signed())));
        let (powers, seven) = (both_halves(&BITS), _mm256_set1_epi16(7));
        // A hash for each lane of two bytes; the pairs of bytes are those that begin there, and two on.
        let hash = |one: __m256i, other: __m256i, [first, second]: [__m256i; 2]| {
            let sum = _mm256_add_epi16(_mm256_mullo_epi16(one, first), _mm256_mullo_epi16(other, second));
            _mm256_xor_si256(sum, _mm256_srli_epi16::<8>(sum))
        };
        // The upper half of each lane asks for place 0; its bit is taken out again.
        let power = |number: __m256i| {
            let bit = _mm256_shuffle_epi8(powers, _mm256_and_si256(number, seven));
            _mm256_and_si256(bit, _mm256_set1_epi16(0xff))
        };
        let both = |hash: __m256i| _mm256_or_si256(power(hash), power(_mm256_srli_epi16::<3>(hash)));
        let blocks = places.as_chunks_mut::<64>().0.iter_mut().zip(found.as_chunks_mut::<64>().0);
        for (word, (places, found)) in blocks.enumerate().take(words) {
            // Every word asked for is inside the view.
            let Some(block) = folded.get(64 * word..).and_then(|rest| rest.first_chunk::<BLOCK_BYTES>())
            else {
                return;
            };
            let at = [
                [load::<0, BLOCK_BYTES>(block), load::<1, BLOCK_BYTES>(block)],
                [load::<2, BLOCK_BYTES>(block), load::<3, BLOCK_BYTES>(block)],
                [load::<32, BLOCK_BYTES>(block), load::<33, BLOCK_BYTES>(block)],
                [load::<34, BLOCK_BYTES>(block), load::<35, BLOCK_BYTES>(block)],
            ];
            let [front, front_on, back, back_on] = at;
            let [hashes, chosen] = numbers.map(|numbers| {
                [
                    [hash(front[0], front_on[0], numbers), hash(front[1], front_on[1], numbers)],
                    [hash(back[0], back_on[0], numbers), hash(back[1], back_on[1], numbers)],
                ]
            });
            let [front, back] =
                chosen.map(|[even, odd]| _mm256_or_si256(both(even), _mm256_slli_epi16::<8>(both(odd))));
            store::<0, 64>(places, front);
            store::<32, 64>(places, back);
            let [[even, odd], [even_on, odd_on]] = hashes.map(|pair| pair.map(|value| lanes(value)));
            let (front, back) = found.split_at_mut(32);
            rows(table, &even, &odd, front);
            rows(table, &even_on, &odd_on, back);
        }
        let blocks = places.as_chunks::<64>().0.iter().zip(found.as_chunks::<64>().0);
        for (slot, (places, found)) in out.0.iter_mut().zip(blocks).take(words) {
            let all =
                |place: __m256i, row: __m256i| bits(_mm256_cmpeq_epi8(_mm256_and_si256(place, row), place));
            let front = all(load::<0, 64>(places), load::<0, 64>(found));
            let back = all(load::<32, 64>(places), load::<32, 64>(found));
            *slot = front | back << 32;
        }
    }

    // What a step reads has just been written by the step before. A load that spans two stores waits until both are through, so words
    // are moved between registers and not read one further.

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn evaluate_avx2(ops: &[Op], lanes: &mut [Lane], extent: Extent, found: &mut Vec<Found>) {
        super::evaluate(ops, lanes, extent, found, |out, next, here, by, words| {
            shifted_avx2(out, next, here, by, words);
        });
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn shifted_avx2(
        out: &mut [u64; LANE_WORDS],
        next: &[u64; LANE_WORDS],
        here: &[u64; LANE_WORDS],
        by: u8,
        words: usize,
    ) {
        let (right, left) = (_mm_cvtsi32_si128(i32::from(by)), _mm_cvtsi32_si128(64 - i32::from(by)));
        let blocks = next.as_chunks::<4>().0;
        let behind = blocks.iter().skip(1).map(|block| four(block)).chain([_mm256_setzero_si256()]);
        let outs = out.as_chunks_mut::<4>().0.iter_mut().zip(here.as_chunks::<4>().0);
        for (((out, here), block), behind) in outs.zip(blocks).zip(behind).take(words.div_ceil(4)) {
            let block = four(block);
            let on = _mm256_alignr_epi8::<8>(_mm256_permute2x128_si256::<0x21>(block, behind), block);
            let moved = _mm256_or_si256(_mm256_srl_epi64(block, right), _mm256_sll_epi64(on, left));
            let moved = _mm256_and_si256(moved, four(here));
            // SAFETY: the array has the 32 bytes that are written, and the store asks for no alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), moved) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn four(words: &[u64; 4]) -> __m256i {
        // SAFETY: the array has the 32 bytes that are read, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2,popcnt")]
    fn evaluate_avx512(ops: &[Op], lanes: &mut [Lane], extent: Extent, found: &mut Vec<Found>) {
        super::evaluate(ops, lanes, extent, found, |out, next, here, by, words| {
            shifted_avx512(out, next, here, by, words);
        });
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(clippy::indexing_slicing, reason = "the lengths are constants, and the arrays'")]
    fn shifted_avx512(
        out: &mut [u64; LANE_WORDS],
        next: &[u64; LANE_WORDS],
        here: &[u64; LANE_WORDS],
        by: u8,
        words: usize,
    ) {
        let (right, left) = (_mm_cvtsi32_si128(i32::from(by)), _mm_cvtsi32_si128(64 - i32::from(by)));
        let step = |block: __m512i, behind: __m512i, here: &[u64; 8]| {
            let on = _mm512_alignr_epi64::<1>(behind, block);
            let moved = _mm512_or_si512(_mm512_srl_epi64(block, right), _mm512_sll_epi64(on, left));
            _mm512_and_si512(moved, eight(here))
        };
        let (outs, here, next) =
            (out.as_chunks_mut::<8>().0, here.as_chunks::<8>().0, next.as_chunks::<8>().0);
        let whole = (outs.first_chunk_mut::<BLOCKS>(), here.first_chunk(), next.first_chunk());
        if words == LANE_WORDS
            && let (Some(outs), Some(here), Some(next)) = whole
        {
            let [first, ..]: &[[u64; 8]; BLOCKS] = next;
            let here: &[[u64; 8]; BLOCKS] = here;
            let mut block = eight(first);
            for at in 0..BLOCKS {
                let behind = if at + 1 < BLOCKS { eight(&next[at + 1]) } else { _mm512_setzero_si512() };
                put(&mut outs[at], step(block, behind, &here[at]));
                block = behind;
            }
            return;
        }
        let behind = next.iter().skip(1).map(|block| eight(block)).chain([_mm512_setzero_si512()]);
        for (((out, here), block), behind) in
            outs.iter_mut().zip(here).zip(next).zip(behind).take(words.div_ceil(8))
        {
            put(out, step(eight(block), behind, here));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn put(words: &mut [u64; 8], value: __m512i) {
        // SAFETY: the array has the 64 bytes that are written, and the store asks for no alignment.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) };
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn eight(words: &[u64; 8]) -> __m512i {
        // SAFETY: the array has the 64 bytes that are read, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load_wide<const AT: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> __m512i {
        const { assert!(AT + 64 <= BYTES) };
        // SAFETY: 64 bytes from AT on are inside the array, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().add(AT).cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn four_quarters(table: &[u8; 16]) -> __m512i {
        // SAFETY: the array has the 16 bytes that are read, and the load asks for no alignment.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn planes_avx512(view: &[u8; VIEW_BYTES], words: usize, lanes: &mut [Lane]) {
        let Some((low, [above, ..])) = lanes.split_at_mut_checked(7) else { return };
        let blocks = view.as_chunks::<64>().0;
        for (slot, block) in above.0.iter_mut().zip(blocks).take(words) {
            *slot = _mm512_movepi8_mask(load_wide::<0, 64>(block));
        }
        for (bit, lane) in low.iter_mut().enumerate() {
            let bit = _mm512_set1_epi8(1_i8.wrapping_shl(u32::try_from(bit).unwrap_or(0)));
            for ((slot, block), above) in lane.0.iter_mut().zip(blocks).zip(&above.0).take(words) {
                *slot = _mm512_test_epi8_mask(load_wide::<0, 64>(block), bit) & !above;
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2")]
    fn sieve_avx512(
        view: &[u8; VIEW_BYTES],
        words: usize,
        table: &SieveTable,
        scratch: &mut SieveScratch,
        out: &mut Lane,
    ) {
        fold_all(view, &mut scratch.folded);
        let SieveScratch { folded, bits: places, rows: found } = scratch;
        let numbers =
            table.multipliers.map(|pair| pair.map(|number| _mm512_set1_epi16(number.cast_signed())));
        let (powers, seven) = (four_quarters(&BITS), _mm512_set1_epi16(7));
        let hash = |one: __m512i, other: __m512i, [first, second]: [__m512i; 2]| {
            let sum = _mm512_add_epi16(_mm512_mullo_epi16(one, first), _mm512_mullo_epi16(other, second));
            _mm512_xor_si512(sum, _mm512_srli_epi16::<8>(sum))
        };
        let power = |number: __m512i| {
            let bit = _mm512_shuffle_epi8(powers, _mm512_and_si512(number, seven));
            _mm512_and_si512(bit, _mm512_set1_epi16(0xff))
        };
        let both = |hash: __m512i| _mm512_or_si512(power(hash), power(_mm512_srli_epi16::<3>(hash)));
        let blocks = places.as_chunks_mut::<64>().0.iter_mut().zip(found.as_chunks_mut::<64>().0);
        for (word, (places, found)) in blocks.enumerate().take(words) {
            let Some(block) = folded.get(64 * word..).and_then(|rest| rest.first_chunk::<BLOCK_BYTES>())
            else {
                return;
            };
            let at = [
                [load_wide::<0, BLOCK_BYTES>(block), load_wide::<2, BLOCK_BYTES>(block)],
                [load_wide::<1, BLOCK_BYTES>(block), load_wide::<3, BLOCK_BYTES>(block)],
            ];
            let [[even, odd], [even_bits, odd_bits]] =
                numbers.map(|numbers| at.map(|[one, other]| hash(one, other, numbers)));
            let both = _mm512_or_si512(both(even_bits), _mm512_slli_epi16::<8>(both(odd_bits)));
            // SAFETY: the array has the 64 bytes that are written, and the store asks for no alignment.
            unsafe { _mm512_storeu_si512(places.as_mut_ptr().cast(), both) };
            rows(table, &lanes_wide(even), &lanes_wide(odd), found);
        }
        let blocks = places.as_chunks::<64>().0.iter().zip(found.as_chunks::<64>().0);
        for (slot, (places, found)) in out.0.iter_mut().zip(blocks).take(words) {
            let wanted = load_wide::<0, 64>(places);
            *slot = _mm512_cmpeq_epi8_mask(_mm512_and_si512(wanted, load_wide::<0, 64>(found)), wanted);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn lanes_wide(value: __m512i) -> [u16; 32] {
        // SAFETY: both are 64 bytes in which every bit pattern means something.
        unsafe { std::mem::transmute::<__m512i, [u16; 32]>(value) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(text: &[u8]) -> Box<[u8; VIEW_BYTES]> {
        let mut view = Box::new([0; VIEW_BYTES]);
        view.iter_mut().zip(text).for_each(|(slot, byte)| *slot = *byte);
        view
    }

    fn lanes(count: usize) -> Vec<Lane> {
        vec![Lane::EMPTY; count]
    }

    fn config() -> ProptestConfig {
        ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }
    }

    #[test]
    fn every_level_takes_bytes_apart_alike() {
        proptest!(config(), |(text in proptest::collection::vec(any::<u8>(), 0..VIEW_BYTES))| {
            let view = view(&text);
            for level in Level::available() {
                let mut found = lanes(8);
                level.planes(&view, WORDS + 1, &mut found);
                for (at, byte) in view.iter().take(64 * (WORDS + 1)).enumerate() {
                    let bits = (0..8).map(|bit| u8::from(found[bit].0[at / 64] >> (at % 64) & 1 == 1) << bit);
                    let expected = if *byte < 128 { *byte } else { 128 };
                    prop_assert_eq!(bits.sum::<u8>(), expected, "{:?} {}", level, at);
                }
            }
        });
    }

    #[test]
    fn every_level_sieves_alike_and_as_the_table_says() {
        let strategy = (
            proptest::collection::vec(any::<u8>(), VIEW_BYTES),
            proptest::collection::vec(any::<u8>(), SIEVE_BYTES),
            any::<[[u16; 2]; 2]>(),
        );
        proptest!(config(), |((text, rows, multipliers) in strategy)| {
            let view = view(&text);
            let table = SieveTable { multipliers, rows: rows.into_boxed_slice().try_into().unwrap() };
            let passes = |at: usize| {
                let (row, bits) = table.place([text[at], text[at + 1], text[at + 2], text[at + 3]].map(fold));
                table.rows[row] & bits == bits
            };
            for level in Level::available() {
                let (mut scratch, mut lane) = (SieveScratch::new(), Lane::EMPTY);
                level.sieve(&view, WORDS, &table, &mut scratch, &mut lane);
                for at in 0..CHUNK_BYTES {
                    prop_assert_eq!(lane.0[at / 64] >> (at % 64) & 1 == 1, passes(at), "{:?} {}", level, at);
                }
            }
        });
    }

    #[test]
    fn every_level_evaluates_alike() {
        let ops = [
            Op::Step { here: 0, next: 1, by: 1, to: 2 },
            Op::Step { here: 2, next: 2, by: 5, to: 3 },
            Op::Or { one: 3, other: 0, to: 4 },
            Op::Shift { next: 4, by: 63, to: 3 },
            Op::Or { one: 3, other: 0, to: 1 },
            Op::And { one: 1, other: 2, to: 4 },
            Op::AndNot { one: 4, other: 3, to: 2 },
            Op::OrNot { one: 0, other: 2, to: 3 },
            Op::Not { one: 3, to: 2 },
            Op::Choose { by: 1, one: 2, other: 0, to: 3 },
            Op::Boundary { words: 3, starts: 1, to: 2 },
            Op::Found { lane: 2, list: 7 },
        ];
        let strategy =
            (proptest::collection::vec(any::<u64>(), 2 * LANE_WORDS), 1..=WORDS, any::<u64>(), any::<bool>());
        proptest!(config(), |((words, decided, last, is_behind_word) in strategy)| {
            let mut expected = None;
            for level in Level::available() {
                let mut lanes = lanes(5);
                lanes[0].0.copy_from_slice(&words[..LANE_WORDS]);
                lanes[1].0.copy_from_slice(&words[LANE_WORDS..]);
                let mut found = Vec::new();
                level.evaluate(&ops, &mut lanes, Extent { decided, is_behind_word, last }, &mut found);
                let first: &Vec<Found> = expected.get_or_insert_with(|| found.clone());
                prop_assert_eq!(first, &found, "{:?}", level);
                prop_assert!(found.iter().all(|found| usize::from(found.at) < 64 * decided));
            }
        });
    }

    #[test]
    fn a_step_looks_over_the_end_of_a_word() {
        let mut lanes = lanes(3);
        lanes[0].0[0] = 1 << 63;
        lanes[1].0[1] = 1;
        let mut found = Vec::new();
        let ops = [Op::Step { here: 0, next: 1, by: 1, to: 2 }, Op::Found { lane: 2, list: 0 }];
        Level::best().evaluate(
            &ops,
            &mut lanes,
            Extent { decided: 1, is_behind_word: false, last: u64::MAX },
            &mut found,
        );
        assert_eq!(found, [Found { at: 63, list: 0 }]);
    }
}
