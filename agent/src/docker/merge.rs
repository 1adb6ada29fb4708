//! Joins the pieces into which Docker splits a line.
//!
//! What always holds:
//! - pieces belong together when stream **and** timestamp are equal and the earlier one had no newline. Docker stamps all
//!   pieces of one line with the time of the first, so the unfinished last words of one run are never glued to the next run;
//! - a line beyond [`LINE_BYTES_MAX`] becomes several rows. At least [`LINE_OVERLAP_BYTES`] stay behind for the next row, and
//!   the place of the cut is the pollen filter's choice, so a secret is never divided;
//! - where rows are cut and where they stand depends on nothing but the line's own pieces: reading them again gives the same;
//! - an open line of one stream never holds back the other.
//!
//! A row stands where its first new piece stands; when it has no new piece (the rest of a long line that never ended, or the
//! inside of one huge piece) right behind the last one.

use beeacon_record::limits::{LINE_BYTES_MAX, LINE_OVERLAP_BYTES};
use beeacon_record::{Position, Stream};

/// One entry of a Docker log: a line, or a part of one.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// The output it was written to.
    pub stream: Stream,
    /// Its timestamp in nanoseconds since 1970; that of the line's first piece.
    pub timestamp_ns: i64,
    /// Where it stands.
    pub position: Position,
    /// Whether a newline stood behind it.
    pub ends_line: bool,
    /// Its text without the newline.
    pub text: &'a [u8],
}

/// How a row came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a newline.
    Newline,
    /// Cut, for the line is too long: the next row of the same stream goes on.
    Cut,
    /// The process ended, or wrote something else, before it wrote a newline.
    Unfinished,
}

/// A line, or one of several rows of an over-long line.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The output it was written to.
    pub stream: Stream,
    /// When it was written.
    pub timestamp_ns: i64,
    /// Where it stands.
    pub position: Position,
    /// Its text.
    pub text: &'a [u8],
    /// 0 for a line of one row, and for the first of several.
    pub part: u32,
    /// How it ended.
    pub end: End,
}

/// Where an over-long text may be cut: given the text and the last allowed place, a place at or before it.
pub type SafeCut<'a> = &'a dyn Fn(&[u8], usize) -> usize;

/// A line whose newline has not come yet.
struct OpenLine {
    timestamp_ns: i64,
    /// Where its first piece stands: reading must start again there.
    start: Position,
    /// Where the row that is being gathered stands; `None` while it only has what the last cut left.
    row: Option<Position>,
    last_piece: Position,
    last_row: Option<Position>,
    part: u32,
    text: Vec<u8>,
}

impl OpenLine {
    fn new(piece: &Piece<'_>) -> Self {
        OpenLine {
            timestamp_ns: piece.timestamp_ns,
            start: piece.position,
            row: Some(piece.position),
            last_piece: piece.position,
            last_row: None,
            part: 0,
            text: piece.text.to_vec(),
        }
    }

    fn append(&mut self, piece: &Piece<'_>) {
        self.text.extend_from_slice(piece.text);
        self.row = self.row.or(Some(piece.position));
        self.last_piece = piece.position;
    }

    /// Where the row being gathered will stand if nothing more comes.
    fn row_position(&self) -> Position {
        self.row.unwrap_or_else(|| {
            let behind = self.last_row.map_or(self.last_piece, |row| row.max(self.last_piece));
            Position::new(behind.major, behind.minor.saturating_add(1))
        })
    }

    /// Gives out one row of an over-long line and keeps the rest.
    fn cut(&mut self, stream: Stream, safe_cut: SafeCut<'_>, emit: &mut dyn FnMut(Row<'_>)) {
        let place = cut_place(&self.text, safe_cut);
        let position = self.row_position();
        let text = self.text.get(..place).unwrap_or(&[]);
        emit(Row { stream, timestamp_ns: self.timestamp_ns, position, text, part: self.part, end: End::Cut });
        self.text.drain(..place.min(self.text.len()));
        self.row = None;
        self.last_row = Some(position);
        self.part = self.part.saturating_add(1);
    }

    fn end(self, stream: Stream, end: End, emit: &mut dyn FnMut(Row<'_>)) {
        let position = self.row_position();
        let OpenLine { timestamp_ns, part, text, .. } = self;
        emit(Row { stream, timestamp_ns, position, text: &text, part, end });
    }
}

/// A place that leaves enough behind, that the filter calls safe, and that divides no character. Never 0: the line must
/// get shorter, even where the filter finds no safe place in a whole mebibyte.
pub(crate) fn cut_place(text: &[u8], safe_cut: SafeCut<'_>) -> usize {
    let last = LINE_BYTES_MAX - LINE_OVERLAP_BYTES;
    let safe = safe_cut(text, last).min(last);
    let mut place = if safe == 0 { last } else { safe };
    for _ in 0..3 {
        if text.get(place).is_some_and(|byte| byte & 0xc0 == 0x80) && place > 1 {
            place -= 1;
        }
    }
    place
}

/// The open lines of one source.
#[derive(Default)]
pub struct Merger {
    stdout: Option<OpenLine>,
    stderr: Option<OpenLine>,
}

impl Merger {
    /// Whether this stream has no open line: then a piece that ends its line is a row as it stands.
    pub fn is_idle(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout.is_none(),
            Stream::Stderr => self.stderr.is_none(),
        }
    }

    /// Takes the next piece and gives out the rows that it completes.
    pub fn push(&mut self, piece: Piece<'_>, safe_cut: SafeCut<'_>, emit: &mut dyn FnMut(Row<'_>)) {
        let stream = piece.stream;
        let slot = self.slot(stream);
        if let Some(line) = slot.take_if(|line| line.timestamp_ns != piece.timestamp_ns) {
            line.end(stream, End::Unfinished, emit);
        }
        match slot {
            None if piece.ends_line && piece.text.len() <= LINE_BYTES_MAX => {
                let Piece { timestamp_ns, position, text, .. } = piece;
                emit(Row { stream, timestamp_ns, position, text, part: 0, end: End::Newline });
                return;
            }
            None => *slot = Some(OpenLine::new(&piece)),
            Some(line) => line.append(&piece),
        }
        if let Some(line) = slot {
            while line.text.len() > LINE_BYTES_MAX {
                line.cut(stream, safe_cut, emit);
            }
        }
        if piece.ends_line
            && let Some(line) = slot.take()
        {
            line.end(stream, End::Newline, emit);
        }
    }

    /// Ends every open line: nothing more will come, for the process has ended.
    pub fn end(&mut self, emit: &mut dyn FnMut(Row<'_>)) {
        for stream in Stream::ALL {
            if let Some(line) = self.slot(stream).take() {
                line.end(stream, End::Unfinished, emit);
            }
        }
    }

    /// Where rows will stand that have not been given out.
    pub fn open(&self) -> Vec<Position> {
        self.lines().map(OpenLine::row_position).collect()
    }

    /// Where reading must start again so that the open lines are seen from their first piece.
    pub fn resume(&self) -> Option<Position> {
        self.lines().map(|line| line.start).min()
    }

    /// How much text is held, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines().map(|line| line.text.capacity()).sum()
    }

    /// Forgets the open lines, for reading starts again.
    pub fn clear(&mut self) {
        *self = Merger::default();
    }

    fn slot(&mut self, stream: Stream) -> &mut Option<OpenLine> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn lines(&self) -> impl Iterator<Item = &OpenLine> {
        [&self.stdout, &self.stderr].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Given = (Stream, i64, u64, String, u32, End);

    fn piece(stream: Stream, timestamp_ns: i64, minor: u64, text: &str) -> (Stream, i64, u64, String) {
        (stream, timestamp_ns, minor, text.to_owned())
    }

    /// Pieces in, rows out. A text ending in a newline ends its line.
    fn run(pieces: &[(Stream, i64, u64, String)], ends: bool) -> (Vec<Given>, Vec<Position>) {
        let mut merger = Merger::default();
        let mut rows = Vec::new();
        let mut emit = |row: Row<'_>| {
            let text = String::from_utf8(row.text.to_vec()).unwrap();
            rows.push((row.stream, row.timestamp_ns, row.position.minor, text, row.part, row.end));
        };
        for (stream, timestamp_ns, minor, text) in pieces {
            let ends_line = text.ends_with('\n');
            let text = text.trim_end_matches('\n').as_bytes();
            let position = Position::new(1, *minor);
            let piece = Piece { stream: *stream, timestamp_ns: *timestamp_ns, position, ends_line, text };
            merger.push(piece, &|_, limit| limit, &mut emit);
        }
        if ends {
            merger.end(&mut emit);
        }
        (rows, merger.open())
    }

    use Stream::{Stderr, Stdout};

    #[test]
    fn pieces_with_one_stream_and_timestamp_are_one_line_and_the_other_stream_is_not_delayed() {
        let (rows, open) = run(
            &[
                piece(Stdout, 1, 0, "a"),
                piece(Stderr, 2, 10, "x\n"),
                piece(Stdout, 1, 20, "b"),
                piece(Stdout, 1, 30, "c\n"),
            ],
            false,
        );
        let expected = vec![
            (Stderr, 2, 10, "x".to_owned(), 0, End::Newline),
            (Stdout, 1, 0, "abc".to_owned(), 0, End::Newline),
        ];
        assert_eq!(rows, expected);
        assert!(open.is_empty());
    }

    #[test]
    fn the_last_words_of_one_run_are_not_glued_to_the_next_run() {
        let (rows, _) = run(&[piece(Stdout, 1, 0, "died"), piece(Stdout, 9, 10, "born\n")], false);
        let expected = vec![
            (Stdout, 1, 0, "died".to_owned(), 0, End::Unfinished),
            (Stdout, 9, 10, "born".to_owned(), 0, End::Newline),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn an_open_line_is_named_and_given_out_once_at_the_end() {
        let (rows, open) = run(&[piece(Stdout, 1, 5, "wait"), piece(Stderr, 1, 9, "for")], false);
        assert!(rows.is_empty());
        assert_eq!(open, [Position::new(1, 5), Position::new(1, 9)]);
        let (rows, open) = run(&[piece(Stdout, 1, 5, "wait")], true);
        assert_eq!(rows, [(Stdout, 1, 5, "wait".to_owned(), 0, End::Unfinished)]);
        assert!(open.is_empty());
    }

    #[test]
    fn empty_lines_and_a_line_of_exactly_one_piece_are_kept() {
        let full = "f".repeat(16 << 10);
        let (rows, _) =
            run(&[piece(Stdout, 1, 0, "\n"), piece(Stdout, 2, 1, &full), piece(Stdout, 2, 2, "\n")], false);
        let texts: Vec<_> = rows.into_iter().map(|row| row.3).collect();
        assert_eq!(texts, [String::new(), full]);
    }

    #[test]
    fn a_line_far_beyond_the_limit_becomes_rows_that_hold_every_byte_once() {
        let count = 300;
        let text = |index: usize| format!("{index:016}").repeat(1024);
        let mut pieces: Vec<_> =
            (0..count).map(|index| piece(Stdout, 7, index as u64 * 100, &text(index))).collect();
        pieces.push(piece(Stdout, 7, count as u64 * 100, "\n"));
        let (rows, open) = run(&pieces, false);
        assert!(open.is_empty());
        let joined: String = rows.iter().map(|row| row.3.as_str()).collect();
        assert_eq!(joined, (0..count).map(text).collect::<String>());
        assert!(rows.iter().all(|row| row.3.len() <= LINE_BYTES_MAX));
        assert!(rows.windows(2).all(|pair| pair[0].2 < pair[1].2 && pair[0].4 + 1 == pair[1].4));
        assert_eq!(rows[0].2, 0);
        assert_eq!(rows.last().unwrap().5, End::Newline);
    }

    #[test]
    fn one_huge_piece_becomes_rows_with_positions_of_their_own() {
        let text = "0123456789abcdef".repeat(3 << 16);
        let (rows, _) = run(&[piece(Stdout, 7, 1000, &format!("{text}\n"))], false);
        assert_eq!(rows.iter().map(|row| row.2).collect::<Vec<_>>(), [1000, 1001, 1002, 1003]);
        assert_eq!(rows.iter().map(|row| row.3.as_str()).collect::<String>(), text);
    }

    #[test]
    fn what_a_cut_left_has_a_place_even_if_nothing_follows() {
        let text = "x".repeat(LINE_BYTES_MAX + 1);
        let (rows, open) = run(&[piece(Stdout, 7, 1000, &text)], false);
        assert_eq!(rows.len(), 1);
        assert_eq!(open, [Position::new(1, 1001)]);
        let (rows, _) = run(&[piece(Stdout, 7, 1000, &text)], true);
        assert_eq!((rows[1].2, rows[1].5), (1001, End::Unfinished));
        assert!(rows[1].3.len() > LINE_OVERLAP_BYTES);
    }

    #[test]
    fn a_cut_divides_no_character() {
        let text = "\u{1f41d}".repeat(LINE_BYTES_MAX / 4 + 1000);
        let text = format!("x{text}\n");
        let (rows, _) = run(&[piece(Stdout, 7, 0, &text)], false);
        assert_eq!(rows.iter().map(|row| row.3.as_str()).collect::<String>(), text.trim_end());
    }

    #[test]
    fn what_the_filter_wants_kept_together_stays_for_the_next_row() {
        let mut merger = Merger::default();
        let text = "y".repeat(LINE_BYTES_MAX + 10);
        let mut lengths = Vec::new();
        let piece = Piece {
            stream: Stdout,
            timestamp_ns: 1,
            position: Position::new(1, 0),
            ends_line: true,
            text: text.as_bytes(),
        };
        merger.push(piece, &|_, limit| limit - 777, &mut |row| lengths.push(row.text.len()));
        let first = LINE_BYTES_MAX - LINE_OVERLAP_BYTES - 777;
        assert_eq!(lengths, [first, text.len() - first]);
    }
}
