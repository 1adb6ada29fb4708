//! A plain HTTP client that says whether a body ended as it should.

use std::net::SocketAddr;

use beeacon_query::Query;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the last chunk or the announced length arrived.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) async fn serve(query: &Query) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = query.router();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Sends a query and leaves the answer unread.
pub(crate) async fn send(address: SocketAddr, accept: &str, query: &str) -> TcpStream {
    let body = serde_json::json!({ "query": query }).to_string();
    send_raw(address, accept, "application/json", body.as_bytes()).await
}

pub(crate) async fn send_raw(
    address: SocketAddr,
    accept: &str,
    content_type: &str,
    body: &[u8],
) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/sql HTTP/1.1\r\nHost: beeacon\r\nConnection: close\r\nAccept: {accept}\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // A door that refuses a long body early may close before it has all of it.
    let _ = socket.write_all(body).await;
    socket
}

pub(crate) async fn ask(address: SocketAddr, accept: &str, query: &str) -> Answer {
    answer(send(address, accept, query).await, Vec::new()).await
}

/// Reads at least `count` bytes of the answer.
pub(crate) async fn read_some(socket: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < count {
        let mut piece = vec![0; count];
        let bytes = socket.read(&mut piece).await.unwrap();
        assert!(bytes > 0, "the answer ended after {} bytes", read.len());
        read.extend_from_slice(&piece[..bytes]);
    }
    read
}

/// Reads the rest of an answer of which `read` was read already.
pub(crate) async fn answer(mut socket: TcpStream, mut read: Vec<u8>) -> Answer {
    let _ = socket.read_to_end(&mut read).await;
    let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("no head");
    let head = String::from_utf8(read[..end].to_vec()).unwrap().to_ascii_lowercase();
    let rest = &read[end + 4..];
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let (body, complete) = if head.contains("transfer-encoding: chunked") {
        unchunked(rest)
    } else {
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        (rest.to_vec(), rest.len() == length.trim().parse::<usize>().unwrap())
    };
    Answer { status, head, body, complete }
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|bytes| bytes == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..size.min(rest.len())]);
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
