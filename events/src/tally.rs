//! What flows by, counted until it is time to tell: findings per service and rule, lines per service, gaps.
//!
//! Pure. What always holds: a record of the journal is counted once, in the order of their numbers, and [`Tally::take`] gives the
//! events of what was counted together with the last record's number: whoever writes both in one transaction and goes on from there
//! after a kill counts nothing twice and leaves nothing out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::event::{Event, EventType, Maker, name};
use crate::limits::{TALLY_GAPS_MAX, TALLY_PAIRS_MAX};

/// What a rule of the pollen filter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleKind<'a> {
    /// Its category, such as `pii` or `secret`.
    pub category: &'a str,
    /// Its severity: low, medium, high or critical.
    pub severity: &'a str,
}

impl RuleKind<'_> {
    /// Whether what it finds is a threat by itself: a secret that opens something.
    #[must_use]
    pub fn is_threat(self) -> bool {
        self.category == "secret" && self.severity == "critical"
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    findings: u64,
    lines: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Service {
    all: Count,
    rules: BTreeMap<String, Count>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Gap {
    at: Timestamp,
    source: String,
    reason: &'static str,
    bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The last record that was seen.
    place: Option<u64>,
    /// The one before the first that is counted here.
    behind: Option<u64>,
    span: Option<(Timestamp, Timestamp)>,
    services: BTreeMap<String, Service>,
    pairs: usize,
    gaps: Vec<Gap>,
    gaps_left_out: u64,
    lost_records: u64,
    skipped_records: u64,
}

impl Tally {
    /// One that goes on behind this record.
    #[must_use]
    pub fn behind(place: Option<u64>) -> Tally {
        Tally { place, behind: place, ..Tally::default() }
    }

    /// Whether a record was counted already.
    #[must_use]
    pub fn has_seen(&self, place: u64) -> bool {
        self.place.is_some_and(|last| place <= last)
    }

    /// The journal goes on behind this record, whatever was counted before.
    pub fn start_from(&mut self, place: u64) {
        self.place = Some(place);
    }

    /// A line that had something taken out.
    pub fn line(&mut self, at: Timestamp, service: &str, findings: &[(&str, u64)]) {
        let service_name = name(service);
        let service = match self.services.get_mut(service_name) {
            Some(service) => service,
            None => {
                self.pairs += 1;
                self.services.entry(service_name.to_owned()).or_default()
            }
        };
        service.all.lines += 1;
        for (index, (rule, count)) in findings.iter().enumerate() {
            let rule_name = name(rule);
            service.all.findings += count;
            // A line may name a rule more than once.
            let is_again = findings.iter().take(index).any(|(before, _)| before == rule);
            let found = match service.rules.get_mut(rule_name) {
                Some(found) => found,
                None => {
                    self.pairs += 1;
                    service.rules.entry(rule_name.to_owned()).or_default()
                }
            };
            found.findings += count;
            found.lines += u64::from(!is_again);
        }
        self.met(at);
    }

    /// Lines that are missing.
    pub fn gap(&mut self, at: Timestamp, source: &str, reason: &'static str, bytes: u64) {
        self.met(at);
        if self.gaps.len() >= TALLY_GAPS_MAX {
            self.gaps_left_out += 1;
            return;
        }
        self.gaps.push(Gap { at, source: name(source).to_owned(), reason, bytes });
    }

    fn met(&mut self, at: Timestamp) {
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
    }

    /// Everything up to this record was shown, with so many that are lost.
    pub fn pass(&mut self, place: u64, lost_records: u64) {
        self.place = Some(self.place.map_or(place, |last| last.max(place)));
        self.lost_records += lost_records;
    }

    /// A record that could not be counted, because what was counted before it could not be written down.
    pub fn skip(&mut self, place: u64) {
        self.pass(place, 0);
        self.skipped_records += 1;
    }

    /// The last record that was seen.
    #[must_use]
    pub fn place(&self) -> Option<u64> {
        self.place
    }

    /// Whether it has to be taken before more is counted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pairs >= TALLY_PAIRS_MAX || self.gaps.len() >= TALLY_GAPS_MAX
    }

    /// The events of what was counted, and where that ends; counting begins anew. None when nothing was seen.
    pub fn take<'a>(
        &mut self,
        now: Timestamp,
        maker: &Maker,
        kind_of: impl Fn(&str) -> Option<RuleKind<'a>>,
    ) -> Option<(Vec<Event>, u64)> {
        let place = self.place.filter(|place| Some(*place) != self.behind)?;
        let taken = std::mem::replace(self, Tally::behind(Some(place)));
        let window =
            format!("{}-{place}", taken.behind.map_or("start".to_owned(), |behind| behind.to_string()));
        let (first, last) = taken.span.unwrap_or((now, now));
        let span = [("first_at", Value::from(first.to_string())), ("last_at", Value::from(last.to_string()))];
        let mut events = Vec::with_capacity(taken.pairs);
        for (service, counted) in &taken.services {
            let together = maker.id(&["sanitized", &window, service]);
            let payload = [
                ("service", Value::from(service.as_str())),
                ("lines", counted.all.lines.into()),
                ("count", counted.all.findings.into()),
            ];
            let payload = payload.into_iter().chain(span.clone());
            let event = maker.event(EventType::LogSanitized, together.clone(), last, "collector", payload);
            events.push(event.correlated(&together));
            for (rule, count) in &counted.rules {
                let kind = kind_of(rule);
                let payload = || {
                    let about = [
                        ("service", Value::from(service.as_str())),
                        ("rule", Value::from(rule.as_str())),
                        ("category", kind.map_or(Value::Null, |kind| kind.category.into())),
                        ("severity", kind.map_or(Value::Null, |kind| kind.severity.into())),
                        ("lines", count.lines.into()),
                        ("count", count.findings.into()),
                    ];
                    about.into_iter().chain(span.clone())
                };
                let id = maker.id(&["pii", &window, service, rule]);
                let event = maker.event(EventType::PiiDetected, id, last, "collector", payload());
                events.push(event.correlated(&together));
                if kind.is_some_and(RuleKind::is_threat) {
                    let payload = [("kind", Value::from("secret"))].into_iter().chain(payload());
                    let id = maker.id(&["threat", &window, service, rule]);
                    let event = maker.event(EventType::ThreatDetected, id, last, "collector", payload);
                    events.push(event.correlated(&together));
                }
            }
        }
        for (number, gap) in taken.gaps.iter().enumerate() {
            let payload = [
                ("kind", Value::from("gap")),
                ("origin", Value::from(gap.source.as_str())),
                ("reason", Value::from(gap.reason)),
                ("bytes", gap.bytes.into()),
            ];
            let id = maker.id(&["gap", &window, &number.to_string()]);
            events.push(maker.event(EventType::SystemAlert, id, gap.at, "collector", payload));
        }
        for (kind, count) in [
            ("gaps_left_out", taken.gaps_left_out),
            ("records_lost", taken.lost_records),
            ("records_not_counted", taken.skipped_records),
        ] {
            if count > 0 {
                let payload = [("kind", Value::from(kind)), ("count", count.into())];
                let id = maker.id(&[kind, &window]);
                events.push(maker.event(EventType::SystemAlert, id, now, "collector", payload));
            }
        }
        Some((events, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn kinds(rule: &str) -> Option<RuleKind<'static>> {
        match rule {
            "email" => Some(RuleKind { category: "pii", severity: "medium" }),
            "aws_secret" => Some(RuleKind { category: "secret", severity: "critical" }),
            _ => None,
        }
    }

    fn maker() -> Maker {
        Maker::new("s".to_owned(), "1")
    }

    /// A few words about each event: type, service or kind, rule, lines, count.
    fn told(events: &[Event]) -> Vec<String> {
        let text = |event: &Event, name: &str| {
            event.payload.get(name).map_or(String::new(), |value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
        };
        let words = |event: &Event| {
            let parts = ["kind", "service", "rule", "lines", "count", "reason"].map(|name| text(event, name));
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            format!("{} {}", event.kind, parts.join(" "))
        };
        events.iter().map(words).collect()
    }

    #[test]
    fn findings_become_one_event_per_service_and_rule_and_a_critical_secret_is_a_threat() {
        let mut tally = Tally::behind(Some(4));
        tally.line(at(10), "web", &[("email", 2), ("own_rule", 1)]);
        tally.line(at(11), "web", &[("email", 1)]);
        tally.line(at(12), "db", &[("aws_secret", 1)]);
        tally.pass(5, 0);
        let (events, place) = tally.take(at(20), &maker(), kinds).unwrap();
        assert_eq!(place, 5);
        assert_eq!(
            told(&events),
            [
                "observability.log.sanitized db 1 1",
                "observability.pii.detected db aws_secret 1 1",
                "threat.detected secret db aws_secret 1 1",
                "observability.log.sanitized web 2 4",
                "observability.pii.detected web email 2 3",
                "observability.pii.detected web own_rule 1 1",
            ]
        );
        assert!(events.iter().all(|event| event.timestamp == at(12)));
        let web: Vec<_> = events.iter().filter(|event| event.payload["service"] == "web").collect();
        assert!(web.iter().all(|event| event.correlation_id == web[0].correlation_id));
        assert!(tally.take(at(21), &maker(), kinds).is_none(), "counting began anew");
    }

    #[test]
    fn what_is_missing_is_told_one_by_one_and_with_how_many_more() {
        let mut tally = Tally::behind(None);
        for _ in 0..TALLY_GAPS_MAX + 2 {
            tally.gap(at(1), "docker:x", "rotated", 10);
        }
        assert!(tally.is_full());
        tally.pass(9, 3);
        tally.skip(10);
        let (events, place) = tally.take(at(20), &maker(), kinds).unwrap();
        assert_eq!((events.len(), place), (TALLY_GAPS_MAX + 3, 10));
        assert_eq!(
            told(&events[TALLY_GAPS_MAX - 1..]),
            [
                "system.alert gap rotated",
                "system.alert gaps_left_out 2",
                "system.alert records_lost 3",
                "system.alert records_not_counted 1"
            ]
        );
        let mut ids: Vec<_> = events.iter().map(|event| &event.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), events.len());
    }

    #[test]
    fn records_that_were_seen_are_known_and_a_place_without_findings_is_told_too() {
        let mut tally = Tally::behind(Some(4));
        assert!(tally.has_seen(4) && !tally.has_seen(5));
        tally.pass(7, 0);
        assert_eq!(tally.take(at(1), &maker(), kinds), Some((Vec::new(), 7)));
        assert_eq!(tally.take(at(1), &maker(), kinds), None);
    }

    #[test]
    fn the_same_records_make_the_same_ids_and_others_make_others() {
        let ids = |behind, place| {
            let mut tally = Tally::behind(Some(behind));
            tally.line(at(1), "web", &[("email", 1)]);
            tally.pass(place, 0);
            let (events, _) = tally.take(at(2), &maker(), kinds).unwrap();
            events.into_iter().map(|event| event.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(1, 2), ids(1, 2));
        assert!(ids(1, 2).iter().all(|id| !ids(2, 3).contains(id)));
    }

    #[test]
    fn a_tally_of_many_services_is_full() {
        let mut tally = Tally::behind(None);
        for n in 0..TALLY_PAIRS_MAX / 2 {
            assert!(!tally.is_full());
            tally.line(at(1), &format!("service-{n}"), &[("email", 1)]);
        }
        assert!(tally.is_full());
    }
}
