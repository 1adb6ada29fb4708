//! A Vault as its interface is documented, in memory, and what the agent makes of it.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use beeacon_filters::{Engine, EngineOptions};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::*;
use crate::config::AgentConfig;
use crate::known::board::{KnownBoard, KnownSource};
use crate::known::{KnownConfig, keep};
use crate::{Agent, AgentError};

#[path = "../../../../tests/shared/certificates.rs"]
mod certificates;

/// What the Vault does instead of answering well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    Sealed,
    /// Says 429 so many times.
    Busy(usize),
    /// Says 500 so many times.
    Broken(usize),
    /// Sends to another node.
    Standby,
    /// Never answers.
    Silent,
    /// Answers without end.
    Endless,
    /// Answers with something else.
    Babbling,
    /// Lets data be read and not metadata.
    HidesMetadata,
}

#[derive(Default)]
struct Held {
    version: u64,
    data: Value,
    is_deleted: bool,
    is_destroyed: bool,
}

#[derive(Default)]
struct State {
    mood: Mood,
    held: BTreeMap<String, Held>,
    tokens: HashMap<String, u64>,
    made: u64,
    namespace: Option<String>,
    /// Method and path of every request.
    requests: Vec<String>,
}

/// A Vault.
#[derive(Clone)]
struct Server {
    state: Arc<Mutex<State>>,
    asked: Arc<Notify>,
    address: String,
}

const ROLE: &str = "synthetic-role";
const SECRET_ID: &str = "synthetic-secret-id";

/// A certificate for 127.0.0.1 and its key beside it, and the acceptor that shows it.
fn certificate(path: &Path) -> TlsAcceptor {
    let directory = path.parent().unwrap();
    certificates::make(directory, path.file_stem().unwrap().to_str().unwrap(), "IP:127.0.0.1", None);
    let key = path.with_extension("key");
    let chain = CertificateDer::pem_file_iter(path).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap()).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Server {
    async fn start() -> Server {
        Server::start_with(None).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let server = Server { state: Arc::default(), asked: Arc::default(), address };
        server.state().tokens.insert("synthetic-token".into(), 0);
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (server, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => connection.serve_connection(TokioIo::new(stream), service).await.ok(),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                connection.serve_connection(TokioIo::new(stream), service).await.ok()
                            }
                            Err(_) => None,
                        },
                    };
                });
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, path: &str, data: Value) {
        let mut state = self.state();
        let held = state.held.entry(path.to_owned()).or_default();
        *held = Held { version: held.version + 1, data, ..Held::default() };
    }

    fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = self.decide(&head, &body);
        self.asked.notify_one();
        match answer {
            Some((status, text)) => {
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            }
            None => std::future::pending().await,
        }
    }

    fn decide(&self, head: &http::request::Parts, body: &[u8]) -> Option<(u16, String)> {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let path = head.uri.path().strip_prefix("/v1/").unwrap_or_default();
        let path = path.replace("%20", " ").replace("%C3%A4", "ä");
        let is_list = head.uri.query() == Some("list=true");
        let state = &mut *self.state();
        let method = if is_list { "LIST" } else { head.method.as_str() };
        state.requests.push(format!("{method} {path}"));
        let errors = |status: u16, text: &str| Some((status, json!({ "errors": [text] }).to_string()));
        if header("x-vault-request") != Some("true")
            || header("x-vault-namespace") != state.namespace.as_deref()
        {
            return errors(400, "missing header");
        }
        match &mut state.mood {
            Mood::Sealed => return errors(503, "Vault is sealed"),
            Mood::Busy(left) if *left > 0 => {
                *left -= 1;
                return errors(429, "request path: rate limit quota exceeded");
            }
            Mood::Broken(left) if *left > 0 => {
                *left -= 1;
                return errors(500, "internal error");
            }
            Mood::Standby => return Some((307, String::new())),
            Mood::Silent => return None,
            Mood::Endless => return Some((200, "x".repeat(crate::limits::VAULT_ANSWER_BYTES_MAX + 1))),
            Mood::Babbling => return Some((200, r#"{"data":{"synthetic-leak":[1"#.to_owned())),
            _ => {}
        }
        if path == "auth/approle/login" {
            let asked: Value = serde_json::from_slice(body).unwrap();
            if asked != json!({ "role_id": ROLE, "secret_id": SECRET_ID }) {
                return errors(400, "invalid role or secret ID");
            }
            state.made += 1;
            let token = format!("synthetic-made-{}", state.made);
            state.tokens.insert(token.clone(), 90);
            let auth = json!({ "client_token": token, "lease_duration": 90, "renewable": true });
            return Some((200, json!({ "auth": auth }).to_string()));
        }
        let token = header("x-vault-token").unwrap_or_default().to_owned();
        let Some(ttl) = state.tokens.get(&token).copied() else { return errors(403, "permission denied") };
        match path.as_str() {
            "auth/token/lookup-self" => {
                return Some((200, json!({ "data": { "ttl": ttl, "renewable": ttl > 0 } }).to_string()));
            }
            "auth/token/renew-self" => {
                let auth = json!({ "client_token": token, "lease_duration": ttl, "renewable": true });
                return Some((200, json!({ "auth": auth }).to_string()));
            }
            _ => {}
        }
        if let Some(folder) = path.strip_prefix("secret/metadata/").filter(|_| is_list) {
            let below = state.held.keys().filter_map(|path| path.strip_prefix(folder));
            let step = |rest: &str| rest.split_inclusive('/').next().unwrap_or_default().to_owned();
            let mut keys: Vec<String> = below.map(step).collect();
            keys.dedup();
            let found = json!({ "data": { "keys": keys } }).to_string();
            return if keys.is_empty() { errors(404, "") } else { Some((200, found)) };
        }
        let gone = "2026-01-01T00:00:00Z";
        if let Some(path) = path.strip_prefix("secret/metadata/") {
            if state.mood == Mood::HidesMetadata {
                return errors(403, "permission denied");
            }
            let Some(held) = state.held.get(path) else { return errors(404, "") };
            let time = if held.is_deleted { gone } else { "" };
            let version = json!({ "deletion_time": time, "destroyed": held.is_destroyed });
            let versions = json!({ held.version.to_string(): version });
            let data = json!({ "current_version": held.version, "versions": versions });
            return Some((200, json!({ "data": data }).to_string()));
        }
        let Some(held) = path.strip_prefix("secret/data/").and_then(|path| state.held.get(path)) else {
            return errors(404, "");
        };
        let metadata = json!({ "version": held.version, "destroyed": held.is_destroyed,
            "deletion_time": if held.is_deleted { gone } else { "" } });
        let is_gone = held.is_deleted || held.is_destroyed;
        let data = if is_gone { Value::Null } else { held.data.clone() };
        let found = json!({ "data": { "data": data, "metadata": metadata } }).to_string();
        Some((if is_gone { 404 } else { 200 }, found))
    }
}

fn config(server: &Server) -> VaultConfig {
    VaultConfig {
        address: server.address.clone(),
        mount: "secret".into(),
        paths: Vec::new(),
        required: true,
        login: VaultLogin::Token(Zeroizing::new("synthetic-token".into())),
        namespace: None,
        roots: None,
        timeout: Duration::from_secs(20),
        refresh: Duration::from_millis(20),
        secrets_max: 100,
        bytes_max: 10_000,
    }
}

fn vault(config: VaultConfig) -> Vault {
    let mut vault = Vault::new(config).unwrap();
    vault.client.retry_after = Duration::from_millis(1);
    vault
}

/// Looks and accepts; the references of what is new.
async fn look(vault: &mut Vault, now: Instant) -> Result<Vec<String>, VaultError> {
    let changes = vault.look(now).await?;
    vault.accept(changes.seen);
    let mut names: Vec<String> = changes.secrets.iter().map(|secret| secret.reference().to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

fn secret_file(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[tokio::test]
async fn every_field_below_the_configured_paths_is_taken_once_and_again_when_its_version_is_new() {
    let server = Server::start().await;
    server.put("apps/shop/db", json!({ "user": "synthetic-user", "password": "synthetic-Pa55" }));
    server.put("apps/a b/ä", json!({ "pin": 12_345_678 }));
    server.put("mail", json!({ "key": "synthetic-mail" }));
    server.put("other/x", json!({ "key": "synthetic-other" }));
    let paths = vec!["apps/".into(), "mail".into()];
    let mut vault = vault(VaultConfig { paths, ..config(&server) });
    let now = Instant::now();
    let names = ["apps/a b/ä/pin", "apps/shop/db/password", "apps/shop/db/user", "mail/key"];
    assert_eq!(look(&mut vault, now).await.unwrap(), names);
    server.requests();

    assert!(vault.look(now).await.unwrap().is_empty());
    let asked = server.requests();
    assert!(!asked.iter().any(|request| request.contains("/data/")), "{asked:?}");

    server.put("apps/shop/db", json!({ "password": "synthetic-N3w" }));
    let changes = vault.look(now).await.unwrap();
    assert_eq!((changes.dropped.len(), changes.secrets.len()), (1, 1));
    let read: Vec<String> = server.requests().into_iter().filter(|one| one.contains("/data/")).collect();
    assert_eq!(read, ["GET secret/data/apps/shop/db"]);
    vault.accept(changes.seen);

    server.state().held.remove("apps/a b/ä");
    let changes = vault.look(now).await.unwrap();
    assert_eq!((changes.dropped.len(), changes.secrets.len()), (1, 0));
}

#[tokio::test]
async fn a_vault_behind_tls_is_asked_where_its_certificate_is_trusted_and_sees_no_token_where_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (known, unknown) = (directory.path().join("known.crt"), directory.path().join("unknown.crt"));
    let server = Server::start_with(Some(certificate(&known))).await;
    certificate(&unknown);
    server.put("a", json!({ "k": "synthetic-a" }));
    let with = |roots: &Path| vault(VaultConfig { roots: Some(roots.to_owned()), ..config(&server) });
    let refused = look(&mut with(&unknown), Instant::now()).await;
    assert!(matches!(refused, Err(VaultError::Network { .. })), "{refused:?}");
    assert_eq!(server.requests(), Vec::<String>::new());
    assert_eq!(look(&mut with(&known), Instant::now()).await.unwrap(), ["a/k"]);
    assert!(!server.requests().is_empty());
}

#[tokio::test]
async fn what_is_deleted_or_destroyed_is_no_longer_looked_for_and_what_comes_back_is() {
    let server = Server::start().await;
    server.put("a", json!({ "k": "synthetic-a" }));
    server.put("b", json!({ "k": "synthetic-b" }));
    let mut vault = vault(config(&server));
    let now = Instant::now();
    assert_eq!(look(&mut vault, now).await.unwrap(), ["a/k", "b/k"]);
    server.state().held.get_mut("a").unwrap().is_deleted = true;
    server.state().held.get_mut("b").unwrap().is_destroyed = true;
    assert_eq!(vault.look(now).await.unwrap().dropped.len(), 2);
    look(&mut vault, now).await.unwrap();
    server.state().held.get_mut("a").unwrap().is_deleted = false;
    assert_eq!(look(&mut vault, now).await.unwrap(), ["a/k"]);
}

#[tokio::test]
async fn a_policy_that_hides_metadata_costs_reads_and_changes_nothing_else() {
    let server = Server::start().await;
    server.put("a", json!({ "k": "synthetic-a" }));
    let mut vault = vault(config(&server));
    look(&mut vault, Instant::now()).await.unwrap();
    server.set_mood(Mood::HidesMetadata);
    assert!(vault.look(Instant::now()).await.unwrap().is_empty());
    server.put("a", json!({ "k": "synthetic-a2" }));
    assert_eq!(look(&mut vault, Instant::now()).await.unwrap(), ["a/k"]);
}

#[tokio::test]
async fn approle_logs_in_renews_in_time_and_logs_in_again_when_the_token_is_gone() {
    let server = Server::start().await;
    server.state().namespace = Some("team".into());
    server.put("a", json!({ "k": "synthetic-a" }));
    let directory = tempfile::tempdir().unwrap();
    let secret_id_file = secret_file(directory.path(), "id", &format!("{SECRET_ID}\n"), 0o600);
    let login = VaultLogin::AppRole { mount: "approle".into(), role_id: ROLE.into(), secret_id_file };
    let mut vault = vault(VaultConfig { login, namespace: Some("team".into()), ..config(&server) });
    let now = Instant::now();
    let of_auth = |server: &Server| -> Vec<String> {
        server.requests().into_iter().filter(|request| request.contains("auth/")).collect()
    };
    look(&mut vault, now).await.unwrap();
    assert_eq!(of_auth(&server), ["POST auth/approle/login"]);
    look(&mut vault, now + Duration::from_secs(50)).await.unwrap();
    assert_eq!(of_auth(&server), [""; 0]);
    vault.keep_alive(now + Duration::from_secs(61)).await.unwrap();
    assert_eq!(of_auth(&server), ["POST auth/token/renew-self"]);
    look(&mut vault, now + Duration::from_secs(160)).await.unwrap();
    assert_eq!(of_auth(&server), ["POST auth/approle/login"]);

    server.state().tokens.clear();
    server.put("a", json!({ "k": "synthetic-a2" }));
    assert_eq!(look(&mut vault, now + Duration::from_secs(161)).await.unwrap(), ["a/k"]);
    assert_eq!(of_auth(&server), ["POST auth/approle/login"]);

    secret_file(directory.path(), "id", "another-id", 0o600);
    server.state().tokens.clear();
    let error = look(&mut vault, now + Duration::from_secs(162)).await.unwrap_err();
    assert_eq!(error.kind(), "login", "{error}");
}

#[tokio::test]
async fn a_token_file_is_read_again_when_its_token_is_refused_and_has_to_be_private() {
    let server = Server::start().await;
    server.put("a", json!({ "k": "synthetic-a" }));
    let directory = tempfile::tempdir().unwrap();
    let path = secret_file(directory.path(), "token", "synthetic-token\n", 0o600);
    let mut vault = vault(VaultConfig { login: VaultLogin::TokenFile(path), ..config(&server) });
    look(&mut vault, Instant::now()).await.unwrap();
    server.state().tokens = HashMap::from([("synthetic-second".into(), 0)]);
    assert_eq!(look(&mut vault, Instant::now()).await.unwrap_err().kind(), "login");
    secret_file(directory.path(), "token", "synthetic-second\n", 0o600);
    assert!(look(&mut vault, Instant::now()).await.unwrap().is_empty());

    for (text, mode, wanted) in
        [("synthetic-second", 0o640, "mode 640"), ("", 0o600, "one line"), ("a\nb\n", 0o600, "one line")]
    {
        let path = secret_file(directory.path(), "other", text, mode);
        let mut vault =
            super::tests::vault(VaultConfig { login: VaultLogin::TokenFile(path), ..config(&server) });
        let error = look(&mut vault, Instant::now()).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_named() {
    let server = Server::start().await;
    server.put("a", json!({ "k": "synthetic-a" }));
    for mood in [Mood::Busy(2), Mood::Broken(2)] {
        server.set_mood(mood);
        assert_eq!(look(&mut vault(config(&server)), Instant::now()).await.unwrap(), ["a/k"], "{mood:?}");
    }
    for (mood, kind) in [
        (Mood::Sealed, "sealed"),
        (Mood::Busy(100), "busy"),
        (Mood::Broken(100), "status"),
        (Mood::Standby, "status"),
        (Mood::Endless, "limit"),
        (Mood::Babbling, "malformed"),
    ] {
        server.set_mood(mood);
        let error = look(&mut vault(config(&server)), Instant::now()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let shown = format!("{error:?} {}", crate::ship::http::chain(&error));
        assert!(!shown.contains("synthetic"), "{shown}");
    }
    server.set_mood(Mood::Silent);
    let mut silent = vault(VaultConfig { timeout: Duration::from_millis(20), ..config(&server) });
    assert_eq!(look(&mut silent, Instant::now()).await.unwrap_err().kind(), "timeout");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut lost = vault(VaultConfig { address: format!("http://{nobody}"), ..config(&server) });
    assert_eq!(look(&mut lost, Instant::now()).await.unwrap_err().kind(), "unreachable");
}

#[tokio::test]
async fn limits_are_limits_and_a_path_that_is_not_there_is_a_fault() {
    let server = Server::start().await;
    server.put("a", json!({ "k": "synthetic-a", "l": "synthetic-b" }));
    let mut few = vault(VaultConfig { secrets_max: 1, ..config(&server) });
    let error = look(&mut few, Instant::now()).await.unwrap_err();
    assert!(matches!(error, VaultError::TooMany { count: 2, secrets_max: 1 }), "{error}");
    let mut small = vault(VaultConfig { bytes_max: 21, ..config(&server) });
    let error = look(&mut small, Instant::now()).await.unwrap_err();
    assert!(matches!(error, VaultError::TooLarge { bytes: 22, bytes_max: 21 }), "{error}");
    for missing in ["b", "none/"] {
        let mut vault = vault(VaultConfig { paths: vec![missing.into()], ..config(&server) });
        assert_eq!(look(&mut vault, Instant::now()).await.unwrap_err().kind(), "missing", "{missing}");
    }
    server.put(&"d/".repeat(VAULT_DEPTH_MAX + 2), json!({ "k": "synthetic-deep" }));
    let error = look(&mut vault(config(&server)), Instant::now()).await.unwrap_err();
    assert!(matches!(error, VaultError::TooDeep { .. }), "{error}");
    server.state().tokens.clear();
    let error = look(&mut vault(config(&server)), Instant::now()).await.unwrap_err();
    assert_eq!(error.kind(), "login", "{error}");
}

fn bare_engine() -> Arc<Engine> {
    Arc::new(Engine::new(EngineOptions { profile: "secrets".into(), ..EngineOptions::default() }).unwrap())
}

/// Waits, from one request to the next, until it holds.
async fn until(server: &Server, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            server.asked.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it never held");
}

#[tokio::test]
async fn an_engine_follows_its_vault_and_keeps_the_last_set_while_it_is_away() {
    let server = Server::start().await;
    server.put("shop/db", json!({ "password": "synthetic Pa55 one" }));
    let known = KnownConfig { file: None, vault: Some(config(&server)) };
    let engine = bare_engine();
    let board = keep(&known, &engine, None, KnownBoard::default()).unwrap();
    board.ready().await;
    let scrubbed = |text: &str| engine.scrub_text(text).unwrap().0;
    assert_eq!(scrubbed("a synthetic Pa55 one b"), "a <VAULT_REF:shop/db/password> b");

    server.put("shop/db", json!({ "password": "synthetic Pa55 two" }));
    server.put("mail", json!({ "key": "synthetic mail key" }));
    let expected = "synthetic Pa55 one <VAULT_REF:shop/db/password> <VAULT_REF:mail/key>";
    until(&server, || scrubbed("synthetic Pa55 one synthetic Pa55 two synthetic mail key") == expected).await;

    server.set_mood(Mood::Sealed);
    until(&server, || board.status().sources[0].error == Some("sealed")).await;
    assert_eq!(scrubbed("synthetic mail key"), "<VAULT_REF:mail/key>");
    assert!(board.problems()[0].contains("the last ones stay"), "{:?}", board.problems());
    assert_eq!(board.status().secrets, 2);

    server.set_mood(Mood::Well);
    until(&server, || board.problems().is_empty()).await;
}

#[tokio::test]
async fn many_changes_make_a_set_anew_of_file_and_vault() {
    let server = Server::start().await;
    server.put("a", json!({ "k": "synthetic-a-0" }));
    let directory = tempfile::tempdir().unwrap();
    let file = secret_file(directory.path(), "known.toml", "\"of/file\" = \"synthetic file one\"\n", 0o600);
    let known = KnownConfig { file: Some(file.clone()), vault: Some(config(&server)) };
    let (set, stamp) = crate::known::from_file(&file).unwrap();
    let engine = bare_engine();
    engine.replace_known(Some(set.clone()));
    let board = keep(&known, &engine, Some((set, stamp)), KnownBoard::default()).unwrap();
    board.ready().await;
    let scrubbed = |text: &str| engine.scrub_text(text).unwrap().0;
    for round in 1..40 {
        let new = format!("synthetic a {round} x");
        server.put("a", json!({ "k": new }));
        let expected = "<VAULT_REF:a/k> <VAULT_REF:of/file>";
        until(&server, || scrubbed(&format!("{new} synthetic file one")) == expected).await;
    }
    assert_eq!(scrubbed("synthetic a 38 x"), "synthetic a 38 x");
}

#[tokio::test]
async fn an_agent_that_needs_a_vault_ships_nothing_before_it_was_there() -> Result<(), AgentError> {
    let server = Server::start().await;
    server.put("shop/db", json!({ "password": "synthetic-Pa55" }));
    server.set_mood(Mood::Sealed);
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    collector.set_nonblocking(true).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let containers = directory.path().join("containers");
    std::fs::create_dir(&containers).unwrap();
    let config_of_agent = AgentConfig {
        collector: format!("http://{}", collector.local_addr().unwrap()),
        data: directory.path().join("data"),
        docker_host: None,
        containers_directory: Some(containers),
        ..AgentConfig::default()
    };
    let engine = bare_engine();
    let known = KnownConfig { file: None, vault: Some(config(&server)) };
    let board: KnownBoard = keep(&known, &engine, None, KnownBoard::default()).unwrap();
    let agent = Agent::new(config_of_agent, engine, 0)?.with_known(board.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (agent, stop) = (agent.clone(), stop.clone());
        async move { agent.run(stop).await }
    });
    until(&server, || board.status().sources[0].failures > 1).await;
    let status = agent.status();
    assert!(status.problems.iter().any(|problem| problem.contains("nothing is shipped")), "{status:?}");
    assert_eq!(status.known.sources[0].source, KnownSource::Vault);
    assert!(collector.accept().is_err(), "the agent spoke to its collector");

    server.set_mood(Mood::Well);
    board.ready().await;
    let collector = TcpListener::from_std(collector).unwrap();
    let met = tokio::time::timeout(Duration::from_secs(60), collector.accept()).await;
    assert!(met.is_ok_and(|met| met.is_ok()), "the agent never spoke to its collector");
    drop(collector);
    stop.cancel();
    running.abort();
    Ok(())
}
