//! Loki's push request as bytes: the four messages of its `logproto`, written by hand, then compressed.
//!
//! ```text
//! PushRequest      1 streams: StreamAdapter …
//! StreamAdapter    1 labels: text, as {name="value", …}   2 entries: EntryAdapter …
//! EntryAdapter     1 timestamp: { 1 seconds, 2 nanos }    2 line: text    3 structured metadata: LabelPairAdapter …
//! LabelPairAdapter 1 name: text   2 value: text
//! ```
//! The whole is one snappy block, without framing. Generated code would bring a second prost into the tree and, as it is
//! published, knows no structured metadata; tests decode these bytes with generated code instead.

use std::collections::HashMap;
use std::ops::Range;

use beeacon_record::varint;

/// The labels that the collector sets. Few, and the same for every line of a container: more labels are more streams.
pub const FIXED_LABELS: [&str; 3] = ["container", "host", "service_name"];

/// What is sent with a request.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Entries in the order in which they are to be sent, encoded one by one, so that any run of them makes a push.
#[derive(Default)]
pub struct Load {
    /// A stream's label text, in the order of first appearance.
    streams: Vec<String>,
    by_labels: HashMap<String, usize>,
    bytes: Vec<u8>,
    entries: Vec<EncodedEntry>,
}

struct EncodedEntry {
    stream: usize,
    bytes: Range<usize>,
}

impl Load {
    /// An empty load.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the stream with these labels.
    pub fn stream(&mut self, labels: String) -> usize {
        if let Some(stream) = self.by_labels.get(&labels) {
            return *stream;
        }
        self.streams.push(labels.clone());
        self.by_labels.insert(labels, self.streams.len() - 1);
        self.streams.len() - 1
    }

    /// Adds an entry. `metadata` is a run of [`metadata_pair`]s.
    pub fn push(&mut self, stream: usize, timestamp_ns: i64, line: &str, metadata: &[&[u8]]) {
        let start = self.bytes.len();
        let mut timestamp = Vec::with_capacity(16);
        const SECOND_NS: i64 = 1_000_000_000;
        number_field(1, timestamp_ns.div_euclid(SECOND_NS).cast_unsigned(), &mut timestamp);
        number_field(2, timestamp_ns.rem_euclid(SECOND_NS).cast_unsigned(), &mut timestamp);
        bytes_field(1, &timestamp, &mut self.bytes);
        bytes_field(2, line.as_bytes(), &mut self.bytes);
        for pairs in metadata {
            self.bytes.extend_from_slice(pairs);
        }
        self.entries.push(EncodedEntry { stream, bytes: start..self.bytes.len() });
    }

    /// How many entries.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all entries, encoded.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Cuts the entries into runs, none with more than `entries_max` entries, nor, unless it is a single one, with more than
    /// `bytes_max` bytes.
    pub fn runs(&self, bytes_max: usize, entries_max: usize) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, entry) in self.entries.iter().enumerate() {
            let more = entry.bytes.len();
            if index > start && (bytes + more > bytes_max || index - start >= entries_max) {
                runs.push(start..index);
                (start, bytes) = (index, 0);
            }
            bytes += more;
        }
        if start < self.entries.len() {
            runs.push(start..self.entries.len());
        }
        runs
    }

    /// A push request of these entries, not yet compressed.
    pub fn request(&self, entries: Range<usize>) -> Vec<u8> {
        let entries = self.entries.get(entries).unwrap_or(&[]);
        let mut bodies: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut place_of: HashMap<usize, usize> = HashMap::new();
        for entry in entries {
            let place = *place_of.entry(entry.stream).or_insert_with(|| {
                let mut body = Vec::new();
                let labels = self.streams.get(entry.stream).map_or("", String::as_str);
                bytes_field(1, labels.as_bytes(), &mut body);
                bodies.push((entry.stream, body));
                bodies.len() - 1
            });
            if let Some((_, body)) = bodies.get_mut(place) {
                bytes_field(2, self.bytes.get(entry.bytes.clone()).unwrap_or(&[]), body);
            }
        }
        let mut request = Vec::with_capacity(bodies.iter().map(|(_, body)| body.len() + 8).sum());
        for (_, body) in bodies {
            bytes_field(1, &body, &mut request);
        }
        request
    }
}

/// One pair of structured metadata as a field of an entry.
pub fn metadata_pair(name: &str, value: &str, out: &mut Vec<u8>) {
    let mut pair = Vec::with_capacity(name.len() + value.len() + 8);
    bytes_field(1, name.as_bytes(), &mut pair);
    bytes_field(2, value.as_bytes(), &mut pair);
    bytes_field(3, &pair, out);
}

/// A stream's labels as Loki parses them: sorted by name, empty values left out, quoted as in Go.
pub fn label_text<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut labels: Vec<(&str, &str)> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    labels.sort_unstable();
    let mut text = String::from("{");
    for (index, (name, value)) in labels.into_iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                control if control.is_control() => {
                    text.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// A name that Loki takes as a label or as structured metadata: what it does not allow becomes an underscore.
pub fn metadata_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let mut text: String = name.chars().map(allowed).collect();
    if text.chars().next().is_none_or(|first| first.is_ascii_digit()) {
        text.insert(0, '_');
    }
    text
}

/// A number; zero is the default and left out.
fn number_field(field: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        varint::write(u64::from(field << 3), out);
        varint::write(number, out);
    }
}

/// Text, bytes or a message. Written also when empty: a repeated field has no default.
fn bytes_field(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(u64::from(field << 3 | 2), out);
    varint::write(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use loki_api::logproto as published;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// `PushRequest` as Loki defines it today, with structured metadata.
    #[derive(Clone, PartialEq, prost::Message)]
    struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        streams: Vec<Stream>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Stream {
        #[prost(string, tag = "1")]
        labels: String,
        #[prost(message, repeated, tag = "2")]
        entries: Vec<Entry>,
        #[prost(uint64, tag = "3")]
        hash: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Entry {
        #[prost(message, optional, tag = "1")]
        timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        line: String,
        #[prost(message, repeated, tag = "3")]
        structured_metadata: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Timestamp {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    type Row = (usize, i64, String, Vec<(String, String)>);

    fn load(rows: &[Row]) -> Load {
        let mut load = Load::new();
        for (stream, timestamp_ns, line, metadata) in rows {
            let stream = load.stream(format!("{{s=\"{stream}\"}}"));
            let mut pairs = Vec::new();
            for (name, value) in metadata {
                metadata_pair(name, value, &mut pairs);
            }
            load.push(stream, *timestamp_ns, line, &[&pairs]);
        }
        load
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let pairs = proptest::collection::vec((".{0,9}", ".{0,9}"), 0..4);
        let row = (0usize..3, any::<i64>(), ".{0,200}", pairs);
        proptest::collection::vec(row, 0..20)
    }

    proptest! {
        #[test]
        fn generated_code_reads_what_was_pushed(rows in rows()) {
            let load = load(&rows);
            let request = load.request(0..load.entries());
            let decoded = PushRequest::decode(request.as_slice()).unwrap();
            let mut found = vec![Vec::new(); 3];
            for stream in &decoded.streams {
                let number: usize = stream.labels.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
                prop_assert!(found[number].is_empty(), "a stream appears once");
                for entry in &stream.entries {
                    let timestamp = entry.timestamp.as_ref().unwrap();
                    prop_assert!((0..1_000_000_000).contains(&timestamp.nanos));
                    let ns = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
                    let pairs: Vec<_> =
                        entry.structured_metadata.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
                    found[number].push((ns, entry.line.clone(), pairs));
                }
            }
            for (number, found) in found.iter().enumerate() {
                let expected: Vec<_> = rows
                    .iter()
                    .filter(|row| row.0 == number)
                    .map(|(_, ns, line, pairs)| (i128::from(*ns), line.clone(), pairs.clone()))
                    .collect();
                prop_assert_eq!(found, &expected);
            }
            // The published types skip the metadata and agree on everything else.
            let other = published::PushRequest::decode(request.as_slice()).unwrap();
            prop_assert_eq!(other.streams.len(), decoded.streams.len());
            for (left, right) in other.streams.iter().zip(&decoded.streams) {
                prop_assert_eq!(&left.labels, &right.labels);
                for (left, right) in left.entries.iter().zip(&right.entries) {
                    prop_assert_eq!(&left.line, &right.line);
                    let (left, right) = (left.timestamp.as_ref().unwrap(), right.timestamp.as_ref().unwrap());
                    prop_assert_eq!((left.seconds, left.nanos), (right.seconds, right.nanos));
                }
            }
        }

        #[test]
        fn runs_cover_every_entry_once_in_order_and_keep_their_limits(rows in rows(), bytes_max in 1usize..400) {
            let load = load(&rows);
            let runs = load.runs(bytes_max, 5);
            let covered: Vec<usize> = runs.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..rows.len()).collect::<Vec<_>>());
            for run in runs {
                let bytes: usize = load.entries[run.clone()].iter().map(|entry| entry.bytes.len()).sum();
                prop_assert!(run.len() <= 5 && (bytes <= bytes_max || run.len() == 1));
            }
        }
    }

    #[test]
    fn labels_are_sorted_quoted_and_without_empty_ones() {
        let labels = [("service_name", "a\"b\\c\nd\u{7}e"), ("host", ""), ("container", "w\u{e9}b")];
        assert_eq!(label_text(labels), "{container=\"w\u{e9}b\", service_name=\"a\\\"b\\\\c\\nd\\u0007e\"}");
    }

    #[test]
    fn names_become_what_loki_takes() {
        for (name, expected) in
            [("trace_id", "trace_id"), ("http.status-code", "http_status_code"), ("5xx", "_5xx"), ("", "_")]
        {
            assert_eq!(metadata_name(name), expected);
        }
    }
}
