//! Every HTTP route of the program, once. The guard, the description at `/api/openapi.json` and docs/http-api.md are held to this table:
//! a room that serves a path that is not here serves it to nobody.

use axum::http::Method;
use beeacon_access::{Needs, READS, Rate, Route, Routes, Takes};
use beeacon_query::SQL_PATH;
use beeacon_record::wire::{FRAME_CONTENT_TYPE, INGEST_PATH, SESSION_PATH};

use crate::events::http::{EVENTS_PATH, STREAM};

const JSON: &[&str] = &["application/json"];
const TEXT: &[&str] = &["text/plain"];

/// The content types of an answer to a query.
const ROWS: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
];

/// The table.
pub(crate) fn routes() -> Routes {
    let probe = Route { needs: Needs::Nothing, rate: Rate::Free, gives: (TEXT, "Text"), ..READS };
    let ships = Route { method: Method::POST, needs: Needs::Ingest, rate: Rate::Free, ..READS };
    let works = Route { needs: Needs::Editor, audited: true, gives: (JSON, "Found"), ..READS };
    Routes::new(vec![
        Route { path: "/healthz", does: "Whether the process lives", ..probe.clone() },
        Route { path: "/readyz", does: "Whether each part is ready; 503 if one is not", ..probe },
        Route {
            path: "/metrics",
            does: "Metrics in Prometheus' text format",
            gives: (TEXT, "Text"),
            ..READS
        },
        // Frames are data: what they do to the store is counted, not audited.
        Route {
            path: INGEST_PATH,
            does: "Takes a frame of an agent; 200 once its rows survive a power cut",
            takes: Takes::Bytes(FRAME_CONTENT_TYPE),
            gives: (JSON, "IngestAnswer"),
            ..ships.clone()
        },
        Route {
            path: SESSION_PATH,
            does: "Opens the next session of an agent and tells where its sources stood",
            audited: true,
            takes: Takes::Json("SessionRequest"),
            gives: (JSON, "SessionAnswer"),
            ..ships
        },
        Route {
            method: Method::POST,
            path: SQL_PATH,
            does: "Answers a query; rows flow as they are produced",
            takes: Takes::Json("Query"),
            gives: (ROWS, "Rows"),
            ..READS
        },
        Route {
            path: "/api/v1/rules",
            does: "The rules of alerts with their states, health and last errors",
            query: &[("type", "alert or record"), ("rule", "a rule's id")],
            gives: (JSON, "Found"),
            ..READS
        },
        Route {
            path: "/api/v1/alerts",
            does: "Alerts, the newest first; those that are open unless another status is asked for",
            query: &[
                ("status", "open, new, acknowledged, resolved or all"),
                ("severity", "low, medium, high or critical"),
                ("service", "a service's name"),
                ("incident", "an incident's id"),
                ("limit", "at most so many, up to 10000; 1000 by default"),
            ],
            gives: (JSON, "Found"),
            ..READS
        },
        Route { path: "/api/v1/alerts/{id}", does: "One alert", gives: (JSON, "Found"), ..READS },
        Route {
            method: Method::PATCH,
            path: "/api/v1/alerts/{id}",
            does: "Acknowledges, assigns, resolves or comments an alert",
            takes: Takes::Json("AlertChange"),
            ..works.clone()
        },
        Route {
            method: Method::POST,
            path: "/api/v1/alerts/{id}/acknowledge",
            does: "Somebody has seen an alert",
            takes: Takes::Json("AlertNote"),
            ..works.clone()
        },
        Route {
            method: Method::POST,
            path: "/api/v1/alerts/{id}/assign",
            does: "Gives an alert to somebody, or to nobody",
            takes: Takes::Json("AlertAssignment"),
            ..works.clone()
        },
        Route {
            method: Method::POST,
            path: "/api/v1/alerts/{id}/comment",
            does: "Says something about an alert",
            takes: Takes::Json("AlertNote"),
            ..works.clone()
        },
        Route {
            method: Method::POST,
            path: "/api/v1/alerts/{id}/resolve",
            does: "Ends an alert by hand; its rule makes a new one when it fires anew",
            takes: Takes::Json("AlertNote"),
            ..works.clone()
        },
        Route {
            path: "/api/v1/silences",
            does: "Silences, ended ones too for five days",
            gives: (JSON, "Found"),
            ..READS
        },
        Route {
            method: Method::POST,
            path: "/api/v1/silences",
            does: "Sets a silence: who its matchers cover is not told about until its end",
            takes: Takes::Json("Silence"),
            ..works.clone()
        },
        Route { path: "/api/v1/silences/{id}", does: "One silence", gives: (JSON, "Found"), ..READS },
        Route { method: Method::DELETE, path: "/api/v1/silences/{id}", does: "Ends a silence now", ..works },
        Route {
            path: "/api/v1/incidents",
            does: "Alerts of one subject together, the newest first",
            query: &[
                ("status", "open, resolved or all"),
                ("limit", "at most so many, up to 10000; 1000 by default"),
            ],
            gives: (JSON, "Found"),
            ..READS
        },
        Route {
            path: "/api/v1/incidents/{id}",
            does: "An incident with its alerts and its timeline",
            gives: (JSON, "Found"),
            ..READS
        },
        Route {
            path: EVENTS_PATH,
            does: "Events, the newest or those behind one; as they come where text/event-stream is accepted",
            query: &[
                ("type", "one or more types, with commas between them"),
                ("since", "not before this time"),
                ("after", "behind the event with this id; Last-Event-ID wins"),
                ("limit", "at most so many of a page, up to 10000; 1000 by default"),
            ],
            gives: (&["application/json", STREAM], "Events"),
            ..READS
        },
        Route {
            path: "/api/beeacon/alerts",
            does: "Alerting at a glance: open alerts by severity, incidents, messages, faults",
            gives: (JSON, "Alerting"),
            ..READS
        },
        Route {
            path: "/api/beeacon/status",
            does: "How collector, store, queries, access and the agent are doing",
            gives: (JSON, "Status"),
            ..READS
        },
        Route {
            path: "/api/beeacon/pollen-filter/stats",
            does: "What the pollen filter redacted",
            gives: (JSON, "Status"),
            ..READS
        },
        Route {
            path: "/api/beeacon/grafana/status",
            does: "Whether the configured Grafana answers, with its version",
            gives: (JSON, "Status"),
            ..READS
        },
        Route {
            path: "/api/beeacon/loki/status",
            does: "Whether the configured Loki answers, and how far forwarding has come",
            gives: (JSON, "Status"),
            ..READS
        },
        Route {
            path: "/api/beeacon/config",
            does: "The configuration, with defaults and without secrets",
            needs: Needs::Admin,
            gives: (JSON, "Settings"),
            ..READS
        },
        Route {
            method: Method::POST,
            path: "/api/beeacon/health-report",
            does: "Looks at everything and reports, as JSON or as a page",
            needs: Needs::Editor,
            audited: true,
            gives: (&["application/json", "text/html"], "Report"),
            ..READS
        },
        Route {
            path: "/api/openapi.json",
            does: "The description of these routes, OpenAPI 3.1",
            needs: Needs::Nothing,
            gives: (JSON, "Object"),
            ..READS
        },
        Route {
            path: "/api/docs",
            does: "The same as a page that needs nothing from elsewhere",
            needs: Needs::Nothing,
            gives: (&["text/html"], "Text"),
            ..READS
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the page shows it.
    fn page() -> String {
        let row = |route: &Route| {
            let audited = if route.audited { "yes" } else { "" };
            let counted = if route.rate == Rate::Counted { "yes" } else { "" };
            let needs = route.needs.name();
            format!(
                "| `{} {}` | {needs} | {audited} | {counted} | {} |\n",
                route.method, route.path, route.does
            )
        };
        routes().iter().map(row).collect()
    }

    #[test]
    fn the_page_has_the_very_table() {
        let text = include_str!("../docs/http-api.md");
        assert!(text.contains(&page()), "docs/http-api.md must have these rows:\n{}", page());
    }

    #[test]
    fn whatever_changes_something_is_audited_and_needs_more_than_to_read() {
        for route in routes().iter().filter(|route| route.method != Method::GET) {
            let is_read = matches!(route.path, SQL_PATH);
            let is_data = route.path == INGEST_PATH;
            assert!(route.audited || is_read || is_data, "{} is not audited", route.path);
            assert!(is_read || !matches!(route.needs, Needs::Nothing | Needs::Viewer), "{}", route.path);
        }
        assert!(
            routes()
                .iter()
                .filter(|route| route.needs == Needs::Nothing)
                .all(|route| route.method == Method::GET)
        );
    }
}
