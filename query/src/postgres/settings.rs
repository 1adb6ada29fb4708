//! The settings of a session: what `SHOW`, `SET` and `current_setting` know.
//!
//! A client may set what changes nothing but its own convenience, or what is so already. Everything else is refused by name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::system::{OWNER, PUBLIC, SERVER_VERSION, SERVER_VERSION_NUMBER};

/// The longest `statement_timeout`, in milliseconds: that of PostgreSQL.
const TIMEOUT_MS_MAX: u64 = i32::MAX as u64;

/// The longest text of a setting that a client chooses, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// What one session has set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) user: String,
    pub(crate) application_name: String,
    /// `None` is no timeout but the room's own.
    pub(crate) statement_timeout: Option<Duration>,
    /// Whether this connection is within TLS.
    pub(crate) is_tls: bool,
    /// What the client has chosen, by the settings' names.
    pub(crate) chosen: BTreeMap<&'static str, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            user: OWNER.to_owned(),
            application_name: String::new(),
            statement_timeout: None,
            is_tls: false,
            chosen: BTreeMap::new(),
        }
    }
}

/// Why a setting was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingError {
    #[error("unrecognized configuration parameter \"{0}\"")]
    Unknown(String),
    #[error("parameter \"{name}\" is {value} here and cannot be changed")]
    Fixed { name: &'static str, value: String },
    #[error("invalid value for parameter \"{name}\": wanted {wanted}")]
    Value { name: &'static str, wanted: &'static str },
}

/// Settings with one value, and the values that mean the same.
const FIXED: &[(&str, &str, &[&str])] = &[
    ("server_version", SERVER_VERSION, &[]),
    ("server_version_num", SERVER_VERSION_NUMBER, &[]),
    ("server_encoding", "UTF8", &[]),
    ("client_encoding", "UTF8", &["utf-8", "unicode", "'utf8'"]),
    ("DateStyle", "ISO, MDY", &["iso", "iso, mdy", "iso, ymd", "iso, dmy", "iso,mdy"]),
    ("IntervalStyle", "postgres", &[]),
    ("TimeZone", "UTC", &["etc/utc", "gmt", "etc/gmt", "z", "0", "+00:00", "utc0"]),
    ("integer_datetimes", "on", &[]),
    ("standard_conforming_strings", "on", &["true", "1", "yes"]),
    ("escape_string_warning", "on", &["off"]),
    ("backslash_quote", "safe_encoding", &[]),
    ("bytea_output", "hex", &[]),
    (
        "search_path",
        PUBLIC,
        &[
            "public, pg_catalog",
            "pg_catalog, public",
            "\"$user\", public",
            "\"$user\",public",
            "pg_catalog",
            "",
        ],
    ),
    ("is_superuser", "off", &[]),
    ("in_hot_standby", "off", &[]),
    ("transaction_read_only", "on", &["true", "1", "yes"]),
    ("default_transaction_read_only", "on", &["true", "1", "yes"]),
    ("transaction_isolation", "read committed", &["repeatable read", "serializable", "read uncommitted"]),
    (
        "default_transaction_isolation",
        "read committed",
        &["repeatable read", "serializable", "read uncommitted"],
    ),
    ("transaction_deferrable", "off", &["on"]),
    ("extra_float_digits", "3", &["0", "1", "2"]),
    (
        "client_min_messages",
        "notice",
        &["warning", "error", "log", "info", "debug", "debug1", "panic", "fatal"],
    ),
    ("lock_timeout", "0", &["0ms"]),
    ("idle_in_transaction_session_timeout", "0", &["0ms"]),
    ("idle_session_timeout", "0", &["0ms"]),
    ("row_security", "on", &["off"]),
    ("synchronize_seqscans", "on", &["off"]),
    ("jit", "off", &["on"]),
    ("max_identifier_length", "63", &[]),
    ("max_index_keys", "32", &[]),
    ("block_size", "8192", &[]),
    ("lc_collate", "C.UTF-8", &[]),
    ("lc_ctype", "C.UTF-8", &[]),
    ("lc_messages", "C", &["en_us.utf-8", "c.utf-8"]),
    ("lc_monetary", "C", &["c.utf-8"]),
    ("lc_numeric", "C", &["c.utf-8"]),
    ("lc_time", "C", &["c.utf-8"]),
    ("scram_iterations", "4096", &[]),
    ("password_encryption", "scram-sha-256", &[]),
];

/// Those of them that mean nothing here, so that a client may choose among their values, and is told what it has chosen.
const CHOSEN: &[&str] = &[
    "escape_string_warning",
    "transaction_isolation",
    "default_transaction_isolation",
    "transaction_deferrable",
    "extra_float_digits",
    "client_min_messages",
    "row_security",
    "synchronize_seqscans",
    "jit",
];

/// What a client is told at its start.
pub(crate) const REPORTED: [&str; 13] = [
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
    "is_superuser",
    "in_hot_standby",
    "default_transaction_read_only",
    "session_authorization",
    "application_name",
];

impl Settings {
    /// The value of a setting; names know no case.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "application_name" => return Some(self.application_name.clone()),
            "session_authorization" | "role" => return Some(self.user.clone()),
            "ssl" => return Some(if self.is_tls { "on" } else { "off" }.to_owned()),
            "statement_timeout" => {
                return Some(
                    self.statement_timeout.map_or_else(|| "0".into(), |t| format!("{}ms", t.as_millis())),
                );
            }
            _ => {}
        }
        let fixed = FIXED.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name));
        fixed.map(|(known, value, _)| self.chosen.get(known).cloned().unwrap_or_else(|| (*value).to_owned()))
    }

    /// Sets a setting; `None` puts back the default.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), SettingError> {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "application_name" => {
                self.application_name =
                    value.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
                let end = self.application_name.floor_char_boundary(TEXT_BYTES_MAX);
                self.application_name.truncate(end);
                return Ok(());
            }
            "statement_timeout" => {
                self.statement_timeout = value.map(milliseconds).transpose()?.filter(|time| !time.is_zero());
                return Ok(());
            }
            "ssl" => {
                let is_so = value.is_none_or(|value| value.trim().eq_ignore_ascii_case(&self.known("ssl")));
                let fixed = || SettingError::Fixed { name: "ssl", value: self.known("ssl") };
                return if is_so { Ok(()) } else { Err(fixed()) };
            }
            _ => {}
        }
        let Some((known, fixed, same)) = FIXED.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name))
        else {
            return Err(SettingError::Unknown(name.chars().take(64).collect()));
        };
        let is_chosen = CHOSEN.contains(known);
        let spelled = |value: &str| match value.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" if is_chosen => "on".to_owned(),
            "false" | "no" if is_chosen => "off".to_owned(),
            other => other.to_owned(),
        };
        let fits = |value: &str| {
            let value = spelled(value);
            value.eq_ignore_ascii_case(fixed) || same.iter().any(|same| value.eq_ignore_ascii_case(same))
        };
        match value {
            None => {
                self.chosen.remove(known);
                Ok(())
            }
            Some(value) if fits(value) => {
                if is_chosen {
                    self.chosen.insert(known, spelled(value));
                }
                Ok(())
            }
            Some(_) => Err(SettingError::Fixed { name: known, value: (*fixed).to_owned() }),
        }
    }

    fn known(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    /// Every setting with its value, by name.
    pub(crate) fn all(&self) -> Vec<(&'static str, String)> {
        let own = ["application_name", "session_authorization", "ssl", "statement_timeout"];
        let names = FIXED.iter().map(|(name, ..)| *name).chain(own);
        let mut all: Vec<_> = names.filter_map(|name| Some((name, self.get(name)?))).collect();
        all.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        all
    }
}

/// The defaults, for `pg_settings`.
pub(crate) fn shown() -> Vec<(&'static str, String)> {
    Settings::default().all()
}

/// A time such as `5000`, `'5s'`, `'1 min'`.
fn milliseconds(text: &str) -> Result<Duration, SettingError> {
    let wanted = || SettingError::Value {
        name: "statement_timeout",
        wanted: "milliseconds, or a number with ms, s, min or h",
    };
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wanted()),
    };
    let amount: u64 = amount.parse().map_err(|_| wanted())?;
    let amount = amount.checked_mul(factor).filter(|amount| *amount <= TIMEOUT_MS_MAX).ok_or_else(wanted)?;
    Ok(Duration::from_millis(amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_nothing_can_be_set() {
        let mut settings = Settings::default();
        settings.set("TIMEZONE", Some("Etc/UTC")).unwrap();
        settings.set("extra_float_digits", Some("3")).unwrap();
        settings.set("application_name", Some("psql\u{1b}[2J")).unwrap();
        assert_eq!(settings.get("application_name").as_deref(), Some("psql[2J"));
        let zone = settings.set("timezone", Some("Europe/Berlin")).unwrap_err();
        assert_eq!(zone.to_string(), "parameter \"TimeZone\" is UTC here and cannot be changed");
        assert!(matches!(
            settings.set("transaction_read_only", Some("off")),
            Err(SettingError::Fixed { .. })
        ));
        assert!(matches!(settings.set("work_mem", Some("1GB")), Err(SettingError::Unknown(_))));
    }

    #[test]
    fn what_a_client_has_chosen_is_what_it_is_told() {
        let mut settings = Settings::default();
        for (name, value, shown) in [
            ("jit", "on", "on"),
            ("jit", "FALSE", "off"),
            ("row_security", "off", "off"),
            ("extra_float_digits", "1", "1"),
            ("transaction_isolation", "Repeatable Read", "repeatable read"),
            ("client_min_messages", "warning", "warning"),
        ] {
            settings.set(name, Some(value)).unwrap();
            assert_eq!(settings.get(name).as_deref(), Some(shown), "{name} = {value}");
        }
        settings.set("jit", Some("on")).unwrap();
        settings.set("jit", None).unwrap();
        assert_eq!(settings.get("jit").as_deref(), Some("off"));
        assert!(settings.set("jit", Some("perhaps")).is_err());
        for name in CHOSEN {
            assert!(FIXED.iter().any(|(known, ..)| known == name), "{name}");
        }
    }

    #[test]
    fn ssl_is_what_the_connection_is_and_cannot_be_chosen() {
        for (is_tls, is, is_not) in [(true, "on", "off"), (false, "off", "on")] {
            let mut settings = Settings { is_tls, ..Settings::default() };
            assert_eq!(settings.get("ssl").as_deref(), Some(is));
            assert!(settings.all().contains(&("ssl", is.to_owned())));
            settings.set("ssl", Some(is)).unwrap();
            assert!(matches!(
                settings.set("SSL", Some(is_not)),
                Err(SettingError::Fixed { name: "ssl", .. })
            ));
        }
    }

    #[test]
    fn a_timeout_is_a_time_and_zero_is_none() {
        let mut settings = Settings::default();
        for (text, shown) in
            [("250", "250ms"), ("'5s'", "bad"), ("5s", "5000ms"), ("1 min", "60000ms"), ("0", "0")]
        {
            match settings.set("statement_timeout", Some(text)) {
                Ok(()) => assert_eq!(settings.get("statement_timeout").as_deref(), Some(shown), "{text}"),
                Err(_) => assert_eq!(shown, "bad", "{text}"),
            }
        }
        assert!(settings.set("statement_timeout", Some("99999999999999h")).is_err());
    }

    #[test]
    fn what_a_client_is_told_at_its_start_is_known() {
        let settings = Settings::default();
        for name in REPORTED {
            assert!(settings.get(name).is_some(), "{name}");
        }
    }
}
