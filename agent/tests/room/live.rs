//! The same agent on a real dockerd: only when `BEEACON_TEST_DOCKER_HOST` names one that has the image `bb:1` (busybox).
//!
//! The end-to-end stories start a dockerd of their own; this one is for trying the agent alone, quickly.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use beeacon_agent::container::ReaderChoice;
use beeacon_agent::{Agent, AgentConfig};
use beeacon_filters::{Engine, EngineOptions};
use tokio_util::sync::CancellationToken;

use crate::collector::Collector;

fn docker(host: &str, arguments: &[&str]) -> String {
    let output = Command::new("docker").args(["-H", host]).args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Scenario: containers with several drivers, a terminal, lines over 16 KiB, a restart, and an agent that is started anew.
/// Guarantees: every line once, by its container and stream, in order; with each reader.
#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_real_containers_is_stored_once() {
    let Ok(host) = std::env::var("BEEACON_TEST_DOCKER_HOST") else { return };
    for reader in [ReaderChoice::Auto, ReaderChoice::Api] {
        let collector = Collector::start().await;
        let directory = tempfile::tempdir().unwrap();
        let config = AgentConfig {
            collector: collector.url.clone(),
            data: directory.path().to_owned(),
            docker_host: Some(host.clone()),
            reader,
            ..AgentConfig::default()
        };
        let start = || {
            let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
            let agent = Agent::new(config.clone(), engine, 0).unwrap();
            let stop = CancellationToken::new();
            let stopping = stop.clone();
            (stop, tokio::spawn(async move { agent.run(stopping).await }))
        };
        let script = "i=0; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; i=$((i+1)); \
                      [ $((i % 40)) = 0 ] && sleep 0.2; done; \
                      yes x | tr -d '\\n' | head -c 40000; echo \" long 400\"; printf 'last 401'";
        let before = docker(&host, &["run", "-d", "--network", "none", "bb:1", "sh", "-c", script]);
        let (stop, task) = start();
        let mut ids = vec![before];
        for driver in ["json-file", "local"] {
            let log = format!("--log-driver={driver}");
            ids.push(docker(&host, &["run", "-d", "--network", "none", &log, "bb:1", "sh", "-c", script]));
        }
        let terminal = docker(&host, &["run", "-d", "-t", "--network", "none", "bb:1", "sh", "-c", script]);
        tokio::time::sleep(Duration::from_millis(900)).await;
        stop.cancel();
        task.await.unwrap().unwrap();
        let (stop, task) = start();
        let expected = 802 * 4;
        collector.until("the first run", |state| state.rows.len() >= expected).await;
        docker(&host, &["restart", "-t", "0", &ids[1]]);
        collector.until("the second run", |state| state.rows.len() >= expected + 802).await;
        for id in ids.iter().chain([&terminal]) {
            docker(&host, &["rm", "-f", id]);
        }
        collector.until("the ends", |state| state.finals >= 4).await;
        stop.cancel();
        task.await.unwrap().unwrap();
        let state = collector.state.lock().unwrap();
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for (source, _, row) in &state.rows {
            *counts.entry((source, &row.stream)).or_default() += 1;
        }
        assert_eq!(state.rows.len(), expected + 802, "{reader:?} {counts:?}");
        assert_eq!((state.duplicates_stored, state.gaps.len()), (0, 0), "{reader:?}");
        let mut of: HashMap<(String, String), Vec<u64>> = HashMap::new();
        for (source, _, row) in &state.rows {
            let id = source.split(':').nth(1).unwrap().to_owned();
            let message = &row.message;
            let number = message.rsplit(' ').next().unwrap().parse().unwrap();
            let stream = if id == terminal && message.starts_with("err") { "stderr" } else { &row.stream };
            assert!(message.starts_with("err") == (stream == "stderr"), "{message:.20} on {stream}");
            assert!(!message.ends_with('\r'));
            if number == 400 {
                assert_eq!(message.len(), 40_000 + " long 400".len(), "{reader:?}");
            }
            of.entry((id, stream.to_owned())).or_default().push(number);
        }
        for ((id, stream), numbers) in of {
            let runs = if id == ids[1] { 2 } else { 1 };
            let last = if stream == "stderr" { 400 } else { 402 };
            let wanted: Vec<u64> = (0..runs).flat_map(|_| 0..last).collect();
            assert_eq!(numbers, wanted, "{reader:?} {stream} of {id}");
        }
    }
}
