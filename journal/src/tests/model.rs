//! The journal against a model, under everything the simulated disk can do to it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Bench, small};
use crate::simulation::{Fault, Operation, SimDisk};
use crate::{Cursor, Duty, Lsn};

#[derive(Debug, Clone)]
enum Action {
    Submit {
        bytes: usize,
    },
    Step,
    Advance {
        cursor: usize,
        share: u64,
    },
    Truncate,
    PowerCut {
        seed: u64,
    },
    Kill,
    /// The power goes after so many operations on the disk, wherever that is.
    PowerCutAfter {
        operations: u64,
    },
    Fail {
        operation: Operation,
        fault: Fault,
    },
    FillDisk,
    FreeDisk,
    Close,
}

fn action() -> impl Strategy<Value = Action> {
    let operation = prop_oneof![
        4 => Just(Operation::Sync),
        3 => Just(Operation::Write),
        1 => Just(Operation::Create),
        1 => Just(Operation::Allocate),
        1 => Just(Operation::Rename),
        1 => Just(Operation::Truncate),
        1 => Just(Operation::Remove),
        1 => Just(Operation::SyncDirectory),
    ];
    let fault = prop_oneof![3 => Just(Fault::Eio), 1 => Just(Fault::NoSpace), 1 => Just(Fault::Short)];
    prop_oneof![
        24 => (0_usize..3000).prop_map(|bytes| Action::Submit { bytes }),
        6 => (3000_usize..32_000).prop_map(|bytes| Action::Submit { bytes }),
        16 => Just(Action::Step),
        4 => (0_usize..2, 0_u64..=100).prop_map(|(cursor, share)| Action::Advance { cursor, share }),
        3 => Just(Action::Truncate),
        3 => any::<u64>().prop_map(|seed| Action::PowerCut { seed }),
        2 => Just(Action::Kill),
        3 => (0_u64..30).prop_map(|operations| Action::PowerCutAfter { operations }),
        3 => (operation, fault).prop_map(|(operation, fault)| Action::Fail { operation, fault }),
        1 => Just(Action::FillDisk),
        1 => Just(Action::FreeDisk),
        1 => Just(Action::Close),
    ]
}

const CURSORS: [&str; 2] = ["store", "loki"];

/// What has to hold, whatever happens to the disk.
struct World {
    bench: Bench,
    cursors: Vec<Cursor>,
    next_id: u64,
    seed: u64,
    /// Every LSN that was acknowledged, and what it was given to.
    acknowledged: BTreeMap<u64, u64>,
    /// What was acknowledged by each cursor, and the furthest it was ever told to go.
    advanced: [(u64, u64); 2],
    /// A failed sync may leave a torn seal, which is told as damage that costs nothing.
    disk_failed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let bench = Bench::open(&SimDisk::new(seed));
        let cursors = CURSORS.iter().map(|name| bench.journal.cursor(name).unwrap()).collect();
        Self {
            bench,
            cursors,
            next_id: 1,
            seed,
            acknowledged: BTreeMap::new(),
            advanced: [(0, 0); 2],
            disk_failed: false,
        }
    }

    /// Takes in the answers given so far.
    fn listen(&mut self) {
        for (id, answer) in std::mem::take(&mut *crate::queue::lock(&self.bench.answers)) {
            match answer {
                Ok(Lsn(lsn)) => {
                    assert!(lsn <= self.bench.journal.synced_lsn().0);
                    assert_eq!(self.acknowledged.insert(lsn, id), None, "an lsn was given twice");
                }
                Err(error) => assert_ne!(error.duty(), Duty::Drop),
            }
        }
    }

    /// Starts again on a disk, as often as it takes.
    fn restart(&mut self, disk: SimDisk) {
        self.listen();
        let mut disk = disk;
        for _ in 0..20 {
            match Bench::try_open(&disk, small()) {
                Ok(bench) => {
                    self.bench = bench;
                    self.after_restart();
                    return;
                }
                Err(error) => {
                    assert_eq!(error.duty(), Duty::Stop, "{error}");
                    self.seed += 1;
                    disk = if disk.is_dead() { disk.power_cut(self.seed) } else { disk.kill() };
                    disk.heal();
                }
            }
        }
        panic!("the journal does not open");
    }

    fn after_restart(&mut self) {
        let report = &self.bench.report;
        assert_eq!(report.lost_records, 0, "{report:?}");
        assert!(report.cursors_reset.is_empty(), "{report:?}");
        assert!(self.disk_failed || report.is_clean(), "{report:?}");
        let positions = self.bench.journal.cursors();
        for (index, name) in CURSORS.iter().enumerate() {
            let found = positions.iter().find(|(of, _)| of == name).map_or(0, |(_, lsn)| lsn.0);
            let (durable, furthest) = self.advanced[index];
            assert!(
                (durable..=furthest).contains(&found),
                "cursor {name}: {found} not in {durable}..={furthest}"
            );
            self.advanced[index].0 = found;
        }
        self.check_records();
        self.cursors.clear();
        for name in CURSORS {
            // A fault that waits for its turn may hit this too.
            match self.bench.journal.cursor(name) {
                Ok(cursor) => self.cursors.push(cursor),
                Err(error) => {
                    assert_eq!(error.duty(), Duty::Stop);
                    let disk = if self.bench.disk.is_dead() {
                        self.bench.disk.power_cut(self.seed)
                    } else {
                        self.bench.disk.kill()
                    };
                    disk.heal();
                    return self.restart(disk);
                }
            }
        }
    }

    /// Everything acknowledged is there, in order, and nothing is there that was not submitted.
    fn check_records(&mut self) {
        let found = self.bench.records();
        let first = self.bench.first_lsn().0;
        let slowest = self.advanced.iter().map(|(_, furthest)| *furthest).min().unwrap();
        assert!(first <= slowest + 1, "records from {first} on are kept, a cursor is at {slowest}");
        for (index, (lsn, id)) in found.iter().enumerate() {
            assert_eq!(*lsn, first + index as u64, "lsns are dense");
            assert!(*id < self.next_id, "a record that nobody submitted");
        }
        assert!(found.windows(2).all(|pair| pair[0].1 < pair[1].1), "records are in the order of submission");
        let found: BTreeMap<u64, u64> = found.into_iter().collect();
        for (lsn, id) in self.acknowledged.range(first..) {
            assert_eq!(found.get(lsn), Some(id), "acknowledged record {lsn}");
        }
    }

    fn power_cut(&mut self, seed: u64) {
        let disk = self.bench.disk.power_cut(seed);
        disk.heal();
        self.restart(disk);
    }

    fn kill(&mut self) {
        let disk = self.bench.disk.kill();
        self.restart(disk);
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::Submit { bytes } => {
                let id = self.next_id;
                self.next_id += 1;
                if let Err(error) = self.bench.submit(id, bytes) {
                    assert_ne!(error.duty(), Duty::Drop, "{error}");
                }
            }
            Action::Step => {
                let result = self.bench.writer.step();
                self.listen();
                if result.is_err() && !self.bench.disk.is_dead() {
                    self.kill();
                }
            }
            Action::Advance { cursor, share } => {
                let (from, synced) = (self.advanced[cursor].0, self.bench.journal.synced_lsn().0);
                let to = from + (synced - from) * share / 100;
                self.advanced[cursor].1 = self.advanced[cursor].1.max(to);
                match self.cursors[cursor].advance(Lsn(to)) {
                    Ok(()) => self.advanced[cursor].0 = to,
                    Err(error) => {
                        assert_eq!(error.duty(), Duty::Stop);
                        if !self.bench.disk.is_dead() {
                            self.kill();
                        }
                    }
                }
            }
            Action::Truncate => {
                if self.bench.journal.truncate().is_err() && !self.bench.disk.is_dead() {
                    self.kill();
                }
            }
            Action::PowerCut { seed } => self.power_cut(seed),
            Action::Kill => self.kill(),
            Action::PowerCutAfter { operations } => self.bench.disk.power_cut_after(operations),
            Action::Fail { operation, fault } => {
                self.disk_failed = true;
                self.bench.disk.fail_next(operation, fault);
            }
            Action::FillDisk => self.bench.disk.set_free_bytes(0),
            Action::FreeDisk => self.bench.disk.set_free_bytes(1 << 30),
            Action::Close => {
                self.bench.journal.shared().queue.close();
                self.bench.writer.finish();
                self.kill();
            }
        }
        if self.bench.disk.is_dead() {
            self.seed += 1;
            self.power_cut(self.seed);
        }
    }
}

/// `BEEACON_TEST_CASES` for a longer run.
fn cases() -> u32 {
    std::env::var("BEEACON_TEST_CASES").map_or(400, |text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Scenario: submissions, groups, cursors, truncation, restarts, power cuts at any operation,
    /// failing syncs that mark pages clean, failing and short writes, a full disk, in any order.
    /// Guarantees: it always opens; every acknowledged record that a cursor still needs is there,
    /// in order and intact; nothing is there that was not submitted; damage is never reported
    /// where there was none; a file that failed is never written or synced again.
    #[test]
    fn acknowledged_records_survive_whatever_the_disk_does(
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        let mut world = World::new(seed);
        for action in actions {
            world.take(action);
        }
        world.bench.disk.heal();
        drop(world.bench.writer.step());
        world.listen();
        world.power_cut(seed);
    }
}
