//! The section `events` of the configuration.

use std::path::Path;
use std::time::Duration;

use beeacon_events::limits::{EVENTS_KEPT_DEFAULT, EVENTS_KEPT_FOR_DEFAULT};
use beeacon_settings::Section;

use super::EventsConfig;

impl EventsConfig {
    /// Reads the section.
    pub(crate) fn read(mut section: Section<'_>, data: &Path) -> EventsConfig {
        let kept_max = section.integer("kept_max", EVENTS_KEPT_DEFAULT, 1_000..=10_000_000);
        let (least, most) = (Duration::from_secs(3600), Duration::from_secs(366 * 24 * 3600));
        let kept_for = section.duration("kept_for", EVENTS_KEPT_FOR_DEFAULT, least..=most);
        section.close();
        EventsConfig { log: data.join("events.db"), kept_max, kept_for }
    }
}
