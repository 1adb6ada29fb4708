//! The gate around all HTTP doors. In this order: an id, the form of the answer, who is asking, which route, may they, how often, the
//! audit file; then the route itself.
//!
//! Without any token (which the program allows on loopback only) whoever reaches the socket may do everything. A web page in a browser on the
//! same host reaches it too, so then names other than `localhost` in `Host` are refused (a page whose name was pointed at 127.0.0.1),
//! and so are changes that come with the `Origin` of another site.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::broadcast;

use crate::audit::{Audit, AuditLine, AuditResult};
use crate::envelope::{RequestId, Version, complete, refusal};
use crate::limits::{REVOCATIONS_WAITING_MAX, WRONG_TOKENS_PER_MINUTE_MAX};
use crate::rate::{Limiter, Standing};
use crate::role::{Needs, Role};
use crate::route::{Rate, Route, Routes};
use crate::token::{Principal, Tokens};

/// The address of the other end, among a request's extensions; whoever accepts connections puts it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Among an answer's extensions: its body stays as it is, also as an error. For probes, whose text is for people and scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbatim;

/// The name of whoever comes while nobody has to show a token.
pub const ANYBODY_HERE: &str = "local";

fn anybody_here() -> Principal {
    Principal { name: ANYBODY_HERE.to_owned(), role: Role::Admin }
}

/// What a gate is made of.
#[derive(Debug)]
pub struct GateOptions {
    /// Every route there is.
    pub routes: Routes,
    /// Who may come in at first. Without any, everybody may do everything.
    pub tokens: Tokens,
    /// Where changes are written down.
    pub audit: Audit,
    /// What counts requests.
    pub limiter: Arc<Limiter>,
}

/// The gate: cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: GateOptions,
    /// Those that are in use now.
    tokens: Mutex<Arc<Tokens>>,
    /// Whether there ever were any: then one has to be shown, also when there are none any more.
    asks: AtomicBool,
    is_stale: Gauge,
    /// The names that open nothing any more, as they go.
    revoked: broadcast::Sender<Arc<BTreeSet<String>>>,
    requests: Family<Vec<(&'static str, String)>, Counter>,
    audit_failures: Counter,
}

impl Gate {
    /// Makes a gate.
    pub fn new(options: GateOptions) -> Self {
        let tokens_at_first = Arc::new(options.tokens.clone());
        Gate(Arc::new(Inner {
            options,
            asks: AtomicBool::new(!tokens_at_first.is_empty()),
            tokens: Mutex::new(tokens_at_first),
            is_stale: Gauge::default(),
            revoked: broadcast::Sender::new(REVOCATIONS_WAITING_MAX),
            requests: Family::default(),
            audit_failures: Counter::default(),
        }))
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        let help = "HTTP requests, by route and status";
        registry.register("beeacon_http_requests", help, self.0.requests.clone());
        let help = "Changes that were refused because they could not be written to the audit file";
        registry.register("beeacon_audit_failures", help, self.0.audit_failures.clone());
        let help = "Whether the newest tokens cannot be read, so that older ones are in use";
        registry.register("beeacon_tokens_stale", help, self.0.is_stale.clone());
    }

    /// The table.
    pub fn routes(&self) -> &Routes {
        &self.0.options.routes
    }

    /// Whether nobody has to show a token.
    pub fn is_open(&self) -> bool {
        !self.0.asks.load(Ordering::Acquire)
    }

    /// Whether older tokens are in use, because the newest ones cannot be read.
    pub fn note_stale(&self, is_stale: bool) {
        self.0.is_stale.set(i64::from(is_stale));
    }

    /// The tokens that are in use.
    pub fn tokens(&self) -> Arc<Tokens> {
        // Every step that is made with the lock held is one assignment.
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other tokens from now on; each change is written to the audit file. What is under way is answered; who has an answer without an
    /// end is told by [`Gate::revoked`]. Gives the names that open nothing any more, or something else.
    pub async fn use_tokens(&self, after: Tokens) -> BTreeSet<String> {
        let before = self.tokens();
        let mut gone = before.gone(&after);
        let come = after.gone(&before);
        if self.is_open() && !after.is_empty() {
            gone.insert(ANYBODY_HERE.to_owned());
        }
        let by = Principal { name: "configuration".to_owned(), role: Role::Admin };
        for name in gone.union(&come) {
            let method = match (before.has(name), after.has(name)) {
                (true, true) => "CHANGE",
                (true, false) => "REVOKE",
                (false, true) => "ADD",
                // Whoever came without one.
                (false, false) => continue,
            };
            let path = format!("/access/token/{name}");
            let id = uuid::Uuid::now_v7().to_string();
            // A revocation that cannot be written down is made all the same: it takes away, and the log has it.
            self.audit(AuditLine::new(&id, &by, method, &path, AuditResult::Done)).await;
        }
        if !after.is_empty() {
            self.0.asks.store(true, Ordering::Release);
        }
        *self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        if !gone.is_empty() {
            // Nobody may have an answer without an end.
            drop(self.0.revoked.send(Arc::new(gone.clone())));
        }
        gone
    }

    /// The names of tokens that open nothing any more, or something else, as that happens.
    pub fn revoked(&self) -> broadcast::Receiver<Arc<BTreeSet<String>>> {
        self.0.revoked.subscribe()
    }

    /// Where changes are written down.
    pub fn audit_trail(&self) -> &Audit {
        &self.0.options.audit
    }

    /// What counts requests.
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.0.options.limiter
    }

    /// Puts the gate around a router. What the router itself has as its fallback is replaced.
    pub fn around(&self, router: Router) -> Router {
        let nothing = || async { refusal(StatusCode::NOT_FOUND, "not_found", "no such path") };
        router.fallback(nothing).layer(from_fn_with_state(self.clone(), pass))
    }

    /// `path` is the one in the router that the request meets, `route` what the table has for it.
    async fn admit(
        &self,
        mut request: Request,
        next: Next,
        id: &RequestId,
        path: Option<&str>,
        route: Option<&Route>,
    ) -> Response {
        let options = &self.0.options;
        if let Some(route) = route
            && route.needs == Needs::Nothing
            && route.rate == Rate::Free
        {
            return next.run(request).await;
        }
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let from = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let principal = match self.principal(&request, from) {
            Ok(principal) => principal,
            Err(refused) => match route {
                Some(route) if route.needs == Needs::Nothing => {
                    Principal { name: "anybody".to_owned(), role: Role::Agent }
                }
                _ => return *refused,
            },
        };
        let Some(path) = path else {
            return next.run(request).await;
        };
        let Some(route) = route else {
            return match options.routes.allowed(path) {
                Some(allowed) => not_allowed(&allowed),
                None => {
                    tracing::error!(path, "a path is served that the table of routes does not have: refused");
                    refusal(StatusCode::FORBIDDEN, "forbidden", "this path is served to nobody")
                }
            };
        };
        let mut standing = None;
        if route.rate == Rate::Counted {
            let counted = options.limiter.count(from, route.path).await;
            if counted.is_over() {
                return too_many(&counted);
            }
            standing = Some(counted);
        }
        let asked = request.uri().path().to_owned();
        let line = |result, status: Option<StatusCode>| AuditLine {
            from: peer,
            status: status.map(|status| status.as_u16()),
            ..AuditLine::new(&id.0, &principal, route.method.as_str(), &asked, result)
        };
        if !route.needs.is_met_by(Some(principal.role)) {
            let message = format!(
                "{} is needed for this; the token's role is {}",
                route.needs.name(),
                principal.role.name()
            );
            let refused = refusal(StatusCode::FORBIDDEN, "forbidden", &message);
            if route.audited {
                self.audit(line(AuditResult::Refused, Some(refused.status()))).await;
            }
            return refused;
        }
        if route.audited && !self.audit(line(AuditResult::Begun, None)).await {
            let message = "the change cannot be written to the audit file, so it is not made";
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "audit", message);
        }
        request.extensions_mut().insert(principal.clone());
        let mut response = next.run(request).await;
        if route.audited {
            // The change is made and durable or not; a line that is missing here leaves its "begun", which says so.
            self.audit(line(AuditResult::Done, Some(response.status()))).await;
        }
        if let Some(standing) = standing {
            limits(response.headers_mut(), &standing);
        }
        response
    }

    fn principal(&self, request: &Request, from: IpAddr) -> Result<Principal, Box<Response>> {
        let (options, tokens) = (&self.0.options, self.tokens());
        if self.is_open() {
            return match is_of_this_host(request) {
                true => Ok(anybody_here()),
                false => {
                    let message = "without tokens only programs of this host are served, under its address or as localhost";
                    Err(Box::new(refusal(StatusCode::FORBIDDEN, "forbidden", message)))
                }
            };
        }
        let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
        let token = match (given.next(), given.next()) {
            (Some(value), None) => bearer(value),
            _ => None,
        };
        if let Some(principal) = token.and_then(|token| tokens.principal(token)) {
            return Ok(principal.clone());
        }
        if token.is_some() {
            let standing = options.limiter.count_locally(from, "login", WRONG_TOKENS_PER_MINUTE_MAX);
            if standing.is_over() {
                return Err(Box::new(too_many(&standing)));
            }
            tracing::warn!(%from, "a wrong token was shown");
        }
        let mut refused = refusal(StatusCode::UNAUTHORIZED, "unauthorized", "a valid token is needed");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(Box::new(refused))
    }

    async fn audit(&self, line: AuditLine) -> bool {
        match self.0.options.audit.write_from_task(line).await {
            Ok(()) => true,
            Err(error) => {
                self.0.audit_failures.inc();
                tracing::error!(error = %error.source.kind(), "{error}");
                false
            }
        }
    }
}

async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let version = Version::take(request.headers_mut());
    request.extensions_mut().insert(id.clone());
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = path.as_deref().and_then(|path| gate.routes().find(request.method(), path));
    let endpoint = route.map(|route| route.path);
    let response = match version {
        Version::Unknown => {
            let message = "the versions of application/vnd.sting.v…+json are 1 and 2";
            refusal(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)
        }
        _ => gate.admit(request, next, &id, path.as_deref(), route).await,
    };
    let labels = vec![
        ("endpoint", endpoint.unwrap_or("none").to_owned()),
        ("status", response.status().as_str().to_owned()),
    ];
    gate.0.requests.get_or_create(&labels).inc();
    if let Some(endpoint) = endpoint {
        gate.limiter().note(Timestamp::now().as_second().div_euclid(3_600), endpoint);
    }
    if response.extensions().get::<Verbatim>().is_some() {
        return response;
    }
    complete(response, &id, version).await
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether a request that needs no token comes from a program of this host rather than from a web page that a browser shows.
fn is_of_this_host(request: &Request) -> bool {
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let Some(host) = header(header::HOST) else {
        // Every browser sends it.
        return true;
    };
    let is_local = host.parse::<Authority>().is_ok_and(|authority| {
        let name = authority.host();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    });
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_of_this_site = header(header::ORIGIN).is_none_or(|origin| {
        let origin = origin.parse::<Uri>().ok();
        origin.is_some_and(|origin| origin.authority().is_some_and(|origin| origin.as_str() == host))
    });
    is_local && (reads || is_of_this_site)
}

fn not_allowed(allowed: &str) -> Response {
    let message = format!("this path answers {allowed}");
    let mut refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
    if let Ok(value) = HeaderValue::from_str(allowed) {
        refused.headers_mut().insert(header::ALLOW, value);
    }
    refused
}

fn too_many(standing: &Standing) -> Response {
    let message = format!(
        "more than {} requests within a minute; the next is answered in {} seconds",
        standing.limit,
        standing.ends_in_seconds()
    );
    let mut refused = refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limited", &message);
    refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(standing.ends_in_seconds()));
    limits(refused.headers_mut(), standing);
    refused
}

fn limits(headers: &mut HeaderMap, standing: &Standing) {
    for (name, value) in [
        ("ratelimit-limit", standing.limit),
        ("ratelimit-remaining", standing.remaining()),
        ("ratelimit-reset", standing.ends_in_seconds()),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}
