//! Several frames under way at once: what a long way, a collector short of room and answers out of turn make of them.

use std::collections::HashMap;
use std::path::Path;

use tempfile::TempDir;

use crate::collector::{Collector, Mood, State};
use crate::stories::{Running, directory, log, number};

/// Lines that take some hundred bytes each however they are compressed, in two containers of which the second writes little.
const LINES: u64 = 50_000;

fn fill(directory: &TempDir) {
    let (mut much, mut little) = (log(directory, "much", 0, 1), log(directory, "little", 0, 1));
    let mut state = 88_172_645_463_325_252_u64;
    for line in 0..LINES {
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let words: Vec<String> = (0..12).map(|_| format!("{:x}", word())).collect();
        let text = format!("{} {line}", words.join(" "));
        much.line("stdout", &text);
        if line % 100 == 0 {
            little.line(
                if line % 3 == 0 { "stderr" } else { "stdout" },
                &format!("{:x} {}", word(), line / 100),
            );
        }
    }
}

async fn ship(collector: &Collector, directory: &Path) {
    let running = Running::start(collector, directory);
    let all = usize::try_from(LINES + LINES / 100).unwrap();
    collector.until("every row", |state| state.rows.len() >= all).await;
    running.stop().await;
}

fn assert_exact(state: &State) {
    let mut next: HashMap<&str, u64> = HashMap::new();
    for (source, _, row) in &state.rows {
        let expected = next.entry(source).or_default();
        assert_eq!(number(&row.message), *expected, "{source}");
        *expected += 1;
    }
    let mut ends: Vec<u64> = next.into_values().collect();
    ends.sort_unstable();
    assert_eq!(ends, [LINES / 100, LINES]);
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0, "{:?}", state.gaps);
}

/// Fails when frames go one by one, and when answers are taken before those of earlier frames.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_long_way_frames_go_side_by_side_and_every_line_is_stored_once_in_order() {
    let (collector, directory) = (Collector::start().await, directory());
    collector.state.lock().unwrap().mood = Mood::Far;
    fill(&directory);
    ship(&collector, directory.path()).await;
    let state = collector.state.lock().unwrap();
    assert_exact(&state);
    let (frames, bytes) = state.most_under_way;
    assert!(frames >= 3, "only {frames} frames were under way at once");
    assert!(bytes <= beeacon_agent::limits::BYTES_IN_FLIGHT_MAX, "{bytes} bytes were under way");
}

/// Frames overtake each other on their way. Fails when one that was overtaken is given up, or one that came too early is taken for
/// a loss of the collector's and everything read again.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_overtake_each_other_neither_lose_nor_repeat_a_line() {
    let (collector, directory) = (Collector::start().await, directory());
    collector.state.lock().unwrap().mood = Mood::Shuffles;
    fill(&directory);
    let running = Running::start(&collector, directory.path());
    let all = usize::try_from(LINES + LINES / 100).unwrap();
    collector.until("every row", |state| state.rows.len() >= all).await;
    let (rewinds, refusals) = {
        let mut registry = prometheus_client::registry::Registry::default();
        running.agent.register(&mut registry);
        let text = beeacon_agent::metrics::exposed(&registry).unwrap();
        (counter(&text, "beeacon_agent_rewinds_total"), counter(&text, "beeacon_agent_refusals_total"))
    };
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_exact(&state);
    assert!(state.holes > 0, "no frame came before the one it follows");
    assert_eq!((rewinds, refusals, state.sessions, state.duplicate_rows), (1, 0, 1, 0));
}

fn counter(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

/// A collector that says it takes less than a frame gets one after another; one that says it takes two frames gets two.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_under_way_than_the_collector_says_that_it_takes() {
    for credit_bytes in [0, 1_500_000] {
        let (collector, directory) = (Collector::start().await, directory());
        {
            let mut state = collector.state.lock().unwrap();
            (state.mood, state.credit_bytes) = (Mood::Far, Some(credit_bytes));
        }
        fill(&directory);
        ship(&collector, directory.path()).await;
        let state = collector.state.lock().unwrap();
        assert_exact(&state);
        let (frames, bytes) = state.most_under_way;
        let most = usize::try_from(credit_bytes).unwrap().max(state.largest_frame);
        assert!(bytes <= most, "{bytes} bytes under way, {credit_bytes} taken");
        assert!(credit_bytes > 0 || frames == 1, "{frames} frames were under way at once");
        assert!(credit_bytes == 0 || frames > 1, "frames of {} bytes went one by one", state.largest_frame);
    }
}
