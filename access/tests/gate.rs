//! The gate around a router of its own: roles, forms of answers, the audit file, limits.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and prints its figures"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use beeacon_access::{
    Audit, AuditLine, AuditResult, Gate, GateOptions, Limiter, Needs, Peer, READS, Rate, Role, Route, Routes,
    SECOND_VERSION, TokenHash, Tokens, refusal,
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

const NEEDS: [(&str, Needs); 5] = [
    ("/open", Needs::Nothing),
    ("/ingest", Needs::Ingest),
    ("/read", Needs::Viewer),
    ("/write", Needs::Editor),
    ("/config", Needs::Admin),
];

fn token(role: Role) -> String {
    format!("token-of-{role}-0123456789")
}

struct World {
    router: Router,
    folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl World {
    fn new(with_tokens: bool, per_minute: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut routes: Vec<Route> =
            NEEDS.iter().map(|(path, needs)| Route { path, needs: *needs, ..READS }).collect();
        routes.push(Route {
            path: "/changes/{id}",
            method: Method::POST,
            needs: Needs::Editor,
            audited: true,
            ..READS
        });
        routes.push(Route {
            path: "/ingests",
            method: Method::POST,
            needs: Needs::Ingest,
            rate: Rate::Free,
            ..READS
        });
        routes.push(Route { path: "/broken", ..READS });
        let mut tokens = Tokens::new();
        if with_tokens {
            for role in Role::ALL {
                tokens.add(role.name(), role, TokenHash::of(&token(role))).unwrap();
            }
        }
        let gate = Gate::new(GateOptions {
            routes: Routes::new(routes),
            tokens,
            audit: Audit::open(&folder.path().join("audit"), 1 << 20).unwrap(),
            limiter: Arc::new(Limiter::new(per_minute, None)),
        });
        let mut router = Router::new()
            .route("/changes/{id}", post(|| async { StatusCode::CREATED }))
            .route("/ingests", post(|| async { "taken" }))
            .route("/broken", get(|| async { refusal(StatusCode::CONFLICT, "held", "held by another") }))
            .route("/forgotten", get(|| async { "served" }));
        for (path, _) in NEEDS {
            let json = || async { axum::Json(serde_json::json!({ "rows": [1, 2] })) };
            // Also a method that the table does not have.
            router = router.route(path, get(json).delete(json));
        }
        World { router: gate.around(router), folder }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(SocketAddr::from(([10, 0, 0, 7], 1))));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn ask_as(&self, role: Role, method: &str, path: &str) -> Answer {
        self.ask(method, path, &[("authorization", &format!("Bearer {}", token(role)))]).await
    }

    fn audited(&self) -> Vec<AuditLine> {
        let text = std::fs::read_to_string(self.folder.path().join("audit/audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn every_role_does_what_its_row_of_the_matrix_says() {
    let world = World::new(true, 1_000);
    // Columns: open, ingest, read, write, config.
    let matrix = [
        (None, [200, 401, 401, 401, 401]),
        (Some(Role::Agent), [200, 200, 403, 403, 403]),
        (Some(Role::Viewer), [200, 403, 200, 403, 403]),
        (Some(Role::Editor), [200, 403, 200, 200, 403]),
        (Some(Role::Admin), [200, 200, 200, 200, 200]),
    ];
    for (role, expected) in matrix {
        let mut got = Vec::new();
        for (path, _) in NEEDS {
            let answer = match role {
                None => world.ask("GET", path, &[]).await,
                Some(role) => world.ask_as(role, "GET", path).await,
            };
            got.push(answer.status);
        }
        assert_eq!(got, expected, "{role:?}");
    }
}

#[tokio::test]
async fn what_the_table_does_not_have_is_refused_although_it_is_served() {
    for world in [World::new(true, 1_000), World::new(false, 1_000)] {
        let forgotten = world.ask_as(Role::Admin, "GET", "/forgotten").await;
        assert_eq!((forgotten.status, forgotten.code().as_str()), (403, "forbidden"));
        for method in ["DELETE", "PUT", "OPTIONS", "TRACE"] {
            let other = world.ask_as(Role::Admin, method, "/read").await;
            assert_eq!((other.status, other.code().as_str()), (405, "method_not_allowed"), "{method}");
            assert_eq!(other.headers[header::ALLOW], "GET, HEAD");
        }
        assert_eq!(world.ask_as(Role::Viewer, "HEAD", "/read").await.status, 200);
        let nothing = world.ask_as(Role::Admin, "GET", "/nothing").await;
        assert_eq!((nothing.status, nothing.code().as_str()), (404, "not_found"));
    }
    // Whoever shows no token does not learn what there is.
    let closed = World::new(true, 1_000);
    for path in ["/nothing", "/forgotten", "/read"] {
        assert_eq!(closed.ask("GET", path, &[]).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn no_other_way_of_showing_a_token_opens() {
    let world = World::new(true, 1_000);
    let right = format!("Bearer {}", token(Role::Admin));
    assert_eq!(world.ask("GET", "/read", &[("authorization", &right)]).await.status, 200);
    assert_eq!(
        world.ask("GET", "/read", &[("authorization", &right.replace("Bearer", "bearer"))]).await.status,
        200
    );
    let (bare, cut, long) =
        (right.trim_start_matches("Bearer "), right.trim_end_matches('9'), format!("{right} "));
    for wrong in [bare, cut, &long, "Bearer", "Bearer ", "Basic YTpi"] {
        let refused = world.ask("GET", "/read", &[("authorization", wrong)]).await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"), "{wrong}");
        assert_eq!(refused.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    let twice = [("authorization", right.as_str()), ("authorization", right.as_str())];
    assert_eq!(world.ask("GET", "/read", &twice).await.status, 401);
    assert_eq!(world.ask("GET", &format!("/read?token={}", token(Role::Admin)), &[]).await.status, 401);
}

#[tokio::test]
async fn every_error_has_the_envelope_and_every_answer_its_request_id() {
    let world = World::new(true, 1_000);
    let auth = format!("Bearer {}", token(Role::Admin));
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/read", 405, "method_not_allowed"),
        ("GET", "/broken", 409, "held"),
        ("GET", "/forgotten", 403, "forbidden"),
    ] {
        let headers = [("authorization", auth.as_str()), ("x-request-id", "abc-1")];
        let answer = world.ask(method, path, &headers).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
        let error = &answer.json()["error"];
        assert_eq!(error["request_id"], "abc-1");
        assert!(error["timestamp"].as_str().unwrap().ends_with('Z'), "{error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!(answer.headers["x-request-id"], "abc-1");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    }
    let good = world.ask_as(Role::Viewer, "GET", "/read").await;
    assert_eq!(good.headers["x-request-id"].len(), 36);
    assert_eq!(good.body, r#"{"rows":[1,2]}"#);
}

#[tokio::test]
async fn the_second_version_wraps_what_the_route_answers() {
    let world = World::new(true, 1_000);
    let auth = format!("Bearer {}", token(Role::Admin));
    let ask = async |path: &'static str, accept: &'static str| {
        world.ask("GET", path, &[("authorization", &auth), ("accept", accept)]).await
    };
    let second = ask("/read", SECOND_VERSION).await;
    assert_eq!(second.body, r#"{"api_version":"2.0","data":{"rows":[1,2]}}"#);
    assert_eq!(second.headers[header::CONTENT_TYPE], SECOND_VERSION);
    let error = ask("/broken", SECOND_VERSION).await;
    assert_eq!((error.status, error.code().as_str()), (409, "held"));
    assert_eq!(error.json()["api_version"], "2.0");
    assert_eq!(ask("/read", "application/vnd.sting.v1+json").await.body, r#"{"rows":[1,2]}"#);
    let unknown = ask("/read", "application/vnd.sting.v3+json").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (406, "not_acceptable"));
}

#[tokio::test]
async fn changes_are_written_down_before_and_after_and_reads_are_not() {
    let world = World::new(true, 1_000);
    let auth = format!("Bearer {}", token(Role::Editor));
    let headers = [("authorization", auth.as_str()), ("x-request-id", "one")];
    assert_eq!(world.ask("POST", "/changes/7?secret=geheim", &headers).await.status, 201);
    assert_eq!(world.ask_as(Role::Viewer, "POST", "/changes/8").await.status, 403);
    world.ask_as(Role::Viewer, "GET", "/read").await;
    world.ask("POST", "/changes/9", &[]).await;
    let lines = world.audited();
    let told: Vec<_> = lines.iter().map(|l| (l.who.as_str(), l.path.as_str(), l.result, l.status)).collect();
    assert_eq!(
        told,
        [
            ("editor", "/changes/7", AuditResult::Begun, None),
            ("editor", "/changes/7", AuditResult::Done, Some(201)),
            ("viewer", "/changes/8", AuditResult::Refused, Some(403)),
        ]
    );
    assert_eq!((lines[0].request_id.as_str(), lines[0].method.as_str()), ("one", "POST"));
    assert_eq!(lines[0].from.unwrap().to_string(), "10.0.0.7");
}

#[tokio::test]
async fn a_change_that_cannot_be_written_down_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let made = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = made.clone();
    let handler = post(move || async move {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        "made"
    });
    let route = Route { path: "/change", method: Method::POST, needs: Needs::Editor, audited: true, ..READS };
    // A file of one byte at most is rotated for every line; without its directory that fails.
    let directory = folder.path().join("audit");
    let audit = Audit::open(&directory, 1).unwrap();
    let gate = Gate::new(GateOptions {
        routes: Routes::new(vec![route]),
        tokens: Tokens::new(),
        audit,
        limiter: Arc::new(Limiter::new(100, None)),
    });
    let world = World { router: gate.around(Router::new().route("/change", handler)), folder };
    assert_eq!(world.ask("POST", "/change", &[]).await.status, 200);
    assert!(made.swap(false, std::sync::atomic::Ordering::SeqCst));
    std::fs::remove_dir_all(Path::new(&directory)).unwrap();
    let refused = world.ask("POST", "/change", &[]).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "audit"));
    assert!(!made.load(std::sync::atomic::Ordering::SeqCst), "it was made all the same");
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_when_to_come_back() {
    let world = World::new(true, 3);
    for left in [2, 1, 0] {
        let answer = world.ask_as(Role::Viewer, "GET", "/read").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["ratelimit-remaining"], left.to_string().as_str());
    }
    let refused = world.ask_as(Role::Viewer, "GET", "/read").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    let wait: u64 = refused.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Another endpoint has its own window, and the doors of agents push back by themselves.
    assert_eq!(world.ask_as(Role::Admin, "GET", "/config").await.status, 200);
    for _ in 0..10 {
        assert_eq!(world.ask_as(Role::Agent, "POST", "/ingests").await.status, 200);
    }
}

#[tokio::test]
async fn guessing_tokens_ends_in_waiting_and_the_right_one_still_opens() {
    let world = World::new(true, 1_000);
    let mut refused = Vec::new();
    for n in 0..40 {
        let wrong = format!("Bearer guess-number-{n}-0123456789");
        refused.push(world.ask("GET", "/read", &[("authorization", &wrong)]).await.status);
    }
    assert_eq!(refused.iter().filter(|status| **status == 401).count(), 30);
    assert_eq!(refused.last(), Some(&429));
    assert_eq!(world.ask_as(Role::Viewer, "GET", "/read").await.status, 200);
}

#[tokio::test]
async fn without_tokens_programs_of_this_host_are_served_and_web_pages_are_not() {
    let world = World::new(false, 1_000);
    let status = async |method: &'static str, headers: &[(&'static str, &'static str)]| {
        let path = if method == "GET" { "/config" } else { "/changes/1" };
        world.ask(method, path, headers).await.status
    };
    assert_eq!(status("GET", &[]).await, 200);
    for host in ["127.0.0.1:4880", "localhost", "LOCALHOST:4880", "[::1]:4880", "10.0.0.1"] {
        assert_eq!(status("GET", &[("host", host)]).await, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:4880", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        assert_eq!(status("GET", &[("host", host)]).await, 403, "{host}");
    }
    let local = ("host", "127.0.0.1:4880");
    assert_eq!(status("POST", &[local]).await, 201);
    assert_eq!(status("POST", &[local, ("origin", "http://127.0.0.1:4880")]).await, 201);
    for origin in ["https://evil.example", "http://127.0.0.1:8000", "null", "http://10.0.0.1"] {
        assert_eq!(status("POST", &[local, ("origin", origin)]).await, 403, "{origin}");
    }
    println!("{} lines in the audit file", world.audited().len());
    assert!(world.audited().iter().all(|line| line.who == "local"));
}
