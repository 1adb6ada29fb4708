//! The rules of several files as one set, in which every rule has an id of its own.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::limits::RULES_MAX;
use crate::rules::{Group, RuleFile};

/// Why files make no set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleSetError {
    /// Two files have a group of one name, so that their rules could not be told apart.
    #[error("the group `{group}` of {second} is in {first} already: give one of them another name")]
    Twice {
        /// The group.
        group: String,
        /// The file that has it.
        first: String,
        /// The file that has it, too.
        second: String,
    },
    /// There are too many.
    #[error("there are {rules} rules, the limit is {RULES_MAX}")]
    Many {
        /// How many.
        rules: usize,
    },
}

/// Rules to be evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    groups: Vec<(String, Group)>,
}

impl RuleSet {
    /// The set of some files, each with the name that users know it by.
    ///
    /// # Errors
    /// When two files have a group of one name, or there are too many rules.
    ///
    /// ```
    /// use beeacon_alerts::rules::RuleFile;
    /// use beeacon_alerts::runner::RuleSet;
    ///
    /// let text = "groups: [{name: g, rules: [{alert: A, sql: SELECT 1 AS value}]}]";
    /// let file = || RuleFile::read(text).unwrap();
    /// assert_eq!(RuleSet::of([("a.yaml".to_owned(), file())]).unwrap().len(), 1);
    /// assert!(RuleSet::of([("a.yaml".to_owned(), file()), ("b.yaml".to_owned(), file())]).is_err());
    /// ```
    pub fn of(files: impl IntoIterator<Item = (String, RuleFile)>) -> Result<RuleSet, RuleSetError> {
        let mut groups = Vec::new();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (name, file) in files {
            for group in file.groups {
                if let Some(first) = seen.insert(group.name.clone(), name.clone()) {
                    return Err(RuleSetError::Twice { group: group.name, first, second: name });
                }
                groups.push((name.clone(), group));
            }
        }
        let set = RuleSet { groups };
        if set.len() > RULES_MAX {
            return Err(RuleSetError::Many { rules: set.len() });
        }
        Ok(set)
    }

    /// The groups, each with its file.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(file, group)| (file.as_str(), group))
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.iter().map(|(_, group)| group.rules.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
