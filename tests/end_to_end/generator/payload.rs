//! What a generator container prints, as a function of its name, a stream and an id.
//!
//! Ids are dense per container and stream. One line in twenty carries a secret that is a function of the same three. The
//! generator prints these lines; the oracle makes them again and compares.

use crate::planted::{KINDS, Numbers, Planted, letters, plant, words};

/// How much Docker takes of a line before it cuts, in bytes.
pub(crate) const DOCKER_PIECE_BYTES: usize = 16 << 10;

/// What a container prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Short lines.
    Plain,
    /// Short lines, and one in forty longer than Docker's piece with its secret across the cut.
    Long,
}

/// Where a container prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Standard output only.
    Out,
    /// Both, mixed.
    Both,
}

/// One line: what must be stored as it is, and the secret in its middle.
pub(crate) struct Line {
    /// Kept as it is.
    pub(crate) head: String,
    /// To be taken out.
    pub(crate) secret: Option<Planted>,
    /// Kept as it is.
    pub(crate) tail: String,
}

impl Line {
    /// The line as printed, without its newline.
    pub(crate) fn raw(&self) -> String {
        let phrase = self.secret.as_ref().map(Planted::phrase).unwrap_or_default();
        format!("{}{phrase}{}", self.head, self.tail)
    }
}

/// Line `id` of a stream ('o' or 'e') of a container.
pub(crate) fn line(seed: u64, container: &str, stream: char, id: u64, shape: Shape) -> Line {
    let mut numbers = Numbers::of(seed, container, id << 1 | u64::from(stream == 'e'));
    let long = shape == Shape::Long && id % 40 == 7;
    let count = 3 + numbers.below(18);
    let mut head = format!("id={id} payload={} {} ", letters(&mut numbers, 12), words(&mut numbers, count));
    let secret = (long || numbers.below(20) == 0).then(|| {
        let kind = numbers.below(KINDS);
        plant(kind, &mut numbers)
    });
    if let Some(secret) = secret.as_ref().filter(|_| long) {
        let middle = secret.before.len() + secret.value.len() / 2;
        while head.len() + middle < DOCKER_PIECE_BYTES {
            let missing = DOCKER_PIECE_BYTES - head.len() - middle;
            let filler = words(&mut numbers, 64);
            head.push_str(filler.get(..missing.saturating_sub(1)).unwrap_or(&filler));
            head.push(' ');
        }
    }
    let rest = if long { numbers.below(4000) } else { numbers.below(6) };
    let tail = format!(" {} end", words(&mut numbers, rest));
    Line { head, secret, tail }
}

/// In which stream the `index`-th line of a container goes.
pub(crate) fn stream_of(seed: u64, container: &str, index: u64, streams: Streams) -> char {
    match streams {
        Streams::Out => 'o',
        Streams::Both if Numbers::of(seed ^ 0x5741, container, index).below(3) == 0 => 'e',
        Streams::Both => 'o',
    }
}

/// Lines that are hard to carry, as printed, without their newlines.
pub(crate) fn odd_lines() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = vec![b"odd first".to_vec(), Vec::new(), b"   ".to_vec(), Vec::new()];
    for length in [16_383, 16_384, 16_385, 5 * 16_384, 0, 1, 1 << 20] {
        let mut numbers = Numbers::new(length as u64 + 99);
        let mut text = words(&mut numbers, length as u64 / 4 + 2);
        text.truncate(length);
        // A line must not end in a blank, so that a reader that trims would be seen.
        if text.ends_with(' ') {
            text.pop();
            text.push('x');
        }
        lines.push(text.into_bytes());
    }
    lines.push(b"bad \xff byte \xfe here".to_vec());
    lines.push(b"\xff".to_vec());
    lines.push(b"nul \x00 inside".to_vec());
    lines.push("\u{feff}bom first".as_bytes().to_vec());
    lines.push("separators \u{2028} and \u{2029} and \u{ac}".as_bytes().to_vec());
    lines.push("gr\u{fc}n \u{1f41d} \u{4e2d}".as_bytes().to_vec());
    lines.push(br#"{"log":"not a record\n","stream":"stdout"}"#.to_vec());
    lines.push(b"\x1b[31mred\x1b[0m \x07 <a href=\"x\">&amp;".to_vec());
    lines.push(b"tab\there and back\\slash".to_vec());
    lines.push(b"progress 10%\rprogress 99%\rdone".to_vec());
    lines.push(b"odd last".to_vec());
    lines
}

/// One line of `bytes` bytes without a newline, with secrets across each MiB and between. Gives the text in pieces; returns the
/// secrets.
pub(crate) fn endless(bytes: usize, seed: u64, mut give: impl FnMut(&[u8])) -> Vec<Planted> {
    const MIB: usize = 1 << 20;
    let mut numbers = Numbers::of(seed, "endless", 0);
    let mut secrets = Vec::new();
    let mut done = 0;
    while done < bytes {
        let until_cut = MIB - done % MIB;
        if until_cut < 600 && done + 2000 < bytes {
            let kind = numbers.below(KINDS);
            let secret = plant(kind, &mut numbers);
            let middle = secret.before.len() + secret.value.len() / 2;
            let filler = "-".repeat(until_cut.saturating_sub(middle + 2));
            let text = format!("{filler} {} and on ", secret.phrase());
            give(text.as_bytes());
            done += text.len();
            secrets.push(secret);
        } else if numbers.below(150) == 0 && until_cut > 3000 && done + 2000 < bytes {
            let kind = numbers.below(KINDS);
            let secret = plant(kind, &mut numbers);
            // Words follow every secret, so that the judge can tell where it ended.
            let text = format!("{} and on ", secret.phrase());
            give(text.as_bytes());
            done += text.len();
            secrets.push(secret);
        } else {
            let mut text = words(&mut numbers, 40);
            text.push(' ');
            text.truncate(bytes - done);
            give(text.as_bytes());
            done += text.len();
        }
    }
    secrets
}
