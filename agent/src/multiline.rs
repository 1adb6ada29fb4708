//! Joins lines that belong together, such as an exception and its stack, into one row.
//!
//! What always holds:
//! - pure: which lines make a group depends on the lines, their timestamps and where the collector's position lies, never on
//!   how the input was cut into reads or batches. Only a group that nobody adds to is ended by the clock, and then it is
//!   committed as it stands: what comes later is another group;
//! - a group stands where its first line stands; while it is open its place is named in the interval, so that reading starts
//!   again there;
//! - a group is bounded in lines, in bytes and in the time between two of its lines;
//! - groups come before the pollen filter: a secret that goes over several lines is seen whole.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beeacon_record::{Position, Stream};
use regex_automata::meta::{Config, Regex};

use crate::docker::merge::{End, Row};
use crate::limits::{GROUP_BYTES_MAX, GROUP_LINES_MAX, PATTERN_BYTES_MAX, PATTERN_MEMORY_BYTES_MAX};

/// Whose stacks are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name of a language")]
pub enum Preset {
    Java,
    Python,
    Go,
    Rust,
    Node,
    Ruby,
    Dotnet,
    /// Every line that starts with white space goes on with the one before.
    Indent,
}

/// The presets by name.
pub const PRESETS: [(&str, Preset); 8] = [
    ("java", Preset::Java),
    ("python", Preset::Python),
    ("go", Preset::Go),
    ("rust", Preset::Rust),
    ("node", Preset::Node),
    ("ruby", Preset::Ruby),
    ("dotnet", Preset::Dotnet),
    ("indent", Preset::Indent),
];

/// Which lines belong together.
#[derive(Clone)]
pub enum Grouping {
    /// As a language writes its stacks.
    Preset(Preset),
    /// A line that matches starts a group, every other goes on.
    Start(Arc<Regex>, String),
    /// A line that matches goes on, every other starts a group.
    Continue(Arc<Regex>, String),
}

/// Why a text says nothing about which lines belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupingError {
    /// Not one of the forms.
    #[error(
        "wanted none, java, python, go, rust, node, ruby, dotnet, indent, start:<pattern> or continue:<pattern>"
    )]
    Form,
    /// The pattern is too long.
    #[error("pattern has {bytes} bytes, allowed are {PATTERN_BYTES_MAX}")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// The pattern is none.
    #[error("pattern is not understood: {reason}")]
    Pattern {
        /// What is wrong with it.
        reason: String,
    },
}

impl Grouping {
    /// Reads `java`, `start:^\d`, `continue:^\s` and the like; `none` is `None`.
    ///
    /// # Errors
    /// What is wrong with the text.
    ///
    /// ```
    /// use beeacon_agent::multiline::Grouping;
    /// assert!(Grouping::parse("java").unwrap().is_some());
    /// assert!(Grouping::parse("none").unwrap().is_none());
    /// assert!(Grouping::parse("start:(").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Option<Self>, GroupingError> {
        let text = text.trim();
        if text == "none" {
            return Ok(None);
        }
        if let Some((_, preset)) = PRESETS.iter().find(|(name, _)| *name == text) {
            return Ok(Some(Grouping::Preset(*preset)));
        }
        match text.split_once(':') {
            Some(("start", pattern)) => {
                Ok(Some(Grouping::Start(Arc::new(compile(pattern)?), pattern.to_owned())))
            }
            Some(("continue", pattern)) => {
                Ok(Some(Grouping::Continue(Arc::new(compile(pattern)?), pattern.to_owned())))
            }
            _ => Err(GroupingError::Form),
        }
    }

    /// Whether `line` goes on with a group in this state, and the state after it.
    fn goes_on(&self, state: State, line: &[u8]) -> (bool, State) {
        match self {
            Grouping::Preset(preset) => preset.goes_on(state, line),
            Grouping::Start(regex, _) => (!regex.is_match(line), State::Plain),
            Grouping::Continue(regex, _) => (regex.is_match(line), State::Plain),
        }
    }
}

impl fmt::Debug for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grouping::Preset(preset) => fmt::Debug::fmt(preset, f),
            Grouping::Start(_, pattern) => write!(f, "start:{pattern}"),
            Grouping::Continue(_, pattern) => write!(f, "continue:{pattern}"),
        }
    }
}

impl PartialEq for Grouping {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Grouping::Preset(left), Grouping::Preset(right)) => left == right,
            (Grouping::Start(_, left), Grouping::Start(_, right))
            | (Grouping::Continue(_, left), Grouping::Continue(_, right)) => left == right,
            _ => false,
        }
    }
}

impl Eq for Grouping {}

/// Linear in the line, bounded in memory, whatever the pattern.
fn compile(pattern: &str) -> Result<Regex, GroupingError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(GroupingError::Length { bytes: pattern.len() });
    }
    Regex::builder()
        .configure(Config::new().nfa_size_limit(Some(PATTERN_MEMORY_BYTES_MAX)).utf8_empty(false))
        .syntax(regex_automata::util::syntax::Config::new().utf8(false))
        .build(pattern)
        .map_err(|error| GroupingError::Pattern { reason: error.to_string() })
}

/// What a group's lines have been so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A line of its own.
    Plain,
    /// Within a stack.
    Stack,
    /// Behind a stack and the message that ends it.
    Done,
}

impl Preset {
    fn goes_on(self, state: State, line: &[u8]) -> (bool, State) {
        let is_blank = line.trim_ascii().is_empty();
        let is_indented = !is_blank && matches!(line.first(), Some(b' ' | b'\t'));
        let starts = |words: &[&str]| words.iter().any(|word| line.starts_with(word.as_bytes()));
        let next = match self {
            Preset::Indent => is_indented.then_some(State::Plain),
            Preset::Java | Preset::Dotnet => {
                let is_part = is_indented
                    || starts(&["Caused by: ", "Suppressed: ", "--- End of "])
                    || (state == State::Plain && is_exception(line));
                is_part.then_some(State::Stack)
            }
            Preset::Python => return python(state, line, is_blank, is_indented),
            Preset::Go => {
                let is_start = starts(&["panic: ", "fatal error: ", "goroutine ", "SIGSEGV", "SIGQUIT"]);
                let is_part = is_blank
                    || starts(&[
                        "goroutine ",
                        "created by ",
                        "[signal ",
                        "exit status ",
                        "runtime stack:",
                        "panic: ",
                    ])
                    || is_go_call(line);
                match state {
                    State::Stack if is_indented || is_part => Some(State::Stack),
                    _ if is_indented => Some(state),
                    _ => return (false, if is_start { State::Stack } else { State::Plain }),
                }
            }
            Preset::Rust => {
                let is_panic = line.starts_with(b"thread '") && contains(line, b"panicked at");
                let is_start = is_panic || line.starts_with(b"Error: ");
                // Since 1.73 the message stands on a line of its own, behind a colon.
                let wants_message = is_panic && line.ends_with(b":");
                let is_part = is_blank
                    || is_indented
                    || starts(&["note: ", "stack backtrace:", "Stack backtrace:", "Caused by:"]);
                match state {
                    State::Done => Some(State::Stack),
                    State::Stack if is_part => Some(State::Stack),
                    _ if is_indented => Some(state),
                    _ if wants_message => return (false, State::Done),
                    _ => return (false, if is_start { State::Stack } else { State::Plain }),
                }
            }
            Preset::Node => {
                // "/app/x.js:10" stands before the source line of an error that nobody caught.
                let is_place =
                    starts(&["/", "file://", "node:"]) && line.last().is_some_and(u8::is_ascii_digit);
                match state {
                    State::Done if is_blank || is_indented => Some(State::Done),
                    State::Done if is_exception(line) || contains(line, b"Error") => Some(State::Stack),
                    State::Stack if starts(&["}", "Node.js v"]) || is_blank => Some(State::Stack),
                    _ if is_indented => Some(State::Stack),
                    _ => return (false, if is_place { State::Done } else { State::Plain }),
                }
            }
            Preset::Ruby => {
                let is_place = contains(line, b".rb:") && contains(line, b":in ");
                match state {
                    State::Stack if is_place && !contains(line, b": ") => Some(State::Stack),
                    _ if is_indented => Some(State::Stack),
                    _ => return (false, if is_place { State::Stack } else { State::Plain }),
                }
            }
        };
        next.map_or((false, State::Plain), |state| (true, state))
    }
}

fn python(state: State, line: &[u8], is_blank: bool, is_indented: bool) -> (bool, State) {
    let is_traceback = line.starts_with(b"Traceback (most recent call last)");
    let is_chain = line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause");
    match state {
        State::Stack if is_indented || is_blank => (true, State::Stack),
        State::Stack => (true, State::Done),
        State::Done if is_blank => (true, State::Done),
        State::Done if is_chain => (true, State::Done),
        // The stack that the words before have announced, and notes below a message.
        State::Done if is_traceback => (true, State::Stack),
        State::Done if is_indented => (true, State::Done),
        State::Plain if is_indented => (true, State::Plain),
        // What logging.exception writes stands below its own line.
        State::Plain if is_traceback => (true, State::Stack),
        _ => (false, if is_traceback { State::Stack } else { State::Plain }),
    }
}

/// `java.lang.IllegalStateException: …`: a dotted name that ends in Exception, Error or Throwable.
fn is_exception(line: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$');
    let length = line.iter().position(|byte| !is_name(byte)).unwrap_or(line.len());
    let (name, behind) = line.split_at(length);
    let ends = [&b"Exception"[..], b"Error", b"Throwable"].iter().any(|end| name.ends_with(end));
    ends && name.contains(&b'.') && (behind.is_empty() || behind.starts_with(b":"))
}

/// `main.handle(0x1, {0xc000…})`: a dotted name and a call.
fn is_go_call(line: &[u8]) -> bool {
    let Some(open) = memchr::memchr(b'(', line) else { return false };
    let name = line.get(..open).unwrap_or(&[]);
    let behind = line.get(open..).unwrap_or(&[]);
    let is_call = behind.ends_with(b")") || contains(behind, b"...");
    is_call && name.contains(&b'.') && !name.contains(&b' ') && !name.is_empty()
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(line, word).is_some()
}

/// A group that may go on.
struct OpenGroup {
    position: Position,
    timestamp_ns: i64,
    last_timestamp_ns: i64,
    lines: usize,
    text: Vec<u8>,
    state: State,
    heard_at: Instant,
}

/// What the collector has of a source: rows below `floor`, but for those at `reopened`.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Everything below is committed.
    pub floor: Position,
    /// But for these.
    pub reopened: &'a [Position],
}

/// The open groups of one source.
pub struct Grouper {
    /// `None` only ends what another configuration has left open.
    grouping: Option<Grouping>,
    wait: Duration,
    stdout: Option<OpenGroup>,
    stderr: Option<OpenGroup>,
}

impl Grouper {
    /// A grouper without an open group. `wait` is the longest time between two lines of one.
    pub fn new(grouping: Grouping, wait: Duration) -> Self {
        Grouper { grouping: Some(grouping), wait, stdout: None, stderr: None }
    }

    /// For lines that are not joined any more, where the collector knows groups that were still open: what was committed with
    /// them is given out with them.
    pub fn leftover() -> Self {
        Grouper { grouping: None, wait: Duration::ZERO, stdout: None, stderr: None }
    }

    /// Whether it only ends what was left open.
    pub fn is_leftover(&self) -> bool {
        self.grouping.is_none()
    }

    /// Takes the next row and gives out the groups that are complete.
    ///
    /// A row below the collector's position belongs to the group that is still open there, however lines are joined by now, or has
    /// been committed with another: such a row starts no group of its own.
    pub fn push(&mut self, row: Row<'_>, now: Instant, known: Known<'_>, emit: &mut dyn FnMut(Row<'_>)) {
        let is_leftover = self.is_leftover();
        let Grouper { grouping, wait, stdout, stderr } = self;
        let grouping = &*grouping;
        let goes_on = |state, line: &[u8]| match grouping {
            Some(grouping) => grouping.goes_on(state, line),
            None => (false, State::Plain),
        };
        let span_ns = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        let slot = match row.stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let is_whole = row.part == 0 && row.end == End::Newline;
        if !is_whole {
            // Parts of over-long lines and words cut off by a process's end are rows of their own.
            give(slot, row.stream, emit);
            emit(row);
            return;
        }
        let was_committed = row.position < known.floor && !known.reopened.contains(&row.position);
        if let Some(group) = slot {
            let (goes_on, next) = goes_on(group.state, row.text);
            let has_room = group.lines < GROUP_LINES_MAX
                && group.text.len() + row.text.len() < GROUP_BYTES_MAX
                && row.timestamp_ns.saturating_sub(group.last_timestamp_ns) <= span_ns;
            if was_committed || (goes_on && has_room) {
                group.text.push(b'\n');
                group.text.extend_from_slice(row.text);
                group.lines += 1;
                group.last_timestamp_ns = row.timestamp_ns;
                group.state = next;
                group.heard_at = now;
                return;
            }
            give(slot, row.stream, emit);
        } else if was_committed {
            return;
        }
        if is_leftover && row.position >= known.floor {
            emit(row);
            return;
        }
        // Of the line alone, not of what stood before it: reading may start again here.
        let (_, state) = goes_on(State::Plain, row.text);
        *slot = Some(OpenGroup {
            position: row.position,
            timestamp_ns: row.timestamp_ns,
            last_timestamp_ns: row.timestamp_ns,
            lines: 1,
            text: row.text.to_vec(),
            state,
            heard_at: now,
        });
    }

    /// Gives out groups to which nothing was added for the longest time between two lines. `true` when there was one.
    pub fn end_idle(&mut self, now: Instant, emit: &mut dyn FnMut(Row<'_>)) -> bool {
        self.end_older(now, self.wait, emit)
    }

    /// Gives out every group: nothing more will come. `true` when there was one.
    pub fn end(&mut self, now: Instant, emit: &mut dyn FnMut(Row<'_>)) -> bool {
        self.end_older(now, Duration::ZERO, emit)
    }

    fn end_older(&mut self, now: Instant, wait: Duration, emit: &mut dyn FnMut(Row<'_>)) -> bool {
        let mut has_given = false;
        for stream in Stream::ALL {
            let slot = self.slot(stream);
            if slot.as_ref().is_some_and(|group| now.saturating_duration_since(group.heard_at) >= wait) {
                give(slot, stream, emit);
                has_given = true;
            }
        }
        has_given
    }

    /// Where open groups stand.
    pub fn open(&self) -> impl Iterator<Item = Position> + '_ {
        [&self.stdout, &self.stderr].into_iter().flatten().map(|group| group.position)
    }

    /// How much text is held, in bytes.
    pub fn bytes(&self) -> usize {
        [&self.stdout, &self.stderr].into_iter().flatten().map(|group| group.text.capacity()).sum()
    }

    /// Forgets the open groups, for reading starts again.
    pub fn clear(&mut self) {
        self.stdout = None;
        self.stderr = None;
    }

    fn slot(&mut self, stream: Stream) -> &mut Option<OpenGroup> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

fn give(slot: &mut Option<OpenGroup>, stream: Stream, emit: &mut dyn FnMut(Row<'_>)) {
    if let Some(OpenGroup { position, timestamp_ns, text, .. }) = slot.take() {
        emit(Row { stream, timestamp_ns, position, text: &text, part: 0, end: End::Newline });
    }
}

#[cfg(test)]
mod tests;
