//! What the agent leaves with the collector so that it finds its place again without a disk of its own.
//!
//! What always holds: no text of a line is in it, only numbers; a cursor of another version or length is not understood, which
//! the caller treats as a place that was lost.
//!
//! ```text
//! file   0 1  version = 6
//!        1 16 where reading must start again (generation, byte offset)
//!       17 1  count of files
//!       18 …  per file: generation (8), fingerprint of the file (8), fingerprint of its content (8)
//!             version 1, still read: without the fingerprints of contents
//! API    0 1  version = 4
//!        1 8  from when Docker must be asked, nanoseconds since 1970
//!        9 8  the host's clock less the time since its start, nanoseconds
//!       17 8  which start of the host that was
//!             version 2, still read: without the last two
//! plain  0 1  version = 3
//!        1 16 where reading must start again (generation, byte offset)
//!       17 4  check of the file's first line, 0 while that has no end
//!       21 4  check of the bytes before that place
//!       25 1  1 when the file has ended, else 0
//! journal 0 1 version = 5
//!        1 8  generation
//!        9 …  of the entry read last, where there is one: numbering (16), number (8), boot (16), monotonic (8) and real time (8)
//! ```
//! All integers are little-endian.

use beeacon_record::Position;

use super::files::Fingerprint;
use crate::clock::ClockMark;
use crate::files::copies::Mark;
use crate::journald::export::Place;

/// Without fingerprints of contents, as it was written at first.
const FILE_VERSION_BARE: u8 = 1;
const FILE_VERSION: u8 = 6;
/// Without the clock, as it was written at first.
const API_VERSION_BARE: u8 = 2;
const PLAIN_VERSION: u8 = 3;
const API_VERSION: u8 = 4;
const JOURNAL_VERSION: u8 = 5;

/// How many files a cursor names: the one that was read last and the one where an open line starts.
pub const CURSOR_FILES_MAX: usize = 2;

/// A cursor of a file source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCursor {
    /// Where reading must start again: the lowest open line, or the end of what was read.
    pub resume: Position,
    /// Generations and the fingerprints of their files.
    pub files: Vec<(u64, Fingerprint)>,
}

impl FileCursor {
    /// The cursor as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![FILE_VERSION];
        bytes.extend_from_slice(&self.resume.major.to_le_bytes());
        bytes.extend_from_slice(&self.resume.minor.to_le_bytes());
        let files = self.files.get(..CURSOR_FILES_MAX).unwrap_or(&self.files);
        bytes.push(u8::try_from(files.len()).unwrap_or(0));
        for (generation, fingerprint) in files {
            bytes.extend_from_slice(&generation.to_le_bytes());
            bytes.extend_from_slice(&fingerprint.file.to_le_bytes());
            bytes.extend_from_slice(&fingerprint.content.unwrap_or(0).to_le_bytes());
        }
        bytes
    }

    /// The cursor in these bytes, if they hold one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let has_contents = match *version {
            FILE_VERSION => true,
            FILE_VERSION_BARE => false,
            _ => return None,
        };
        let (major, rest) = number(rest)?;
        let (minor, rest) = number(rest)?;
        let (count, mut rest) = rest.split_first()?;
        let mut files = Vec::new();
        for _ in 0..*count {
            let (generation, after) = number(rest)?;
            let (file, mut after) = number(after)?;
            let mut content = None;
            if has_contents {
                let (number, behind) = number(after)?;
                (content, after) = (Some(number), behind);
            }
            rest = after;
            files.push((generation, Fingerprint { file, content }));
        }
        rest.is_empty().then_some(FileCursor { resume: Position::new(major, minor), files })
    }
}

/// A cursor of an API source: from when Docker must be asked, and how the clock stood when that was said.
pub fn write_since(since_ns: i64, clock: ClockMark) -> Vec<u8> {
    let mut bytes = vec![API_VERSION];
    bytes.extend_from_slice(&since_ns.to_le_bytes());
    bytes.extend_from_slice(&clock.offset_ns.to_le_bytes());
    bytes.extend_from_slice(&clock.boot.to_le_bytes());
    bytes
}

/// From when Docker must be asked, and how the clock stood, if these bytes say so.
pub fn read_since(bytes: &[u8]) -> Option<(i64, Option<ClockMark>)> {
    let (version, rest) = bytes.split_first()?;
    let (since, rest) = number(rest)?;
    match *version {
        API_VERSION_BARE => rest.is_empty().then_some((since.cast_signed(), None)),
        API_VERSION => {
            let (offset, rest) = number(rest)?;
            let (boot, rest) = number(rest)?;
            let clock = ClockMark { offset_ns: offset.cast_signed(), boot };
            rest.is_empty().then_some((since.cast_signed(), Some(clock)))
        }
        _ => None,
    }
}

/// A cursor of a plain file.
pub fn write_plain(mark: &Mark, has_ended: bool) -> Vec<u8> {
    let mut bytes = vec![PLAIN_VERSION];
    bytes.extend_from_slice(&mark.at.major.to_le_bytes());
    bytes.extend_from_slice(&mark.at.minor.to_le_bytes());
    bytes.extend_from_slice(&mark.head.to_le_bytes());
    bytes.extend_from_slice(&mark.tail.to_le_bytes());
    bytes.push(u8::from(has_ended));
    bytes
}

/// The cursor of a plain file in these bytes, if they hold one, and whether the file has ended.
pub fn read_plain(bytes: &[u8]) -> Option<(Mark, bool)> {
    let (major, rest) = number(bytes.strip_prefix(&[PLAIN_VERSION])?)?;
    let (minor, rest) = number(rest)?;
    let (head, rest) = rest.split_first_chunk::<4>()?;
    let (tail, rest) = rest.split_first_chunk::<4>()?;
    let at = Position::new(major, minor);
    let mark = Mark { at, head: u32::from_le_bytes(*head), tail: u32::from_le_bytes(*tail) };
    match rest {
        [has_ended @ (0 | 1)] => Some((mark, *has_ended == 1)),
        _ => None,
    }
}

/// A cursor of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalCursor {
    /// The generation that was being read.
    pub generation: u64,
    /// The entry that was read last, if any was.
    pub place: Option<Place>,
}

impl JournalCursor {
    /// The cursor as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![JOURNAL_VERSION];
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        if let Some(Place { numbering, number, boot, monotonic_us, realtime_us }) = self.place {
            bytes.extend_from_slice(&numbering.to_le_bytes());
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&boot.to_le_bytes());
            bytes.extend_from_slice(&monotonic_us.to_le_bytes());
            bytes.extend_from_slice(&realtime_us.to_le_bytes());
        }
        bytes
    }
}

/// The cursor of a journal in these bytes, if they hold one.
pub fn read_journal(bytes: &[u8]) -> Option<JournalCursor> {
    let (generation, rest) = number(bytes.strip_prefix(&[JOURNAL_VERSION])?)?;
    if rest.is_empty() {
        return Some(JournalCursor { generation, place: None });
    }
    let (numbering, rest) = rest.split_first_chunk::<16>()?;
    let (entry, rest) = number(rest)?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (monotonic_us, rest) = number(rest)?;
    let (realtime_us, rest) = number(rest)?;
    let (numbering, boot) = (u128::from_le_bytes(*numbering), u128::from_le_bytes(*boot));
    let place = Place { numbering, number: entry, boot, monotonic_us, realtime_us };
    rest.is_empty().then_some(JournalCursor { generation, place: Some(place) })
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_bytes_and_anything_else_is_not_understood() {
        let fingerprint = |file| Fingerprint { file, content: Some(file + 10) };
        let files = vec![(3, fingerprint(11)), (4, fingerprint(12))];
        let cursor = FileCursor { resume: Position::new(3, 70), files };
        let bytes = cursor.write();
        assert_eq!(FileCursor::read(&bytes), Some(cursor));
        for end in 0..bytes.len() {
            assert_eq!(FileCursor::read(&bytes[..end]), None);
        }
        assert_eq!(FileCursor::read(&[bytes, vec![0]].concat()), None);
        let clock = ClockMark { offset_ns: -9, boot: u64::MAX };
        let bytes = write_since(-5, clock);
        assert_eq!(read_since(&bytes), Some((-5, Some(clock))));
        for end in 0..bytes.len() {
            assert_eq!(read_since(&bytes[..end]), None);
        }
        assert_eq!(FileCursor::read(&bytes), None);
        // As it was written at first.
        assert_eq!(read_since(&[2, 0xfb, 255, 255, 255, 255, 255, 255, 255]), Some((-5, None)));
        assert_eq!(read_since(&[]), None);
        let mark = Mark { at: Position::new(2, 9), head: 5, tail: u32::MAX };
        let bytes = write_plain(&mark, true);
        assert_eq!(read_plain(&bytes), Some((mark, true)));
        for end in 0..bytes.len() {
            assert_eq!(read_plain(&bytes[..end]), None);
        }
        assert_eq!(FileCursor::read(&bytes), None);
    }

    /// What agents have left with collectors, one file for every version and for ever. Fails when one of them is not understood any
    /// more, or another is written under an old number.
    #[test]
    fn cursors_of_every_version_are_read() {
        let golden = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> =
                text.trim().chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        let resume = Position::new(3, 70);
        let bare = Fingerprint { file: 0x1122_3344_5566_7788, content: None };
        let old = golden(include_str!("../../golden/cursor-1-file.hex"));
        assert_eq!(FileCursor::read(&old), Some(FileCursor { resume, files: vec![(3, bare), (4, bare)] }));
        let whole = Fingerprint { content: Some(0x99aa_bbcc_ddee_ff00), ..bare };
        let cursor = FileCursor { resume, files: vec![(3, whole), (4, whole)] };
        let bytes = golden(include_str!("../../golden/cursor-6-file.hex"));
        assert_eq!((FileCursor::read(&bytes), cursor.write()), (Some(cursor.clone()), bytes));
        let bytes = golden(include_str!("../../golden/cursor-2-api.hex"));
        assert_eq!(read_since(&bytes), Some((-5, None)));
        let clock = ClockMark { offset_ns: -9, boot: 1 << 60 };
        let bytes = golden(include_str!("../../golden/cursor-4-api.hex"));
        assert_eq!((read_since(&bytes), write_since(-5, clock)), (Some((-5, Some(clock))), bytes));
        let place = Place { numbering: 1 << 100, number: 2, boot: 3 << 90, monotonic_us: 4, realtime_us: 5 };
        let cursor = JournalCursor { generation: 7, place: Some(place) };
        let bytes = golden(include_str!("../../golden/cursor-5-journal.hex"));
        assert_eq!((read_journal(&bytes), cursor.write()), (Some(cursor), bytes.clone()));
        assert!((0..bytes.len()).filter(|end| read_journal(&bytes[..*end]).is_some()).eq([9]));
        let mark = Mark { at: Position::new(2, 9), head: 5, tail: u32::MAX };
        let bytes = golden(include_str!("../../golden/cursor-3-plain.hex"));
        assert_eq!((read_plain(&bytes), write_plain(&mark, true)), (Some((mark, true)), bytes));
    }
}
