//! A real Prometheus scrapes Beeacon, and every PromQL query of every dashboard has something to show.

use serde_json::Value;

use crate::harness::dashboards::{panels, percent};
use crate::harness::http;
use crate::harness::poll::{seconds, wait_for};
use crate::harness::probe::{program, skip};
use crate::harness::processes::{Program, beeacon, free_address};
use crate::harness::sql::Sql;

/// Guarantees: Prometheus scrapes Beeacon as `dashboards/prometheus.yaml` says, and no panel that asks Prometheus is empty.
#[test]
fn every_promql_query_of_every_dashboard_has_something_to_show() {
    let Some(prometheus) = program("prometheus") else {
        return skip(
            "every_promql_query_of_every_dashboard_has_something_to_show",
            "prometheus is not installed",
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let (beeacon_address, postgres, prometheus_address) = (free_address(), free_address(), free_address());
    let mut demo = Program::new("demo", beeacon(), folder.path(), Some(beeacon_address))
        .argument("demo")
        .option("--listen", beeacon_address.to_string())
        .option("--postgres", postgres.to_string())
        .option("--data", folder.path().join("data"));
    demo.start();

    let configuration =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/prometheus.yaml"));
    let configuration = configuration.unwrap().replace("127.0.0.1:4880", &beeacon_address.to_string());
    let file = folder.path().join("prometheus.yaml");
    std::fs::write(&file, format!("global:\n  scrape_interval: 1s\n{configuration}")).unwrap();
    let mut scraper = Program::new("prometheus", prometheus, folder.path(), None)
        .argument(format!("--config.file={}", file.display()))
        .argument(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()))
        .argument(format!("--web.listen-address={prometheus_address}"));
    scraper.spawn();

    let sql = Sql { address: beeacon_address };
    let panels = panels("prometheus");
    assert!(panels.len() >= 15, "{} queries", panels.len());
    for (dashboard, title, expr) in panels {
        wait_for(&format!("something to show in {dashboard}, {title}: {expr}"), seconds(60), || {
            // Somebody asks and files are read, so that there is something to count.
            sql.number("select count(*) as n from logs");
            let path = format!("/api/v1/query?query={}", percent(&expr));
            let answer = http::request(prometheus_address, "GET", &path, &[], b"").ok()?;
            let answer: Value = serde_json::from_slice(&answer.body).ok()?;
            assert_ne!(answer["errorType"], "bad_data", "{expr}: {}", answer["error"]);
            let result = answer["data"]["result"].as_array()?;
            (!result.is_empty()).then_some(())
        });
        println!("{dashboard}, {title}: has something to show");
    }
}
