//! Private keys that arrive line by line.

use beeacon_record::{BatchBuilder, Interval, Level, Line, Origin, Position, Source, Stream};
use proptest::prelude::*;

use crate::corpus::Dice;
use crate::{Continuity, Engine, EngineOptions};

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn below(dice: &mut Dice, most: u64) -> usize {
    usize::try_from(dice.within(0, most - 1)).unwrap()
}

fn base64(dice: &mut Dice, characters: usize) -> String {
    (0..characters).map(|_| char::from(ALPHABET[below(dice, 64)])).collect()
}

/// A key as a program prints it, each line behind `prefix`, and the pieces that must not come out.
fn key(dice: &mut Dice, prefix: &str, width: usize) -> (Vec<String>, Vec<String>) {
    let mut bodies: Vec<String> = (0..3 + below(dice, 4)).map(|_| base64(dice, width)).collect();
    let rest = 4 * below(dice, 8);
    bodies.push(format!("{}A1==", base64(dice, rest)));
    let mut lines = vec![format!("{prefix}-----BEGIN RSA PRIVATE KEY-----")];
    if below(dice, 2) == 0 {
        lines.push(format!("{prefix}Proc-Type: 4,ENCRYPTED"));
        lines.push(format!("{prefix}DEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF"));
        lines.push(prefix.to_owned());
    }
    lines.extend(bodies.iter().map(|body| format!("{prefix}{body}")));
    lines.push(format!("{prefix}-----END RSA PRIVATE KEY-----"));
    (lines, bodies)
}

fn engine() -> Engine {
    Engine::new(EngineOptions::default()).unwrap()
}

/// Lines of several streams, in order, cut into batches behind these rows.
fn scrubbed(
    engine: &Engine,
    rows: &[(usize, String)],
    cuts: &[usize],
    memory: &mut Continuity,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut builder = BatchBuilder::new("agent");
    let sources = ["docker-file:a", "docker-file:b"].map(|name| Source::new(name).unwrap());
    let mut from = 0;
    let position = |row: usize| Position::new(1, u64::try_from(row).unwrap());
    for to in cuts.iter().copied().chain([rows.len()]) {
        let origins = sources.clone().map(|source| builder.origin(&Origin::default(), &source));
        for (row, (flow, text)) in rows.iter().enumerate().take(to).skip(from) {
            let (origin, stream) = (origins[flow / 2], Stream::ALL[flow % 2]);
            let position = position(row);
            let level = Level::Info;
            builder.push(
                Line { origin, timestamp_ns: 1, observed_timestamp_ns: 2, stream, level, position },
                text.as_bytes(),
            );
        }
        let intervals = sources.clone().map(|source| Interval::new(source, position(from), position(to)));
        let batch = builder.finish(intervals.to_vec()).unwrap();
        let (batch, _) = engine.scrub_with(batch, memory).unwrap();
        out.extend(batch.get().messages().iter().flatten().map(str::to_owned));
        from = to;
    }
    out
}

/// Two streams' lines, mixed.
fn mixed(dice: &mut Dice, streams: [(usize, &[String]); 2]) -> Vec<(usize, String)> {
    let mut rest = streams.map(|(flow, lines)| (flow, lines.iter()));
    let mut rows = Vec::new();
    while rest.iter().any(|(_, lines)| lines.len() > 0) {
        let (flow, lines) = &mut rest[below(dice, 2)];
        rows.extend(lines.next().map(|line| (*flow, line.clone())));
    }
    rows
}

#[test]
fn no_line_of_a_key_comes_out_wherever_batches_are_cut_and_however_streams_mix() {
    let engine = engine();
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let prefixes = proptest::sample::select(&["", "    ", "2026-11-26T10:00:00.123Z INFO  ", "| "][..]);
    let width = proptest::sample::select(&[64_usize, 70, 76, 48][..]);
    proptest!(config, |(seed in any::<u64>(), prefix in prefixes, width in width, other in 0_usize..3)| {
        let mut dice = Dice::new(seed);
        let (lines, bodies) = key(&mut dice, prefix, width);
        let mut one = vec!["started".to_owned()];
        one.extend(lines);
        one.push("done, listening on 8080".to_owned());
        let two: Vec<String> = (0..8).map(|n| format!("GET /health {n} 200 in 4 ms.")).collect();
        // The other is another stream of the same source, or one of another source.
        let rows = mixed(&mut dice, [(0, &one), (1 + other, &two)]);
        let whole = scrubbed(&engine, &rows, &[], &mut known());
        for body in &bodies {
            prop_assert!(whole.iter().all(|line| !line.contains(body.as_str())), "{body}\n{}", whole.join("\n"));
        }
        prop_assert_eq!(whole.iter().filter(|line| line.starts_with("GET")).count(), two.len());
        prop_assert!(whole.iter().any(|line| line == "done, listening on 8080"));
        for cut in 0..=rows.len() {
            let cuts = [cut / 2, cut];
            prop_assert_eq!(&scrubbed(&engine, &rows, &cuts, &mut known()), &whole);
        }
    });
}

#[test]
fn a_line_of_a_key_that_has_no_digit_by_chance_is_a_line_of_the_key() {
    let engine = engine();
    let mut memory = Continuity::default();
    let mut scrub = |line: &str| engine.scrub_text_with(line, &mut memory).unwrap().0;
    let letters = "UYYsMpOHYsGyUTNGWPPBpWsevcOGvmauMJVkaFrPRbKswuUaUYYsMpOHYsGyUTNGWPPBpW";
    assert_eq!(scrub(letters), letters, "by itself it could be a name");
    assert_eq!(scrub("-----BEGIN OPENSSH PRIVATE KEY-----"), "<PRIVATE_KEY>");
    for width in [48, 64, 70] {
        assert_eq!(scrub(letters.get(..width).unwrap()), "<PRIVATE_KEY>", "{width}");
    }
    assert_eq!(scrub("-----END OPENSSH PRIVATE KEY-----"), "<PRIVATE_KEY>");
    assert_eq!(scrub(letters), letters);
}

/// A memory for which both sources start where the rows of a test start.
fn known() -> Continuity {
    let mut memory = Continuity::default();
    let names = ["docker-file:a", "docker-file:b"];
    let nowhere = names.iter().map(|name| (*name, None));
    let mut flows = memory.begin(nowhere);
    flows.close();
    memory.end(flows, names.iter().map(|name| (*name, Some(Position::new(1, 0)))));
    memory
}

#[test]
fn lines_that_are_read_again_are_inside_the_key_again() {
    let engine = engine();
    let mut dice = Dice::new(7);
    let (lines, bodies) = key(&mut dice, "10:00:00 ", 64);
    let mut rows: Vec<(usize, String)> = lines.into_iter().map(|line| (0, line)).collect();
    rows.push((0, "10:00:01 done.".to_owned()));
    let mut memory = known();
    let whole = scrubbed(&engine, &rows, &[3], &mut memory);
    // The second batch was not acknowledged: the agent reads from its start again.
    let mut builder = BatchBuilder::new("agent");
    let source = Source::new("docker-file:a").unwrap();
    let origin = builder.origin(&Origin::default(), &source);
    for (row, (_, text)) in rows.iter().enumerate().skip(3) {
        let (stream, level) = (Stream::Stdout, Level::Info);
        let position = Position::new(1, u64::try_from(row).unwrap());
        builder.push(
            Line { origin, timestamp_ns: 1, observed_timestamp_ns: 2, stream, level, position },
            text.as_bytes(),
        );
    }
    let interval =
        Interval::new(source, Position::new(1, 3), Position::new(1, u64::try_from(rows.len()).unwrap()));
    let (again, _) = engine.scrub_with(builder.finish(vec![interval]).unwrap(), &mut memory).unwrap();
    let again: Vec<&str> = again.get().messages().iter().flatten().collect();
    assert_eq!(again, whole[3..]);
    assert!(bodies.iter().all(|body| whole.iter().all(|line| !line.contains(body.as_str()))));
}

#[test]
fn an_agent_that_was_restarted_inside_of_a_key_finds_its_rest() {
    let engine = engine();
    let mut dice = Dice::new(9);
    for prefix in ["", "  ", "2026-11-26T10:00:00Z app  "] {
        let (lines, bodies) = key(&mut dice, prefix, 64);
        let start = lines.iter().position(|line| line.contains(&bodies[1])).unwrap();
        let rows: Vec<(usize, String)> = lines.into_iter().skip(start).map(|line| (0, line)).collect();
        let out = scrubbed(&engine, &rows, &[], &mut Continuity::default()).join("\n");
        assert!(bodies.iter().all(|body| !out.contains(body.as_str())), "{out}");
    }
    // Without any memory the lines of full length are found.
    let body = base64(&mut dice, 64);
    assert_eq!(engine.scan(body.as_bytes()).unwrap()[0].rule, "private_key");
}

#[test]
fn other_lines_between_the_lines_of_a_key_stay_and_the_key_goes_on() {
    let engine = engine();
    let mut dice = Dice::new(11);
    let (mut lines, bodies) = key(&mut dice, "10:00:00 ", 64);
    let inside = lines.iter().position(|line| line.contains(&bodies[1])).unwrap();
    lines.insert(inside, "10:00:00 GET / 200 in 4 ms.".to_owned());
    let out = engine.scrub_text(&lines.join("\n")).unwrap().0;
    assert!(out.contains("GET / 200 in 4 ms."));
    assert!(bodies.iter().all(|body| !out.contains(body.as_str())), "{out}");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut memory = Continuity::default();
    for number in 0..3000 {
        let name = format!("docker-file:{number}");
        let flows = memory.begin([(name.as_str(), None)].into_iter());
        memory.end(flows, [(name.as_str(), Some(Position::new(1, 0)))].into_iter());
    }
    assert_eq!(memory.sources(), crate::limits::CONTINUITY_SOURCES_MAX);
}
