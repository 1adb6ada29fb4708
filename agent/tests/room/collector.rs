//! A collector in memory: sessions, epochs, intervals, gaps; and what may go wrong with one.

use beeacon_record::schema::Column;
use beeacon_record::wire::{
    Committed, INGEST_PATH, IngestAnswer, Refusal, RefusalBody, RefusalCode, SESSION_PATH, SessionAnswer,
    SourceState,
};
use beeacon_record::{Epoch, FRAME_VERSION, Frame, Gap, Position};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What the collector does with the next frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Commits and answers.
    Well,
    /// Answers 503 to everything.
    Down,
    /// Takes a third of a second for every frame.
    Slow,
    /// Is far away: every frame takes half a second to get here.
    Far,
    /// Frames take half a second, and every third one is faster than the one before it.
    Shuffles,
    /// Answers 503 to every second frame.
    Busy,
    /// Commits, and every second time the connection breaks before the answer.
    LosesAnswers,
    /// Refuses frames with a row that holds this word.
    Refuses(&'static str),
    /// Forgets every fifth time that there was a session.
    Forgets,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) message: String,
    pub(crate) stream: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) service: String,
    pub(crate) level: String,
    pub(crate) timestamp_ns: i64,
}

pub(crate) struct State {
    pub(crate) mood: Mood,
    epoch: u64,
    has_session: bool,
    frames: u64,
    pub(crate) sources: HashMap<String, SourceState>,
    /// Rows by source and position, in the order of arrival.
    pub(crate) rows: Vec<(String, Position, Row)>,
    seen: HashSet<(String, Position)>,
    pub(crate) gaps: Vec<(String, Gap, Position)>,
    pub(crate) duplicates_stored: usize,
    pub(crate) refused: usize,
    pub(crate) duplicate_rows: u64,
    pub(crate) sessions: u64,
    pub(crate) finals: usize,
    pub(crate) dropped_rows: u64,
    /// What it says that it takes.
    pub(crate) credit_bytes: Option<u64>,
    /// The newest version of frames that it reads; one that says nothing reads the first.
    pub(crate) frame_version: Option<u16>,
    /// The newest version of frames that it took.
    pub(crate) newest_taken: u16,
    /// Frames on their way to it, with their bytes, and the most there were at once.
    under_way: (usize, usize),
    pub(crate) most_under_way: (usize, usize),
    arrivals: u64,
    pub(crate) largest_frame: usize,
    /// How often an interval began behind what was committed.
    pub(crate) holes: usize,
}

#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) url: String,
    /// Whether it answers 503, beside others of the same state that do not.
    pub(crate) is_down: Arc<AtomicBool>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let state = State {
            mood: Mood::Well,
            epoch: 0,
            has_session: false,
            frames: 0,
            sources: HashMap::new(),
            rows: Vec::new(),
            seen: HashSet::new(),
            gaps: Vec::new(),
            duplicates_stored: 0,
            refused: 0,
            duplicate_rows: 0,
            sessions: 0,
            finals: 0,
            dropped_rows: 0,
            credit_bytes: None,
            frame_version: Some(FRAME_VERSION),
            newest_taken: 0,
            under_way: (0, 0),
            most_under_way: (0, 0),
            arrivals: 0,
            largest_frame: 0,
            holes: 0,
        };
        Collector::over(Arc::new(Mutex::new(state))).await
    }

    /// Another collector over the same store.
    pub(crate) async fn beside(&self) -> Self {
        Collector::over(self.state.clone()).await
    }

    async fn over(state: Arc<Mutex<State>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_down = Arc::new(AtomicBool::new(false));
        let (shared, down) = (state.clone(), is_down.clone());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (shared, down) = (shared.clone(), down.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        answer(shared.clone(), down.load(Ordering::Relaxed), request)
                    });
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Collector { state, url, is_down }
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.state.lock().unwrap().rows.iter().map(|(_, _, row)| row.message.clone()).collect()
    }

    /// Waits until a condition holds; gives up loudly.
    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&State) -> bool) {
        self.until_within(30, what, holds).await;
    }

    /// The same, with another limit.
    pub(crate) async fn until_within(
        &self,
        limit_seconds: u64,
        what: &str,
        mut holds: impl FnMut(&State) -> bool,
    ) {
        for _ in 0..limit_seconds * 20 {
            if holds(&self.state.lock().unwrap()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let state = self.state.lock().unwrap();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (source, ..) in &state.rows {
            *counts.entry(source).or_default() += 1;
        }
        panic!(
            "after {limit_seconds} s still not so: {what}; rows {counts:?}, gaps {:?}, last {:?}",
            state.gaps,
            state.rows.last()
        );
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    is_down: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let wait_ms = if path == INGEST_PATH { state.lock().unwrap().arrives(body.len()) } else { 0 };
    tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
    let mut state = state.lock().unwrap();
    if path == INGEST_PATH {
        state.under_way = (state.under_way.0 - 1, state.under_way.1 - body.len());
    }
    let result = match path.as_str() {
        _ if is_down || state.mood == Mood::Down => Err((503, RefusalCode::Busy, Vec::new())),
        SESSION_PATH => {
            state.epoch += 1;
            state.sessions += 1;
            state.has_session = true;
            let sources = state.sources.values().cloned().collect();
            Ok(serde_json::to_vec(&SessionAnswer {
                epoch: Epoch(state.epoch),
                sources,
                frame_version: state.frame_version,
                credit_bytes: state.credit_bytes,
            })
            .unwrap())
        }
        INGEST_PATH => {
            let result = state.ingest(body);
            if state.mood == Mood::LosesAnswers && state.frames.is_multiple_of(2) {
                return Err(std::io::Error::other("the connection breaks"));
            }
            result.map(|answer| serde_json::to_vec(&answer).unwrap())
        }
        _ => Err((404, RefusalCode::NotFound, Vec::new())),
    };
    Ok(match result {
        Ok(body) => Response::new(Full::new(Bytes::from(body))),
        Err((status, code, expected)) => {
            state.refused += 1;
            let body = Refusal { error: RefusalBody { code, message: "no".into() }, expected };
            let body = serde_json::to_vec(&body).unwrap();
            Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
        }
    })
}

type Refused = (u16, RefusalCode, Vec<Committed>);

impl State {
    /// A frame begins to arrive: how long that takes, in milliseconds.
    fn arrives(&mut self, bytes: usize) -> u64 {
        self.arrivals += 1;
        self.under_way = (self.under_way.0 + 1, self.under_way.1 + bytes);
        self.most_under_way =
            (self.most_under_way.0.max(self.under_way.0), self.most_under_way.1.max(self.under_way.1));
        self.largest_frame = self.largest_frame.max(bytes);
        match self.mood {
            Mood::Slow => 333,
            Mood::Far => 500,
            Mood::Shuffles if self.arrivals.is_multiple_of(3) => 20,
            Mood::Shuffles => 500,
            _ => 0,
        }
    }

    fn ingest(&mut self, body: Bytes) -> Result<IngestAnswer, Refused> {
        self.frames += 1;
        if self.mood == Mood::Busy && !self.frames.is_multiple_of(2) {
            return Err((503, RefusalCode::Busy, Vec::new()));
        }
        if self.mood == Mood::Forgets && self.frames.is_multiple_of(5) {
            self.has_session = false;
        }
        if !self.has_session {
            return Err((409, RefusalCode::NoSession, Vec::new()));
        }
        let frame = Frame::parse(body).expect("the agent sends frames that can be read");
        if frame.header().version > self.frame_version.unwrap_or(1) {
            return Err((400, RefusalCode::Newer, Vec::new()));
        }
        if frame.header().epoch != Epoch(self.epoch) {
            return Err((409, RefusalCode::Fenced, Vec::new()));
        }
        let batch = frame.decode().unwrap().into_inner();
        if let Mood::Refuses(word) = self.mood
            && batch.messages().iter().flatten().any(|message| message.contains(word))
        {
            return Err((400, RefusalCode::Malformed, Vec::new()));
        }
        let committed = |state: &State, source: &str| state.sources.get(source).map(|known| known.committed);
        let expected: Vec<Committed> = batch
            .intervals()
            .iter()
            .map(|interval| Committed {
                source: interval.source.clone(),
                position: committed(self, interval.source.as_str()).unwrap_or_default(),
            })
            .collect();
        for interval in batch.intervals() {
            let Some(place) = committed(self, interval.source.as_str()) else { continue };
            let is_covered = interval.gap.as_ref().is_some_and(|gap| gap.from <= place);
            if interval.from > place && !is_covered {
                self.holes += 1;
                return Err((409, RefusalCode::Position, expected));
            }
        }
        let (keys, names) = batch.dictionary_column(Column::Source).unwrap();
        let (streams, stream_names) = batch.dictionary_column(Column::Stream).unwrap();
        let (service_keys, services) = batch.dictionary_column(Column::Service).unwrap();
        let (level_keys, levels) = batch.dictionary_column(Column::Level).unwrap();
        let mut stored = 0;
        let mut duplicates = 0;
        let mut rows: BTreeMap<String, Vec<(Position, Row)>> = BTreeMap::new();
        for (index, position) in batch.positions().enumerate() {
            let source = names.value(usize::try_from(keys.value(index)).unwrap()).to_owned();
            let row = Row {
                message: batch.messages().value(index).to_owned(),
                stream: stream_names.value(usize::try_from(streams.value(index)).unwrap()).to_owned(),
                attributes: batch.attributes_of(index),
                service: services.value(usize::try_from(service_keys.value(index)).unwrap()).to_owned(),
                level: levels.value(usize::try_from(level_keys.value(index)).unwrap()).to_owned(),
                timestamp_ns: batch.timestamps_ns().get(index).copied().unwrap(),
            };
            rows.entry(source).or_default().push((position, row));
        }
        self.newest_taken = self.newest_taken.max(frame.header().version);
        let mut answer = Vec::new();
        for interval in batch.intervals() {
            let name = interval.source.as_str().to_owned();
            let known = self.sources.get(&name).cloned();
            let place = known.as_ref().map(|known| known.committed);
            let is_duplicate = place
                .is_some_and(|place| interval.to < place || (interval.to == place && interval.from < place));
            let given = rows.remove(&name).unwrap_or_default();
            if is_duplicate {
                duplicates += given.len() as u64;
                answer.push(Committed { source: interval.source.clone(), position: place.unwrap() });
                continue;
            }
            for (position, row) in given {
                let open = known.as_ref().is_some_and(|known| known.open.contains(&position));
                if place.is_some_and(|place| position < place) && !open {
                    duplicates += 1;
                    continue;
                }
                if !self.seen.insert((name.clone(), position)) {
                    self.duplicates_stored += 1;
                }
                stored += 1;
                self.rows.push((name.clone(), position, row));
            }
            if let Some(gap) = &interval.gap
                && let Some(place) = place
                && interval.from > place
            {
                self.gaps.push((name.clone(), Gap { from: place, ..gap.clone() }, interval.from));
            }
            self.dropped_rows += u64::from(interval.dropped_rows);
            self.finals += usize::from(interval.is_final);
            let state = SourceState {
                source: interval.source.clone(),
                committed: interval.to,
                open: interval.open.clone(),
                cursor: interval.cursor.clone(),
            };
            self.sources.insert(name, state);
            answer.push(Committed { source: interval.source.clone(), position: interval.to });
        }
        assert!(rows.is_empty(), "rows without an interval");
        self.duplicate_rows += duplicates;
        let credit_bytes = self.credit_bytes;
        Ok(IngestAnswer { committed: answer, rows: stored, duplicate_rows: duplicates, credit_bytes })
    }
}
