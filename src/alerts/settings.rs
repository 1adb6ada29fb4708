//! The section `alerts` of the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use beeacon_alerts::outbound::{Network, Policy};
use beeacon_settings::Section;

use super::AlertsConfig;
use super::files::Files;

/// How long a rule's query may take when nobody says.
const EVALUATION_TIME_MAX: Duration = Duration::from_secs(10);

impl AlertsConfig {
    /// Reads the section. Turns are taken over a Redis.
    pub(crate) fn read(mut section: Section<'_>, data: &Path, has_redis: bool) -> AlertsConfig {
        let pack = section.boolean("pack", false);
        let rules = section.texts("rules").into_iter().map(PathBuf::from).collect();
        let receivers = section.optional_text("receivers").map(PathBuf::from);
        let external_url = section.optional_text("external_url");
        if external_url
            .as_ref()
            .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
        {
            section.fault("external_url", "is no URL that begins with http:// or https://");
        }
        let labels = section.text_table("labels");
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(3600));
        let evaluation_time_max = section.duration("evaluation_time_max", EVALUATION_TIME_MAX, least..=most);
        let turns = section.boolean("turns", false);
        if turns && !has_redis {
            section.fault("turns", "needs redis.url: turns are taken over Redis");
        }
        let mut outbound = section.section("outbound");
        let mut policy = Policy::default();
        for text in outbound.texts("networks") {
            match Network::read(&text) {
                Some(network) => policy.networks.push(network),
                None => outbound.fault(
                    "networks",
                    format!("got \"{text}\", wanted a network such as \"10.0.0.0/8\", or an address"),
                ),
            }
        }
        policy.names = outbound.texts("names").into_iter().map(|name| name.to_ascii_lowercase()).collect();
        for text in outbound.texts("ports") {
            match text.parse::<u16>() {
                Ok(port) if port > 0 => policy.ports.push(port),
                _ => outbound.fault("ports", format!("got \"{text}\", wanted a port such as \"9093\"")),
            }
        }
        let certificates = outbound.optional_text("certificates").map(PathBuf::from);
        outbound.close();
        section.close();
        AlertsConfig {
            ledger: data.join("alerts.db"),
            files: Files { pack, rules, receivers },
            external_url,
            labels,
            evaluation_time_max,
            turns,
            outbound: policy,
            certificates,
        }
    }
}
