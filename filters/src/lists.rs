//! Values that are always redacted, and values that never are.
//!
//! What always holds: an exception is for a value as a whole; a secret of which an excepted value is a part is redacted.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::error::{RuleFault, RulesError};
use crate::key::Key;
use crate::limits::{DENIED_BYTES_MIN, DENIED_VALUES_MAX, LITERALS_PER_RULE_MAX};
use crate::pattern::Pattern;
use crate::rule::{Normalise, Rule, RuleFile};

/// Values that are not redacted: the support address, the card number of the documentation.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    rules: Vec<String>,
    digests: HashSet<[u8; 32]>,
    tokens: HashSet<String>,
}

impl Allow {
    /// Exceptions from the rules of these ids, or from all rules when none is named: values as they stand, SHA-256 digests of values
    /// in hexadecimal, and tokens as keyed hashes write them (`v1:abc...`), which name a value without showing it.
    ///
    /// # Errors
    /// With every fault found.
    pub fn new(
        rules: &[String],
        values: &[String],
        sha256: &[String],
        tokens: &[String],
    ) -> Result<Allow, RulesError> {
        let mut faults = Vec::new();
        let mut allow = Allow { rules: rules.to_vec(), ..Allow::default() };
        if values.is_empty() && sha256.is_empty() && tokens.is_empty() {
            faults.push(RuleFault::new("allow", "names no value", "give `values`, `sha256` or `tokens`"));
        }
        for (index, value) in values.iter().enumerate() {
            if value.is_empty() {
                faults.push(RuleFault::new(
                    "allow",
                    format!("entry {index} of `values` is empty"),
                    "leave it out",
                ));
            }
            allow.digests.insert(Sha256::digest(value.as_bytes()).into());
        }
        for (index, text) in sha256.iter().enumerate() {
            match unhex(text) {
                Some(digest) => {
                    allow.digests.insert(digest);
                }
                None => {
                    let reason = format!("entry {index} of `sha256` is not 64 hexadecimal digits");
                    faults.push(RuleFault::new(
                        "allow",
                        reason,
                        "write what `printf %s VALUE | sha256sum` prints",
                    ));
                }
            }
        }
        for (index, token) in tokens.iter().enumerate() {
            let bare = token.trim_matches(['<', '>']);
            let from = bare.find(":v").map_or(0, |at| at + 1);
            let bare = bare.get(from..).unwrap_or("");
            if !bare.starts_with('v') || !bare.contains(':') {
                let reason = format!("entry {index} of `tokens` is no token");
                faults.push(RuleFault::new(
                    "allow",
                    reason,
                    "write it as it stands in a log, <EMAIL:v1:...>",
                ));
            }
            allow.tokens.insert(bare.to_owned());
        }
        if faults.is_empty() { Ok(allow) } else { Err(RulesError(faults)) }
    }

    /// The rules that are named and do not exist, as faults.
    pub(crate) fn unknown(&self, exists: impl Fn(&str) -> bool) -> Vec<RuleFault> {
        let unknown = self.rules.iter().filter(|rule| !exists(rule));
        unknown
            .map(|rule| {
                RuleFault::new(
                    "allow",
                    format!("names the rule {rule}, which does not exist"),
                    "see the list of rules",
                )
            })
            .collect()
    }

    /// Whether a value that the rule found stays.
    pub(crate) fn spares(
        &self,
        rule: &str,
        marker: &str,
        normalise: Normalise,
        keys: &[Key],
        value: &[u8],
    ) -> bool {
        if !self.rules.is_empty() && !self.rules.iter().any(|named| named == rule) {
            return false;
        }
        let digest: [u8; 32] = Sha256::digest(value).into();
        self.digests.contains(&digest)
            || !self.tokens.is_empty()
                && keys.iter().any(|key| {
                    let token = key.token(marker, &normalise.apply(value));
                    let token =
                        token.map(|token| format!("v{}:{}", key.version(), String::from_utf8_lossy(&token)));
                    token.is_some_and(|token| self.tokens.contains(&token))
                })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Rules that find these values wherever they stand.
pub(crate) fn denied(values: &[String]) -> Result<Vec<Rule>, RulesError> {
    let mut faults = Vec::new();
    if values.len() > DENIED_VALUES_MAX {
        let reason = format!("has {} values, allowed are {DENIED_VALUES_MAX}", values.len());
        faults.push(RuleFault::new("deny", reason, "give many secrets as known secrets"));
    }
    for (index, value) in values.iter().enumerate() {
        if value.len() < DENIED_BYTES_MIN || value.contains('\n') {
            let reason = format!("entry {index} is not one line of at least {DENIED_BYTES_MIN} bytes");
            faults.push(RuleFault::new(
                "deny",
                reason,
                "shorter text stands everywhere: write a rule with its context",
            ));
        }
    }
    if !faults.is_empty() {
        return Err(RulesError(faults));
    }
    let mut sorted: Vec<&String> = values.iter().collect();
    // Of two values of which one begins the other the longer is tried first.
    sorted.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    sorted.dedup();
    let mut rules = Vec::new();
    for (number, part) in sorted.chunks(LITERALS_PER_RULE_MAX.min(16)).enumerate() {
        let text = format!(
            "[[rule]]\nid = 'denied_{number}'\ncategory = 'denied'\ndescription = 'Values that are always redacted'\npattern = 'x'\nmarker = 'DENIED'\nprecedence = 2\nfinds = [['x', 'x']]\nspares = ['y']\n"
        );
        let mut rule = RuleFile::read("deny", &text)?.rules().first().cloned();
        if let Some(rule) = &mut rule {
            let texts: Vec<String> = part.iter().map(|value| regex_syntax::escape(value)).collect();
            rule.pattern = texts.join("|");
            rule.examples.finds = part.iter().map(|value| ((*value).clone(), (*value).clone())).collect();
            Pattern::check(rule).map_err(|_| {
                // The pattern is made of the values: what is wrong with it must not be printed.
                RulesError(vec![RuleFault::new(
                    "deny",
                    "values make no pattern",
                    "leave out what is no text",
                )])
            })?;
        }
        rules.extend(rule);
    }
    Ok(rules)
}
