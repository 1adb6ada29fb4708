//! Loki's push door: takes snappy protobuf as Loki does, can refuse, stall or fail, and keeps what it got.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;

use crate::harness::http::{Answer, Request, Server};

/// Loki's `logproto.PushRequest`, as far as a client writes it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) streams: Vec<StreamAdapter>,
}

/// One stream: a label set in braces, and its entries.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamAdapter {
    #[prost(string, tag = "1")]
    pub(crate) labels: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<EntryAdapter>,
}

/// One line.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    pub(crate) timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub(crate) line: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) structured_metadata: Vec<LabelPair>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

/// A name and a value.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// How the door behaves.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// 204.
    Well,
    /// 429 with a `Retry-After`.
    TooMany,
    /// 500.
    Broken,
    /// 400: nothing of it is taken.
    Refusing,
    /// The connection is closed without an answer.
    Gone,
    /// 204 after this long.
    Slow(Duration),
}

/// An entry that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) timestamp_ns: i64,
    pub(crate) line: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Default)]
struct Kept {
    entries: Vec<Entry>,
    faults: Vec<String>,
}

struct Shared {
    folder: PathBuf,
    mood: Mutex<Mood>,
    kept: Mutex<Kept>,
    requests: AtomicU64,
}

/// The server.
pub(crate) struct Loki {
    server: Server,
    shared: Arc<Shared>,
}

impl Loki {
    /// Starts the door; every body goes into `folder`, as sent and inflated.
    pub(crate) fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            mood: Mutex::new(Mood::Well),
            kept: Mutex::default(),
            requests: AtomicU64::new(0),
        });
        let server = Server::start({
            let shared = shared.clone();
            move |request| shared.take(&request)
        });
        Loki { server, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.shared.kept.lock().unwrap().entries.clone()
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.shared.kept.lock().unwrap().entries.len()
    }

    /// What was wrong with requests, as a real Loki would have said.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.shared.kept.lock().unwrap().faults.clone()
    }
}

impl Shared {
    fn take(&self, request: &Request) -> Answer {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        std::fs::write(self.folder.join(format!("{number:06}.raw")), &request.body).unwrap();
        let decoded = decode(request);
        if let Ok((inflated, _)) = &decoded {
            std::fs::write(self.folder.join(format!("{number:06}.inflated")), inflated).unwrap();
        }
        let mood = self.mood.lock().unwrap().clone();
        match mood {
            Mood::TooMany => {
                return Answer { headers: vec![("Retry-After", "1".into())], ..Answer::status(429) };
            }
            Mood::Broken => return Answer::status(500),
            Mood::Gone => return Answer::none(),
            Mood::Refusing => {
                return Answer { body: "entry too far behind".into(), ..Answer::status(400) };
            }
            Mood::Slow(pause) => std::thread::sleep(pause),
            Mood::Well => {}
        }
        let mut kept = self.kept.lock().unwrap();
        match decoded {
            Ok((_, entries)) => {
                kept.entries.extend(entries);
                Answer::status(204)
            }
            Err(fault) => {
                kept.faults.push(fault.clone());
                Answer { body: fault, ..Answer::status(400) }
            }
        }
    }
}

/// What a real Loki checks before it takes a request.
fn decode(request: &Request) -> Result<(Vec<u8>, Vec<Entry>), String> {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/loki/api/v1/push") {
        return Err(format!("{} {} is not the push door", request.method, request.path));
    }
    if request.header("content-type") != Some("application/x-protobuf") {
        return Err(format!("content type is {:?}", request.header("content-type")));
    }
    let inflated =
        snap::raw::Decoder::new().decompress_vec(&request.body).map_err(|error| error.to_string())?;
    let push = PushRequest::decode(inflated.as_slice()).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    for stream in push.streams {
        let labels = parse_labels(&stream.labels)?;
        if labels.is_empty() {
            return Err("a stream without labels".into());
        }
        for entry in stream.entries {
            let timestamp = entry.timestamp.ok_or("an entry without a timestamp")?;
            let metadata =
                entry.structured_metadata.into_iter().map(|pair| (pair.name, pair.value)).collect();
            let timestamp_ns = timestamp.seconds * 1_000_000_000 + i64::from(timestamp.nanos);
            entries.push(Entry { labels: labels.clone(), timestamp_ns, line: entry.line, metadata });
        }
    }
    Ok((inflated, entries))
}

/// `{name="value", other="a \"quoted\" one"}`, names in order.
fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let fault = || format!("labels are not {{name=\"value\", …}}: {text}");
    let mut rest = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(fault)?;
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once('=').ok_or_else(fault)?;
        let sane = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !sane || name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            return Err(format!("label name {name:?} is not one Loki takes"));
        }
        let mut values = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
        let value = values.next().and_then(Result::ok).ok_or_else(fault)?;
        rest = quoted[values.byte_offset()..].trim_start_matches([',', ' ']);
        labels.insert(name.to_owned(), value);
    }
    Ok(labels)
}
