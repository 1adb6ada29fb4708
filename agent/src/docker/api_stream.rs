//! The bytes of `GET /containers/{id}/logs?timestamps=1`, taken apart into pieces, and the positions of those pieces.
//!
//! What always holds: pure; the result does not depend on how the bytes were cut into reads; nothing announced is believed
//! beyond [`PIECE_BYTES_MAX`].
//!
//! - Without a terminal each piece has an 8-byte header (stream, three zeros, length as u32 big-endian). Stream 3 is the
//!   daemon's own error, never a line.
//! - With a terminal there is no framing: every piece starts with its timestamp, also in the middle of a line, exactly one
//!   piece length after the one before. There, and only there, a timestamp within a line is taken out. The unfinished last
//!   line of an earlier run cannot be told from the first line after it: they come as one line.

use std::collections::VecDeque;

use beeacon_record::{Position, Stream};
use memchr::memchr;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::time::TimeParser;
use crate::limits::{API_PIECES_KNOWN_MAX, COPIER_PIECE_BYTES, PIECE_BYTES_MAX};

/// The longest timestamp before a piece: nine digits and an offset.
const TIMESTAMP_BYTES_MAX: usize = 40;

const HEADER_BYTES: usize = 8;

/// How a container's output is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With headers: the container has no terminal.
    Multiplexed,
    /// As the terminal got it.
    Raw,
}

/// The stream is not what Docker sends: connect again.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamError {
    /// No such stream.
    #[error("log frame names stream {number}, known are 0 to 3")]
    StreamNumber {
        /// The number found.
        number: u8,
    },
    /// Announced length beyond the limit.
    #[error("log frame announces {bytes} bytes, allowed are {PIECE_BYTES_MAX}")]
    Length {
        /// The length announced.
        bytes: u64,
    },
}

/// What was found in the stream.
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum Item<'a> {
    /// A piece of a line.
    Piece {
        /// The output.
        stream: Stream,
        /// Its timestamp.
        timestamp_ns: i64,
        /// Whether a newline stood behind it.
        ends_line: bool,
        /// Its text, without timestamp and newline.
        text: &'a [u8],
    },
    /// The daemon reported an error of its own.
    DaemonError,
    /// Bytes that are no piece.
    Damaged {
        /// How many.
        bytes: usize,
    },
}

/// Takes a log stream apart.
pub struct Decoder {
    framing: Framing,
    buffer: Vec<u8>,
    at: usize,
    time: TimeParser,
    /// With a terminal: the timestamp of the piece whose rest comes without one.
    inside: Option<i64>,
    /// With a terminal: the timestamp of the full piece that was given last, when another timestamp followed it.
    split: Option<i64>,
}

impl Decoder {
    /// A decoder for a new stream.
    pub fn new(framing: Framing) -> Self {
        Decoder { framing, buffer: Vec::new(), at: 0, time: TimeParser::default(), inside: None, split: None }
    }

    /// Takes the next bytes. Call [`Decoder::next_item`] until it gives `None` before the next call, so that the buffer stays
    /// below one piece and one read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete item, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no log stream; the decoder is of no use then.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, StreamError> {
        match self.framing {
            Framing::Multiplexed => self.next_frame(),
            Framing::Raw => Ok(self.next_raw(false)),
        }
    }

    /// What is left when the stream has ended: the unfinished last piece of a terminal, or half a frame.
    pub fn finish(&mut self) -> Option<Item<'_>> {
        let rest = self.buffer.len() - self.at;
        match self.framing {
            Framing::Multiplexed => {
                self.at = self.buffer.len();
                (rest > 0).then_some(Item::Damaged { bytes: rest })
            }
            Framing::Raw => self.next_raw(true),
        }
    }

    fn next_frame(&mut self) -> Result<Option<Item<'_>>, StreamError> {
        let rest = self.buffer.get(self.at..).unwrap_or(&[]);
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [number, zero1, zero2, zero3, length @ ..] = *header;
        if number > 3 || (zero1, zero2, zero3) != (0, 0, 0) {
            return Err(StreamError::StreamNumber { number });
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > PIECE_BYTES_MAX {
            return Err(StreamError::Length { bytes: length as u64 });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        self.at += HEADER_BYTES + length;
        let stream = match number {
            3 => return Ok(Some(Item::DaemonError)),
            2 => Stream::Stderr,
            _ => Stream::Stdout,
        };
        let Some((timestamp_ns, text)) = stamped(&mut self.time, payload) else {
            return Ok(Some(Item::Damaged { bytes: length }));
        };
        let (text, ends_line) = match text.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (text, false),
        };
        Ok(Some(Item::Piece { stream, timestamp_ns, ends_line, text }))
    }

    fn next_raw(&mut self, is_last: bool) -> Option<Item<'_>> {
        let rest = self.buffer.get(self.at..).unwrap_or(&[]);
        if rest.is_empty() {
            return None;
        }
        let (timestamp_ns, prefix_bytes) = match self.inside {
            Some(timestamp_ns) => (timestamp_ns, 0),
            None => match stamped(&mut self.time, rest) {
                Some((timestamp_ns, text)) => (timestamp_ns, rest.len() - text.len()),
                None if rest.len() <= TIMESTAMP_BYTES_MAX && memchr(b'\n', rest).is_none() && !is_last => {
                    return None;
                }
                None => {
                    let (bytes, item) = unstamped(rest, is_last)?;
                    self.at += bytes;
                    return Some(item);
                }
            },
        };
        let text = rest.get(prefix_bytes..).unwrap_or(&[]);
        let window = text.get(..COPIER_PIECE_BYTES).unwrap_or(text);
        let is_rest = self.split == Some(timestamp_ns);
        if let Some(end) = is_rest.then(|| stamped_return(&mut self.time, text)).flatten() {
            self.at += prefix_bytes + end;
            self.split = None;
            let text = window.get(..end).unwrap_or(&[]);
            return Some(Item::Piece { stream: Stream::Stdout, timestamp_ns, ends_line: true, text });
        }
        if let Some(end) = memchr(b'\n', window) {
            self.at += prefix_bytes + end + 1;
            self.inside = None;
            self.split = None;
            let text = window.get(..end).unwrap_or(&[]);
            return Some(Item::Piece { stream: Stream::Stdout, timestamp_ns, ends_line: true, text });
        }
        let behind = text.get(window.len()..).unwrap_or(&[]);
        if !is_last && (window.len() < COPIER_PIECE_BYTES || behind.len() <= TIMESTAMP_BYTES_MAX) {
            // A newline right behind a full piece belongs to the next piece, whose timestamp comes first.
            if window.len() < COPIER_PIECE_BYTES || stamped(&mut self.time, behind).is_none() {
                return None;
            }
        }
        self.at += prefix_bytes + window.len();
        let next_is_stamped = stamped(&mut self.time, behind).is_some();
        self.inside = (!next_is_stamped).then_some(timestamp_ns);
        self.split = next_is_stamped.then_some(timestamp_ns);
        Some(Item::Piece { stream: Stream::Stdout, timestamp_ns, ends_line: false, text: window })
    }
}

/// Where the rest of a split line ends although no newline stands there: behind a carriage return that a timestamp follows.
/// Docker 20.10 leaves the newline of such a rest out when the log driver is `local`; the next line would be taken for its end.
/// Where the carriage return was the full piece's last byte nothing is left of the rest, and the timestamp comes at once.
/// Its timestamp may stand behind the place where a full piece would end.
fn stamped_return(time: &mut TimeParser, text: &[u8]) -> Option<usize> {
    let text = text.get(..COPIER_PIECE_BYTES + TIMESTAMP_BYTES_MAX).unwrap_or(text);
    let line = text.get(..memchr(b'\n', text).unwrap_or(text.len()))?;
    if stamped(time, line).is_some() {
        return Some(0);
    }
    memchr::memchr_iter(b'\r', line)
        .map(|at| at + 1)
        .take_while(|end| *end <= COPIER_PIECE_BYTES)
        .find(|end| line.get(*end..).is_some_and(|behind| stamped(time, behind).is_some()))
}

/// A line of a terminal without a timestamp: the daemon speaks. Gives how many bytes it has, with its newline.
fn unstamped(rest: &[u8], is_last: bool) -> Option<(usize, Item<'static>)> {
    match memchr(b'\n', rest) {
        Some(end) => Some((end + 1, Item::DaemonError)),
        None if is_last || rest.len() > PIECE_BYTES_MAX => {
            Some((rest.len(), Item::Damaged { bytes: rest.len() }))
        }
        None => None,
    }
}

/// The timestamp before a piece, and the text behind its space.
fn stamped<'a>(time: &mut TimeParser, bytes: &'a [u8]) -> Option<(i64, &'a [u8])> {
    let head = bytes.get(..TIMESTAMP_BYTES_MAX).unwrap_or(bytes);
    let space = memchr(b' ', head)?;
    let timestamp_ns = time.parse(bytes.get(..space)?)?;
    Some((timestamp_ns, bytes.get(space + 1..)?))
}

/// How far a piece's ordinal is moved, so that rows cut from one piece have positions of their own.
const ORDINAL_SHIFT: u32 = 8;

/// Gives the pieces of one stream their positions: (timestamp, ordinal among the pieces with this timestamp), never falling.
///
/// When the clock steps back, the timestamps stay below the highest one seen; such pieces count as if they had that one, so
/// that positions still grow. The lowest timestamp among them is kept: asking Docker for everything since then gives the same
/// pieces and so the same positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ordinals {
    major: u64,
    next: u64,
    since_ns: i64,
    has_seen: bool,
}

impl Ordinals {
    /// The position of the next piece.
    pub fn next(&mut self, timestamp_ns: i64) -> Position {
        let major = u64::try_from(timestamp_ns).unwrap_or(0);
        if !self.has_seen || major > self.major {
            *self = Ordinals { major, next: 0, since_ns: timestamp_ns, has_seen: true };
        }
        self.since_ns = self.since_ns.min(timestamp_ns);
        let position = Position::new(self.major, self.next << ORDINAL_SHIFT);
        self.next += 1;
        position
    }

    /// The position behind the last piece.
    pub fn end(&self) -> Position {
        Position::new(self.major, self.next << ORDINAL_SHIFT)
    }

    /// What came after the last piece may have timestamps that are so much earlier.
    pub fn look_back(&mut self, by_ns: i64) {
        self.since_ns = self.since_ns.saturating_sub(by_ns).max(0);
    }

    /// From when Docker must be asked so that the same positions come out.
    pub fn since_ns(&self) -> i64 {
        self.since_ns
    }
}

/// The last pieces of one output in one attach, to know again those that Docker gives twice.
///
/// A daemon that follows a log while the `local` driver rotates it may read the new file a second time from its start: seen of Docker
/// 20.10. What comes again has the timestamp, to the nanosecond, and the text that it had; what is written after a clock was set back
/// has not. A piece above every timestamp seen costs a hash, and no look.
#[derive(Debug, Default)]
pub struct Recent {
    pieces: VecDeque<(i64, u64)>,
    highest_ns: Option<i64>,
    is_repeating: bool,
}

impl Recent {
    /// Whether this piece has come before. A line's pieces have one timestamp and may be alike: while nothing is out of order, only a
    /// line that ended with such a piece, and ends with it once more, has come twice.
    pub fn repeats(&mut self, timestamp_ns: i64, ends_line: bool, text: &[u8]) -> bool {
        let mark = mark(timestamp_ns, ends_line, text);
        let in_order = match self.highest_ns {
            None => true,
            Some(highest_ns) if timestamp_ns > highest_ns => true,
            Some(highest_ns) => timestamp_ns == highest_ns && !ends_line && !self.is_repeating,
        };
        self.is_repeating = !in_order && self.pieces.contains(&mark);
        self.is_repeating
    }

    /// Takes note of a piece that was taken.
    pub fn note(&mut self, timestamp_ns: i64, ends_line: bool, text: &[u8]) {
        if self.pieces.len() == API_PIECES_KNOWN_MAX {
            self.pieces.pop_front();
        }
        self.pieces.push_back(mark(timestamp_ns, ends_line, text));
        self.highest_ns = self.highest_ns.max(Some(timestamp_ns));
    }

    /// Another attach begins: it gives again what it is asked for.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.highest_ns = None;
        self.is_repeating = false;
    }
}

fn mark(timestamp_ns: i64, ends_line: bool, text: &[u8]) -> (i64, u64) {
    (timestamp_ns, xxh3_64_with_seed(text, u64::from(ends_line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: &str = "2023-08-30T12:34:56.000000001Z";
    const T2: &str = "2023-08-30T12:34:56.000000002Z";

    fn frame(stream: u8, payload: &str) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload.as_bytes());
        bytes
    }

    fn show(item: Item<'_>) -> String {
        match item {
            Item::Piece { stream, timestamp_ns, ends_line, text } => format!(
                "{}@{}:{}{}",
                stream.as_str(),
                timestamp_ns % 10,
                String::from_utf8_lossy(text),
                if ends_line { "$" } else { "" }
            ),
            Item::DaemonError => "daemon error".into(),
            Item::Damaged { bytes } => format!("damaged {bytes}"),
        }
    }

    fn decode(framing: Framing, parts: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::new(framing);
        let mut found: Vec<String> = Vec::new();
        for part in parts {
            decoder.feed(part);
            while let Some(item) = decoder.next_item().unwrap() {
                found.push(show(item));
            }
        }
        while let Some(item) = decoder.finish() {
            found.push(show(item));
        }
        found
    }

    #[test]
    fn a_multiplexed_stream_is_the_same_wherever_it_is_cut() {
        let bytes = [
            frame(1, &format!("{T1} out\n")),
            frame(2, &format!("{T2} err")),
            frame(2, &format!("{T2} \n")),
            frame(1, &format!("{T1} \n")),
            frame(3, "Error grabbing logs: x\n"),
            frame(1, "no time\n"),
            vec![1, 0, 0],
        ]
        .concat();
        let expected = [
            "stdout@1:out$",
            "stderr@2:err",
            "stderr@2:$",
            "stdout@1:$",
            "daemon error",
            "damaged 8",
            "damaged 3",
        ];
        for at in 0..=bytes.len() {
            let (left, right) = bytes.split_at(at);
            assert_eq!(decode(Framing::Multiplexed, &[left, right]), expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(Framing::Multiplexed, &single), expected);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut decoder = Decoder::new(Framing::Multiplexed);
        decoder.feed(&[4, 0, 0, 0, 0, 0, 0, 1, b'x']);
        assert!(matches!(decoder.next_item(), Err(StreamError::StreamNumber { number: 4 })));
        let mut decoder = Decoder::new(Framing::Multiplexed);
        decoder.feed(&[1, 0, 0, 0, 0xff, 0, 0, 0]);
        assert!(matches!(decoder.next_item(), Err(StreamError::Length { .. })));
    }

    #[test]
    fn a_terminals_stream_is_the_same_wherever_it_is_cut() {
        let full = "f".repeat(COPIER_PIECE_BYTES);
        let text = format!(
            "{T1} one\r\n{T2} {full}{T2} {full}{T2} end\r\n{T1} \r\nError grabbing logs: x\n{T1} 10%\r20%\r\n{T2} rest"
        );
        let expected = [
            "stdout@1:one\r$".to_owned(),
            format!("stdout@2:{full}"),
            format!("stdout@2:{full}"),
            "stdout@2:end\r$".to_owned(),
            "stdout@1:\r$".to_owned(),
            "daemon error".to_owned(),
            "stdout@1:10%\r20%\r$".to_owned(),
            "stdout@2:rest".to_owned(),
        ];
        let bytes = text.as_bytes();
        let edges = (0..bytes.len()).filter(|at| {
            *at < 200 || *at > bytes.len() - 300 || at % 997 == 0 || {
                let place = at % (COPIER_PIECE_BYTES + 31);
                !(200..COPIER_PIECE_BYTES - 100).contains(&place)
            }
        });
        for at in edges {
            let (left, right) = bytes.split_at(at);
            assert_eq!(decode(Framing::Raw, &[left, right]), expected, "cut at {at}");
        }
    }

    /// Seen with Docker 20.10, a terminal and the `local` driver: the rest of a split line comes without its newline.
    #[test]
    fn the_rest_of_a_split_line_without_its_newline_does_not_swallow_the_next_line() {
        let full = "f".repeat(COPIER_PIECE_BYTES);
        let text = format!("{T1} {full}{T1} end\r{T2} 10%\r20%\r\n{T2} last\r\n");
        let expected = [
            format!("stdout@1:{full}"),
            "stdout@1:end\r$".to_owned(),
            "stdout@2:10%\r20%\r$".to_owned(),
            "stdout@2:last\r$".to_owned(),
        ];
        for at in COPIER_PIECE_BYTES..=text.len() {
            let (left, right) = text.as_bytes().split_at(at);
            assert_eq!(decode(Framing::Raw, &[left, right]), expected, "cut at {at}");
        }
    }

    /// As above, with a rest that is nearly a full piece itself: the next timestamp begins within it and ends behind it.
    #[test]
    fn a_rest_that_is_nearly_a_full_piece_does_not_swallow_the_next_line() {
        let full = "f".repeat(COPIER_PIECE_BYTES);
        for missing in 1..50 {
            let rest = "r".repeat(COPIER_PIECE_BYTES - missing);
            let text = format!("{T1} {full}{T1} {rest}\r{T2} next\r\n");
            let expected =
                [format!("stdout@1:{full}"), format!("stdout@1:{rest}\r$"), "stdout@2:next\r$".to_owned()];
            for at in text.len() - 100..=text.len() {
                let (left, right) = text.as_bytes().split_at(at);
                assert_eq!(
                    decode(Framing::Raw, &[left, right]),
                    expected,
                    "{missing} bytes missing, cut at {at}"
                );
            }
        }
    }

    /// As above, with the carriage return as the last byte of the full piece.
    #[test]
    fn an_empty_rest_of_a_split_line_does_not_swallow_the_next_line() {
        let full = format!("{}\r", "f".repeat(COPIER_PIECE_BYTES - 1));
        let text = format!("{T1} {full}{T1} {T2} next\r\n{T2} last\r\n");
        let expected = [
            format!("stdout@1:{full}"),
            "stdout@1:$".to_owned(),
            "stdout@2:next\r$".to_owned(),
            "stdout@2:last\r$".to_owned(),
        ];
        for at in COPIER_PIECE_BYTES..=text.len() {
            let (left, right) = text.as_bytes().split_at(at);
            assert_eq!(decode(Framing::Raw, &[left, right]), expected, "cut at {at}");
        }
    }

    #[test]
    fn a_terminals_line_whose_pieces_are_longer_than_dockers_loses_nothing() {
        let long = "g".repeat(COPIER_PIECE_BYTES * 2 + 5);
        let found = decode(Framing::Raw, &[format!("{T1} {long}\r\n").as_bytes()]);
        let joined: String = found.iter().map(|piece| piece.trim_start_matches("stdout@1:")).collect();
        assert_eq!(joined, format!("{long}\r$"));
    }

    #[test]
    fn positions_grow_when_the_clock_steps_back_and_come_out_the_same_again() {
        let times = [100, 100, 90, 95, 100, 101, 101, 80];
        let run = |from: usize| {
            let mut ordinals = Ordinals::default();
            let positions: Vec<_> = times.iter().skip(from).map(|time| ordinals.next(*time)).collect();
            (positions, ordinals)
        };
        let (positions, ordinals) = run(0);
        assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(ordinals.since_ns(), 80);
        let mut looking_back = ordinals;
        looking_back.look_back(30);
        assert_eq!((looking_back.since_ns(), looking_back.end()), (50, ordinals.end()));
        looking_back.look_back(i64::MAX);
        assert_eq!(looking_back.since_ns(), 0);
        assert!(positions.last().unwrap() < &ordinals.end());
        // Docker's `since=101` as a start point begins with the first 101.
        assert_eq!(run(5).0, positions[5..]);
    }

    /// Which of these pieces are new: (timestamp, whether a line ends, text).
    fn new_ones(pieces: &[(i64, bool, &str)]) -> Vec<usize> {
        let mut recent = Recent::default();
        let is_new = |(_, (timestamp_ns, ends_line, text)): &(usize, &(i64, bool, &str))| {
            let repeats = recent.repeats(*timestamp_ns, *ends_line, text.as_bytes());
            if !repeats {
                recent.note(*timestamp_ns, *ends_line, text.as_bytes());
            }
            !repeats
        };
        pieces.iter().enumerate().filter(is_new).map(|(number, _)| number).collect()
    }

    #[test]
    fn what_docker_gives_twice_is_known_again_whether_one_line_or_many() {
        assert_eq!(new_ones(&[(1, true, "a"), (2, true, "b"), (2, true, "b"), (3, true, "c")]), [0, 1, 3]);
        let many =
            [(1, true, "a"), (2, true, "b"), (3, true, "c"), (2, true, "b"), (3, true, "c"), (4, true, "d")];
        assert_eq!(new_ones(&many), [0, 1, 2, 5]);
        let pieces = [
            (1, true, "a"),
            (2, false, "x"),
            (2, false, "x"),
            (1, true, "a"),
            (2, false, "x"),
            (2, false, "x"),
            (2, true, "e"),
        ];
        assert_eq!(new_ones(&pieces), [0, 1, 2, 6]);
    }

    #[test]
    fn lines_of_one_instant_alike_pieces_of_a_line_and_lines_after_a_step_of_the_clock_are_no_repeats() {
        assert_eq!(new_ones(&[(1, true, "a"), (1, true, "b"), (1, false, "c"), (1, true, "c")]).len(), 4);
        assert_eq!(new_ones(&[(1, false, "x"), (1, false, "x"), (1, false, "x"), (1, true, "")]).len(), 4);
        assert_eq!(
            new_ones(&[(5, true, "a"), (3, true, "a"), (4, true, "a"), (5, true, "b"), (6, true, "a")]).len(),
            5
        );
    }

    #[test]
    fn no_more_pieces_are_known_than_the_limit() {
        let mut recent = Recent::default();
        for timestamp_ns in 0..2 * i64::try_from(API_PIECES_KNOWN_MAX).unwrap() {
            assert!(!recent.repeats(timestamp_ns, true, b"a"));
            recent.note(timestamp_ns, true, b"a");
        }
        assert_eq!(recent.pieces.len(), API_PIECES_KNOWN_MAX);
        recent.clear();
        assert!(!recent.repeats(1, true, b"a"));
    }
}
