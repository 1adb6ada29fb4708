//! Entries in journald's export format, as bytes that come in any portions. Pure.
//!
//! ```text
//! entry   fields, then an empty line
//! field   NAME=value\n            where the value is text without a newline
//!         NAME\n length (8, little-endian) value \n    any other
//! ```
//! Fields that nobody wants are passed over as they come, however long they are.

use memchr::memchr;

use crate::limits::{JOURNALD_FIELD_BYTES_MAX, JOURNALD_MESSAGE_BYTES_MAX, JOURNALD_NAME_BYTES_MAX};

/// Where an entry stands, by journald: only numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which numbering it is.
    pub numbering: u128,
    /// Its number in it.
    pub number: u64,
    /// Which start of the machine.
    pub boot: u128,
    /// Microseconds since that.
    pub monotonic_us: u64,
    /// Microseconds since 1970.
    pub realtime_us: u64,
}

impl Place {
    /// Reads what journald calls a cursor. Its checksum of the entry's content is left out.
    ///
    /// ```
    /// use beeacon_agent::journald::export::Place;
    /// let place = Place::parse("s=2a;i=1f;b=3;m=4;t=5;x=6").unwrap();
    /// assert_eq!((place.numbering, place.number), (42, 31));
    /// assert_eq!(place.to_string(), "s=0000000000000000000000000000002a;i=1f;b=00000000000000000000000000000003;m=4;t=5");
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let part = |name: &str| text.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let number = |name| u64::from_str_radix(part(name)?, 16).ok();
        let id = |name| u128::from_str_radix(part(name)?, 16).ok();
        Some(Place {
            numbering: id("s")?,
            number: number("i")?,
            boot: id("b")?,
            monotonic_us: number("m")?,
            realtime_us: number("t")?,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place { numbering, number, boot, monotonic_us, realtime_us } = self;
        write!(f, "s={numbering:032x};i={number:x};b={boot:032x};m={monotonic_us:x};t={realtime_us:x}")
    }
}

/// One entry, as far as it is wanted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct JournalEntry {
    /// Where it stands; none where that cannot be read.
    pub place: Option<Place>,
    /// The message.
    pub message: Vec<u8>,
    /// How many bytes of it were cut off.
    pub cut_bytes: u64,
    /// 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// The unit that wrote it.
    pub unit: String,
    /// What the writer calls itself.
    pub identifier: String,
    /// The host that wrote it.
    pub host: String,
    /// The process that wrote it.
    pub pid: String,
    /// How it came to journald: `stdout`, `syslog`, `journal`, `kernel`, `audit`, `driver`.
    pub transport: String,
    /// The container's id, where Docker's driver wrote it.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// The image's name.
    pub image: String,
    /// Whether Docker's driver says that the line goes on in the next entry.
    pub is_partial: bool,
}

/// Without the message.
impl std::fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalEntry").field("place", &self.place).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Cursor,
    Message,
    Priority,
    Unit,
    Identifier,
    Host,
    Pid,
    Transport,
    ContainerId,
    Container,
    Image,
    Partial,
    Other,
}

impl Field {
    fn of(name: &[u8]) -> Self {
        match name {
            b"__CURSOR" => Field::Cursor,
            b"MESSAGE" => Field::Message,
            b"PRIORITY" => Field::Priority,
            b"_SYSTEMD_UNIT" => Field::Unit,
            b"SYSLOG_IDENTIFIER" => Field::Identifier,
            b"_HOSTNAME" => Field::Host,
            b"_PID" => Field::Pid,
            b"_TRANSPORT" => Field::Transport,
            b"CONTAINER_ID_FULL" => Field::ContainerId,
            b"CONTAINER_NAME" => Field::Container,
            b"IMAGE_NAME" => Field::Image,
            b"CONTAINER_PARTIAL_MESSAGE" => Field::Partial,
            _ => Field::Other,
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Field::Message => JOURNALD_MESSAGE_BYTES_MAX,
            Field::Other => 0,
            _ => JOURNALD_FIELD_BYTES_MAX,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Within a field's name.
    Name,
    /// Within a value that a newline ends.
    Text(Field),
    /// Within the length of a value.
    Length(Field),
    /// So many bytes of a value are to come.
    Data(Field, u64),
    /// The newline behind such a value.
    Close(Field),
}

/// Reads entries out of bytes as they come.
pub struct ExportParser {
    state: State,
    /// A name, or a length, as far as it came.
    begun: Vec<u8>,
    value: Vec<u8>,
    cut_bytes: u64,
    entry: JournalEntry,
    has_fields: bool,
}

impl Default for ExportParser {
    fn default() -> Self {
        ExportParser {
            state: State::Name,
            begun: Vec::new(),
            value: Vec::new(),
            cut_bytes: 0,
            entry: JournalEntry::default(),
            has_fields: false,
        }
    }
}

impl ExportParser {
    /// Takes bytes up to the end of an entry: how many were taken, and the entry, if its end was among them.
    pub fn push(&mut self, bytes: &[u8]) -> (usize, Option<JournalEntry>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Name => {
                    let end = rest.iter().position(|byte| matches!(byte, b'=' | b'\n'));
                    self.keep_name(rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest));
                    let Some(end) = end else { return (bytes.len(), None) };
                    at += end + 1;
                    let field = Field::of(&self.begun);
                    let is_text = rest.get(end) == Some(&b'=');
                    if self.begun.is_empty() && !is_text {
                        if std::mem::take(&mut self.has_fields) {
                            return (at, Some(std::mem::take(&mut self.entry)));
                        }
                        continue;
                    }
                    self.has_fields = true;
                    self.begun.clear();
                    self.state = if is_text { State::Text(field) } else { State::Length(field) };
                }
                State::Text(field) => {
                    let end = memchr(b'\n', rest);
                    self.keep_value(field, rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest));
                    let Some(end) = end else { return (bytes.len(), None) };
                    at += end + 1;
                    self.end_field(field);
                }
                State::Length(field) => {
                    let wanted = 8 - self.begun.len();
                    let some = rest.get(..wanted.min(rest.len())).unwrap_or(rest);
                    self.begun.extend_from_slice(some);
                    at += some.len();
                    if let Ok(length) = <[u8; 8]>::try_from(self.begun.as_slice()) {
                        self.begun.clear();
                        self.state = State::Data(field, u64::from_le_bytes(length));
                    }
                }
                State::Data(field, 0) => self.state = State::Close(field),
                State::Data(field, left) => {
                    let some = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.keep_value(field, rest.get(..some).unwrap_or(rest));
                    at += some;
                    self.state = State::Data(field, left - some as u64);
                }
                State::Close(field) => {
                    at += 1;
                    self.end_field(field);
                }
            }
        }
        (bytes.len(), None)
    }

    fn keep_name(&mut self, bytes: &[u8]) {
        // One byte more than a name may have makes it none that is wanted.
        let room = (JOURNALD_NAME_BYTES_MAX + 1).saturating_sub(self.begun.len());
        self.begun.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or(bytes));
    }

    fn keep_value(&mut self, field: Field, bytes: &[u8]) {
        let room = field.bytes_max().saturating_sub(self.value.len()).min(bytes.len());
        let (kept, cut) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.value.extend_from_slice(kept);
        self.cut_bytes += cut.len() as u64;
    }

    fn end_field(&mut self, field: Field) {
        self.state = State::Name;
        let cut_bytes = std::mem::take(&mut self.cut_bytes);
        let entry = &mut self.entry;
        if field == Field::Message {
            (entry.message, entry.cut_bytes) = (std::mem::take(&mut self.value), cut_bytes);
            return;
        }
        let text = String::from_utf8_lossy(&self.value);
        match field {
            Field::Cursor => entry.place = Place::parse(&text),
            Field::Priority => entry.priority = text.parse().ok().filter(|priority| *priority < 8),
            Field::Unit => entry.unit = text.into_owned(),
            Field::Identifier => entry.identifier = text.into_owned(),
            Field::Host => entry.host = text.into_owned(),
            Field::Pid => entry.pid = text.into_owned(),
            Field::Transport => entry.transport = text.into_owned(),
            Field::ContainerId => entry.container_id = text.into_owned(),
            Field::Container => entry.container = text.into_owned(),
            Field::Image => entry.image = text.into_owned(),
            Field::Partial => entry.is_partial = text == "true",
            Field::Message | Field::Other => {}
        }
        self.value.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], portion: usize) -> Vec<JournalEntry> {
        let mut parser = ExportParser::default();
        let mut entries = Vec::new();
        for mut rest in bytes.chunks(portion) {
            while !rest.is_empty() {
                let (taken, entry) = parser.push(rest);
                rest = &rest[taken..];
                entries.extend(entry);
            }
        }
        entries
    }

    fn export() -> Vec<u8> {
        let mut bytes = b"__CURSOR=s=1;i=2;b=3;m=4;t=5;x=6\nPRIORITY=3\n_SYSTEMD_UNIT=a.service\n\
            SYSLOG_IDENTIFIER=a\n_HOSTNAME=h\n_PID=7\n_TRANSPORT=stdout\nMESSAGE=one = two\n\n"
            .to_vec();
        bytes.extend_from_slice(b"__CURSOR=s=1;i=3;b=3;m=4;t=5\nCOREDUMP\n");
        bytes.extend_from_slice(&100_000_u64.to_le_bytes());
        bytes.extend_from_slice(&[b'\n'; 100_000]);
        bytes.extend_from_slice(b"\nMESSAGE\n");
        bytes.extend_from_slice(&9_u64.to_le_bytes());
        bytes.extend_from_slice(b"two\nlines\nCONTAINER_PARTIAL_MESSAGE=true\nPRIORITY=9\nEMPTY\n");
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(b"\n\n");
        bytes.extend_from_slice(b"__CURSOR=nothing\nMESSAGE=\n\n");
        bytes
    }

    #[test]
    fn entries_are_the_same_wherever_the_bytes_are_cut() {
        let whole = all(&export(), usize::MAX);
        let [first, second, third] = whole.as_slice() else { panic!("{}", whole.len()) };
        let place = Place { numbering: 1, number: 2, boot: 3, monotonic_us: 4, realtime_us: 5 };
        let expected = JournalEntry {
            place: Some(place),
            message: b"one = two".to_vec(),
            priority: Some(3),
            unit: "a.service".into(),
            identifier: "a".into(),
            host: "h".into(),
            pid: "7".into(),
            transport: "stdout".into(),
            ..JournalEntry::default()
        };
        assert!(*first == expected);
        assert_eq!((second.message.as_slice(), second.is_partial), (&b"two\nlines"[..], true));
        assert_eq!((second.place, second.priority), (Some(Place { number: 3, ..place }), None));
        assert_eq!((third.place, third.message.is_empty()), (None, true));
        for portion in [1, 2, 3, 7, 8, 9, 1000] {
            assert!(all(&export(), portion) == whole, "in portions of {portion}");
        }
    }

    #[test]
    fn a_message_beyond_its_limit_is_cut_and_nothing_else_is_kept_of_what_is_not_wanted() {
        let mut bytes = b"MESSAGE\n".to_vec();
        let length = JOURNALD_MESSAGE_BYTES_MAX + 5;
        bytes.extend_from_slice(&(length as u64).to_le_bytes());
        bytes.extend(std::iter::repeat_n(b'm', length));
        bytes.extend_from_slice(b"\n");
        bytes.extend_from_slice(format!("{}=x\n\n", "N".repeat(1000)).as_bytes());
        let entries = all(&bytes, 4096);
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].message.len(), entries[0].cut_bytes), (JOURNALD_MESSAGE_BYTES_MAX, 5));
        let mut parser = ExportParser::default();
        parser.push(b"BLOB\n");
        parser.push(&u64::MAX.to_le_bytes());
        (0..100).for_each(|_| assert_eq!(parser.push(&[0; 65_536]), (65_536, None)));
        assert!(parser.value.capacity() < 65_536);
    }
}
