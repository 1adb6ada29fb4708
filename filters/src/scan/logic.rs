//! Sets of bytes as a circuit over the bits of a byte.
//!
//! The positions whose byte is in a set are a function of eight lanes ([`super::simd`]): those of bytes of 128 and more, and those of
//! bytes below that have bit 0, bit 1, ... bit 6. So a set costs a few operations over lanes, and what sets have in common is computed
//! once.
//!
//! A set is written as a tree of decisions, the highest bit first, of which equal parts are one node; or as a sum, over the different
//! rows of sixteen bytes, of "which row" and "what in it". Whichever needs fewer new nodes is taken.

use std::collections::HashMap;

use super::bytes::ByteSet;

/// The lanes that everything is made from.
pub(crate) const PLANES: u8 = 8;

/// Rows of sixteen bytes below 128.
const ROWS: usize = 8;

fn rows(set: &ByteSet) -> [u16; ROWS] {
    let mut rows = [0; ROWS];
    for byte in set.iter() {
        if let Some(row) = rows.get_mut(usize::from(byte >> 4)) {
            *row |= 1 << (byte & 15);
        }
    }
    rows
}

/// One operation over lanes. Numbers name nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// The positions of bytes below 128 that have this bit, or for 7 of bytes above.
    Plane(u8),
    Not(u32),
    And(u32, u32),
    /// The first without the second.
    AndNot(u32, u32),
    Or(u32, u32),
    /// The first, and wherever the second is not.
    OrNot(u32, u32),
    /// `one` where `by` is, `other` elsewhere.
    Choose {
        by: u32,
        one: u32,
        other: u32,
    },
}

impl Gate {
    /// The nodes that it reads.
    pub(crate) fn operands(self) -> impl Iterator<Item = u32> {
        let operands = match self {
            Gate::Plane(_) => [None, None, None],
            Gate::Not(one) => [Some(one), None, None],
            Gate::And(one, other)
            | Gate::AndNot(one, other)
            | Gate::Or(one, other)
            | Gate::OrNot(one, other) => [Some(one), Some(other), None],
            Gate::Choose { by, one, other } => [Some(by), Some(one), Some(other)],
        };
        operands.into_iter().flatten()
    }
}

/// Gates, each once.
#[derive(Default)]
pub(crate) struct Logic {
    gates: Vec<Gate>,
    known: HashMap<Gate, u32>,
}

/// What a part of a set comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Never,
    Always,
    Node(u32),
}

impl Logic {
    pub(crate) fn get(&self, number: u32) -> Option<Gate> {
        usize::try_from(number).ok().and_then(|number| self.gates.get(number)).copied()
    }

    /// The node that holds at the bytes of `set`; of bytes above 127 at all if the set has any.
    pub(crate) fn set(&mut self, set: &ByteSet) -> u32 {
        let rows = rows(set);
        self.circuit(rows, set.iter().any(|byte| byte >= 128))
    }

    /// The same, where it may also hold at control characters: few lines have any, and what is not asked for costs nothing.
    pub(crate) fn superset(&mut self, set: &ByteSet) -> u32 {
        let mut rows = rows(set);
        if let [first, second, third, fourth, ..] = &mut rows
            && *first == 0
            && *second == 0
        {
            (*first, *second) = (*third, *fourth);
        }
        self.circuit(rows, set.iter().any(|byte| byte >= 128))
    }

    fn circuit(&mut self, rows: [u16; ROWS], high: bool) -> u32 {
        let before = self.gates.len();
        self.rows(&rows, PLANES - 2);
        let by_tree = self.gates.len();
        self.forget(before);
        let mut low = self.sum(&rows);
        if self.gates.len() >= by_tree {
            self.forget(before);
            low = self.rows(&rows, PLANES - 2);
        }
        // A byte above 127 looks like zero in the lower planes.
        let looks_alike = rows.first().is_some_and(|row| row & 1 == 1);
        let above = self.gate(Gate::Plane(PLANES - 1));
        let value = match (high, looks_alike) {
            (true, true) | (false, false) => low,
            (true, false) => self.either(Value::Node(above), low),
            (false, true) => match low {
                Value::Node(low) => Value::Node(self.gate(Gate::AndNot(low, above))),
                Value::Always => Value::Node(self.gate(Gate::Not(above))),
                Value::Never => Value::Never,
            },
        };
        match value {
            Value::Node(node) => node,
            Value::Never => self.gate(Gate::AndNot(above, above)),
            Value::Always => self.gate(Gate::OrNot(above, above)),
        }
    }

    /// Takes back the gates behind the first so many.
    fn forget(&mut self, count: usize) {
        for gate in self.gates.drain(count..) {
            self.known.remove(&gate);
        }
    }

    fn gate(&mut self, gate: Gate) -> u32 {
        *self.known.entry(gate).or_insert_with(|| {
            self.gates.push(gate);
            u32::try_from(self.gates.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Decides by bit `bit`, 4 to 6, between the halves of these rows.
    fn rows(&mut self, rows: &[u16], bit: u8) -> Value {
        match rows {
            [] => Value::Never,
            [row] => self.row(*row, 16, 3),
            [first, rest @ ..] if rest.iter().all(|row| row == first) => self.row(*first, 16, 3),
            rows => {
                let (lower, upper) = rows.split_at(rows.len() / 2);
                let lower = self.rows(lower, bit - 1);
                let upper = self.rows(upper, bit - 1);
                self.choose(bit, upper, lower)
            }
        }
    }

    /// Decides by bit `bit`, 0 to 3, between the halves of the `width` lowest bits of `row`.
    fn row(&mut self, row: u16, width: u8, bit: u8) -> Value {
        let all = u16::MAX >> (16 - width);
        if row == 0 {
            return Value::Never;
        }
        if row == all {
            return Value::Always;
        }
        let half = width / 2;
        let (lower, upper) = (row & all >> half, row >> half);
        if lower == upper {
            return self.row(lower, half, bit.saturating_sub(1));
        }
        let lower = self.row(lower, half, bit.saturating_sub(1));
        let upper = self.row(upper, half, bit.saturating_sub(1));
        self.choose(bit, upper, lower)
    }

    fn sum(&mut self, rows: &[u16; ROWS]) -> Value {
        let mut different: Vec<u16> = Vec::new();
        for row in rows {
            if *row != 0 && !different.contains(row) {
                different.push(*row);
            }
        }
        let mut sum = Value::Never;
        for row in different {
            let where_it_is = rows.map(|other| if other == row { u16::MAX } else { 0 });
            let which = self.rows(&where_it_is, PLANES - 2);
            let what = self.row(row, 16, 3);
            let both = self.both(which, what);
            sum = self.either(sum, both);
        }
        sum
    }

    fn both(&mut self, one: Value, other: Value) -> Value {
        match (one, other) {
            (Value::Never, _) | (_, Value::Never) => Value::Never,
            (Value::Always, value) | (value, Value::Always) => value,
            (Value::Node(one), Value::Node(other)) if one == other => Value::Node(one),
            (Value::Node(one), Value::Node(other)) => {
                Value::Node(self.gate(Gate::And(one.min(other), one.max(other))))
            }
        }
    }

    fn either(&mut self, one: Value, other: Value) -> Value {
        match (one, other) {
            (Value::Always, _) | (_, Value::Always) => Value::Always,
            (Value::Never, value) | (value, Value::Never) => value,
            (Value::Node(one), Value::Node(other)) if one == other => Value::Node(one),
            (Value::Node(one), Value::Node(other)) => {
                Value::Node(self.gate(Gate::Or(one.min(other), one.max(other))))
            }
        }
    }

    fn choose(&mut self, bit: u8, one: Value, other: Value) -> Value {
        if one == other {
            return one;
        }
        let by = self.gate(Gate::Plane(bit));
        let gate = match (one, other) {
            (Value::Always, Value::Never) => return Value::Node(by),
            (Value::Never, Value::Always) => Gate::Not(by),
            (Value::Node(one), Value::Never) => Gate::And(by, one),
            (Value::Never, Value::Node(other)) => Gate::AndNot(other, by),
            (Value::Always, Value::Node(other)) => Gate::Or(by, other),
            (Value::Node(one), Value::Always) => Gate::OrNot(one, by),
            (Value::Node(one), Value::Node(other)) => Gate::Choose { by, one, other },
            // Equal ones were answered above.
            (Value::Always, Value::Always) | (Value::Never, Value::Never) => return one,
        };
        Value::Node(self.gate(gate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(logic: &Logic, node: u32, byte: u8) -> bool {
        let of = |node: u32| holds(logic, node, byte);
        match logic.get(node).unwrap() {
            Gate::Plane(7) => byte >= 128,
            Gate::Plane(bit) => byte < 128 && byte >> bit & 1 == 1,
            Gate::Not(one) => !of(one),
            Gate::And(one, other) => of(one) && of(other),
            Gate::AndNot(one, other) => of(one) && !of(other),
            Gate::Or(one, other) => of(one) || of(other),
            Gate::OrNot(one, other) => of(one) || !of(other),
            Gate::Choose { by, one, other } => of(if of(by) { one } else { other }),
        }
    }

    #[test]
    fn a_circuit_holds_at_the_bytes_of_its_set_and_at_no_other() {
        let mut logic = Logic::default();
        let classes = [
            "[0-9]",
            "[a-z]",
            "[A-Z]",
            "[A-Za-z]",
            "[A-Za-z0-9_]",
            "[-. /]",
            "[!-~]",
            "[:;=]",
            "[@]",
            "[k-mQ%]",
            r"[\x80-\xff]",
            r"[!-~\x80-\xff]",
            r"[\x00-\xff]",
            r"[\x00-\x1f\x7f-\xff]",
            r"[\x00-\x09a]",
        ];
        for class in classes {
            let set = ByteSet::parse(class).unwrap();
            let node = logic.set(&set);
            for byte in 0..=255 {
                assert_eq!(holds(&logic, node, byte), set.holds(byte), "{class} {byte:#x}");
            }
            let node = logic.superset(&set);
            for byte in 0..=255 {
                let more = !set.holds(byte) && byte >= 32;
                assert!(holds(&logic, node, byte) >= set.holds(byte), "{class} {byte:#x}");
                assert!(!more || !holds(&logic, node, byte), "{class} {byte:#x}");
            }
        }
        let empty = logic.set(&ByteSet::default());
        assert!((0..=255).all(|byte| !holds(&logic, empty, byte)));
    }

    #[test]
    fn what_sets_have_in_common_is_computed_once() {
        let mut logic = Logic::default();
        logic.set(&ByteSet::parse("[A-Za-z]").unwrap());
        let letters = logic.gates.len();
        logic.set(&ByteSet::parse("[A-Za-z0-9]").unwrap());
        logic.set(&ByteSet::parse("[A-Za-z]").unwrap());
        assert!(logic.gates.len() - letters <= 8, "{} gates more", logic.gates.len() - letters);
    }
}
