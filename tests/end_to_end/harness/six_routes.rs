//! A proxy before Docker's socket that lets six routes pass, those that the agent needs, and counts what it turns away.
//!
//! Whoever has Docker's socket has the host; this is what a careful host puts before it. All stories go through it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::harness::poll::seconds;

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[derive(Default)]
struct Shared {
    is_stopped: AtomicBool,
    turned_away: Mutex<Vec<String>>,
}

/// The proxy; it ends with the value.
pub(crate) struct SixRoutes {
    socket: PathBuf,
    far: Option<SocketAddr>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl SixRoutes {
    /// Lets pass from `socket` to `docker`, and from a port of `far` as well.
    pub(crate) fn start(docker: &Path, socket: &Path, far: Option<Ipv4Addr>) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = UnixListener::bind(socket).unwrap();
        let mut threads = vec![std::thread::spawn({
            let (shared, docker) = (shared.clone(), docker.to_owned());
            move || {
                for agent in listener.incoming().flatten() {
                    if shared.is_stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let away = agent.try_clone().unwrap();
                    pass(agent.try_clone().unwrap(), agent, &docker, &shared, move || {
                        away.shutdown(Shutdown::Both).ok();
                    });
                }
            }
        })];
        let far = far.map(|address| {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let (shared, docker) = (shared.clone(), docker.to_owned());
            threads.push(std::thread::spawn(move || {
                for agent in listener.incoming().flatten() {
                    if shared.is_stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let away = agent.try_clone().unwrap();
                    pass(agent.try_clone().unwrap(), agent, &docker, &shared, move || {
                        away.shutdown(Shutdown::Both).ok();
                    });
                }
            }));
            address
        });
        SixRoutes { socket: socket.to_owned(), far, shared, threads }
    }

    /// For the agent's `--docker-host`.
    pub(crate) fn host(&self) -> String {
        match self.far {
            Some(address) => format!("tcp://{address}"),
            None => format!("unix://{}", self.socket.display()),
        }
    }

    /// Requests that were turned away.
    pub(crate) fn turned_away(&self) -> Vec<String> {
        self.shared.turned_away.lock().unwrap().clone()
    }
}

impl Drop for SixRoutes {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.socket));
        if let Some(far) = self.far {
            drop(TcpStream::connect_timeout(&far, seconds(5)));
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
        if !std::thread::panicking() {
            assert_eq!(
                self.turned_away(),
                Vec::<String>::new(),
                "the agent asks Docker for more than it needs"
            );
        }
    }
}

/// Serves one connection in threads of its own.
fn pass(
    mut from: impl Read + Send + 'static,
    mut back: impl Write + Send + 'static,
    docker: &Path,
    shared: &Arc<Shared>,
    hang_up: impl Fn() + Send + 'static,
) {
    // No dockerd now: the agent sees that the connection ends.
    let Ok(mut server) = UnixStream::connect(docker) else { return hang_up() };
    let shared = shared.clone();
    let mut answers = server.try_clone().unwrap();
    std::thread::spawn(move || {
        std::io::copy(&mut answers, &mut back).ok();
        hang_up();
    });
    std::thread::spawn(move || {
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            head.extend_from_slice(&buffer[..count]);
            // None of the six has a body, so heads follow one another.
            while let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                let rest = head.split_off(end + 4);
                let line = String::from_utf8_lossy(&head[..end]).lines().next().unwrap_or("").to_owned();
                if !is_one_of_six(&line) {
                    shared.turned_away.lock().unwrap().push(line);
                    server.shutdown(Shutdown::Both).ok();
                    return;
                }
                if server.write_all(&head).is_err() {
                    return;
                }
                head = rest;
            }
            if head.len() > HEAD_BYTES_MAX {
                break;
            }
        }
        server.shutdown(Shutdown::Both).ok();
    });
}

/// Whether the first line of a request is one of those that the agent needs.
fn is_one_of_six(line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some("GET"), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let path = target.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is_version = |part: &str| {
        part.strip_prefix("v1.").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let parts = match parts.as_slice() {
        [first, rest @ ..] if is_version(first) => rest,
        all => all,
    };
    let is_id = |id: &str| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts {
        ["_ping" | "version" | "events"] | ["containers", "json"] => true,
        ["containers", id, "json" | "logs"] => is_id(id),
        _ => false,
    }
}

#[test]
fn only_the_six_routes_pass() {
    let id = "0123456789abcdef".repeat(4);
    for good in ["/_ping", "/v1.41/version", "/events?filters=x", "/containers/json?all=true"] {
        assert!(is_one_of_six(&format!("GET {good} HTTP/1.1")), "{good}");
    }
    assert!(is_one_of_six(&format!("GET /v1.41/containers/{id}/json HTTP/1.1")));
    assert!(is_one_of_six(&format!("GET /containers/{id}/logs?follow=1 HTTP/1.1")));
    for bad in ["/info", "/containers/short/json", "/images/json", "/v1.41/containers/../info", ""] {
        assert!(!is_one_of_six(&format!("GET {bad} HTTP/1.1")), "{bad}");
    }
    assert!(!is_one_of_six(&format!("POST /containers/{id}/json HTTP/1.1")));
    assert!(!is_one_of_six(&format!("GET /containers/{id}/export HTTP/1.1")));
}
