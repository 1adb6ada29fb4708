//! Rule files in Prometheus' shape, read with every fault at once and where it stands.
//!
//! ```yaml
//! groups:
//!   - name: leaks
//!     interval: 1m
//!     rules:
//!       - alert: PiiLeakRate
//!         sql: |
//!           SELECT service, count(*) AS value FROM redactions
//!           WHERE timestamp > $at - INTERVAL '5 minutes' GROUP BY service HAVING count(*) > 100
//!         for: 2m
//!         labels: {severity: high}
//!         annotations: {summary: "{{ $labels.service }} leaks: {{ $value }} in 5 minutes"}
//!       - alert: CardNumbers
//!         stream: {count: redaction, of: payment_card, window: 1m, at_least: 5}
//!       - record: service:lines:5m
//!         sql: SELECT service, count(*) AS value FROM logs WHERE timestamp > $at - INTERVAL '5 minutes' GROUP BY service
//! ```
//!
//! What a rule looks at is one of:
//! - `sql`: every row is an alert; its column `value` is the number, its other columns are labels. `$at` stands for the
//!   moment of the evaluation, and a query that says it can be caught up after a pause;
//! - `stream`: a count over what flows by, within a window, per service ([`crate::stream`]);
//! - `expr` is Prometheus' and Loki's own; it is refused with a word about it until LogQL can be evaluated.
//!
//! Beside Prometheus' keys a rule has `no_data` and `on_error`: `ok`, `keep` or `alert`. The defaults are Prometheus' meaning:
//! no rows are no alert, and an error leaves everything as it is.

mod sql;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

pub use sql::SqlQuery;

use crate::labels::{ALERTNAME, Labels};
use crate::limits::{ALERTS_PER_RULE_MAX, INTERVAL_DEFAULT, INTERVAL_MIN, RULES_PER_FILE_MAX, SQL_BYTES_MAX};
use crate::stream::StreamCount;
use crate::template::Template;
pub use crate::yaml::{Fault, Place};
use crate::yaml::{Faults, Node, Taker};

/// A rule file that is right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleFile {
    /// Its groups.
    pub groups: Vec<Group>,
    /// Where each rule stands, by its id.
    pub places: BTreeMap<String, Place>,
}

/// Rules that are evaluated together, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name, unique in the file.
    pub name: String,
    /// How often its rules are evaluated, where the file says so.
    pub interval: Option<Duration>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Group {
    /// How often its rules are evaluated in a server.
    #[must_use]
    pub fn every(&self) -> Duration {
        self.interval.unwrap_or(INTERVAL_DEFAULT)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// It makes alerts.
    Alert(AlertRule),
    /// It makes a series.
    Record(RecordRule),
}

impl Rule {
    /// What names the rule for ever.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Rule::Alert(rule) => &rule.id,
            Rule::Record(rule) => &rule.id,
        }
    }

    /// Its query, if it asks one.
    #[must_use]
    pub fn query(&self) -> Option<&SqlQuery> {
        match self {
            Rule::Alert(AlertRule { source: RuleSource::Sql(query), .. })
            | Rule::Record(RecordRule { query, .. }) => Some(query),
            Rule::Alert(_) => None,
        }
    }
}

/// A rule that makes alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRule {
    /// Names the rule for ever: its group, its name, and its number among those of that name.
    pub id: String,
    /// The value of the label `alertname`.
    pub name: String,
    /// What it looks at.
    pub source: RuleSource,
    /// How long a row has to be there before its alert fires.
    pub hold: Duration,
    /// How long an alert fires on when its row is gone.
    pub keep_firing_for: Duration,
    /// Labels of its alerts besides those of the row.
    pub labels: Vec<(String, Template)>,
    /// Texts of its alerts.
    pub annotations: Vec<(String, Template)>,
    /// The alerts it may have.
    pub limit: usize,
    /// What no rows mean.
    pub no_data: WhenMissing,
    /// What an error means.
    pub on_error: WhenMissing,
}

/// A rule that makes a series.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRule {
    /// Names the rule for ever.
    pub id: String,
    /// The name of the series.
    pub name: String,
    /// What it records.
    pub query: SqlQuery,
    /// Labels besides those of the row.
    pub labels: Labels,
    /// The series it may have.
    pub limit: usize,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleSource {
    /// What is stored.
    Sql(SqlQuery),
    /// What flows by.
    Stream(StreamCount),
}

/// What a missing answer means for the alerts of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenMissing {
    /// That all is well.
    Ok,
    /// Nothing: they stay as they are.
    Keep,
    /// It is an alert itself, with the label `reason`.
    Alert,
}

/// All faults of one rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFileError {
    /// In the order of their places.
    pub faults: Vec<Fault>,
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleFileError {}

impl RuleFile {
    /// Reads a rule file.
    ///
    /// # Errors
    ///
    /// With all faults of the file; of a file that is no YAML, with the first.
    ///
    /// ```
    /// use beeacon_alerts::rules::RuleFile;
    ///
    /// let error = RuleFile::read("groups:\n- name: a\n  rules:\n  - alert: B\n    fro: 5m\n").unwrap_err();
    /// assert!(error.to_string().starts_with("4:5: the rule says neither"));
    /// assert!(error.to_string().contains("5:5: unknown key `fro`"));
    /// ```
    pub fn read(text: &str) -> Result<RuleFile, RuleFileError> {
        let root = crate::yaml::read(text).map_err(|faults| RuleFileError { faults })?;
        let mut faults = Faults::default();
        let file = read_file(root, &mut faults);
        let faults = faults.finish();
        if faults.is_empty() { Ok(file) } else { Err(RuleFileError { faults }) }
    }

    /// Every rule with its group.
    pub fn rules(&self) -> impl Iterator<Item = (&Group, &Rule)> {
        self.groups.iter().flat_map(|group| group.rules.iter().map(move |rule| (group, rule)))
    }
}

fn read_file(root: Node, faults: &mut Faults) -> RuleFile {
    let Some(mut root) = Taker::new(root, "the file", faults) else { return RuleFile::default() };
    let mut names = BTreeSet::new();
    let (mut groups, mut places) = (Vec::new(), BTreeMap::new());
    let place = root.place;
    for node in root.list("groups", faults).unwrap_or_default() {
        let place = node.place;
        let Some(group) = read_group(node, &mut places, faults) else { continue };
        if !names.insert(group.name.clone()) {
            faults.add(place, format!("the group `{}` is there twice", group.name));
        }
        groups.push(group);
    }
    root.finish(&["groups"], faults);
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    if rules > RULES_PER_FILE_MAX {
        faults.add(place, format!("the file has {rules} rules, the limit is {RULES_PER_FILE_MAX}"));
    }
    RuleFile { groups, places }
}

const GROUP_KEYS: [&str; 5] = ["name", "interval", "limit", "labels", "rules"];

fn read_group(node: Node, places: &mut BTreeMap<String, Place>, faults: &mut Faults) -> Option<Group> {
    let mut taker = Taker::new(node, "a group", faults)?;
    let place = taker.place;
    let name = taker.text("name", faults).map(|(_, name)| name).unwrap_or_default();
    if name.is_empty() {
        faults.add(place, "the group has no `name`");
    }
    let interval = taker.duration("interval", faults);
    if interval.is_some_and(|interval| interval < INTERVAL_MIN) {
        faults.add(place, format!("`interval` is at least {}s", INTERVAL_MIN.as_secs()));
    }
    let limit = match taker.count("limit", faults) {
        None | Some(0) => ALERTS_PER_RULE_MAX,
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    if limit > ALERTS_PER_RULE_MAX {
        faults.add(place, format!("`limit` is at most {ALERTS_PER_RULE_MAX}"));
    }
    let labels = taker.text_map("labels", faults);
    let mut rules = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for node in taker.list("rules", faults).unwrap_or_default() {
        let (context, place) = (Context { group: &name, labels: &labels, limit }, node.place);
        if let Some(rule) = read_rule(node, context, &mut seen, faults) {
            places.insert(rule.id().to_owned(), place);
            rules.push(rule);
        }
    }
    taker.finish(&GROUP_KEYS, faults);
    Some(Group { name, interval, rules })
}

/// What a rule has from its group.
#[derive(Clone, Copy)]
struct Context<'a> {
    group: &'a str,
    labels: &'a [(Place, String, String)],
    limit: usize,
}

const RULE_KEYS: [&str; 11] = [
    "alert",
    "record",
    "sql",
    "stream",
    "expr",
    "for",
    "keep_firing_for",
    "labels",
    "annotations",
    "no_data",
    "on_error",
];

fn read_rule(
    node: Node,
    context: Context<'_>,
    seen: &mut BTreeMap<String, usize>,
    faults: &mut Faults,
) -> Option<Rule> {
    let mut taker = Taker::new(node, "a rule", faults)?;
    let place = taker.place;
    let alert = taker.text("alert", faults);
    let record = taker.text("record", faults);
    let source = read_source(&mut taker, faults);
    let hold = taker.duration("for", faults);
    let keep_firing_for = taker.duration("keep_firing_for", faults);
    let own_labels = taker.text_map("labels", faults);
    let annotations = taker.text_map("annotations", faults);
    let no_data = read_missing(&mut taker, "no_data", faults);
    let on_error = read_missing(&mut taker, "on_error", faults);
    taker.finish(&RULE_KEYS, faults);
    let mut labels: Vec<_> = context
        .labels
        .iter()
        .filter(|(_, name, _)| own_labels.iter().all(|(_, own, _)| own != name))
        .cloned()
        .collect();
    labels.extend(own_labels);
    check_label_names(&labels, faults);

    let mut id = |name: &str| {
        let count = seen.entry(name.to_owned()).or_default();
        *count += 1;
        if *count == 1 {
            format!("{}/{name}", context.group)
        } else {
            format!("{}/{name}#{count}", context.group)
        }
    };
    match (alert, record) {
        (Some((place, name)), None) => {
            if name.is_empty() {
                faults.add(place, "`alert` is empty");
            }
            Some(Rule::Alert(AlertRule {
                id: id(&name),
                name,
                source: source?,
                hold: hold.unwrap_or_default(),
                keep_firing_for: keep_firing_for.unwrap_or_default(),
                labels: templates(labels, faults),
                annotations: templates(annotations, faults),
                limit: context.limit,
                no_data: no_data.unwrap_or(WhenMissing::Ok),
                on_error: on_error.unwrap_or(WhenMissing::Keep),
            }))
        }
        (None, Some((name_place, name))) => {
            check_record(
                place,
                (name_place, &name),
                [
                    hold.is_some(),
                    keep_firing_for.is_some(),
                    !annotations.is_empty(),
                    no_data.is_some(),
                    on_error.is_some(),
                ],
                faults,
            );
            let query = match source? {
                RuleSource::Sql(query) => query,
                RuleSource::Stream(_) => {
                    faults.add(place, "a record rule has `sql`: a stream is counted for alerts only");
                    return None;
                }
            };
            let labels = labels.into_iter().map(|(_, name, value)| (name, value)).collect();
            Some(Rule::Record(RecordRule { id: id(&name), name, query, labels, limit: context.limit }))
        }
        (Some(_), Some(_)) => {
            faults.add(place, "a rule is either `alert` or `record`, not both");
            None
        }
        (None, None) => {
            faults.add(place, "the rule says neither `alert` nor `record`");
            None
        }
    }
}

fn check_record(place: Place, name: (Place, &str), alert_keys: [bool; 5], faults: &mut Faults) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    if name.1.is_empty() || !name.1.chars().all(is_part) || name.1.starts_with(|c: char| c.is_ascii_digit()) {
        faults.add(name.0, "`record` is a series name: letters, digits, `_` and `:`, no digit first");
    }
    for (is_there, key) in
        alert_keys.into_iter().zip(["for", "keep_firing_for", "annotations", "no_data", "on_error"])
    {
        if is_there {
            faults.add(place, format!("a record rule has no `{key}`"));
        }
    }
}

fn read_source(taker: &mut Taker, faults: &mut Faults) -> Option<RuleSource> {
    let place = taker.place;
    let sql = taker.text("sql", faults);
    let stream = taker.node("stream");
    let expr = taker.node("expr");
    match (sql, stream, expr) {
        (Some((place, text)), None, None) => match SqlQuery::read(&text) {
            Ok(query) => Some(RuleSource::Sql(query)),
            Err(error) => {
                faults.add(place, error.to_string());
                None
            }
        },
        (None, Some(node), None) => crate::stream::read(node, faults).map(RuleSource::Stream),
        (None, None, Some(node)) => {
            faults.add(
                node.place,
                "`expr` (PromQL or LogQL) cannot be evaluated yet: say the same with `sql` or `stream`",
            );
            None
        }
        (None, None, None) => {
            faults.add(place, "the rule says neither `sql` nor `stream`");
            None
        }
        _ => {
            faults.add(place, "a rule has one of `sql`, `stream` and `expr`");
            None
        }
    }
}

fn read_missing(taker: &mut Taker, key: &str, faults: &mut Faults) -> Option<WhenMissing> {
    let (place, text) = taker.text(key, faults)?;
    match text.as_str() {
        "ok" => Some(WhenMissing::Ok),
        "keep" => Some(WhenMissing::Keep),
        "alert" => Some(WhenMissing::Alert),
        _ => {
            faults.add(place, format!("`{key}` is ok, keep or alert"));
            None
        }
    }
}

fn check_label_names(labels: &[(Place, String, String)], faults: &mut Faults) {
    for (place, name, _) in labels {
        if name == ALERTNAME || name == "__name__" {
            faults.add(*place, format!("the label `{name}` is set by the rule's name"));
        } else if name.is_empty() {
            faults.add(*place, "a label has a name");
        }
    }
}

fn templates(texts: Vec<(Place, String, String)>, faults: &mut Faults) -> Vec<(String, Template)> {
    texts
        .into_iter()
        .filter_map(|(place, name, text)| match Template::read(&text) {
            Ok(template) => Some((name, template)),
            Err(error) => {
                faults.add(place, format!("`{name}`: {error}"));
                None
            }
        })
        .collect()
}

const _: () = assert!(SQL_BYTES_MAX < crate::limits::RULE_FILE_BYTES_MAX);
