//! Every HTTP route of the program, once. The guard, the description at `/api/openapi.json` and docs/http-api.md are held to this table:
//! a room that serves a path that is not here serves it to nobody.

use axum::http::Method;
use beeacon_access::{Needs, READS, Rate, Route, Routes, Takes};
use beeacon_query::SQL_PATH;
use beeacon_record::wire::{FRAME_CONTENT_TYPE, INGEST_PATH, SESSION_PATH};

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
