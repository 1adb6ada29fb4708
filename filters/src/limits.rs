//! The filter's own limits, with unit and reason. What two rooms share stands in `beeacon_record::limits`.

use beeacon_record::limits::LINE_OVERLAP_BYTES;

/// How far a match may reach when its rule does not say, in bytes. It bounds what one start can cost, and is what the agent
/// leaves behind when it cuts an over-long line.
pub const WINDOW_BYTES_DEFAULT: usize = LINE_OVERLAP_BYTES;

/// The farthest a rule may ask a match to reach, in bytes: an RSA key of 8192 bits in PEM is 6.4 KiB, twice that with
/// escaped line ends and attributes.
pub const WINDOW_BYTES_MAX: usize = 16 << 10;

/// The longest pattern, in bytes of its text.
pub const PATTERN_BYTES_MAX: usize = 4 << 10;

/// How much of harmless lines a user's rule may redact, in per cent of their bytes, before it counts as matching everything. All
/// letters and digits are between 70 and 80 of them, all small letters about 50, all digits about 20.
pub const HARMLESS_REDACTED_PER_CENT_MAX: usize = 70;

/// The largest automaton that a pattern may compile to before it is refused, in bytes.
pub const PATTERN_NFA_BYTES_MAX: usize = 1 << 20;

/// The largest precomputed automaton per rule, in bytes; a larger one is built lazily while it runs.
pub const VERIFIER_AUTOMATON_BYTES_MAX: usize = 512 << 10;

/// How many rules share one automaton that is walked along from a place: their numbers are kept for each state.
pub const DISPATCH_RULES_MAX: usize = 256;

/// The largest such automaton, in bytes; rules that need more are parted. What is walked in ordinary text is a small part of it.
pub const DISPATCH_AUTOMATON_BYTES_MAX: usize = 4 << 20;

/// How far before a value its context is looked for, in bytes: a key, a few words, or a label and what stands between.
pub const CONTEXT_BYTES: usize = 80;

/// The most words of context a rule may name. Each is compared at every word's start in front of a valid value.
pub const CONTEXT_WORDS_MAX: usize = 64;

/// What a lazily built automaton may keep, in bytes for each thread that scans.
pub const VERIFIER_LAZY_BYTES_MAX: usize = 2 << 20;

/// How much of a text is scrubbed at once where rules are timed, in bytes: about what one batch holds.
pub const BENCH_BLOCK_BYTES: usize = 256 << 10;

/// The most rules in one engine. Each costs memory and a slot in every thread's state.
pub const RULES_MAX: usize = 1024;

/// The most literals one rule may be found by.
pub const LITERALS_PER_RULE_MAX: usize = 64;

/// The largest rule or profile file, in bytes.
pub const RULE_FILE_BYTES_MAX: usize = 1 << 20;

/// How many profiles may inherit from one another in a row.
pub const PROFILE_DEPTH_MAX: usize = 8;

/// How many bytes a rule may read while verifying candidates of one line, for each byte of the line, before its starts in that line
/// are first asked of an automaton that reads the line once. Ordinary text needs less than one.
pub const STEPS_PER_BYTE_MAX: usize = 16;

/// The same, for every line however short, in bytes: building the automaton's states costs about as much.
pub const STEPS_PER_LINE_MIN: usize = 1 << 10;

/// A text handed over in one call may be this long, in bytes. Positions are kept in 32 bits.
pub const TEXT_BYTES_MAX: usize = 1 << 30;

/// How often a rewritten line is scanned again until nothing changes. A rewritten value may make its neighbourhood look like
/// something else; a line that has not settled by then is replaced as a whole.
pub const REWRITE_PASSES_MAX: usize = 8;

/// The longest marker, in bytes: name, key version and token, or the reference of a known secret.
pub const MARKER_BYTES_MAX: usize = 160;

/// The longest marker name, in bytes.
pub const MARKER_NAME_BYTES_MAX: usize = 40;

/// How many characters of base32 a keyed hash keeps: 100 bits, so that two values meet by chance never.
pub const HASH_CHARACTERS: usize = 20;

/// The shortest key, in bytes: half of the hash's output is the least that HMAC is worth using with.
pub const KEY_BYTES_MIN: usize = 16;

/// The longest key, in bytes: longer ones are hashed by HMAC first and gain nothing.
pub const KEY_BYTES_MAX: usize = 1024;

/// The shortest line that is redacted for being nothing but base64, in bytes: body lines of private keys have 64, 70 or 76, and one
/// that was cut short keeps its entropy.
pub const BODY_BYTES_MIN: usize = 48;

/// The longest such line, in bytes: twice the usual 64, with an indent and its line end.
pub const BODY_BYTES_MAX: usize = 160;

/// How long base64 inside of an open private key must be to be a whole body line, in bytes; shorter pieces must stand where the
/// lines before stood. Words and identifiers are shorter.
pub const BODY_SURE_BYTES_MIN: usize = 40;

/// How much may stand before a body line, in bytes: a logger's time stamp, level, name and field names.
pub const BODY_PREFIX_BYTES_MAX: usize = 256;

/// How many lines one private key may have. The largest keys in use have about 250; past this something else is being printed.
pub const BLOCK_LINES_MAX: u32 = 2048;

/// How many other lines may stand inside of a private key, or before its rest where its beginning was not seen.
pub const DOUBT_LINES_MAX: u32 = 8;

/// How many sources are remembered: as many as twice the containers that one host is likely to run. Each costs about 10 KiB at most.
pub const CONTINUITY_SOURCES_MAX: usize = 1024;

/// How many places of a source are remembered with what stood open there: one batch in flight, one prepared, and as many again.
pub const CONTINUITY_MARKS_MAX: usize = 4;

/// How many segments a field rule's name may have: deeper nesting is named by its innermost keys.
pub const FIELD_SEGMENTS_MAX: usize = 8;

/// The longest name of a field, in bytes: longer keys are data.
pub const FIELD_KEY_BYTES_MAX: usize = 64;

/// The deepest nesting of JSON in which fields are told apart; parsers refuse deeper text.
pub const JSON_DEPTH_MAX: usize = 128;

/// The shortest value that may be redacted wherever it stands, in bytes.
pub const DENIED_BYTES_MIN: usize = 4;

/// How many values may be redacted wherever they stand. More are known secrets, which cost less.
pub const DENIED_VALUES_MAX: usize = 256;

/// How many fields of one source are remembered with what their values have shown. Each costs about 140 bytes.
pub const EVIDENCE_FIELDS_MAX: usize = 64;

/// How many different values of a field are told apart before that starts anew: the filter of 512 bits is mostly right up to here.
pub const EVIDENCE_SEEN_MAX: u32 = 96;

/// How many rejected candidates of a line are weighed: more say nothing new.
pub const EVIDENCE_REJECTED_PER_LINE_MAX: usize = 16;

/// How many scratch states an engine keeps for reuse: one for each thread that is likely to scan at once.
pub const SCRATCH_POOL_MAX: usize = 64;

/// The most known secrets in one set. Memory grows by about 1.5 KiB for each, and beyond this nobody has measured.
pub const KNOWN_SECRETS_MAX: usize = 100_000;

/// What all known secrets of a set may have together, in bytes: ten times what ten thousand usually have.
pub const KNOWN_BYTES_MAX: usize = 16 << 20;

/// The shortest known secret, in bytes. What is shorter is an ordinary word too often.
pub const KNOWN_SECRET_BYTES_MIN: usize = 6;

/// From this length on a known secret is found inside longer words too, in bytes: eight bytes that are looked at, at every fourth
/// place. Also the shortest line of a secret of several lines that is known by itself.
pub const KNOWN_LINE_BYTES_MIN: usize = 11;

/// How many different bytes a known secret has, at least: `************` and `------` stand for many things.
pub const KNOWN_DIFFERENT_BYTES_MIN: usize = 3;

/// Longer known secrets are known in pieces of this length, in bytes: it bounds what one candidate costs, and a secret that a
/// logger cut off is found as far as it is there.
pub const KNOWN_PIECE_BYTES: usize = 128;

/// The longest reference of a known secret in a marker, in bytes.
pub const KNOWN_REFERENCE_BYTES_MAX: usize = 128;

const _: () = assert!(KNOWN_REFERENCE_BYTES_MAX + 16 <= MARKER_BYTES_MAX);
const _: () = assert!(WINDOW_BYTES_DEFAULT <= WINDOW_BYTES_MAX);
const _: () = assert!(MARKER_NAME_BYTES_MAX + HASH_CHARACTERS + 16 <= MARKER_BYTES_MAX);
const _: () = assert!(TEXT_BYTES_MAX < u32::MAX as usize);
