//! A TCP proxy between agent and server that keeps every byte, in both directions, and can lose acknowledgements.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

struct Shared {
    target: SocketAddr,
    folder: PathBuf,
    stopped: AtomicBool,
    /// How many answers are still to be lost.
    answers_to_lose: AtomicUsize,
    answers_lost: AtomicU64,
    /// Whether the last answer was lost: the next one passes.
    lost_last: AtomicBool,
    connections: AtomicU64,
}

/// The proxy; it ends with the value.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Forwards to `target` what comes to an address of this host, recording into `folder`.
    pub(crate) fn start(near: Ipv4Addr, target: SocketAddr, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let listener = TcpListener::bind((near, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            folder: folder.to_owned(),
            stopped: AtomicBool::new(false),
            answers_to_lose: AtomicUsize::new(0),
            answers_lost: AtomicU64::new(0),
            lost_last: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        });
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming() {
                    if shared.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
                    std::thread::spawn(move || forward(stream, &shared));
                }
            }
        });
        Proxy { address, shared, thread: Some(thread) }
    }

    /// Where the agent connects.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// So many more answers to a frame are lost, every other one: the server has the frame, the agent hears nothing. Were all lost that
    /// come, the agent would wait longer before each, and a thousand would take an hour.
    pub(crate) fn lose_answers(&self, count: usize) {
        self.shared.answers_to_lose.fetch_add(count, Ordering::SeqCst);
    }

    /// How many answers were lost so far.
    pub(crate) fn answers_lost(&self) -> u64 {
        self.shared.answers_lost.load(Ordering::SeqCst)
    }

    /// Where the recorded bytes are.
    pub(crate) fn folder(&self) -> &Path {
        &self.shared.folder
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn forward(agent: TcpStream, shared: &Shared) {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(shared.target) else {
        agent.shutdown(Shutdown::Both).ok();
        return;
    };
    let record = |side: &str| File::create(shared.folder.join(format!("{number:05}.{side}"))).unwrap();
    let (to_server, to_agent) = (record("to_server"), record("to_agent"));
    // Whether a frame has gone to the server that is not answered yet.
    let frame_sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pump(&agent, &server, to_server, |bytes| {
                if memchr::memmem::find(bytes, b"BEEACONF").is_some() {
                    frame_sent.store(true, Ordering::SeqCst);
                }
                true
            });
            server.shutdown(Shutdown::Write).ok();
        });
        pump(&server, &agent, to_agent, |_| {
            if !frame_sent.swap(false, Ordering::SeqCst) {
                return true;
            }
            if shared.lost_last.swap(false, Ordering::SeqCst) {
                return true;
            }
            let lose =
                shared.answers_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if lose.is_ok() {
                shared.lost_last.store(true, Ordering::SeqCst);
                shared.answers_lost.fetch_add(1, Ordering::SeqCst);
            }
            lose.is_err()
        });
        agent.shutdown(Shutdown::Both).ok();
        server.shutdown(Shutdown::Both).ok();
    });
}

/// Copies until either side ends or `pass` refuses.
fn pump(mut from: &TcpStream, mut to: &TcpStream, mut record: File, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        let bytes = &buffer[..count];
        if count == 0 || record.write_all(bytes).is_err() || !pass(bytes) || to.write_all(bytes).is_err() {
            return;
        }
    }
}
