//! Events of states: a part of the server that is not well, an agent that is not heard of. What stands is kept in the log, written
//! together with the event that says so, so that a change over a restart is told once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beeacon_collector::AgentStatus;
use beeacon_events::{EventType, Step};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::Events;
use super::limits::{AGENT_FORGOTTEN_AFTER, AGENT_SILENT_FOR, HEALTH_EVERY, HEALTH_LOOKS, WRITE_AGAIN_AFTER};
use crate::doors;

/// The names under which what stands is kept begin so.
const FAILING: &str = "health:";
const LOST: &str = "agent:";

/// What is looked at.
pub(crate) struct Health {
    /// The checks that fail now, and what they say.
    pub(crate) failing: Arc<dyn Fn() -> Vec<(&'static str, String)> + Send + Sync>,
    /// The agents that are known.
    pub(crate) agents: Arc<dyn Fn() -> Vec<AgentStatus> + Send + Sync>,
}

/// What stands.
#[derive(Debug, Default)]
struct Standing {
    /// The checks that are told to fail, since when.
    failing: BTreeMap<String, String>,
    /// The agents that are told to be lost, with when they were last heard of, in nanoseconds since 1970.
    lost: BTreeMap<String, String>,
    /// How often in a row a check was not what is told of it.
    looks: BTreeMap<String, u32>,
}

/// Looks until told to stop.
pub(super) async fn run(events: Events, health: Health, mut stop: watch::Receiver<bool>) {
    let mut standing = loop {
        let log = &events.0.log;
        let read =
            async { Ok::<_, anyhow::Error>((log.kept_below(FAILING).await?, log.kept_below(LOST).await?)) };
        match read.await {
            Ok((failing, lost)) => {
                let (failing, lost) = (failing.into_iter().collect(), lost.into_iter().collect());
                break Standing { failing, lost, looks: BTreeMap::new() };
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "what stands is read again later"),
        }
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            () = tokio::time::sleep(WRITE_AGAIN_AFTER) => {}
        }
    };
    let mut every = tokio::time::interval(HEALTH_EVERY);
    loop {
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = every.tick() => {}
        }
        let now = Timestamp::now();
        let mut step = standing.look_at_health(&events, (health.failing)(), now);
        standing.look_at_agents(&events, &(health.agents)(), now, &mut step);
        if (!step.events.is_empty() || !step.kept.is_empty()) && !events.write_until(&step, &mut stop).await {
            return;
        }
    }
}

impl Standing {
    fn look_at_health(
        &mut self,
        events: &Events,
        failing: Vec<(&'static str, String)>,
        now: Timestamp,
    ) -> Step {
        let mut step = Step::default();
        let maker = &events.0.maker;
        for (check, says) in &failing {
            if self.failing.contains_key(*check) || !self.agrees(check) {
                continue;
            }
            let since = now.to_string();
            let payload = [("check", Value::from(*check)), ("message", says.as_str().into())];
            let together = maker.id(&["health", check, &since]);
            let id = maker.id(&["health", check, &since, "failed"]);
            let event = maker.event(EventType::HealthFailed, id, now, "health", payload);
            step.events.push(event.correlated(together));
            step.kept.push((format!("{FAILING}{check}"), Some(since.clone())));
            self.failing.insert((*check).to_owned(), since);
        }
        let fails = |check: &str| failing.iter().any(|(failing, _)| *failing == check);
        let well: Vec<String> = self.failing.keys().filter(|check| !fails(check)).cloned().collect();
        for check in &well {
            if !self.agrees(check) {
                continue;
            }
            let since = self.failing.remove(check).unwrap_or_default();
            let payload = [("check", Value::from(check.as_str())), ("failed_at", since.as_str().into())];
            let together = maker.id(&["health", check, &since]);
            let id = maker.id(&["health", check, &since, "recovered"]);
            let event = maker.event(EventType::HealthRecovered, id, now, "health", payload);
            step.events.push(event.correlated(together));
            step.kept.push((format!("{FAILING}{check}"), None));
        }
        // A look that agrees with what is told begins the count anew.
        let told = &self.failing;
        self.looks.retain(|check, _| fails(check) != told.contains_key(check));
        step
    }

    /// Whether a check was otherwise than told for long enough.
    fn agrees(&mut self, check: &str) -> bool {
        let looks = self.looks.entry(check.to_owned()).or_default();
        *looks += 1;
        let agrees = *looks >= HEALTH_LOOKS;
        if agrees {
            self.looks.remove(check);
        }
        agrees
    }

    fn look_at_agents(&mut self, events: &Events, agents: &[AgentStatus], now: Timestamp, step: &mut Step) {
        let maker = &events.0.maker;
        for agent in agents.iter().filter(|agent| agent.received_ns > 0) {
            let id = agent.agent.to_string();
            let Ok(seen) = Timestamp::from_nanosecond(i128::from(agent.received_ns)) else { continue };
            let silent = Duration::try_from(now.duration_since(seen)).unwrap_or(Duration::ZERO);
            let told = self.lost.get(&id).cloned();
            let is_lost = silent >= AGENT_SILENT_FOR;
            let (kind, last) = match (&told, is_lost) {
                (None, true) if silent < AGENT_FORGOTTEN_AFTER => {
                    ("agent_lost", agent.received_ns.to_string())
                }
                (Some(last), false) => ("agent_back", last.clone()),
                _ => continue,
            };
            let payload = [
                ("kind", Value::from(kind)),
                ("agent", id.as_str().into()),
                ("host", agent.host.as_str().into()),
                ("last_seen", seen.to_string().into()),
            ];
            let event_id = maker.id(&[kind, &id, &last]);
            let event = maker.event(EventType::SystemAlert, event_id, now, "collector", payload);
            step.events.push(event.correlated(maker.id(&["agent", &id, &last])));
            let name = format!("{LOST}{id}");
            if is_lost {
                step.kept.push((name, Some(last.clone())));
                self.lost.insert(id, last);
            } else {
                step.kept.push((name, None));
                self.lost.remove(&id);
            }
        }
    }
}
