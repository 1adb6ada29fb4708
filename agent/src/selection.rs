//! Which containers are read and how, by configuration and by their labels.
//!
//! Labels of a container are hints of whoever runs it: `beeacon.enable`, `beeacon.service`, `beeacon.multiline`,
//! `beeacon.sample`, `beeacon.rate`, `beeacon.profile`. They can make less of it, never more: a sample or a rate above the host's
//! has no effect, a container that the host excludes stays excluded, and a profile is one that the host offers, which is never
//! weaker than its own.

use std::time::Duration;

use beeacon_filters::PROFILE_LABEL;

use crate::container::Container;
use crate::limits::GROUP_WAIT;
use crate::multiline::{Grouping, GroupingError};
use crate::picking::Picks;
use crate::shaping::{MILLION, Shaping};
use crate::timestamp::LineTime;

/// A pattern over names: `*` is any run of characters, `?` any one.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut place) = (0, 0);
    // The last star and where the text stood then: only that one is ever tried again, so this is at most quadratic.
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || Some(wanted) == text.get(place) => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star_at, star_place)) = star else { return false };
                star = Some((star_at, star_place + 1));
                at = star_at + 1;
                place = star_place + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or(&[]).iter().all(|rest| *rest == '*')
}

/// One condition on a container.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Name,
    Image,
    Driver,
    Label(String),
}

/// A condition such as `name:shop-*`, `image:nginx:*`, `driver:local`, `label:team=pay*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    what: What,
    pattern: String,
}

/// A text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("got \"{text}\", wanted name:<glob>, image:<glob>, driver:<glob>, label:<key> or label:<key>=<glob>")]
pub struct ConditionError {
    text: String,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let bad = || ConditionError { text: text.to_owned() };
        let (what, pattern) =
            text.split_once(':').filter(|(_, pattern)| !pattern.is_empty()).ok_or_else(bad)?;
        let (what, pattern) = match what {
            "name" => (What::Name, pattern),
            "image" => (What::Image, pattern),
            "driver" => (What::Driver, pattern),
            "label" => {
                let (key, pattern) = pattern.split_once('=').unwrap_or((pattern, "*"));
                (What::Label(key.to_owned()), pattern)
            }
            _ => return Err(bad()),
        };
        Ok(Condition { what, pattern: pattern.to_owned() })
    }

    fn holds(&self, container: &Container) -> bool {
        match &self.what {
            What::Name => glob(&self.pattern, &container.name),
            What::Image => glob(&self.pattern, &container.image),
            What::Driver => glob(&self.pattern, &container.driver),
            What::Label(key) => {
                container.labels.iter().any(|(name, value)| name == key && glob(&self.pattern, value))
            }
        }
    }
}

/// What the host's configuration says about containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Only containers that meet one of these are read; all without any.
    pub include: Vec<Condition>,
    /// Containers that meet one of these are not read.
    pub exclude: Vec<Condition>,
    /// Conditions and the grouping of those that meet them; the first one counts.
    pub multiline: Vec<(Condition, Option<Grouping>)>,
    /// Conditions and where the lines of those that meet them have their time; the first one counts.
    pub timestamp: Vec<(Condition, Option<LineTime>)>,
    /// Conditions and which fields of the lines of those that meet them become attributes; the first one counts.
    pub attributes: Vec<(Condition, Option<Picks>)>,
    /// The longest time between two lines of a group, 1 s by default.
    pub multiline_wait: Duration,
    /// How many of a million rows are kept; all by default.
    pub sample_millionths: u32,
    /// The most lines per second of one container; no limit by default.
    pub rate: Option<u32>,
    /// Whether labels of containers count.
    pub ignores_hints: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Selection {
            include: Vec::new(),
            exclude: Vec::new(),
            multiline: Vec::new(),
            timestamp: Vec::new(),
            attributes: Vec::new(),
            multiline_wait: GROUP_WAIT,
            sample_millionths: MILLION,
            rate: None,
            ignores_hints: false,
        }
    }
}

/// How one container's lines are treated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Treatment {
    /// Which lines are joined.
    pub grouping: Option<Grouping>,
    /// Where lines have their time.
    pub line_time: Option<LineTime>,
    /// Which of their fields become attributes.
    pub picks: Option<Picks>,
    /// Which rows are left out.
    pub shaping: Shaping,
}

/// A hint that is not understood; the container's owner is told by a log line, and the host's configuration counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// Of grouping.
    #[error("label beeacon.multiline")]
    Multiline(#[from] GroupingError),
    /// Of the share of rows.
    #[error("label beeacon.sample, wanted 0 to 1")]
    Sample,
    /// Of lines per second.
    #[error("label beeacon.rate, wanted lines per second, 1 to 4294967295")]
    Rate,
}

impl Selection {
    /// Whether a container is read.
    pub fn takes(&self, container: &Container) -> bool {
        let meets = |conditions: &[Condition]| conditions.iter().any(|condition| condition.holds(container));
        let is_wanted = self.include.is_empty() || meets(&self.include);
        let is_enabled = self.hint(container, "beeacon.enable").is_none_or(|value| value != "false");
        is_wanted && is_enabled && !meets(&self.exclude)
    }

    fn hint<'a>(&self, container: &'a Container, label: &str) -> Option<&'a str> {
        if self.ignores_hints {
            return None;
        }
        container.labels.iter().find(|(key, _)| key == label).map(|(_, value)| value.trim())
    }

    /// The service that a container's label names.
    pub fn service<'a>(&self, container: &'a Container) -> Option<&'a str> {
        self.hint(container, "beeacon.service").filter(|service| !service.is_empty())
    }

    /// The profile that a container's label asks for.
    pub fn profile<'a>(&self, container: &'a Container) -> Option<&'a str> {
        self.hint(container, PROFILE_LABEL).filter(|profile| !profile.is_empty())
    }

    /// How a container's lines are treated, and which hints were not understood.
    pub fn treatment(&self, container: &Container) -> (Treatment, Vec<HintError>) {
        let mut errors = Vec::new();
        let mut grouping = first(&self.multiline, container);
        if let Some(text) = self.hint(container, "beeacon.multiline") {
            match Grouping::parse(text) {
                Ok(hinted) => grouping = hinted,
                Err(error) => errors.push(error.into()),
            }
        }
        let mut sample = self.sample_millionths;
        if let Some(text) = self.hint(container, "beeacon.sample") {
            match millionths(text) {
                Some(hinted) => sample = sample.min(hinted),
                None => errors.push(HintError::Sample),
            }
        }
        let mut rate = self.rate;
        if let Some(text) = self.hint(container, "beeacon.rate") {
            match text.parse::<u32>().ok().filter(|rate| *rate > 0) {
                Some(hinted) => rate = Some(rate.map_or(hinted, |own| own.min(hinted))),
                None => errors.push(HintError::Rate),
            }
        }
        let treatment = Treatment {
            grouping,
            line_time: first(&self.timestamp, container),
            picks: first(&self.attributes, container),
            shaping: Shaping::new(sample, rate),
        };
        (treatment, errors)
    }
}

/// What the first condition says that a container meets.
fn first<T: Clone>(rules: &[(Condition, Option<T>)], container: &Container) -> Option<T> {
    rules.iter().find(|(condition, _)| condition.holds(container)).and_then(|(_, what)| what.clone())
}

/// A share from 0 to 1, in millionths.
fn millionths(text: &str) -> Option<u32> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share))?;
    format!("{:.0}", share * 1e6).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multiline::Preset;

    fn container(labels: &[(&str, &str)]) -> Container {
        Container {
            name: "shop-web-1".into(),
            image: "shop/web:2".into(),
            driver: "json-file".into(),
            labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ..Container::default()
        }
    }

    fn conditions(texts: &[&str]) -> Vec<Condition> {
        texts.iter().map(|text| Condition::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_glob_matches_whole_names() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("?", "", false),
            ("*-web-*", "shop-web-1", true),
            ("a*b*c", "a-b-b-c", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
        assert!(!glob(&"*a".repeat(50), &"a".repeat(40)));
    }

    #[test]
    fn containers_are_chosen_by_name_image_driver_and_label() {
        let web = container(&[("team", "pay")]);
        for (include, exclude, takes) in [
            (vec![], vec![], true),
            (vec!["name:shop-*"], vec![], true),
            (vec!["name:bar-*", "image:shop/*"], vec![], true),
            (vec!["name:bar-*"], vec![], false),
            (vec![], vec!["label:team=p*"], false),
            (vec![], vec!["label:team"], false),
            (vec!["driver:json-file"], vec!["driver:local"], true),
            (vec!["name:*"], vec!["image:*:2"], false),
        ] {
            let selection = Selection {
                include: conditions(&include),
                exclude: conditions(&exclude),
                ..Selection::default()
            };
            assert_eq!(selection.takes(&web), takes, "{include:?} {exclude:?}");
        }
        for bad in ["", "name", "name:", "colour:x"] {
            assert!(Condition::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hints_make_less_and_never_more() {
        let host = Selection { sample_millionths: 500_000, rate: Some(100), ..Selection::default() };
        let of = |labels: &[(&str, &str)]| host.treatment(&container(labels)).0.shaping;
        assert_eq!(of(&[("beeacon.sample", "0.9"), ("beeacon.rate", "1000000000")]), of(&[]));
        assert_eq!(of(&[("beeacon.sample", "0.1")]), Shaping::new(100_000, Some(100)));
        let excluded = Selection { exclude: conditions(&["name:*"]), ..Selection::default() };
        assert!(!excluded.takes(&container(&[("beeacon.enable", "true")])));
        assert!(!Selection::default().takes(&container(&[("beeacon.enable", "false")])));
        let deaf = Selection { ignores_hints: true, ..Selection::default() };
        assert!(deaf.takes(&container(&[("beeacon.enable", "false")])));
        let (treatment, errors) = host.treatment(&container(&[
            ("beeacon.sample", "lots"),
            ("beeacon.multiline", "perl"),
            ("beeacon.rate", "0"),
        ]));
        assert_eq!((treatment.shaping, errors.len()), (of(&[]), 3));
    }

    #[test]
    fn lines_are_joined_as_the_label_says_else_as_the_first_rule_that_fits() {
        let rule = |condition: &str, grouping: &str| {
            (Condition::parse(condition).unwrap(), Grouping::parse(grouping).unwrap())
        };
        let host = Selection {
            multiline: vec![rule("name:bar", "go"), rule("image:shop/*", "java"), rule("name:*", "python")],
            ..Selection::default()
        };
        let grouping = |labels: &[(&str, &str)]| host.treatment(&container(labels)).0.grouping;
        assert_eq!(grouping(&[]), Some(Grouping::Preset(Preset::Java)));
        assert_eq!(grouping(&[("beeacon.multiline", "rust")]), Some(Grouping::Preset(Preset::Rust)));
        assert_eq!(grouping(&[("beeacon.multiline", "none")]), None);
        assert_eq!(host.service(&container(&[("beeacon.service", "till")])), Some("till"));
    }
}
