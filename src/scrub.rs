//! `beeacon scrub`: the pollen filter over files or standard input, scrubbed text to standard output.
//!
//! Text goes through in blocks of whole lines, so memory stays bounded whatever the size. A line longer than
//! [`LINE_BYTES_MAX`] is cut where no match is. Bytes that are not UTF-8 become U+FFFD, as everywhere in Beeacon.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::Context;
use beeacon_filters::{Continuity, Engine, Explanation};
use beeacon_record::limits::{LINE_BYTES_MAX, LINE_OVERLAP_BYTES};

use crate::command_line::{Report, ScrubAction, ScrubArguments, ScrubInput};
use crate::config;
use crate::exit::Exit;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// The size of a block without a line end beyond which it is cut, in bytes.
const BLOCK_BYTES: usize = LINE_BYTES_MAX;

/// What was done, for `--report json`.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Totals {
    lines: u64,
    bytes_in: u64,
    bytes_out: u64,
    redactions: BTreeMap<String, u64>,
}

pub(crate) fn run(arguments: ScrubArguments) -> anyhow::Result<Exit> {
    match arguments.action {
        None => scrub_all(&arguments.what),
        Some(ScrubAction::Explain(what)) => explain_all(&what),
    }
}

/// Scrubbed text to standard output.
fn scrub_all(arguments: &ScrubInput) -> anyhow::Result<Exit> {
    let mut totals = Totals::default();
    each_input(arguments, |engine, _, input, out| scrub(engine, input, out, &mut totals))?;
    if arguments.report == Report::Json {
        #[expect(
            clippy::print_stderr,
            reason = "the report was asked for, and standard output holds the text"
        )]
        {
            eprintln!("{}", serde_json::to_string(&totals)?);
        }
    }
    Ok(Exit::Done)
}

/// What is found, and why, to standard output.
fn explain_all(arguments: &ScrubInput) -> anyhow::Result<Exit> {
    each_input(arguments, |engine, name, input, out| {
        explain(engine, input, &mut |line, explanation| match arguments.report {
            Report::None => Ok(writeln!(out, "{name}:{line}: {explanation}")?),
            Report::Json => {
                let place = Place { file: name, line, explanation };
                Ok(writeln!(out, "{}", serde_json::to_string(&place)?)?)
            }
        })
    })?;
    Ok(Exit::Done)
}

/// One finding, for `explain --report json`.
#[derive(serde::Serialize)]
struct Place<'a> {
    file: &'a str,
    line: u64,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Does something with every file, or with standard input. Somebody who has read enough is no error.
fn each_input(
    arguments: &ScrubInput,
    mut act: impl FnMut(&Engine, &str, &mut dyn Read, &mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let filter = config::load_filter(&arguments.filter)?;
    let engine = filter.engine_to_try().context("make the pollen filter ready")?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = if arguments.files.is_empty() {
        act(&engine, "-", &mut io::stdin().lock(), &mut out)
    } else {
        arguments.files.iter().try_for_each(|path| {
            let name = path.display().to_string();
            let mut file = File::open(path).with_context(|| format!("open {name}"))?;
            act(&engine, &name, &mut file, &mut out).with_context(|| format!("scrub {name}"))
        })
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn scrub(
    engine: &Engine,
    input: &mut dyn Read,
    out: &mut dyn Write,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    // A private key over many lines goes on in the next block.
    let mut continuity = Continuity::default();
    blocks(engine, input, |block| {
        pass(engine, block, &mut continuity, out, totals)?;
        // Whoever pipes a live log through wants to see its lines now.
        Ok(out.flush()?)
    })
}

/// Gives every finding of every line, with the line's number from 1. The bytes are those of the line; of one that is too long for a
/// block, those of its part.
fn explain(
    engine: &Engine,
    input: &mut dyn Read,
    tell: &mut dyn FnMut(u64, &Explanation) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut number = 1;
    blocks(engine, input, |block| {
        for line in block.split_inclusive(|byte| *byte == b'\n') {
            let bare = line.strip_suffix(b"\n").unwrap_or(line);
            for explanation in engine.explain(String::from_utf8_lossy(bare).as_bytes())? {
                tell(number, &explanation)?;
            }
            number += u64::from(bare.len() < line.len());
        }
        Ok(())
    })
}

/// Reads blocks of whole lines, so far as lines fit into a block.
fn blocks(
    engine: &Engine,
    input: &mut dyn Read,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut block: Vec<u8> = Vec::with_capacity(2 * BLOCK_BYTES);
    let mut piece = vec![0; READ_BYTES];
    loop {
        let read = input.read(&mut piece)?;
        block.extend_from_slice(piece.get(..read).unwrap_or_default());
        let end = match memrchr_newline(&block) {
            _ if read == 0 => block.len(),
            Some(at) => at + 1,
            // Half of a cut line waits for its other half, so that a secret across the cut is seen whole.
            None if block.len() > BLOCK_BYTES + LINE_OVERLAP_BYTES => engine.safe_cut(&block, BLOCK_BYTES)?,
            None => 0,
        };
        let rest = block.split_off(end);
        if end > 0 {
            take(&block)?;
        }
        block = rest;
        if read == 0 {
            return Ok(());
        }
    }
}

fn memrchr_newline(block: &[u8]) -> Option<usize> {
    block.iter().rposition(|byte| *byte == b'\n')
}

fn pass(
    engine: &Engine,
    block: &[u8],
    continuity: &mut Continuity,
    out: &mut dyn Write,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let (scrubbed, counts) = engine.scrub_text_with(&String::from_utf8_lossy(block), continuity)?;
    out.write_all(scrubbed.as_bytes())?;
    totals.bytes_in += block.len() as u64;
    totals.bytes_out += scrubbed.len() as u64;
    let ends = block.iter().filter(|byte| **byte == b'\n').count();
    totals.lines += ends as u64;
    for count in counts {
        *totals.redactions.entry(count.rule.to_string()).or_default() += count.count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use beeacon_filters::EngineOptions;

    use super::*;

    /// Gives its bytes in pieces of any size.
    struct Pieces<'a> {
        rest: &'a [u8],
        size: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.size.min(self.rest.len()).min(buffer.len());
            let (head, tail) = self.rest.split_at(count);
            buffer[..count].copy_from_slice(head);
            self.rest = tail;
            Ok(count)
        }
    }

    fn scrubbed(text: &[u8], size: usize) -> (String, Totals) {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let (mut out, mut totals) = (Vec::new(), Totals::default());
        scrub(&engine, &mut Pieces { rest: text, size }, &mut out, &mut totals).unwrap();
        (String::from_utf8(out).unwrap(), totals)
    }

    #[test]
    fn text_comes_out_the_same_however_it_came_in() {
        let text = b"from ada@example.com\nno newline at the end: 4111 1111 1111 1111";
        let whole = scrubbed(text, text.len());
        assert!(!whole.0.contains("ada@") && !whole.0.contains("4111"), "{}", whole.0);
        for size in [1, 2, 7, 30] {
            assert_eq!(scrubbed(text, size), whole);
        }
    }

    #[test]
    fn a_private_key_over_many_lines_is_followed_wherever_the_text_is_cut() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n".repeat(3);
        let text = format!(
            "before\n-----BEGIN PRIVATE KEY-----\n{body}AbCd12==\n-----END PRIVATE KEY-----\nAbCd12==\n"
        );
        let whole = scrubbed(text.as_bytes(), text.len());
        assert!(whole.0.starts_with("before\n") && whole.0.ends_with(">\nAbCd12==\n"), "{}", whole.0);
        assert!(!whole.0.contains("MIIEv"), "{}", whole.0);
        for size in [1, 3, 40, 61] {
            assert_eq!(scrubbed(text.as_bytes(), size), whole, "{size}");
        }
    }

    #[test]
    fn an_explanation_names_the_line_and_never_holds_the_value() {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let text = b"nothing\n\nfrom ada@example.com to\nbob@example.com";
        let mut told = Vec::new();
        explain(&engine, &mut Pieces { rest: text, size: 9 }, &mut |line, one| {
            told.push((line, one.finding.start, one.to_string()));
            Ok(())
        })
        .unwrap();
        let places: Vec<(u64, usize)> = told.iter().map(|(line, start, _)| (*line, *start)).collect();
        assert_eq!(places, [(3, 5), (4, 0)]);
        assert!(told.iter().all(|(_, _, words)| words.contains("email") && !words.contains("example.com")));
    }

    #[test]
    fn a_secret_across_the_cut_of_an_endless_line_is_seen_whole() {
        let secret = b" mail ada.byron@example.com ";
        for shift in [1, 9, 14, 27] {
            let mut text = vec![b'.'; BLOCK_BYTES - shift];
            text.extend_from_slice(secret);
            text.extend(std::iter::repeat_n(b'.', 2 * BLOCK_BYTES));
            let (out, totals) = scrubbed(&text, 64 << 10);
            assert!(!out.contains("byron"), "shift {shift}");
            assert_eq!(totals.redactions.get("email"), Some(&1));
        }
    }
}
