//! A rule as data: the file format, and the resolved rule.
//!
//! ```toml
//! [[rule]]
//! id = "ticket"                      # [a-z][a-z0-9_]*
//! category = "internal"
//! description = "Ticket numbers of the support desk"
//! severity = "low"                   # low, medium, high, critical
//! pattern = 'TICKET-([0-9]{6})\b'    # ASCII, linear time: no look-around, no back-references
//! # or, instead of `pattern`: keywords = ["acme"] and value = '[a-z0-9]{32}', for a value that is assigned to a name
//! redact = "group"                   # "match" (default) or "group": only the capture group that took part
//! validator = "luhn"                 # optional
//! context = ["ticket", "case id"]    # optional: words of which one stands before the value, in lower case
//! context_required = true            # without one of them there is no match; false by default
//! strength = "weak"                  # strong (default), weak: random numbers pass often, so a field's other values may speak against it
//! normalise = "digits"               # none (default), lower, digits, compact: for keyed hashes
//! marker = "TICKET"                  # default: the id in upper case
//! precedence = 50                    # of two equal findings the lower number names it; 100 by default
//! window_bytes = 64                  # how far a match may reach; by default what the pattern can match, at most 4096
//! action = "mask"                    # default: marker
//! keep_last = 2
//! finds = [["see TICKET-123456", "123456"]]  # text, and the part that is redacted
//! spares = ["TICKET-12"]
//! ```
//!
//! How a rule is found fast is derived from its pattern. Built-in rules may say it (`[rule.anchor]`), because tests hold them to
//! the plain meaning of the pattern; a user's rule may not, because a wrong anchor would let text pass.

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::assignment::{self, ASSIGNMENT_WINDOW_BYTES};
use crate::checks::{self, Check};
use crate::error::{RuleFault, RulesError};
use crate::fields::nearest;
use crate::harmless;
use crate::limits::{
    CONTEXT_BYTES, CONTEXT_WORDS_MAX, LITERALS_PER_RULE_MAX, MARKER_NAME_BYTES_MAX, PATTERN_BYTES_MAX,
    RULE_FILE_BYTES_MAX, RULES_MAX, WINDOW_BYTES_MAX,
};
use crate::pattern::Pattern;

/// How bad it is when such a value gets out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Severity {
    Low,
    #[default]
    Medium,
    High,
    Critical,
}

/// Which part of a match is redacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redact {
    /// All of it.
    #[default]
    Match,
    /// The capture group that took part.
    Group,
}

/// How a value is brought to one form before it is hashed, so that two spellings of one value give one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// As it stands.
    #[default]
    None,
    /// ASCII letters in lower case.
    Lower,
    /// Digits only.
    Digits,
    /// Letters and digits only, in upper case.
    Compact,
}

/// What a match of a rule without context is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// It is what the rule says.
    #[default]
    Strong,
    /// Random numbers pass often. It is redacted, unless its field has shown that its values are random.
    Weak,
}

impl Normalise {
    pub(crate) fn apply(self, value: &[u8]) -> Vec<u8> {
        match self {
            Normalise::None => value.to_vec(),
            Normalise::Lower => value.to_ascii_lowercase(),
            Normalise::Digits => value.iter().filter(|byte| byte.is_ascii_digit()).copied().collect(),
            Normalise::Compact => {
                value.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase).collect()
            }
        }
    }
}

/// A rule's own cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// Text, and the part of it that is redacted.
    pub finds: Vec<(String, String)>,
    /// Text in which the rule finds nothing.
    pub spares: Vec<String>,
}

/// How a built-in rule says that it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnchorSpec {
    /// Texts of which one is in every match.
    #[serde(default)]
    pub(crate) literals: Vec<String>,
    /// Whether ASCII case matters in them.
    #[serde(default)]
    pub(crate) ignore_case: bool,
    /// A pattern whose beginning stands in every match: a joint that a look-back starts from.
    #[serde(default)]
    pub(crate) shape: Option<String>,
    /// How far before the literal or shape a match may start, in bytes.
    #[serde(default)]
    pub(crate) back_bytes: usize,
    /// Which bytes stand between start and anchor: a class such as `[a-z0-9]`.
    #[serde(default)]
    pub(crate) through: String,
}

/// A rule, read and checked as far as it can be alone.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) id: String,
    pub(crate) category: String,
    pub(crate) description: String,
    pub(crate) severity: Severity,
    pub(crate) pattern: String,
    /// Whether the pattern, and how it is found, were made from keywords and a value.
    pub(crate) is_assignment: bool,
    pub(crate) redact: Redact,
    pub(crate) validator: Option<(String, Check)>,
    pub(crate) context: Vec<String>,
    pub(crate) context_required: bool,
    pub(crate) strength: Strength,
    pub(crate) normalise: Normalise,
    pub(crate) marker: String,
    pub(crate) precedence: u32,
    pub(crate) window_bytes: Option<usize>,
    pub(crate) action: Action,
    pub(crate) anchor: Option<AnchorSpec>,
    pub(crate) examples: Examples,
}

impl Rule {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What kind of thing it finds.
    pub fn category(&self) -> &str {
        &self.category
    }

    /// What it finds, in a sentence.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// How bad it is when such a value gets out.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The regular expression.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The validator's name.
    pub fn validator(&self) -> Option<&str> {
        self.validator.as_ref().map(|(name, _)| name.as_str())
    }

    /// Words of which one stands before a value.
    pub fn context(&self) -> &[String] {
        &self.context
    }

    /// Whether there is no match without one of them.
    pub fn context_required(&self) -> bool {
        self.context_required
    }

    /// What a match without context is worth.
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// What happens to its findings where no profile says otherwise.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Its own cases.
    pub fn examples(&self) -> &Examples {
        &self.examples
    }
}

/// Rules read from one file.
///
/// ```
/// use beeacon_filters::RuleFile;
/// let file = RuleFile::parse("mine.toml", r#"
/// [[rule]]
/// id = "ticket"
/// category = "internal"
/// description = "Ticket numbers"
/// pattern = 'TICKET-[0-9]{6}\b'
/// finds = [["see TICKET-123456", "TICKET-123456"]]
/// spares = ["TICKET-12"]
/// "#).unwrap();
/// assert_eq!(file.rules()[0].id(), "ticket");
/// let faults = RuleFile::parse("mine.toml", "[[rule]]\nid = 'x'\npattern = '(?<=a)b'").unwrap_err();
/// assert!(faults.to_string().contains("missing field"));
/// ```
#[derive(Clone, Debug)]
pub struct RuleFile {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: String,
    category: String,
    description: String,
    #[serde(default)]
    severity: Severity,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    keywords: Vec<String>,
    value: Option<String>,
    #[serde(default)]
    redact: Redact,
    validator: Option<String>,
    #[serde(default)]
    context: Vec<String>,
    #[serde(default)]
    context_required: bool,
    #[serde(default)]
    strength: Strength,
    #[serde(default)]
    normalise: Normalise,
    marker: Option<String>,
    precedence: Option<u32>,
    window_bytes: Option<usize>,
    action: Option<String>,
    #[serde(default)]
    keep_first: u8,
    #[serde(default)]
    keep_last: u8,
    anchor: Option<AnchorSpec>,
    #[serde(default)]
    finds: Vec<Vec<String>>,
    #[serde(default)]
    spares: Vec<String>,
}

/// What a rule may say.
const RULE_KEYS: [&str; 22] = [
    "id",
    "category",
    "description",
    "severity",
    "pattern",
    "keywords",
    "value",
    "redact",
    "validator",
    "context",
    "context_required",
    "strength",
    "normalise",
    "marker",
    "precedence",
    "window_bytes",
    "action",
    "keep_first",
    "keep_last",
    "anchor",
    "finds",
    "spares",
];

impl RuleFile {
    /// Reads a user's rules.
    ///
    /// # Errors
    /// With every fault found: which rule, why, and what to write instead.
    pub fn parse(name: &str, text: &str) -> Result<RuleFile, RulesError> {
        RuleFile::read_from(name, text, Author::User)
    }

    /// Reads rules of the library, which may say how they are found.
    pub(crate) fn read(name: &str, text: &str) -> Result<RuleFile, RulesError> {
        RuleFile::read_from(name, text, Author::Library)
    }

    fn read_from(name: &str, text: &str, author: Author) -> Result<RuleFile, RulesError> {
        if text.len() > RULE_FILE_BYTES_MAX {
            let reason = format!("file has {} bytes, allowed are {RULE_FILE_BYTES_MAX}", text.len());
            return Err(RulesError(vec![RuleFault::new(name, reason, "split it into several files")]));
        }
        let mut faults = Vec::new();
        let raw = raw_rules(name, text, &mut faults);
        if faults.is_empty() && (raw.is_empty() || raw.len() > RULES_MAX) {
            let reason = format!("file has {} rules, allowed are 1 to {RULES_MAX}", raw.len());
            faults.push(RuleFault::new(name, reason, "write at least one [[rule]]"));
        }
        for (index, rule) in raw.iter().enumerate() {
            if raw.iter().take(index).any(|earlier| earlier.id == rule.id) {
                let reason = "id stands twice in one file";
                faults.push(RuleFault::new(&rule.id, reason, "give each rule its own id"));
            }
        }
        let rules = raw.into_iter().filter_map(|raw| resolve(raw, author, &mut faults)).collect();
        if faults.is_empty() { Ok(RuleFile { rules }) } else { Err(RulesError(faults)) }
    }

    /// The rules, in the file's order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// Who wrote a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Author {
    Library,
    User,
}

/// A file whose rules are looked at one by one, because they do not all fit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LooseFile {
    #[serde(default)]
    rule: Vec<toml::Spanned<toml::Table>>,
}

/// The rules of a file, and a fault for each that is none.
fn raw_rules(name: &str, text: &str, faults: &mut Vec<RuleFault>) -> Vec<RawRule> {
    let error = match toml::from_str::<RawFile>(text) {
        Ok(raw) => return raw.rule,
        Err(error) => error,
    };
    let Ok(file) = toml::from_str::<LooseFile>(text) else {
        faults.push(RuleFault::new(name, format!("does not parse: {}", error.to_string().trim()), ""));
        return Vec::new();
    };
    let mut rules = Vec::new();
    for spanned in file.rule {
        let line = 1 + text.bytes().take(spanned.span().start).filter(|byte| *byte == b'\n').count();
        let mut table = spanned.into_inner();
        let id = table.get("id").and_then(toml::Value::as_str);
        let subject = id.map_or_else(|| format!("{name} line {line}"), str::to_owned);
        table.retain(|key, _| {
            let known = RULE_KEYS.contains(&key);
            if !known {
                let reason = format!("unknown field `{key}`{}", nearest(key, RULE_KEYS.iter().copied()));
                faults.push(RuleFault::new(&subject, reason, "leave it out"));
            }
            known
        });
        match table.try_into() {
            Ok(rule) => rules.push(rule),
            Err(error) => {
                faults.push(RuleFault::new(&subject, format!("does not parse: {}", error.message()), ""));
            }
        }
    }
    rules
}

/// Turns keywords and a value into the pattern that they mean. Says whether there were any.
fn assign(raw: &mut RawRule, faults: &mut Vec<RuleFault>) -> bool {
    let Some(value) = &raw.value else {
        if !raw.keywords.is_empty() || raw.pattern.is_empty() {
            let reason = "has neither a pattern nor keywords and a value";
            faults.push(RuleFault::new(&raw.id, reason, "write `pattern`, or `keywords` and `value`"));
        }
        return false;
    };
    if !raw.pattern.is_empty() || raw.anchor.is_some() {
        let reason = "has a value and also a pattern or an anchor";
        faults.push(RuleFault::new(&raw.id, reason, "write `pattern`, or `keywords` and `value`"));
    }
    match (Pattern::syntax(&raw.id, "value", value), assignment::pattern(&raw.keywords, value)) {
        (Err(fault), _) => faults.push(fault),
        (Ok(_), Ok(pattern)) => raw.pattern = pattern,
        (Ok(_), Err(reason)) => {
            faults.push(RuleFault::new(
                &raw.id,
                reason,
                "write keywords = [\"acme\"], value = '[a-z0-9]{32}'",
            ));
        }
    }
    raw.redact = Redact::Group;
    raw.window_bytes = raw.window_bytes.or(Some(ASSIGNMENT_WINDOW_BYTES));
    let literals = raw.keywords.clone();
    raw.anchor = Some(AnchorSpec { literals, ignore_case: true, ..AnchorSpec::default() });
    true
}

fn resolve(mut raw: RawRule, author: Author, faults: &mut Vec<RuleFault>) -> Option<Rule> {
    let before = faults.len();
    if author == Author::User && raw.anchor.is_some() {
        faults.push(RuleFault::new(&raw.id, "says how it is found", "leave `anchor` out: it is derived"));
    }
    let is_assignment = assign(&mut raw, faults);
    let mut fault = |reason: String, instead: &str| faults.push(RuleFault::new(&raw.id, reason, instead));
    let name_fits = |name: &str, upper: bool| {
        let letter = |byte: u8| if upper { byte.is_ascii_uppercase() } else { byte.is_ascii_lowercase() };
        name.len() <= MARKER_NAME_BYTES_MAX
            && name.bytes().next().is_some_and(letter)
            && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit() || byte == b'_')
    };
    if !name_fits(&raw.id, false) {
        fault("id is not a name".into(), "write small letters, digits and _, at most 40, a letter first");
    }
    let marker = raw.marker.clone().unwrap_or_else(|| raw.id.to_ascii_uppercase());
    if !name_fits(&marker, true) {
        fault("marker is not a name".into(), "write capitals, digits and _, at most 40, a capital first");
    }
    if raw.pattern.len() > PATTERN_BYTES_MAX {
        let reason = format!("pattern has {} bytes, allowed are {PATTERN_BYTES_MAX}", raw.pattern.len());
        fault(reason, "split it into several rules");
    }
    if raw.finds.is_empty() || raw.spares.is_empty() {
        fault("has no examples".into(), "give at least one `finds` and one `spares`");
    }
    let mut finds = Vec::new();
    for pair in &raw.finds {
        match pair.as_slice() {
            [text, part] if !part.is_empty() && text.contains(part.as_str()) => {
                finds.push((text.clone(), part.clone()));
            }
            _ => fault(
                "an entry of `finds` is not [text, part of it]".into(),
                "write [\"pin 1234\", \"1234\"]",
            ),
        }
    }
    let validator = raw.validator.clone().and_then(|name| match checks::by_name(&name) {
        Some(check) => Some((name, check)),
        None => {
            fault(format!("validator {name} is not known"), &format!("choose one of {}", checks::names()));
            None
        }
    });
    let word_fits = |word: &String| {
        !word.is_empty()
            && word.len() <= CONTEXT_BYTES
            && word.trim() == word
            && !word.contains("  ")
            && !word.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    if raw.context.len() > CONTEXT_WORDS_MAX || !raw.context.iter().all(word_fits) {
        let reason =
            format!("context is not at most {CONTEXT_WORDS_MAX} words of at most {CONTEXT_BYTES} bytes");
        fault(reason, "write small letters, one space between two words");
    }
    if raw.context_required && raw.context.is_empty() {
        fault("context is required and not named".into(), "name words in `context`");
    }
    let action = raw.action.as_deref().unwrap_or("marker");
    let action = Action::parse(action, raw.keep_first, raw.keep_last).unwrap_or_else(|| {
        fault(format!("action {action} is not known"), &format!("choose one of {}", Action::NAMES));
        Action::Marker
    });
    if raw.window_bytes.is_some_and(|bytes| bytes == 0 || bytes > WINDOW_BYTES_MAX) {
        fault(format!("window_bytes is not between 1 and {WINDOW_BYTES_MAX}"), "leave it out");
    }
    if raw.anchor.as_ref().is_some_and(|anchor| anchor.literals.len() > LITERALS_PER_RULE_MAX) {
        fault(format!("anchor has more than {LITERALS_PER_RULE_MAX} literals"), "choose shorter ones");
    }
    let rule = Rule {
        id: raw.id,
        category: raw.category,
        description: raw.description,
        severity: raw.severity,
        pattern: raw.pattern,
        is_assignment,
        redact: raw.redact,
        validator,
        context: raw.context,
        context_required: raw.context_required,
        strength: raw.strength,
        normalise: raw.normalise,
        marker,
        precedence: raw.precedence.unwrap_or(100),
        window_bytes: raw.window_bytes,
        action,
        anchor: raw.anchor,
        examples: Examples { finds, spares: raw.spares },
    };
    // A pattern is looked at whatever else is wrong with its rule, so that all is told at once.
    if !rule.pattern.is_empty() && rule.pattern.len() <= PATTERN_BYTES_MAX {
        let checked = Pattern::check(&rule).map(|_| ());
        let checked =
            if author == Author::User { checked.and_then(|()| harmless::check(&rule)) } else { checked };
        faults.extend(checked.err());
    }
    (faults.len() == before).then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_is_what_a_rule_is_read_with() {
        let error = toml::from_str::<RawRule>("nonsense = 1").err().unwrap().message().to_owned();
        let told: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(told, RULE_KEYS);
    }
}
