//! What each rule does and costs, as metrics that are read from the engine when they are asked for.

use std::fmt;
use std::sync::Arc;

use beeacon_filters::{Engine, RuleStatistics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::{Registry, Unit};

/// The rules of an engine. One that has had no candidate is left out, so that a large library is a short page.
struct RuleMetrics {
    engine: EngineNow,
}

impl fmt::Debug for RuleMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleMetrics").finish_non_exhaustive()
    }
}

/// Registers the counts of the rules of whichever engine is in use when they are asked for.
pub(crate) fn register(engine: EngineNow, registry: &mut Registry) {
    registry
        .sub_registry_with_prefix("beeacon_agent_rule")
        .register_collector(Box::new(RuleMetrics { engine }));
}

/// Says which engine is in use.
pub(crate) type EngineNow = Arc<dyn Fn() -> Option<Arc<Engine>> + Send + Sync>;

type Count = fn(&RuleStatistics) -> u64;

impl Collector for RuleMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(engine) = (self.engine)() else { return Ok(()) };
        let mut rules = engine.statistics().rules;
        rules.retain(|rule| rule.candidates > 0);
        let counters: [(&str, &str, Count); 3] = [
            ("candidates", "Places that were tried for a rule.", |rule| rule.candidates),
            ("matches", "Matches that the rule's check accepted.", |rule| rule.matches),
            ("rejections", "Matches that the rule's check refused.", |rule| rule.rejected),
        ];
        for (name, help, count) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for rule in &rules {
                let labels = [("rule", rule.rule.as_str())];
                ConstCounter::new(count(rule)).encode(family.encode_family(&labels)?)?;
            }
        }
        let bytes = "Text read while candidates were verified.";
        let mut family =
            encoder.encode_descriptor("verified", bytes, Some(&Unit::Bytes), MetricType::Counter)?;
        for rule in &rules {
            let labels = [("rule", rule.rule.as_str())];
            ConstCounter::new(rule.bytes_verified).encode(family.encode_family(&labels)?)?;
        }
        // Without a clock there is nothing to tell.
        if rules.iter().any(|rule| rule.nanoseconds > 0) {
            let help = "Time spent verifying candidates, with filter.time_rules.";
            let unit = Some(&Unit::Seconds);
            let mut family = encoder.encode_descriptor("verification", help, unit, MetricType::Counter)?;
            for rule in &rules {
                let labels = [("rule", rule.rule.as_str())];
                let seconds = std::time::Duration::from_nanos(rule.nanoseconds).as_secs_f64();
                ConstCounter::new(seconds).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use beeacon_filters::EngineOptions;

    use super::*;

    fn one() -> u64 {
        use std::sync::atomic::{AtomicU64, Ordering};
        static TICKS: AtomicU64 = AtomicU64::new(0);
        TICKS.fetch_add(500_000_000, Ordering::Relaxed)
    }

    #[test]
    fn rules_with_candidates_are_shown_with_what_they_did_and_cost() {
        let options = EngineOptions { clock: Some(one), ..EngineOptions::default() };
        let engine = Arc::new(Engine::new(options).unwrap());
        let mut registry = Registry::default();
        let now = engine.clone();
        register(Arc::new(move || Some(now.clone())), &mut registry);
        let shown = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        assert!(!shown().contains("rule=\"email\""), "{}", shown());
        engine.scrub_text("bob@example.org\nann@example.org").unwrap();
        let text = shown();
        for line in [
            "beeacon_agent_rule_matches_total{rule=\"email\"} 2",
            "beeacon_agent_rule_rejections_total{rule=\"email\"} 0",
            "# TYPE beeacon_agent_rule_verification_seconds counter",
            "beeacon_agent_rule_verified_bytes_total{rule=\"email\"}",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(!text.contains("example"), "{text}");
    }
}
