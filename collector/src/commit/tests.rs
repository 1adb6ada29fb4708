use std::collections::BTreeMap;

use beeacon_record::{Gap, GapReason, Source};
use proptest::prelude::*;

use super::*;

fn at(minor: u64) -> Position {
    Position::new(1, minor)
}

fn interval(from: u64, to: u64, open: &[u64], gap: Option<u64>) -> Interval {
    let mut interval = Interval::new(Source::new("s").unwrap(), at(from), at(to));
    interval.open = open.iter().map(|minor| at(*minor)).collect();
    interval.gap = gap.map(|from| Gap {
        from: at(from),
        reason: GapReason::Rotated,
        bytes: 0,
        timestamp_before_ns: 0,
        timestamp_after_ns: 0,
    });
    interval
}

fn progress(committed: u64, open: &[u64]) -> Progress {
    Progress { committed: at(committed), open: open.iter().map(|minor| at(*minor)).collect() }
}

fn commit(committed: u64, open: &[u64], missing_from: Option<u64>) -> Decision {
    Decision::Commit { after: progress(committed, open), missing_from: missing_from.map(at) }
}

/// Committed is 100, with a line open at 40, unless the row says that the source is new.
#[test]
fn every_way_an_interval_can_lie_to_what_is_committed_has_its_decision() {
    let known = progress(100, &[40]);
    let hole = Decision::Hole { expected: at(100) };
    let table: &[(&str, Option<&Progress>, Interval, Decision)] = &[
        ("first, anywhere", None, interval(500, 600, &[], None), commit(600, &[], None)),
        ("first, empty", None, interval(7, 7, &[], None), commit(7, &[], None)),
        ("first, with a loss", None, interval(500, 600, &[], Some(20)), commit(600, &[], Some(20))),
        ("first, with an empty loss", None, interval(500, 600, &[], Some(500)), commit(600, &[], None)),
        ("first, open before it", None, interval(50, 60, &[45, 55], None), commit(60, &[45, 55], None)),
        ("all before", Some(&known), interval(10, 90, &[], None), Decision::Duplicate),
        ("up to it", Some(&known), interval(10, 100, &[40], None), Decision::Duplicate),
        ("empty before", Some(&known), interval(50, 50, &[], None), Decision::Duplicate),
        ("across", Some(&known), interval(10, 150, &[], None), commit(150, &[], None)),
        ("right behind", Some(&known), interval(100, 150, &[], None), commit(150, &[], None)),
        ("still open", Some(&known), interval(100, 150, &[40], None), commit(150, &[40], None)),
        ("closing only", Some(&known), interval(100, 100, &[], None), commit(100, &[], None)),
        ("opening a stored line", Some(&known), interval(10, 150, &[50], None), commit(150, &[], None)),
        ("opening a new line", Some(&known), interval(10, 150, &[120], None), commit(150, &[120], None)),
        ("open twice", Some(&known), interval(100, 150, &[140, 140], None), commit(150, &[140], None)),
        ("open beyond its end", Some(&known), interval(100, 150, &[150], None), commit(150, &[], None)),
        ("hole", Some(&known), interval(101, 150, &[], None), hole.clone()),
        ("loss that starts too late", Some(&known), interval(110, 150, &[], Some(101)), hole.clone()),
        ("loss", Some(&known), interval(110, 150, &[], Some(100)), commit(150, &[], Some(100))),
        ("loss partly there", Some(&known), interval(110, 150, &[], Some(20)), commit(150, &[], Some(100))),
        ("loss only", Some(&known), interval(110, 110, &[], Some(100)), commit(110, &[], Some(100))),
        ("loss long past", Some(&known), interval(90, 150, &[], Some(20)), commit(150, &[], None)),
        ("loss sent again", Some(&known), interval(60, 90, &[], Some(20)), Decision::Duplicate),
    ];
    for (name, before, interval, expected) in table {
        assert_eq!(decide(*before, interval), *expected, "{name}");
    }
}

#[test]
fn a_row_is_wanted_from_the_committed_position_on_or_where_a_line_is_open() {
    let known = progress(100, &[40]);
    let wanted: Vec<u64> = [39, 40, 41, 99, 100, 101].into_iter().filter(|p| known.wants(at(*p))).collect();
    assert_eq!(wanted, [40, 100, 101]);
    assert!(known.wants(Position::new(2, 0)), "a later generation is new");
    assert!(!known.wants(Position::new(0, u64::MAX)), "an earlier generation is not");
}

#[test]
fn a_replay_follows_what_it_has_seen_unless_records_before_the_entry_are_lost() {
    let (low, high) = (progress(100, &[40]), progress(200, &[]));
    assert_eq!(reconcile(None, None), (None, None));
    assert_eq!(reconcile(Some(&high), Some(&low)), (Some(high.clone()), None));
    assert_eq!(reconcile(Some(&high), None), (Some(high.clone()), None));
    let lost = Lost { from: at(100), to: at(200) };
    assert_eq!(reconcile(Some(&low), Some(&high)), (Some(high.clone()), Some(lost)));
    let lost = Lost { from: Position::START, to: at(200) };
    assert_eq!(reconcile(None, Some(&high)), (Some(high), Some(lost)));
    let empty = Progress::default();
    assert_eq!(reconcile(None, Some(&empty)), (Some(empty), None), "nothing was committed, nothing is lost");
}

/// A file of pieces as Docker writes it: a line of each of two streams may be split, with the other's pieces between.
struct File {
    /// (stream, whether the line ends here); a piece is ten bytes long.
    pieces: Vec<(usize, bool)>,
}

const PIECE_BYTES: u64 = 10;

impl File {
    fn end(&self) -> u64 {
        self.pieces.len() as u64 * PIECE_BYTES
    }

    /// Every line's start, with the position after its last piece.
    fn lines(&self) -> BTreeMap<u64, u64> {
        let mut open = [None; 2];
        let mut lines = BTreeMap::new();
        for (index, (stream, is_last)) in self.pieces.iter().enumerate() {
            let start = *open[*stream].get_or_insert(index as u64 * PIECE_BYTES);
            if *is_last {
                lines.insert(start, (index as u64 + 1) * PIECE_BYTES);
                open[*stream] = None;
            }
        }
        lines
    }

    /// Where the lines start that are unfinished at `position`, whose start is wanted by a reader at `progress`.
    fn open_at(&self, position: u64) -> Vec<u64> {
        let mut open = [None; 2];
        for (index, (stream, is_last)) in self.pieces.iter().enumerate() {
            if index as u64 * PIECE_BYTES >= position {
                break;
            }
            open[*stream].get_or_insert(index as u64 * PIECE_BYTES);
            if *is_last {
                open[*stream] = None;
            }
        }
        open.into_iter().flatten().collect()
    }

    /// What an agent sends that stands at `from` with these ended lines unsent, and cuts at `to`: what ended on the way, but
    /// for the last few, which it keeps for later as if they were open.
    fn batch(&self, from: u64, unsent: &[u64], to: u64, kept: usize) -> (Interval, Vec<u64>) {
        let ended = self.lines().into_iter().filter(|(_, end)| (from + 1..=to).contains(end));
        let mut rows: Vec<u64> = unsent.iter().copied().chain(ended.map(|(start, _)| start)).collect();
        let mut open = self.open_at(to);
        for _ in 0..kept {
            if open.len() < 2 {
                open.extend(rows.pop());
            }
        }
        (interval(from, to, &open, None), rows)
    }
}

/// An agent between two batches.
#[derive(Default)]
struct Reader {
    at: u64,
    /// Lines that ended before `at` and have not been sent.
    unsent: Vec<u64>,
}

impl Reader {
    fn resume(file: &File, progress: Option<&Progress>) -> Reader {
        let Some(progress) = progress else { return Reader::default() };
        let at = progress.committed.minor;
        let lines = file.lines();
        let ended = |start: &u64| lines.get(start).is_some_and(|end| *end <= at);
        Reader { at, unsent: progress.open.iter().map(|open| open.minor).filter(ended).collect() }
    }
}

/// A collector that does what the rules say, and one step that may happen to it.
#[derive(Default)]
struct Model {
    progress: Option<Progress>,
    stored: BTreeMap<u64, u32>,
    holes: u32,
}

impl Model {
    fn take(&mut self, (interval, rows): &(Interval, Vec<u64>)) {
        match decide(self.progress.as_ref(), interval) {
            Decision::Duplicate => {}
            Decision::Hole { .. } => self.holes += 1,
            Decision::Commit { after, missing_from } => {
                assert_eq!(missing_from, None);
                let before = self.progress.clone().unwrap_or_default();
                assert!(after.committed >= before.committed);
                for row in rows.iter().filter(|row| before.wants(at(**row))) {
                    *self.stored.entry(*row).or_default() += 1;
                }
                self.progress = Some(after);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Read this many pieces and send them; the answer arrives or not.
    Send { pieces: u64, kept: usize, is_answered: bool },
    /// The agent starts again from what the collector says.
    Restart,
    /// A batch that was sent earlier arrives once more, late.
    Late { which: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u64..6, 0usize..3, any::<bool>())
            .prop_map(|(pieces, kept, is_answered)| Step::Send { pieces, kept, is_answered }),
        1 => Just(Step::Restart),
        3 => any::<usize>().prop_map(|which| Step::Late { which }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn pieces() -> impl Strategy<Value = Vec<(usize, bool)>> {
    proptest::collection::vec((0usize..2, proptest::bool::weighted(0.5)), 1..40).prop_map(|mut pieces| {
        pieces.extend([(0, true), (1, true)]);
        pieces
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2000 }))]

    #[test]
    fn any_cutting_resending_reordering_and_crashing_stores_every_row_once(pieces in pieces(), steps in steps()) {
        let file = File { pieces };
        let mut collector = Model::default();
        let mut sent = Vec::new();
        let mut reader = Reader::default();
        let mut play = |collector: &mut Model, step: &Step| match step {
            Step::Send { pieces, kept, is_answered } => {
                let to = (reader.at + pieces * PIECE_BYTES).min(file.end());
                let batch = file.batch(reader.at, &reader.unsent, to, *kept);
                collector.take(&batch);
                sent.push(batch);
                // Without an answer the agent sends again from where it was, cut in another way.
                if *is_answered {
                    reader = Reader::resume(&file, collector.progress.as_ref());
                }
            }
            Step::Restart => reader = Reader::resume(&file, collector.progress.as_ref()),
            Step::Late { which } => {
                if !sent.is_empty() {
                    let batch = sent[which % sent.len()].clone();
                    collector.take(&batch);
                }
            }
        };
        for step in &steps {
            play(&mut collector, step);
        }
        for step in [Step::Restart, Step::Send { pieces: 1000, kept: 0, is_answered: true }] {
            play(&mut collector, &step);
        }
        let expected: BTreeMap<u64, u32> = file.lines().into_keys().map(|start| (start, 1)).collect();
        prop_assert_eq!(&collector.stored, &expected);
        prop_assert_eq!(collector.holes, 0);
    }

    /// Against the naive model: a set of every position that was ever covered.
    #[test]
    fn without_open_lines_a_row_is_stored_exactly_when_no_interval_before_covered_it(
        intervals in proptest::collection::vec((0u64..30, 0u64..12, any::<bool>()), 1..40)
    ) {
        let mut progress: Option<Progress> = None;
        let mut covered: Vec<bool> = vec![false; 64];
        for (from, length, declares) in intervals {
            let to = from + length;
            let interval = interval(from, to, &[], declares.then_some(0));
            match decide(progress.as_ref(), &interval) {
                Decision::Duplicate => prop_assert!((from..to).all(|p| covered[p as usize])),
                Decision::Hole { expected } => {
                    prop_assert!(!declares && from > expected.minor);
                }
                Decision::Commit { after, missing_from } => {
                    let before = progress.clone().unwrap_or_default();
                    if let Some(start) = missing_from {
                        prop_assert!(declares && start.minor < from);
                        covered[start.minor as usize..from as usize].fill(true);
                    } else if progress.is_none() {
                        covered[..from as usize].fill(true);
                    }
                    for p in from..to {
                        prop_assert_eq!(before.wants(at(p)), !covered[p as usize]);
                    }
                    covered[from as usize..to as usize].fill(true);
                    progress = Some(after);
                }
            }
        }
    }
}
