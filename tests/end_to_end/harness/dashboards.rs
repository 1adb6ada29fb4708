//! What the dashboards ask, as Grafana sends it for a user who looks at everything.

use std::path::Path;

use serde_json::Value;

/// What Grafana puts in place of its variables.
const INTERPOLATED: [(&str, &str); 7] = [
    ("$__rate_interval", "15s"),
    ("$__auto", "1m"),
    ("$job", ".+"),
    ("$instance", ".+"),
    ("$host", ".+"),
    ("$service", ".+"),
    ("$text", ""),
];

/// Dashboard, title and query of every panel that asks data sources of a kind, in its own language: `prometheus` or `loki`.
pub(crate) fn panels(kind: &str) -> Vec<(String, String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut panels = Vec::new();
    for file in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let dashboard: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let targets = panel["targets"].as_array().into_iter().flatten();
            let targets = targets.filter(|target| target["datasource"]["type"] == kind);
            for expr in targets.filter_map(|target| target["expr"].as_str()) {
                let expr =
                    INTERPOLATED.iter().fold(expr.to_owned(), |text, (from, to)| text.replace(from, to));
                assert!(!expr.contains('$'), "{expr} still has something of Grafana's in it");
                panels.push((name.clone(), panel["title"].as_str().unwrap().to_owned(), expr));
            }
        }
    }
    panels
}

/// Everything but letters and digits, as `%XX`.
pub(crate) fn percent(text: &str) -> String {
    let shown = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(shown).collect()
}
