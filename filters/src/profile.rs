//! A profile as data: which rules run, and what happens to their findings.
//!
//! ```toml
//! name = "support"
//! description = "The default, with joinable addresses"
//! inherits = "default"        # optional
//!
//! [[use]]                     # applied in order, later ones win
//! categories = ["pii"]        # rules of these categories,
//! rules = ["email"]           # and these; `rules = ["*"]` is all of them
//! action = "hash"             # left out: each rule's own
//! ```
//!
//! A rule that no `use` names does not run. A user's own rules run in every profile with their own action unless it says otherwise.

use serde::Deserialize;

use crate::action::Action;
use crate::error::{RuleFault, RulesError};
use crate::limits::{PROFILE_DEPTH_MAX, RULE_FILE_BYTES_MAX};
use crate::rule::Rule;

/// A profile read from a file.
#[derive(Clone, Debug)]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) description: String,
    inherits: Option<String>,
    uses: Vec<Use>,
}

#[derive(Clone, Debug)]
struct Use {
    rules: Vec<String>,
    categories: Vec<String>,
    action: Option<Action>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: String,
    description: String,
    inherits: Option<String>,
    #[serde(default, rename = "use")]
    uses: Vec<RawUse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUse {
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    action: Option<String>,
    #[serde(default)]
    keep_first: u8,
    #[serde(default)]
    keep_last: u8,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// With every fault found.
    pub fn parse(file: &str, text: &str) -> Result<Profile, RulesError> {
        if text.len() > RULE_FILE_BYTES_MAX {
            let reason = format!("file has {} bytes, allowed are {RULE_FILE_BYTES_MAX}", text.len());
            return Err(RulesError(vec![RuleFault::new(file, reason, "")]));
        }
        let raw: RawProfile = toml::from_str(text).map_err(|error| {
            RulesError(vec![RuleFault::new(
                file,
                format!("does not parse: {}", error.to_string().trim()),
                "",
            )])
        })?;
        let mut faults = Vec::new();
        let mut uses = Vec::new();
        for raw_use in raw.uses {
            let action = raw_use.action.as_deref().map(|name| {
                Action::parse(name, raw_use.keep_first, raw_use.keep_last).unwrap_or_else(|| {
                    let instead = format!("choose one of {}", Action::NAMES);
                    faults.push(RuleFault::new(&raw.name, format!("action {name} is not known"), instead));
                    Action::Marker
                })
            });
            uses.push(Use { rules: raw_use.rules, categories: raw_use.categories, action });
        }
        if uses.is_empty() && raw.inherits.is_none() {
            faults.push(RuleFault::new(&raw.name, "uses no rule", "write a [[use]] or `inherits`"));
        }
        if !faults.is_empty() {
            return Err(RulesError(faults));
        }
        Ok(Profile { name: raw.name, description: raw.description, inherits: raw.inherits, uses })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for, in a sentence.
    pub fn description(&self) -> &str {
        &self.description
    }
}

/// The action of each rule under the profile `name`; `None` where it does not run. `own` rules run unless switched off.
pub(crate) fn actions(
    name: &str,
    profiles: &[Profile],
    rules: &[Rule],
    own: impl Fn(usize) -> bool,
) -> Result<Vec<Option<Action>>, Vec<RuleFault>> {
    let mut chain = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(wanted) = next {
        let Some(profile) = profiles.iter().rev().find(|profile| profile.name == wanted) else {
            let known: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
            return Err(vec![RuleFault::new(
                &wanted,
                "there is no profile of this name",
                format!("choose one of {}", known.join(", ")),
            )]);
        };
        chain.push(profile);
        if chain.len() > PROFILE_DEPTH_MAX {
            let reason = format!("inherits through more than {PROFILE_DEPTH_MAX} profiles, or from itself");
            return Err(vec![RuleFault::new(name, reason, "inherit from a built-in profile")]);
        }
        next = profile.inherits.clone();
    }
    let mut faults = Vec::new();
    let mut actions: Vec<Option<Action>> =
        rules.iter().enumerate().map(|(index, rule)| own(index).then_some(rule.action)).collect();
    for profile in chain.iter().rev() {
        for entry in &profile.uses {
            for wanted in &entry.rules {
                if wanted != "*" && !rules.iter().any(|rule| rule.id == *wanted) {
                    let reason = format!("names the rule {wanted}, which does not exist");
                    faults.push(RuleFault::new(&profile.name, reason, "see the list of rules"));
                }
            }
            for wanted in &entry.categories {
                if !rules.iter().any(|rule| rule.category == *wanted) {
                    let reason = format!("names the category {wanted}, which no rule has");
                    faults.push(RuleFault::new(&profile.name, reason, "see the list of rules"));
                }
            }
            for (rule, slot) in rules.iter().zip(&mut actions) {
                let named = entry.rules.iter().any(|wanted| wanted == "*" || *wanted == rule.id)
                    || entry.categories.contains(&rule.category);
                if named {
                    *slot = Some(entry.action.unwrap_or(rule.action));
                }
            }
        }
    }
    for slot in &mut actions {
        *slot = slot.filter(|action| *action != Action::Off);
    }
    if faults.is_empty() { Ok(actions) } else { Err(faults) }
}
