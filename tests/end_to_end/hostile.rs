//! Queries meant to bring a server down, while agents ship to it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::frames::{Hand, noise};
use crate::harness::poll::seconds;
use crate::harness::world::Alone;

#[path = "../shared/hostile.rs"]
mod queries;

use queries::{HOSTILE, hostile};

/// How many ask at a time; so many queries run at once.
const ASKERS: usize = 4;

/// The memory that one query may reserve.
const QUERY_MIB: u64 = 32;

/// What a server may take in memory on top of what its queries reserve: lines that are not in files yet (128 MiB), those that are being
/// written, as rows and as Parquet (64 MiB each), rows for who follows the journal (32 MiB), and 160 MiB for frames on their way, for
/// what parsers and plans take and no pool sees, and for what the allocator keeps.
const BESIDE_MIB: u64 = 128 + 2 * 64 + 32 + 160;

/// How often a frame of a thousand lines comes: 20,000 lines a second.
const FRAME_EVERY: Duration = Duration::from_millis(50);

/// Scenario: five hundred hostile queries over HTTP, four at a time, at a server that an agent ships to all the while.
/// Guarantees: every frame is taken, within five seconds; every query has an answer, and none is a fault of the server; its memory stays
/// within what its queries may reserve and what it needs for itself; afterwards every line is there, in the same process.
#[test]
fn hostile_queries_interrupt_no_frame_and_stay_within_memory() {
    let config = format!(
        "[query]\nmemory_bytes_max = \"{QUERY_MIB} MiB\"\ntime_max = \"1 s\"\n[access]\nrequests_per_minute = 1_000_000\n"
    );
    let mut alone = Alone::start("hostile", None, Some(&config));
    let id = alone.server.id();
    let peak_mib = |alone: &Alone| alone.server.resident_bytes_peak().unwrap() >> 20;
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    let mut lines = noise(1, 1_000, 100);
    lines.push("aaaaaaaaaaaaaaaaaaaaaaaaaaaab".to_owned());
    assert_eq!(hand.send(&lines).status, 200);
    let before = peak_mib(&alone);

    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sql = alone.sql;
    let (answers, frames, longest) = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..ASKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = [0_usize; 3];
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= HOSTILE {
                            return answers;
                        }
                        let query = hostile(number);
                        let shown: String = query.chars().take(60).collect();
                        // An answer that has begun can only be cut off.
                        answers[match sql.ask(&query, "application/json") {
                            Ok(answer) => {
                                assert!(answer.status < 500, "{shown}: {}", answer.text());
                                usize::from(answer.status != 200)
                            }
                            Err(_) => 2,
                        }] += 1;
                    }
                })
            })
            .collect();
        let shipping = scope.spawn(|| {
            let (mut frames, mut longest) = (0_u64, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = hand.send(&lines);
                assert_eq!(answer.status, 200, "{}", answer.text());
                longest = longest.max(began.elapsed());
                frames += 1;
                // The agent's rate; nothing waits for this.
                std::thread::sleep(FRAME_EVERY.saturating_sub(began.elapsed()));
            }
            (frames, longest)
        });
        // A panic of those who ask has to end those who ship.
        let answers: Vec<_> = asking.into_iter().map(|asking| asking.join()).collect();
        over.store(true, Ordering::Relaxed);
        let (frames, longest) = shipping.join().unwrap();
        let answers = answers.into_iter().map(Result::unwrap);
        (answers.fold([0; 3], |sum, one| [0, 1, 2].map(|index| sum[index] + one[index])), frames, longest)
    });
    let grown = peak_mib(&alone).saturating_sub(before);
    println!(
        "{} hostile queries answered, {} refused or stopped, {} cut off; {frames} frames taken meanwhile, 0 refused, the slowest in {} ms; \
         memory at most {grown} MiB above {before} MiB",
        answers[0],
        answers[1],
        answers[2],
        longest.as_millis()
    );
    assert_eq!(answers.iter().sum::<usize>(), HOSTILE);
    assert!(longest < seconds(5), "a frame took {longest:?}");
    assert!(grown <= ASKERS as u64 * QUERY_MIB + BESIDE_MIB, "{grown} MiB");
    let count = alone.sql.number("select count(*) as n from logs");
    assert_eq!(count, (frames + 1) * lines.len() as u64);
    assert_eq!(alone.server.id(), id);
    alone.server.stop();
}
