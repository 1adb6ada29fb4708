//! The order of a program's steps, and the lanes that they share.
//!
//! Steps that do the same come one after another, as far as what they read allows: a processor guesses which kind of step comes next,
//! and where kinds alternate it guesses wrong more often than a step takes.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};

use super::simd::Op;

/// How many lanes may be in use before steps are taken as they come, which uses fewest: as many as the nearest cache holds.
const LANES_MAX: usize = 56;

/// The steps in a good order, reading and writing lanes, and how many lanes there are. The steps that are given write each value once
/// and come behind those that they read; the first `filled` values are there from the start, in the lanes of their numbers.
pub(super) fn ordered(ops: &[Op], filled: u16) -> (Vec<Op>, usize) {
    let mut order = Order::new(ops, filled);
    let mut out = Vec::with_capacity(ops.len());
    while let Some(next) = order.next() {
        out.extend(order.take(next));
    }
    (out, order.lanes)
}

struct Order<'a> {
    ops: &'a [Op],
    /// How many of the values that each step reads are not there yet.
    missing: Vec<usize>,
    /// Which steps read each value, and how many of them have not.
    readers: BTreeMap<u16, Vec<usize>>,
    unread: BTreeMap<u16, usize>,
    ready: BTreeSet<usize>,
    last: Option<Discriminant<Op>>,
    filled: u16,
    lane_of: BTreeMap<u16, u16>,
    free: Vec<u16>,
    lanes: usize,
}

impl<'a> Order<'a> {
    fn new(ops: &'a [Op], filled: u16) -> Order<'a> {
        let mut readers: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        let mut missing = Vec::with_capacity(ops.len());
        for (number, op) in ops.iter().enumerate() {
            let reads: BTreeSet<u16> = op.reads().collect();
            missing.push(reads.iter().filter(|value| **value >= filled).count());
            for value in reads {
                readers.entry(value).or_default().push(number);
            }
        }
        let unread = readers.iter().map(|(value, readers)| (*value, readers.len())).collect();
        let ready =
            missing.iter().enumerate().filter(|(_, missing)| **missing == 0).map(|(op, _)| op).collect();
        let lane_of = (0..filled).map(|value| (value, value)).collect();
        let lanes = usize::from(filled);
        Order { ops, missing, readers, unread, ready, last: None, filled, lane_of, free: Vec::new(), lanes }
    }

    /// A step that can be made now: one like the last, or else the first.
    fn next(&self) -> Option<usize> {
        let alike = |number: &&usize| {
            let kind = self.ops.get(**number).map(discriminant);
            kind.is_some() && kind == self.last
        };
        let in_use = self.lanes - self.free.len();
        let alike = self.ready.iter().find(alike).filter(|_| in_use < LANES_MAX);
        alike.or(self.ready.first()).copied()
    }

    /// Makes a step: its lanes are known, and those that wait for it may come.
    fn take(&mut self, number: usize) -> Option<Op> {
        self.ready.remove(&number);
        let op = *self.ops.get(number)?;
        self.last = Some(discriminant(&op));
        // A step does not write what it reads: its lane is taken before those that it read become free.
        let writes = op.writes().map(|value| {
            let lane = self.free.pop().unwrap_or_else(|| {
                self.lanes += 1;
                u16::try_from(self.lanes - 1).unwrap_or(u16::MAX)
            });
            (value, lane)
        });
        self.lane_of.extend(writes);
        let placed = op.with_lanes(|value| self.lane_of.get(&value).copied().unwrap_or(0));
        for value in op.reads().collect::<BTreeSet<u16>>() {
            let Some(unread) = self.unread.get_mut(&value) else { continue };
            *unread -= 1;
            if *unread == 0 && value >= self.filled {
                self.free.extend(self.lane_of.get(&value));
            }
        }
        for reader in writes.and_then(|(value, _)| self.readers.get(&value)).into_iter().flatten() {
            if let Some(missing) = self.missing.get_mut(*reader) {
                *missing -= 1;
                if *missing == 0 {
                    self.ready.insert(*reader);
                }
            }
        }
        Some(placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_do_the_same_come_one_after_another_and_lanes_are_shared() {
        let ops = [
            Op::And { one: 0, other: 1, to: 2 },
            Op::Or { one: 2, other: 0, to: 3 },
            Op::And { one: 1, other: 0, to: 4 },
            Op::Or { one: 4, other: 3, to: 5 },
            Op::Found { lane: 5, list: 0 },
        ];
        let (ordered, lanes) = ordered(&ops, 2);
        let expected = [
            Op::And { one: 0, other: 1, to: 2 },
            Op::And { one: 1, other: 0, to: 3 },
            Op::Or { one: 2, other: 0, to: 4 },
            Op::Or { one: 3, other: 4, to: 2 },
            Op::Found { lane: 2, list: 0 },
        ];
        assert_eq!(ordered, expected);
        assert_eq!(lanes, 5);
    }
}
