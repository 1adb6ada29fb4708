//! `beeacon dashboards export`: Grafana's provisioning tree, from the program itself.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use crate::command_line::{DashboardsAction, DashboardsArguments};
use crate::exit::Exit;
use crate::up::say;

/// Every file of the tree, by its path within it.
const TREE: [(&str, &str); 11] = [
    ("datasources/beeacon.yaml", include_str!("../dashboards/provisioning/datasources.yaml")),
    ("dashboards/beeacon.yaml", include_str!("../dashboards/provisioning/dashboards.yaml")),
    ("dashboards/beeacon/fleet-overview.json", include_str!("../dashboards/fleet-overview.json")),
    ("dashboards/beeacon/logs-explorer.json", include_str!("../dashboards/logs-explorer.json")),
    ("dashboards/beeacon/pollen-filter.json", include_str!("../dashboards/pollen-filter.json")),
    ("dashboards/beeacon/pipeline-health.json", include_str!("../dashboards/pipeline-health.json")),
    (
        "dashboards/beeacon/storage-and-retention.json",
        include_str!("../dashboards/storage-and-retention.json"),
    ),
    ("dashboards/beeacon/query-performance.json", include_str!("../dashboards/query-performance.json")),
    ("dashboards/beeacon/agents.json", include_str!("../dashboards/agents.json")),
    ("dashboards/beeacon/alerts.json", include_str!("../dashboards/alerts.json")),
    ("dashboards/beeacon/logs-in-loki.json", include_str!("../dashboards/logs-in-loki.json")),
];

pub(crate) fn run(arguments: DashboardsArguments) -> anyhow::Result<Exit> {
    let DashboardsAction::Export { directory, force } = arguments.action;
    export(&directory, force)?;
    say(&format!("{} files below {}", TREE.len(), directory.display()));
    Ok(Exit::Done)
}

/// Writes the tree. A file that is there is kept, unless it is to be replaced.
fn export(directory: &Path, force: bool) -> anyhow::Result<()> {
    for (path, text) in TREE {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).truncate(true);
        let options = if force { options.create(true) } else { options.create_new(true) };
        let hint = if force { "" } else { " (--force replaces files)" };
        let mut file = options.open(&path).with_context(|| format!("write {}{hint}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_holds_every_dashboard_and_overwrites_only_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        export(folder.path(), false).unwrap();
        let dashboards = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards")).unwrap();
        for file in dashboards.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            if file.ends_with(".json") {
                let exported = folder.path().join("dashboards/beeacon").join(&file);
                assert!(exported.exists(), "{file} is not exported");
            }
        }
        let again = export(folder.path(), false).unwrap_err();
        assert!(format!("{again:#}").contains("--force"), "{again:#}");
        export(folder.path(), true).unwrap();
    }
}
