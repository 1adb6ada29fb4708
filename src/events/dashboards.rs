//! Who looks through Grafana: clients of the PostgreSQL door that say so, and requests over HTTP that Grafana marks.
//!
//! A dashboard asks many things, again and again: the first look of a user is told at once, and then once a minute how often there
//! was another. Counts of the last minute are in memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use beeacon_access::Principal;
use beeacon_events::{EventType, Step};
use beeacon_query::PostgresVisit;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::limits::{DASHBOARD_EVERY, DASHBOARD_UID_BYTES_MAX, DASHBOARDS_MAX};
use super::{Events, only};
use crate::doors;

/// What Grafana says with each request of a data source: whose dashboard asks.
const UID_HEADER: &str = "x-dashboard-uid";

/// How names of Grafana's begin: what a client of PostgreSQL calls itself, or the token that it shows.
const GRAFANA: &str = "grafana";

/// Whose look it was, through which door, at which dashboard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    door: &'static str,
    user: String,
    dashboard: Option<String>,
}

#[derive(Debug, Default)]
struct Count {
    told: Option<Instant>,
    looks: u64,
}

/// The looks that are not told yet, and those that were a short while ago.
#[derive(Debug, Default)]
pub(crate) struct Dashboards(Mutex<BTreeMap<Look, Count>>);

impl Dashboards {
    /// A client of the PostgreSQL door. Grafana's own data source says nothing of itself, so its user's name is looked at, too.
    pub(crate) fn came_in(&self, visit: &PostgresVisit) {
        let begins =
            |text: &str| text.get(..GRAFANA.len()).is_some_and(|text| text.eq_ignore_ascii_case(GRAFANA));
        if begins(&visit.application_name) || begins(&visit.user) {
            self.count(Look { door: "postgresql", user: visit.user.clone(), dashboard: None });
        }
    }

    fn count(&self, look: Look) {
        let mut looks = self.looks();
        let look = if looks.len() >= DASHBOARDS_MAX && !looks.contains_key(&look) {
            // Many users, or somebody who makes names up.
            Look { user: "others".to_owned(), dashboard: None, ..look }
        } else {
            look
        };
        looks.entry(look).or_default().looks += 1;
    }

    /// What is to be told now; forgets what was told long enough ago.
    fn take(&self, now: Instant, every: Duration) -> Vec<(Look, u64)> {
        let mut due = Vec::new();
        self.looks().retain(|look, count| {
            if count.told.is_some_and(|told| now.duration_since(told) < every) {
                return true;
            }
            if count.looks == 0 {
                return false;
            }
            due.push((look.clone(), std::mem::take(&mut count.looks)));
            count.told = Some(now);
            true
        });
        due
    }

    fn looks(&self) -> MutexGuard<'_, BTreeMap<Look, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes a request that Grafana marks, on its way to the door that answers it.
pub(crate) async fn note(State(events): State<Events>, request: Request, next: Next) -> Response {
    if let Some(dashboard) = marked(request.headers()) {
        let user = request.extensions().get::<Principal>().map(|who| who.name.clone()).unwrap_or_default();
        events.dashboards().count(Look { door: "http", user, dashboard });
    }
    next.run(request).await
}

/// Whether a request is marked, and with which dashboard: by the dashboard's uid, or by what Grafana calls itself.
fn marked(headers: &HeaderMap) -> Option<Option<String>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(uid) = text(UID_HEADER) {
        let is_uid = (1..=DASHBOARD_UID_BYTES_MAX).contains(&uid.len())
            && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        return Some(is_uid.then(|| uid.to_owned()));
    }
    text(header::USER_AGENT.as_str()).is_some_and(|agent| agent.starts_with("Grafana/")).then_some(None)
}

/// Tells until told to stop.
pub(super) async fn run(events: Events, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        let is_over = tokio::select! {
            () = doors::until_stopped(&mut stop) => true,
            _ = every.tick() => false,
        };
        let due = match is_over {
            true => events.dashboards().take(Instant::now(), Duration::ZERO),
            false => events.dashboards().take(Instant::now(), DASHBOARD_EVERY),
        };
        for (look, count) in due {
            let now = Timestamp::now();
            let at = now.as_nanosecond().to_string();
            let dashboard = look.dashboard.as_deref();
            let maker = &events.0.maker;
            let id = maker.id(&["dashboard", look.door, &look.user, dashboard.unwrap_or_default(), &at]);
            let payload = [
                ("door", Value::from(look.door)),
                ("user", look.user.as_str().into()),
                ("dashboard", dashboard.map_or(Value::Null, Value::from)),
                ("count", count.into()),
            ];
            let step: Step = only(maker.event(EventType::DashboardAccessed, id, now, "dashboards", payload));
            if !events.write_until(&step, &mut stop).await {
                return;
            }
        }
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(user: &str, application: &str) -> PostgresVisit {
        PostgresVisit { user: user.to_owned(), application_name: application.to_owned() }
    }

    #[test]
    fn grafanas_clients_are_told_from_others() {
        let dashboards = Dashboards::default();
        for (user, application) in [("anna", "psql"), ("graf", ""), ("anna", "my grafana")] {
            dashboards.came_in(&visit(user, application));
        }
        assert_eq!(dashboards.take(Instant::now(), DASHBOARD_EVERY), []);
        for (user, application) in [("grafana", ""), ("anna", "Grafana 12"), ("grafana", "x")] {
            dashboards.came_in(&visit(user, application));
        }
        let told = dashboards.take(Instant::now(), DASHBOARD_EVERY);
        let told: Vec<_> = told.iter().map(|(look, count)| (look.user.as_str(), *count)).collect();
        assert_eq!(told, [("anna", 1), ("grafana", 2)]);
    }

    #[test]
    fn a_request_is_marked_by_a_dashboard_or_by_what_grafana_calls_itself() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            marked(&headers)
        };
        assert_eq!(of("x-dashboard-uid", "beeacon-fleet"), Some(Some("beeacon-fleet".to_owned())));
        assert_eq!(of("x-dashboard-uid", "<script>"), Some(None));
        assert_eq!(of("user-agent", "Grafana/12.1.0"), Some(None));
        assert_eq!(of("user-agent", "curl/8"), None);
    }

    #[test]
    fn the_first_look_is_told_at_once_and_then_one_event_a_minute() {
        let dashboards = Dashboards::default();
        let began = Instant::now();
        let after = |seconds| dashboards.take(began + Duration::from_secs(seconds), DASHBOARD_EVERY);
        dashboards.came_in(&visit("grafana", ""));
        assert_eq!(after(0).len(), 1);
        for _ in 0..5 {
            dashboards.came_in(&visit("grafana", ""));
        }
        assert_eq!(after(59), []);
        assert_eq!(after(60)[0].1, 5);
        assert_eq!(after(200), []);
        assert!(dashboards.looks().is_empty(), "what is told is forgotten");
    }

    #[test]
    fn names_that_are_made_up_take_no_memory_without_end() {
        let dashboards = Dashboards::default();
        for n in 0..2 * DASHBOARDS_MAX {
            dashboards.came_in(&visit(&format!("grafana-{n}"), ""));
        }
        assert_eq!(dashboards.looks().len(), DASHBOARDS_MAX + 1);
        let told = dashboards.take(Instant::now(), DASHBOARD_EVERY);
        assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), 2 * DASHBOARDS_MAX as u64);
    }
}
