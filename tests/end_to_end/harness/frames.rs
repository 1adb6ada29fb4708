//! An agent by hand: sessions, and frames that are right, or wrong in one chosen way.

use std::net::SocketAddr;

use beeacon_record::{
    AgentId, BatchBuilder, Epoch, FrameEncoder, Gap, Interval, Level, Line, Origin, Position, RuleSetId,
    Scrubbed, Source, Stream,
};
use serde_json::{Value, json};

use crate::harness::http::{Response, request};
use crate::planted::{Numbers, letters};

/// A hand-made agent with one source.
pub(crate) struct Hand {
    pub(crate) address: SocketAddr,
    pub(crate) agent: AgentId,
    pub(crate) epoch: Epoch,
    pub(crate) source: Source,
    pub(crate) container: String,
    /// When the line at position 0 was written, in nanoseconds since 1970; one nanosecond later per position.
    pub(crate) time_ns: i64,
    /// Where the next frame starts.
    pub(crate) next: u64,
}

impl Hand {
    /// Opens a session.
    pub(crate) fn open(address: SocketAddr, number: u8, container: &str) -> Self {
        let agent = AgentId::from_bytes([number; 16]);
        let answer = open_session(address, agent);
        assert_eq!(answer.status, 200, "session: {}", answer.text());
        let epoch = Epoch(answer.json()["epoch"].as_u64().unwrap());
        let source = Source::new(format!("docker-file:{container}")).unwrap();
        Hand {
            address,
            agent,
            epoch,
            source,
            container: container.into(),
            time_ns: 1_700_000_000_000_000_000,
            next: 0,
        }
    }

    /// A frame of these lines that starts at `from`, ten positions a line.
    pub(crate) fn frame_at(&self, from: u64, lines: &[String], gap: Option<Gap>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(self.agent.to_string());
        let origin = Origin {
            host: "test-host".into(),
            service: self.container.clone(),
            container: self.container.clone(),
            container_id: self.container.clone(),
            image: "test".into(),
            labels: Vec::new(),
        };
        let origin = builder.origin(&origin, &self.source);
        for (index, text) in lines.iter().enumerate() {
            let minor = from + 10 * index as u64;
            let time = self.time_ns + minor as i64;
            let position = Position::new(1, minor);
            let (stream, level) = (Stream::Stdout, Level::Info);
            builder.push(
                Line { origin, timestamp_ns: time, observed_timestamp_ns: time, stream, level, position },
                text.as_bytes(),
            );
        }
        let to = Position::new(1, from + 10 * lines.len() as u64);
        let mut interval = Interval::new(self.source.clone(), Position::new(1, from), to);
        interval.gap = gap;
        let batch = Scrubbed::seal(builder.finish(vec![interval]).unwrap(), RuleSetId(7));
        FrameEncoder::new(self.agent, self.epoch, 0, 1).unwrap().encode(&batch).unwrap().to_vec()
    }

    /// The next frame of these lines.
    pub(crate) fn frame(&self, lines: &[String]) -> Vec<u8> {
        self.frame_at(self.next, lines, None)
    }

    /// Sends a frame; on 200 the next one starts behind it.
    pub(crate) fn send(&mut self, lines: &[String]) -> Response {
        let response = self.post(&self.frame(lines));
        if response.status == 200 {
            self.next += 10 * lines.len() as u64;
        }
        response
    }

    /// Sends bytes to the door for frames.
    pub(crate) fn post(&self, body: &[u8]) -> Response {
        post(self.address, body)
            .unwrap_or_else(|error| panic!("no answer to a frame of {} bytes: {error}", body.len()))
    }
}

/// Sends bytes to the door for frames.
pub(crate) fn post(address: SocketAddr, body: &[u8]) -> std::io::Result<Response> {
    request(address, "POST", "/api/v1/ingest", &[("Content-Type", "application/vnd.beeacon.frame")], body)
}

/// Asks for a session.
pub(crate) fn open_session(address: SocketAddr, agent: AgentId) -> Response {
    let body = json!({"agent": agent.to_string(), "host": "test-host", "version": "test"}).to_string();
    request(address, "POST", "/api/v1/session", &[("Content-Type", "application/json")], body.as_bytes())
        .unwrap()
}

/// The code of a refusal.
pub(crate) fn code(response: &Response) -> String {
    let body = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
    body["error"]["code"].as_str().unwrap_or("none").to_owned()
}

/// Lines that hardly compress.
pub(crate) fn noise(seed: u64, count: usize, bytes: usize) -> Vec<String> {
    let mut numbers = Numbers::new(seed);
    (0..count).map(|_| letters(&mut numbers, bytes)).collect()
}

/// The fixed places of a frame's header, as `record::frame` documents them.
pub(crate) mod at {
    pub(crate) const VERSION: usize = 8;
    pub(crate) const HEADER_BYTES: usize = 12;
    pub(crate) const PAYLOAD_BYTES: usize = 16;
    pub(crate) const COLUMNS_BYTES: usize = 20;
    pub(crate) const TEXT_BYTES: usize = 24;
    pub(crate) const ROW_COUNT: usize = 28;
}

/// Reads a number of a frame's header.
pub(crate) fn number_at(frame: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(frame[at..at + 4].try_into().unwrap())
}

/// The frame with another payload and other numbers in its header, its checksums right again.
pub(crate) fn forge(frame: &[u8], numbers: &[(usize, u32)], payload: Option<&[u8]>) -> Vec<u8> {
    let header_bytes = number_at(frame, at::HEADER_BYTES) as usize;
    let mut header = frame[..header_bytes - 8].to_vec();
    let payload = payload.unwrap_or(&frame[header_bytes..]);
    header[at::PAYLOAD_BYTES..at::PAYLOAD_BYTES + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    for (place, number) in numbers {
        header[*place..place + 4].copy_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header.extend_from_slice(payload);
    header
}
