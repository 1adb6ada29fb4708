//! The `[filter.known.vault]` section.

use std::path::PathBuf;
use std::time::Duration;

use beeacon_filters::limits::{KNOWN_BYTES_MAX, KNOWN_SECRETS_MAX};
use beeacon_settings::Section;
use http::Uri;
use zeroize::Zeroizing;

/// A HashiCorp Vault, or what speaks like one, and which of its secrets are looked for.
#[derive(Clone, PartialEq, Eq)]
pub struct VaultConfig {
    /// Where it is. `https` off loopback, for secrets come from there.
    pub address: String,
    /// Where its key-value engine of version 2 is mounted, `secret` by default.
    pub mount: String,
    /// Which secrets: those below a path that ends with `/`, and a single one otherwise; all by default.
    pub paths: Vec<String>,
    /// Whether nothing is shipped before its secrets are there; yes by default.
    pub required: bool,
    /// Who asks.
    pub login: VaultLogin,
    /// The namespace; none by default.
    pub namespace: Option<String>,
    /// A PEM file with the authorities that may sign its certificate; the system's by default.
    pub roots: Option<PathBuf>,
    /// How long one answer may take, 10 s by default.
    pub timeout: Duration,
    /// How often it is asked for changes, 1 m by default.
    pub refresh: Duration,
    /// How many secrets may be taken; more are a fault, and then none are.
    pub secrets_max: usize,
    /// How many bytes they may have together.
    pub bytes_max: usize,
}

/// How the agent says who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum VaultLogin {
    /// By a token.
    Token(Zeroizing<String>),
    /// By a token in a file, read again when it is refused.
    TokenFile(PathBuf),
    /// By AppRole.
    AppRole {
        /// Where the method is mounted, `approle` by default.
        mount: String,
        /// The role's id.
        role_id: String,
        /// A file with the secret id, read at each login.
        secret_id_file: PathBuf,
    },
}

/// Without the token.
impl std::fmt::Debug for VaultLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VaultLogin::Token(_) => f.write_str("Token"),
            VaultLogin::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
            VaultLogin::AppRole { mount, .. } => {
                f.debug_struct("AppRole").field("mount", mount).finish_non_exhaustive()
            }
        }
    }
}

impl std::fmt::Debug for VaultConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultConfig")
            .field("address", &self.address)
            .field("mount", &self.mount)
            .field("paths", &self.paths)
            .field("required", &self.required)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

impl VaultConfig {
    /// Reads the section; `None` when the file does not have it. Faults are noted in the document.
    pub fn read(section: &mut Section<'_>) -> Option<VaultConfig> {
        let range = |from, to| Duration::from_millis(from)..=Duration::from_secs(to);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let address = section.text("address", "");
        let token = section.optional_text("token").map(Zeroizing::new);
        let token_file = section.optional_text("token_file").map(PathBuf::from);
        let role_id = section.optional_text("role_id");
        let secret_id_file = section.optional_text("secret_id_file").map(PathBuf::from);
        let login_mount = section.text("approle_mount", "approle");
        let config = VaultConfig {
            address: address.trim_end_matches('/').to_owned(),
            mount: section.text("mount", "secret").trim_matches('/').to_owned(),
            paths: section.texts("paths"),
            required: section.boolean("required", true),
            login: VaultLogin::Token(Zeroizing::default()),
            namespace: section.optional_text("namespace"),
            roots: section.optional_text("roots").map(PathBuf::from),
            timeout: section.duration("timeout", Duration::from_secs(10), range(100, 60)),
            refresh: section.duration("refresh", Duration::from_secs(60), range(1000, 86_400)),
            secrets_max: count(section.integer("secrets_max", 10_000, 1..=KNOWN_SECRETS_MAX as u64)),
            bytes_max: count(section.bytes("bytes_max", 4 << 20, 1..=KNOWN_BYTES_MAX as u64)),
        };
        if !section.is_present() {
            return None;
        }
        if let Some(wrong) = address_fault(&config.address) {
            section.fault("address", wrong);
        }
        if config.mount.is_empty() {
            section
                .fault("mount", "is empty, wanted the path of a kv engine of version 2 such as \"secret\"");
        }
        let login = match (token, token_file, role_id, secret_id_file) {
            (Some(token), None, None, None) if token.is_empty() => {
                section.fault("token", "is empty");
                None
            }
            (Some(token), None, None, None) => Some(VaultLogin::Token(token)),
            (None, Some(path), None, None) => Some(VaultLogin::TokenFile(path)),
            (None, None, Some(role_id), Some(secret_id_file)) => {
                Some(VaultLogin::AppRole { mount: login_mount, role_id, secret_id_file })
            }
            _ => {
                let wanted = "wanted is one of token, token_file, or role_id with secret_id_file";
                section.fault("address", wanted);
                None
            }
        };
        Some(VaultConfig { login: login.unwrap_or(VaultLogin::Token(Zeroizing::default())), ..config })
    }
}

/// What is wrong with an address.
fn address_fault(address: &str) -> Option<String> {
    let wanted = "wanted https:// and a name, without a path";
    let Ok(uri) = address.parse::<Uri>() else { return Some(format!("got \"{address}\", {wanted}")) };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
    let names_a_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    match uri.scheme_str() {
        // What stands before an @ may be a secret.
        _ if names_a_user => Some(format!("holds a user, {wanted}")),
        Some("https") if !host.is_empty() && !has_path => None,
        Some("http") if is_loopback && !has_path => None,
        Some("http") if !has_path => {
            Some("secrets would travel in the clear: https is wanted off loopback".to_owned())
        }
        _ => Some(format!("got \"{address}\", {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use beeacon_settings::{Document, Nothing};

    use super::*;

    fn read(text: &str) -> Result<Option<VaultConfig>, String> {
        let document = Document::parse("b.toml", text, &Nothing);
        let mut root = document.root();
        let mut section = root.section("vault");
        let config = VaultConfig::read(&mut section);
        section.close();
        root.close();
        document.finish().map(|()| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn there_is_no_vault_without_its_section_and_every_key_is_read() {
        assert_eq!(read("").unwrap(), None);
        let text = "[vault]\naddress = \"https://vault:8200/\"\ntoken_file = \"/t\"\n";
        let config = read(text).unwrap().unwrap();
        assert_eq!((config.address.as_str(), config.mount.as_str()), ("https://vault:8200", "secret"));
        assert!(config.required && config.paths.is_empty());
        let text = "[vault]\naddress = \"http://127.0.0.1:8200\"\nmount = \"/kv/\"\npaths = [\"apps/\"]\n\
            required = false\nrole_id = \"r\"\nsecret_id_file = \"/s\"\napprole_mount = \"a\"\nnamespace = \"n\"\n\
            roots = \"/ca\"\ntimeout = \"1 s\"\nrefresh = \"5 s\"\nsecrets_max = 3\nbytes_max = \"1 KiB\"\n";
        let expected = VaultConfig {
            address: "http://127.0.0.1:8200".into(),
            mount: "kv".into(),
            paths: vec!["apps/".into()],
            required: false,
            login: VaultLogin::AppRole {
                mount: "a".into(),
                role_id: "r".into(),
                secret_id_file: "/s".into(),
            },
            namespace: Some("n".into()),
            roots: Some("/ca".into()),
            timeout: Duration::from_secs(1),
            refresh: Duration::from_secs(5),
            secrets_max: 3,
            bytes_max: 1024,
        };
        assert_eq!(read(text).unwrap().unwrap(), expected);
    }

    #[test]
    fn what_would_send_secrets_in_the_clear_or_has_no_single_login_is_refused_without_printing_a_token() {
        for (text, wanted) in [
            ("address = \"http://vault:8200\"\ntoken = \"synthetic-t\"\n", "https is wanted"),
            ("address = \"vault:8200\"\ntoken = \"synthetic-t\"\n", "vault.address: got"),
            ("address = \"https://u:synthetic-t@vault\"\ntoken_file = \"t\"\n", "holds a user"),
            ("address = \"https://v/v1\"\ntoken_file = \"t\"\n", "without a path"),
            ("address = \"https://v\"\n", "wanted is one of token"),
            ("address = \"https://v\"\ntoken = \"synthetic-t\"\nrole_id = \"r\"\n", "wanted is one of token"),
            ("address = \"https://v\"\nrole_id = \"r\"\n", "wanted is one of token"),
            ("address = \"https://v\"\ntoken = \"synthetic-t\"\nmout = \"kv\"\n", "did you mean \"mount\""),
            ("address = \"https://v\"\ntoken = \"synthetic-t\"\nrefresh = \"1 ms\"\n", "vault.refresh"),
        ] {
            let faults = read(&format!("[vault]\n{text}")).unwrap_err();
            assert!(faults.contains(wanted), "{text}: {faults}");
            assert!(!faults.contains("synthetic"), "{faults}");
        }
        let text = "[vault]\naddress = \"https://v\"\ntoken = \"synthetic-t\"\n";
        assert!(!format!("{:?}", read(text).unwrap()).contains("synthetic"));
    }
}
