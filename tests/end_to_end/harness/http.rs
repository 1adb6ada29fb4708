//! HTTP/1.1 by hand, for both ends: a client that can also misbehave, and a server for the Loki of the tests.
//!
//! The client takes any byte stream, so it talks to the program over TCP and to dockerd over its Unix socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest head that either end reads, in bytes.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// One request on a connection of its own, over TCP.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let stream = connect(address)?;
    exchange(stream, method, path, headers, body)
}

/// A connection that gives up rather than hang.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// One request on this connection.
pub(crate) fn exchange<S: Read + Write>(
    mut stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (key, value) in headers {
        head.push_str(&format!("{key}: {value}\r\n"));
    }
    if !body.is_empty() || method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A server may answer and close before it has read the body; its answer still counts.
    let written = stream.write_all(body).and_then(|()| stream.flush());
    match read_response(&mut BufReader::new(stream)) {
        Ok(response) => Ok(response),
        Err(error) => Err(written.err().unwrap_or(error)),
    }
}

/// Reads a response to its end.
pub(crate) fn read_response(reader: &mut impl BufRead) -> io::Result<Response> {
    loop {
        let head =
            read_head(reader)?.ok_or_else(|| io::Error::other("connection closed without a response"))?;
        let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status in the first line"))?;
        if status == 100 {
            continue;
        }
        let mut body = Vec::new();
        if !matches!(status, 204 | 304) {
            head.read_body(reader, &mut body, true)?;
        }
        return Ok(Response { status, headers: head.headers, body });
    }
}

struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read_body(&self, reader: &mut impl BufRead, body: &mut Vec<u8>, until_close: bool) -> io::Result<()> {
        if find(&self.headers, "transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return read_chunks(reader, body);
        }
        match find(&self.headers, "content-length").and_then(|length| length.parse().ok()) {
            Some(length) => {
                let read = reader.take(length).read_to_end(body)? as u64;
                if read < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
            }
            None if until_close => reader.read_to_end(body).map(|_| ()),
            None => Ok(()),
        }
    }
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
        let length = length.map_err(|_| io::Error::other("chunk without a length"))?;
        let before = body.len() as u64;
        reader.take(length).read_to_end(body)?;
        if (body.len() as u64) - before < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_line(reader)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.take(HEAD_BYTES_MAX).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let Some(first) = read_line(reader)? else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match line.split_once(':') {
            Some((key, value)) => headers.push((key.trim().to_owned(), value.trim().to_owned())),
            None if line.is_empty() => return Ok(Some(Head { first, headers })),
            None => return Err(io::Error::other("header line without a colon")),
        }
    }
}

/// A request as the server saw it.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// What the server answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Answer { status, headers: Vec::new(), body: String::new() }
    }

    /// No answer: the connection is closed.
    pub(crate) fn none() -> Self {
        Answer::status(0)
    }
}

/// A server on a loopback port of its own; it ends with the value.
pub(crate) struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves every request by `handle`, each connection on a thread.
    pub(crate) fn start(handle: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let handle = Arc::new(handle);
        let thread = std::thread::spawn({
            let stopped = stopped.clone();
            move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(stream), handle) = (stream, handle.clone()) else { continue };
                    std::thread::spawn(move || serve(stream, &*handle));
                }
            }
        });
        Server { address, stopped, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(stream: TcpStream, handle: &(impl Fn(Request) -> Answer + ?Sized)) {
    stream.set_read_timeout(Some(Duration::from_secs(120))).ok();
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Ok(Some(head)) = read_head(&mut reader) {
        let mut body = Vec::new();
        if head.read_body(&mut reader, &mut body, false).is_err() {
            return;
        }
        let mut words = head.first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let answer = handle(Request { method, path, headers: head.headers, body });
        if answer.status == 0 {
            return;
        }
        let mut text =
            format!("HTTP/1.1 {} status\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (key, value) in &answer.headers {
            text.push_str(&format!("{key}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(&answer.body);
        if out.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
