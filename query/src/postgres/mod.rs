//! The PostgreSQL door: psql, Grafana's own data source and every driver, read-only.
//!
//! What always holds:
//! - a query goes through the same guard, limits and tenant's tables as one over HTTP;
//! - with a token or logins, nothing is answered before the client has proved that it knows it (SCRAM-SHA-256), and a client on another host
//!   proves it within TLS; without a token, only this host is served;
//! - what was sent before TLS began is never taken for something sent within it;
//! - whatever cannot be answered has an error with its SQLSTATE, and the session goes on;
//! - a client that leaves, or cancels, ends its query;
//! - connections, messages, prepared statements and portals have limits.
//!
//! The protocol is read and written here rather than by a library: the one there is keeps bytes from before the handshake,
//! compares proofs byte by byte, keeps prepared statements without limit, and cannot cancel a query whose rows are flowing.
//!
//! Modules in reading order:
//! - `message`: the protocol's bytes, pure;
//! - `scram`: the login, pure;
//! - `settings` and `local`: what a session can set, and statements that never reach the planner;
//! - `parameters` and `rows`: values on their way in and out;
//! - `sqlstate`: errors;
//! - `connection`: one client.

mod connection;
pub(crate) mod local;
pub(crate) mod message;
pub(crate) mod parameters;
pub(crate) mod rows;
pub(crate) mod scram;
pub(crate) mod settings;
pub(crate) mod sqlstate;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::engine::Query;
use crate::limits::{POSTGRES_CONNECTIONS_MAX, POSTGRES_DRAIN_TIME};
use scram::Verifier;

/// How the door is opened.
#[derive(Clone, Default)]
pub struct PostgresOptions {
    /// Whose rows are read.
    pub tenant: String,
    /// What clients have to know as their password, under whatever name that is not a login's. Without it and logins only this host
    /// is served.
    pub token: Option<String>,
    /// Users with passwords of their own.
    pub logins: Vec<PostgresLogin>,
    /// TLS. Without it, clients of other hosts are refused.
    pub tls: Option<TlsAcceptor>,
    /// Is told of every client that came in. It must not block.
    pub on_login: Option<OnLogin>,
}

/// What is told of clients that came in.
pub type OnLogin = Arc<dyn Fn(PostgresVisit) + Send + Sync>;

/// A client that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresVisit {
    /// The user's name.
    pub user: String,
    /// What the client calls itself; empty where it does not say.
    pub application_name: String,
}

/// A user of the door.
#[derive(Clone, Debug)]
pub struct PostgresLogin {
    /// The user's name.
    pub user: String,
    /// What tells whether a client knows the password.
    pub verifier: ScramVerifier,
}

/// What is kept of a password, in PostgreSQL's own form: `SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>`. It opens nothing by itself.
#[derive(Clone)]
pub struct ScramVerifier(Verifier);

impl ScramVerifier {
    /// Of a password, under a salt of its own.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn of(password: &str) -> io::Result<Self> {
        Ok(ScramVerifier(Verifier::new(password, random()?)))
    }

    /// From PostgreSQL's form; none if it is anything else, or hashed fewer than 4096 times.
    pub fn parse(text: &str) -> Option<Self> {
        Verifier::parse(text).map(ScramVerifier)
    }
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.spelled())
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier")
    }
}

/// The door: cheap to clone.
#[derive(Clone)]
pub struct Postgres(Arc<Door>);

struct Door {
    query: Query,
    tenant: String,
    opens: Mutex<Arc<Opens>>,
    tls: Option<TlsAcceptor>,
    connections: Arc<Semaphore>,
    next_process: AtomicI32,
    cancels: Mutex<HashMap<i32, Cancel>>,
    on_login: Option<OnLogin>,
}

/// What opens the door.
struct Opens {
    /// Whoever is none of `logins` is asked for this; without both, nobody is asked for anything.
    verifier: Option<Verifier>,
    logins: HashMap<String, Verifier>,
}

impl Opens {
    fn new(token: Option<&str>, logins: Vec<PostgresLogin>, asks: bool) -> io::Result<Opens> {
        let verifier = match token {
            Some(token) => Some(Verifier::new(token, random()?)),
            None if logins.is_empty() && !asks => None,
            None => Some(Verifier::of_nobody(random()?, random()?)),
        };
        let logins = logins.into_iter().map(|login| (login.user, login.verifier.0));
        Ok(Opens { verifier, logins: logins.collect() })
    }
}

/// Whose password opened the door for a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PostgresKey {
    /// That of the login of this user.
    Login(String),
    /// The token.
    Token,
    /// Nobody's: none was asked for.
    Nothing,
}

/// How a running query of a connection is cancelled, and the connection ended.
struct Cancel {
    secret: i32,
    signal: watch::Sender<u64>,
    key: PostgresKey,
    ended: watch::Sender<bool>,
}

impl Postgres {
    /// Makes the door over a query room.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(query: Query, options: PostgresOptions) -> io::Result<Self> {
        let opens = Opens::new(options.token.as_deref(), options.logins, false)?;
        Ok(Postgres(Arc::new(Door {
            query,
            tenant: options.tenant,
            opens: Mutex::new(Arc::new(opens)),
            tls: options.tls,
            connections: Arc::new(Semaphore::new(POSTGRES_CONNECTIONS_MAX)),
            next_process: AtomicI32::new(1),
            cancels: Mutex::new(HashMap::new()),
            on_login: options.on_login,
        })))
    }

    /// Other passwords from now on; with `asks` one is asked for even where none opens. The sessions that `ended` opened end: what they ask now is cancelled.
    ///
    /// # Errors
    /// When the system gives no random bytes; everything stays as it was then.
    pub fn use_logins(
        &self,
        token: Option<&str>,
        logins: Vec<PostgresLogin>,
        asks: bool,
        ended: &[PostgresKey],
    ) -> io::Result<()> {
        let opens = Arc::new(Opens::new(token, logins, asks)?);
        *self.0.opens.lock().unwrap_or_else(PoisonError::into_inner) = opens;
        // Whoever logs in now does so with the new ones; those that are registered have used the old ones.
        for cancel in self.0.cancels().values().filter(|cancel| ended.contains(&cancel.key)) {
            cancel.ended.send_replace(true);
            cancel.signal.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Serves until asked to stop. Clients then get what their statements still give within a short time.
    pub async fn serve(&self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = until_stopped(&mut stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error.kind(), "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let permit = self.0.connections.clone().try_acquire_owned().ok();
            if permit.is_none() {
                tracing::warn!(
                    limit = POSTGRES_CONNECTIONS_MAX,
                    "too many PostgreSQL connections: one is refused"
                );
            }
            let (door, stop) = (self.0.clone(), stop.clone());
            tokio::spawn(async move {
                connection::serve(&door, stream, peer, permit.is_some(), stop).await;
                drop(permit);
            });
        }
        drop(listener);
        let all = u32::try_from(POSTGRES_CONNECTIONS_MAX).unwrap_or(u32::MAX);
        if tokio::time::timeout(POSTGRES_DRAIN_TIME, self.0.connections.acquire_many(all)).await.is_err() {
            tracing::warn!("some PostgreSQL connections did not end in time and were cut off");
        }
    }
}

impl Door {
    /// A key with which a connection's queries can be cancelled from another one, for as long as the result lives. It is none where the
    /// password that the client has shown opens nothing any more.
    fn register(self: &Arc<Self>, key: PostgresKey, shown: &Arc<Opens>) -> io::Result<Option<Registered>> {
        let process = self.next_process.fetch_add(1, Ordering::Relaxed);
        let secret = i32::from_be_bytes(random()?);
        let (signal, cancelled) = watch::channel(0);
        let (ended, ends) = watch::channel(false);
        self.cancels().insert(process, Cancel { secret, signal, key, ended });
        let registered = Registered { door: self.clone(), process, secret, cancelled, ends };
        // Passwords that changed during the login: the client may show the new one.
        Ok(Arc::ptr_eq(shown, &self.opens()).then_some(registered))
    }

    fn opens(&self) -> Arc<Opens> {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cancel(&self, process: i32, secret: i32) {
        let cancels = self.cancels();
        if let Some(cancel) = cancels.get(&process)
            && bool::from(cancel.secret.to_be_bytes().ct_eq(&secret.to_be_bytes()))
        {
            cancel.signal.send_modify(|count| *count += 1);
        }
    }

    fn cancels(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Cancel>> {
        // A thread that panicked with the lock held left a usable map behind: every step of it is one call.
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection among those whose queries can be cancelled.
struct Registered {
    door: Arc<Door>,
    process: i32,
    secret: i32,
    cancelled: watch::Receiver<u64>,
    /// Its password opens nothing any more.
    ends: watch::Receiver<bool>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.door.cancels().remove(&self.process);
    }
}

fn random<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Ends when the program was asked to stop, or nobody is left who could ask.
async fn until_stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
