//! The program in the test containers: prints the lines of `payload.rs`, at a rate, and stops where it is told to.
//!
//! `generator lines NAME SEED COUNT plain|long out|both RATE [CONTROL GATE]`
//!     RATE in lines per second, 0 for as fast as possible; after GATE lines it waits for the file CONTROL/go.NAME.
//!     While CONTROL/hold exists it prints nothing and says so in CONTROL/held.NAME.
//! `generator odd`
//! `generator endless BYTES SEED` one line without an end, with a secret across each MiB.

mod payload;
mod planted;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use payload::{Shape, Streams};

const TICK: Duration = Duration::from_millis(5);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["lines", name, seed, count, shape, streams, rate, rest @ ..] => {
            let control = rest.first().map(PathBuf::from);
            let gate = rest.get(1).and_then(|gate| gate.parse().ok()).unwrap_or(u64::MAX);
            let shape = if *shape == "long" { Shape::Long } else { Shape::Plain };
            let streams = if *streams == "both" { Streams::Both } else { Streams::Out };
            let number = |text: &str| text.parse::<u64>().unwrap_or(0);
            Printer { name, seed: number(seed), shape, streams, control, gate }
                .print(number(count), number(rate));
        }
        ["odd"] => {
            let mut out = std::io::stdout().lock();
            for mut line in payload::odd_lines() {
                line.push(b'\n');
                out.write_all(&line).unwrap();
            }
        }
        ["endless", bytes, seed] => {
            let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
            payload::endless(bytes.parse().unwrap(), seed.parse().unwrap(), |text| {
                out.write_all(text).unwrap()
            });
            out.flush().unwrap();
        }
        _ => std::process::exit(64),
    }
}

struct Printer<'a> {
    name: &'a str,
    seed: u64,
    shape: Shape,
    streams: Streams,
    control: Option<PathBuf>,
    gate: u64,
}

impl Printer<'_> {
    fn print(&self, count: u64, rate: u64) {
        let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        let mut err = BufWriter::with_capacity(1 << 16, std::io::stderr().lock());
        let mut ids = (0, 0);
        let mut started = Instant::now();
        let mut since_start = 0;
        for index in 0..count {
            if index == self.gate {
                out.flush().unwrap();
                err.flush().unwrap();
                self.wait_for(|control| control.join(format!("go.{}", self.name)).exists());
                (started, since_start) = (Instant::now(), 0);
            }
            if self.control.as_deref().is_some_and(|control| index % 32 == 0 && control.join("hold").exists())
            {
                out.flush().unwrap();
                err.flush().unwrap();
                self.say_held(index);
                self.wait_for(|control| !control.join("hold").exists());
                (started, since_start) = (Instant::now(), 0);
            }
            let stream = payload::stream_of(self.seed, self.name, index, self.streams);
            let id = if stream == 'o' { &mut ids.0 } else { &mut ids.1 };
            let line = payload::line(self.seed, self.name, stream, *id, self.shape).raw();
            *id += 1;
            since_start += 1;
            if stream == 'o' {
                writeln!(out, "{line}").unwrap();
            } else {
                writeln!(err, "{line}").unwrap();
            }
            while rate > 0 && started.elapsed().as_secs_f64() * (rate as f64) < since_start as f64 {
                out.flush().unwrap();
                err.flush().unwrap();
                sleep(TICK);
            }
        }
        out.flush().unwrap();
        err.flush().unwrap();
    }

    fn wait_for(&self, there: impl Fn(&Path) -> bool) {
        let Some(control) = &self.control else { return };
        while !there(control) {
            sleep(TICK);
        }
    }

    fn say_held(&self, index: u64) {
        let Some(control) = &self.control else { return };
        let draft = control.join(format!("draft.{}", self.name));
        std::fs::write(&draft, index.to_string()).unwrap();
        std::fs::rename(draft, control.join(format!("held.{}", self.name))).unwrap();
    }
}
