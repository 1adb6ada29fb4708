//! Where to push and as whom, checked once.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::push::FIXED_LABELS;
use crate::limits::{LOKI_LABELS_MAX, LOKI_PAUSE_MAX, LOKI_PAUSE_MIN, LOKI_PUSH_TIME_MAX};

/// Where Loki takes pushes, below its URL.
pub const PUSH_PATH: &str = "/loki/api/v1/push";

/// How the collector shows Loki who it is. Without `Debug` of its contents.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum LokiAuthentication {
    /// Not at all.
    #[default]
    None,
    /// With a name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// With a token.
    Bearer {
        /// The token.
        token: String,
    },
}

impl fmt::Debug for LokiAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LokiAuthentication::None => "None",
            LokiAuthentication::Basic { .. } => "Basic",
            LokiAuthentication::Bearer { .. } => "Bearer",
        })
    }
}

/// The Loki leg's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiOptions {
    /// Loki's URL, `http://` or `https://`, with or without [`PUSH_PATH`].
    pub url: String,
    /// The tenant for Loki's `X-Scope-OrgID`; none for a Loki without tenants.
    pub tenant: Option<String>,
    /// Who the collector is to Loki.
    pub authentication: LokiAuthentication,
    /// Labels added to every stream, such as `cluster`.
    pub labels: Vec<(String, String)>,
    /// A file of certificates to trust, instead of the system's.
    pub certificate_file: Option<PathBuf>,
    /// How long one push may take.
    pub push_time_max: Duration,
    /// The pause after a failed push; it doubles with each further one.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl LokiOptions {
    /// The defaults, for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        LokiOptions {
            url: url.into(),
            tenant: None,
            authentication: LokiAuthentication::None,
            labels: Vec::new(),
            certificate_file: None,
            push_time_max: LOKI_PUSH_TIME_MAX,
            pause_min: LOKI_PAUSE_MIN,
            pause_max: LOKI_PAUSE_MAX,
        }
    }

    /// Where to push.
    ///
    /// # Errors
    /// [`LokiOptionError::Url`].
    pub fn push_url(&self) -> Result<Uri, LokiOptionError> {
        let uri: Uri = self.url.parse().map_err(|_| LokiOptionError::Url)?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let plain_host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !is_web || !plain_host || uri.query().is_some() {
            return Err(LokiOptionError::Url);
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix(PUSH_PATH).unwrap_or(path);
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(format!("{path}{PUSH_PATH}").parse().map_err(|_| LokiOptionError::Url)?);
        Uri::from_parts(parts).map_err(|_| LokiOptionError::Url)
    }

    /// The `Authorization` header, marked as not to be shown.
    ///
    /// # Errors
    /// [`LokiOptionError::Header`].
    pub fn authorization(&self) -> Result<Option<HeaderValue>, LokiOptionError> {
        let text = match &self.authentication {
            LokiAuthentication::None => return Ok(None),
            LokiAuthentication::Basic { user, password } => {
                format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
            }
            LokiAuthentication::Bearer { token } => format!("Bearer {token}"),
        };
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| LokiOptionError::Header { option: "authentication" })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Checks the labels: names Loki takes, none of ours, no more than a stream may have.
    ///
    /// # Errors
    /// [`LokiOptionError::Label`] and [`LokiOptionError::Labels`].
    pub fn check_labels(&self) -> Result<(), LokiOptionError> {
        let limit = LOKI_LABELS_MAX - FIXED_LABELS.len();
        if self.labels.len() > limit {
            return Err(LokiOptionError::Labels { count: self.labels.len(), limit });
        }
        for (index, (name, value)) in self.labels.iter().enumerate() {
            let twice = self.labels.iter().take(index).any(|(earlier, _)| earlier == name);
            if !is_label_name(name) || FIXED_LABELS.contains(&name.as_str()) || twice || value.is_empty() {
                return Err(LokiOptionError::Label { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// Whether Loki takes this as a label's name.
fn is_label_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && !name.starts_with("__") && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A setting of the Loki leg that can't be used. Secrets are not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LokiOptionError {
    /// The URL.
    #[error("loki url is not http://host[:port][/path] or https://…, without user name and query")]
    Url,
    /// Something that becomes a header holds what a header can't.
    #[error("loki {option} holds a character that no header may have")]
    Header {
        /// Which option.
        option: &'static str,
    },
    /// A label.
    #[error(
        "loki label {name}: names are letters, digits and underscores, given once, none that the collector sets, \
         with a value"
    )]
    Label {
        /// Its name.
        name: String,
    },
    /// Too many labels.
    #[error("loki has {count} extra labels, allowed are {limit}")]
    Labels {
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The certificates.
    #[error("read certificates to trust for loki from {path}")]
    Certificates {
        /// From where.
        path: PathBuf,
    },
    /// rustls refused to be set up.
    #[error("set up tls for loki")]
    Tls,
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding, for basic authentication: too little for a dependency.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let character = BASE64.get(value as usize).copied().map_or('=', char::from);
            text.push(if digit <= chunk.len() { character } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_goes_below_the_url_whether_or_not_it_names_the_path() {
        let table = [
            ("http://loki:3100", Some("http://loki:3100/loki/api/v1/push")),
            ("http://loki:3100/", Some("http://loki:3100/loki/api/v1/push")),
            ("https://host/tenant-a", Some("https://host/tenant-a/loki/api/v1/push")),
            ("http://127.0.0.1:1/loki/api/v1/push", Some("http://127.0.0.1:1/loki/api/v1/push")),
            ("http://host/x/loki/api/v1/push/", Some("http://host/x/loki/api/v1/push")),
            ("loki:3100", None),
            ("ftp://loki", None),
            ("/loki", None),
            ("http://user:secret@loki", None),
            ("http://loki?a=b", None),
            ("", None),
        ];
        for (url, expected) in table {
            let push_url = LokiOptions::new(url).push_url().ok().map(|uri| uri.to_string());
            assert_eq!(push_url.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn secrets_reach_the_header_and_not_the_debug_text() {
        let mut options = LokiOptions::new("http://loki");
        for (authentication, expected) in [
            (
                LokiAuthentication::Basic { user: "a".into(), password: "bee5ecret".into() },
                "Basic YTpiZWU1ZWNyZXQ=",
            ),
            (LokiAuthentication::Bearer { token: "bee5ecret".into() }, "Bearer bee5ecret"),
        ] {
            options.authentication = authentication;
            let header = options.authorization().unwrap().unwrap();
            assert_eq!(header.to_str().unwrap(), expected);
            assert!(!format!("{options:?} {header:?}").contains("ecret"));
        }
        options.authentication = LokiAuthentication::Bearer { token: "bee5ecret\n".into() };
        assert!(!options.authorization().unwrap_err().to_string().contains("ecret"));
    }

    #[test]
    fn base64_is_right_for_every_length() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{ff}?>", "w78/Pg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn labels_that_loki_or_the_collector_would_not_take_are_refused_by_name() {
        let check = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            LokiOptions { labels, ..LokiOptions::new("http://loki") }.check_labels()
        };
        assert_eq!(check(&[("cluster", "a"), ("_zone2", "b")]), Ok(()));
        for name in ["", "2a", "a-b", "__a", "host", "service_name", "\u{e4}"] {
            assert_eq!(check(&[(name, "v")]), Err(LokiOptionError::Label { name: name.into() }));
        }
        assert!(check(&[("a", "1"), ("a", "2")]).is_err());
        assert!(check(&[("a", "")]).is_err());
        let many: Vec<String> = (0..13).map(|index| format!("l{index}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(check(&many), Err(LokiOptionError::Labels { count: 13, limit: 12 }));
    }
}
