//! A Docker API over a unix socket that does what a test wants: it answers as dockerd does, of some version, or fails as told.
//!
//! It knows six routes, those that a proxy before a real Docker would let pass; a request to any other one fails the test.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::watch;

/// What a dockerd makes of `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// Every entry below it is left out.
    EachEntry,
    /// The first entry at or above it is where reading starts.
    StartPoint,
}

/// What becomes of the next attach to a container.
#[derive(Clone, Debug)]
pub(crate) enum Attach {
    /// This status and nothing else.
    Status(u16),
    /// So many bytes of what is there, then an orderly end.
    EndsAfter(usize),
    /// So many bytes of what is there, then the connection breaks.
    BreaksAfter(usize),
    /// What is there, then these bytes, then an orderly end.
    EndsWith(Vec<u8>),
    /// What is there, then nothing for ever.
    Hangs,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) stream: u8,
    pub(crate) timestamp_ns: i64,
    /// With its newline, if it has one.
    pub(crate) text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) has_terminal: bool,
    pub(crate) is_running: bool,
    pub(crate) is_paused: bool,
    pub(crate) started_at: String,
    pub(crate) log_path: String,
    pub(crate) entries: Vec<Entry>,
    /// For the attaches to come, in order; then they are as they should be.
    pub(crate) attaches: VecDeque<Attach>,
    /// How many there were, and from when each asked.
    pub(crate) asked_since: Vec<Option<i64>>,
    /// How often the last entry alone was asked for.
    pub(crate) probes: usize,
    /// Which run of the container it is.
    pub(crate) run: u64,
}

impl Container {
    pub(crate) fn new(name: &str) -> Self {
        Container {
            name: name.to_owned(),
            driver: "local".to_owned(),
            options: BTreeMap::new(),
            has_terminal: false,
            is_running: true,
            is_paused: false,
            started_at: "2024-01-01T00:00:00Z".to_owned(),
            log_path: String::new(),
            entries: Vec::new(),
            attaches: VecDeque::new(),
            asked_since: Vec::new(),
            probes: 0,
            run: 0,
        }
    }

    fn inspected(&self, id: &str) -> Value {
        json!({
            "Id": id, "Name": format!("/{}", self.name), "LogPath": self.log_path,
            "Config": {"Tty": self.has_terminal, "Image": "i:1", "Labels": {}},
            "State": {"Running": self.is_running, "Paused": self.is_paused, "StartedAt": self.started_at},
            "HostConfig": {"LogConfig": {"Type": self.driver, "Config": self.options}},
        })
    }

    fn bytes_of(&self, entry: &Entry) -> Vec<u8> {
        let time = jiff::Timestamp::from_nanosecond(i128::from(entry.timestamp_ns)).unwrap();
        let payload = format!("{time:.9} {}", entry.text);
        if self.has_terminal { payload.into_bytes() } else { frame(entry.stream, payload.as_bytes()) }
    }
}

/// One frame of a multiplexed stream.
pub(crate) fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![stream, 0, 0, 0];
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

type Hook = Box<dyn FnOnce(&mut State) + Send>;

pub(crate) struct State {
    pub(crate) api_version: &'static str,
    pub(crate) since: Since,
    pub(crate) containers: BTreeMap<String, Container>,
    /// With their times. Docker keeps 256.
    events: Vec<(i64, Value)>,
    /// Whether events are told; otherwise their stream is there and silent.
    pub(crate) tells_events: bool,
    /// Done once, when a list has been made and before it is answered.
    pub(crate) after_list: Option<Hook>,
    pub(crate) lists: usize,
    /// Requests to none of the routes.
    strange: Vec<String>,
}

impl State {
    /// Something has happened to a container.
    pub(crate) fn event(&mut self, id: &str, action: &str) {
        let now_ns = jiff::Timestamp::now().as_nanosecond();
        let now_ns = i64::try_from(now_ns).unwrap();
        let event = json!({
            "Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": {}},
            "time": now_ns / 1_000_000_000, "timeNano": now_ns,
        });
        self.events.push((now_ns, event));
    }

    pub(crate) fn container(&mut self, id: &str) -> &mut Container {
        self.containers.get_mut(id).unwrap()
    }

    /// Starts a container anew.
    pub(crate) fn start(&mut self, id: &str) {
        let container = self.container(id);
        container.run += 1;
        container.is_running = true;
        container.started_at = format!("2024-01-01T00:{:02}:{:02}Z", container.run / 60, container.run % 60);
        self.event(id, "start");
    }

    /// Stops a container; its streams end.
    pub(crate) fn stop(&mut self, id: &str) {
        self.container(id).is_running = false;
        self.event(id, "die");
    }
}

/// The API; it ends with the value.
pub(crate) struct Docker {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
    pub(crate) host: String,
    task: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

impl Docker {
    pub(crate) fn start(api_version: &'static str, since: Since) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State {
            api_version,
            since,
            containers: BTreeMap::new(),
            events: Vec::new(),
            tells_events: true,
            after_list: None,
            lists: 0,
            strange: Vec::new(),
        }));
        let changes = watch::Sender::new(0);
        let (shared, changed) = (state.clone(), changes.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (shared, changed) = (shared.clone(), changed.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer(&shared, &changed, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Docker { state, changes, host: format!("unix://{}", path.display()), task, _folder: folder }
    }

    /// Changes something; whoever waits for it hears of it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changes.send_modify(|version| *version += 1);
        result
    }

    /// A container that is there and runs.
    pub(crate) fn add(&self, id: &str, container: Container) {
        self.change(|state| {
            state.containers.insert(id.to_owned(), container);
            state.event(id, "start");
        });
    }

    /// A line of a container.
    pub(crate) fn line(&self, id: &str, stream: u8, timestamp_ns: i64, text: &str) {
        let entry = Entry { stream, timestamp_ns, text: format!("{text}\n") };
        self.change(|state| state.container(id).entries.push(entry));
    }

    pub(crate) fn attaches(&self, id: &str) -> usize {
        self.state.lock().unwrap().container(id).asked_since.len()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            let strange = &self.state.lock().unwrap().strange;
            assert!(strange.is_empty(), "the agent asks Docker for more than it needs: {strange:?}");
        }
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

fn text(status: u16, content_type: &str, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", content_type).body(body).unwrap()
}

fn answer(
    shared: &Arc<Mutex<State>>,
    changes: &watch::Sender<u64>,
    request: &Request<Incoming>,
) -> Response<Body> {
    let mut state = shared.lock().unwrap();
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let bare = match path.strip_prefix("/v1.") {
        Some(rest) => rest.split_once('/').map_or(path, |(_, rest)| rest),
        None => path.trim_start_matches('/'),
    };
    let parts: Vec<&str> = bare.split('/').collect();
    let (json, no_such) = ("application/json", || text(404, "application/json", r#"{"message":"no such"}"#));
    match (request.method().as_str(), parts.as_slice()) {
        ("GET" | "HEAD", ["_ping"]) => text(200, "text/plain", "OK"),
        ("GET", ["version"]) => {
            let version =
                json!({"ApiVersion": state.api_version, "MinAPIVersion": "1.24", "Version": "test"});
            text(200, json, version.to_string())
        }
        ("GET", ["events"]) => {
            let since_ns = number(query, "since").unwrap_or(i64::MAX);
            let at = state.events.iter().position(|(at_ns, _)| *at_ns >= since_ns);
            let at = at.unwrap_or(state.events.len()).max(state.events.len().saturating_sub(256));
            let (shared, changed) = (shared.clone(), changes.subscribe());
            let events = stream::unfold((shared, changed, at), |(shared, mut changed, at)| async move {
                loop {
                    let next = {
                        let state = shared.lock().unwrap();
                        state
                            .events
                            .get(at)
                            .filter(|_| state.tells_events)
                            .map(|(_, event)| event.to_string())
                    };
                    match next {
                        Some(event) => {
                            let bytes = Bytes::from(format!("{event}\n"));
                            return Some((Ok(Frame::data(bytes)), (shared, changed, at + 1)));
                        }
                        None => changed.changed().await.ok()?,
                    }
                }
            });
            let body = BodyExt::boxed_unsync(StreamBody::new(events));
            Response::builder().header("content-type", json).body(body).unwrap()
        }
        ("GET", ["containers", "json"]) => {
            state.lists += 1;
            let list: Vec<Value> = state.containers.keys().map(|id| json!({"Id": id})).collect();
            if let Some(hook) = state.after_list.take() {
                hook(&mut state);
                changes.send_modify(|version| *version += 1);
            }
            text(200, json, Value::from(list).to_string())
        }
        ("GET", ["containers", id, "json"]) => match state.containers.get(*id) {
            Some(container) => text(200, json, container.inspected(id).to_string()),
            None => no_such(),
        },
        ("GET", ["containers", id, "logs"]) => {
            let (id, since_ns) = ((*id).to_owned(), number(query, "since"));
            logs(&mut state, shared.clone(), changes, id, query, since_ns).unwrap_or_else(no_such)
        }
        (method, _) => {
            let request = format!("{method} {path}?{query}");
            state.strange.push(request);
            text(403, json, r#"{"message":"not allowed"}"#)
        }
    }
}

/// A time in nanoseconds of a query.
fn number(query: &str, name: &str) -> Option<i64> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, "0"));
    Some(seconds.parse::<i64>().ok()? * 1_000_000_000 + format!("{fraction:0<9}").parse::<i64>().ok()?)
}

/// Which entries a request may see, by their index.
fn is_wanted(container: &Container, since: Since, since_ns: Option<i64>, index: usize) -> bool {
    let Some(since_ns) = since_ns else { return true };
    let is_late = |entry: &Entry| entry.timestamp_ns >= since_ns;
    match since {
        Since::EachEntry => container.entries.get(index).is_some_and(is_late),
        Since::StartPoint => container.entries.iter().take(index + 1).any(is_late),
    }
}

fn logs(
    state: &mut State,
    shared: Arc<Mutex<State>>,
    changes: &watch::Sender<u64>,
    id: String,
    query: &str,
    since_ns: Option<i64>,
) -> Option<Response<Body>> {
    let (since, version) = (state.since, state.api_version);
    let container = state.containers.get_mut(&id)?;
    // Up to 1.41 nothing tells how the answer is framed.
    let content_type = match (version, container.has_terminal) {
        ("1.41", _) => None,
        (_, true) => Some("application/vnd.docker.raw-stream"),
        (_, false) => Some("application/vnd.docker.multiplexed-stream"),
    };
    let respond = |body: Body| {
        let mut response = Response::builder();
        if let Some(content_type) = content_type {
            response = response.header("content-type", content_type);
        }
        response.body(body).unwrap()
    };
    let whole = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
    if query.contains("tail=1") {
        container.probes += 1;
        let last = container.entries.len().checked_sub(1);
        let last = last.filter(|last| is_wanted(container, since, since_ns, *last));
        let bytes = last.and_then(|last| Some(container.bytes_of(container.entries.get(last)?)));
        return Some(respond(whole(bytes.unwrap_or_default())));
    }
    assert!(query.contains("follow=1"), "{query}");
    container.asked_since.push(since_ns);
    let there = container.entries.iter().enumerate();
    let there = there.filter(|(index, _)| is_wanted(container, since, since_ns, *index));
    let there: Vec<u8> = there.flat_map(|(_, entry)| container.bytes_of(entry)).collect();
    let cut = |bytes: usize| there.get(..bytes).unwrap_or(&there).to_vec();
    Some(match container.attaches.pop_front() {
        Some(Attach::Status(status)) => text(status, "application/json", r#"{"message":"as told"}"#),
        Some(Attach::EndsAfter(bytes)) => respond(whole(cut(bytes))),
        Some(Attach::EndsWith(bytes)) => respond(whole([there, bytes].concat())),
        Some(Attach::BreaksAfter(bytes)) => {
            let parts = [Ok(Frame::data(Bytes::from(cut(bytes)))), Err(io::Error::other("as told"))];
            respond(BodyExt::boxed_unsync(StreamBody::new(stream::iter(parts))))
        }
        Some(Attach::Hangs) => {
            let first = stream::iter([Ok(Frame::data(Bytes::from(there)))]);
            let body = futures_util::StreamExt::chain(first, stream::pending());
            respond(BodyExt::boxed_unsync(StreamBody::new(body)))
        }
        None => {
            let following = Following { shared, changed: changes.subscribe(), run: container.run, id, at: 0 };
            let pieces = stream::unfold(following, move |mut following| async move {
                let bytes = following.next(since, since_ns).await?;
                Some((Ok(Frame::data(Bytes::from(bytes))), following))
            });
            respond(BodyExt::boxed_unsync(StreamBody::new(pieces)))
        }
    })
}

/// A stream that goes on until its run of the container has ended.
struct Following {
    shared: Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
    id: String,
    run: u64,
    at: usize,
}

impl Following {
    async fn next(&mut self, since: Since, since_ns: Option<i64>) -> Option<Vec<u8>> {
        loop {
            self.changed.borrow_and_update();
            {
                let state = self.shared.lock().unwrap();
                let container = state.containers.get(&self.id)?;
                while let Some(entry) = container.entries.get(self.at) {
                    self.at += 1;
                    if is_wanted(container, since, since_ns, self.at - 1) {
                        return Some(container.bytes_of(entry));
                    }
                }
                if !container.is_running || container.run != self.run {
                    return None;
                }
            }
            self.changed.changed().await.ok()?;
        }
    }
}
