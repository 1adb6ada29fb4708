//! The rules and profiles that come with the program, as the files of `rules/` and `profiles/`.

use std::sync::OnceLock;

use crate::error::RulesError;
use crate::profile::Profile;
use crate::rule::{Rule, RuleFile};

const RULES: &[(&str, &str)] = &[
    ("rules/contact.toml", include_str!("../rules/contact.toml")),
    ("rules/network.toml", include_str!("../rules/network.toml")),
    ("rules/national_us.toml", include_str!("../rules/national_us.toml")),
    ("rules/health.toml", include_str!("../rules/health.toml")),
    ("rules/national_europe.toml", include_str!("../rules/national_europe.toml")),
    ("rules/national_world.toml", include_str!("../rules/national_world.toml")),
    ("rules/phone.toml", include_str!("../rules/phone.toml")),
    ("rules/alone.toml", include_str!("../rules/alone.toml")),
    ("rules/financial.toml", include_str!("../rules/financial.toml")),
    ("rules/tokens_chat.toml", include_str!("../rules/tokens_chat.toml")),
    ("rules/tokens_cloud.toml", include_str!("../rules/tokens_cloud.toml")),
    ("rules/tokens_code.toml", include_str!("../rules/tokens_code.toml")),
    ("rules/tokens_payment.toml", include_str!("../rules/tokens_payment.toml")),
    ("rules/keys.toml", include_str!("../rules/keys.toml")),
    ("rules/tokens_ai.toml", include_str!("../rules/tokens_ai.toml")),
    ("rules/tokens_ci.toml", include_str!("../rules/tokens_ci.toml")),
    ("rules/tokens_mail.toml", include_str!("../rules/tokens_mail.toml")),
    ("rules/tokens_monitoring.toml", include_str!("../rules/tokens_monitoring.toml")),
    ("rules/tokens_named_chat.toml", include_str!("../rules/tokens_named_chat.toml")),
    ("rules/tokens_named_cloud.toml", include_str!("../rules/tokens_named_cloud.toml")),
    ("rules/tokens_named_code.toml", include_str!("../rules/tokens_named_code.toml")),
    ("rules/tokens_named_payment.toml", include_str!("../rules/tokens_named_payment.toml")),
    ("rules/credentials.toml", include_str!("../rules/credentials.toml")),
];

const PROFILES: [(&str, &str); 7] = [
    ("profiles/default.toml", include_str!("../profiles/default.toml")),
    ("profiles/secrets.toml", include_str!("../profiles/secrets.toml")),
    ("profiles/gdpr.toml", include_str!("../profiles/gdpr.toml")),
    ("profiles/ccpa.toml", include_str!("../profiles/ccpa.toml")),
    ("profiles/hipaa.toml", include_str!("../profiles/hipaa.toml")),
    ("profiles/pci_dss.toml", include_str!("../profiles/pci_dss.toml")),
    ("profiles/soc2.toml", include_str!("../profiles/soc2.toml")),
];

/// The rule in whose name the lines of a private key are redacted that is printed over several lines.
pub(crate) const PRIVATE_KEY: &str = "private_key";

/// Every built-in rule.
///
/// # Errors
/// Never in a program whose tests ran.
pub fn rules() -> Result<Vec<Rule>, RulesError> {
    // The files are part of the program: they are read once, whatever the number of engines.
    static READ: OnceLock<Result<Vec<Rule>, RulesError>> = OnceLock::new();
    let read = || {
        let mut rules = Vec::new();
        for (name, text) in RULES {
            rules.extend(RuleFile::read(name, text)?.rules().iter().cloned());
        }
        Ok(rules)
    };
    READ.get_or_init(read).clone()
}

/// Every built-in profile.
///
/// # Errors
/// Never in a program whose tests ran.
pub fn profiles() -> Result<Vec<Profile>, RulesError> {
    PROFILES.iter().map(|(name, text)| Profile::parse(name, text)).collect()
}
