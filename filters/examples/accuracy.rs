//! Recall and precision of a profile on labelled lines that are made up afresh from a seed.
//!
//! `cargo run --release -p beeacon-filters --example accuracy [SEED] [PROFILE] [show]`; `show` prints the lines at fault.

use beeacon_filters::corpus::{labelled, score};
use beeacon_filters::{Engine, EngineOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seed: u64 = arguments.next().map_or(Ok(20_261_126), |text| text.parse())?;
    let profile = arguments.next().unwrap_or_else(|| "default".to_owned());
    let shows = arguments.next().is_some();
    for (name, lines) in
        [("mixed", labelled::mixed(seed, 40_000_000, 20)), ("hard", labelled::hard(seed, 10_000_000))]
    {
        // An engine for each: what it learns of one text's fields says nothing of the other's.
        let options = EngineOptions { profile: profile.clone(), ..EngineOptions::default() };
        let score = score::score(&Engine::new(options)?, &lines)?;
        print(format!(
            "{name}: {} lines, recall {:.4}, precision {:.4}",
            lines.len(),
            score.recall(),
            score.precision()
        ));
        let (recall, precision) = score.of("card", &["credit_card"]);
        print(format!("  cards: recall {recall:.4}, precision {precision:.4}"));
        for (kind, found) in &score.kinds {
            print(format!("  {kind:<18} labelled {:>7}  removed {:>7}", found.labelled, found.removed));
        }
        for (rule, count) in &score.extra {
            print(format!("  beyond the labels: {rule:<24} {count:>7}"));
        }
        for (what, at) in score.lines.iter().filter(|_| shows) {
            print(format!("  {what}: {}", lines.get(*at).map_or("", |line| line.text.as_str())));
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn print(text: String) {
    println!("{text}");
}
