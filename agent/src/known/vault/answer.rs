//! What a Vault's answers say. Pure: bytes in, values out, and nothing of them in an error.

use std::collections::BTreeMap;
use std::time::Duration;

use beeacon_filters::KnownSecret;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::limits::VAULT_DEPTH_MAX;

/// The answer is not what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Malformed> {
    // The error itself would quote the body.
    serde_json::from_slice(body).map_err(|_| Malformed)
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// The names in a folder: those of folders end with a slash.
pub(super) fn names(body: &[u8]) -> Result<Vec<String>, Malformed> {
    #[derive(Deserialize)]
    struct Keys {
        keys: Vec<String>,
    }
    let names = parsed::<Data<Keys>>(body)?.data.keys;
    let is_name = |name: &String| {
        let name = name.strip_suffix('/').unwrap_or(name);
        !name.is_empty() && name != "." && name != ".." && !name.contains('/')
    };
    if names.iter().all(is_name) { Ok(names) } else { Err(Malformed) }
}

/// A secret's current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) number: u64,
    /// It can be read: it is there and not destroyed.
    pub(super) is_readable: bool,
    /// It is deleted, or is going to be: only its data says which.
    pub(super) has_end: bool,
}

#[derive(Deserialize)]
struct RawVersion {
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// What the metadata of a secret says.
pub(super) fn version(body: &[u8]) -> Result<Version, Malformed> {
    #[derive(Deserialize)]
    struct Metadata {
        current_version: u64,
        #[serde(default)]
        versions: BTreeMap<String, RawVersion>,
    }
    let metadata = parsed::<Data<Metadata>>(body)?.data;
    let current = metadata.versions.get(&metadata.current_version.to_string());
    let is_readable = metadata.current_version > 0 && current.is_none_or(|version| !version.destroyed);
    let has_end = current.is_some_and(|version| !version.deletion_time.is_empty());
    Ok(Version { number: metadata.current_version, is_readable, has_end })
}

/// The values of a secret, by `path/field`, and their version.
pub(super) fn secrets(
    body: &[u8],
    path: &str,
    source: u32,
) -> Result<(Version, Vec<KnownSecret>), Malformed> {
    #[derive(Deserialize)]
    struct Metadata {
        version: u64,
        #[serde(default)]
        destroyed: bool,
    }
    #[derive(Deserialize)]
    struct Content {
        data: Option<Value>,
        metadata: Metadata,
    }
    let Content { data, metadata } = parsed::<Data<Content>>(body)?.data;
    let is_readable = !metadata.destroyed && data.is_some();
    let mut secrets = Vec::new();
    if let Some(data) = data {
        let is_object = data.is_object();
        // Whatever is wrong with it, its values are wiped.
        let is_shallow = take(path.to_owned(), data, source, 0, &mut secrets);
        if !is_object || !is_shallow {
            return Err(Malformed);
        }
    }
    Ok((Version { number: metadata.version, is_readable, has_end: false }, secrets))
}

/// Takes every text and number. Whether nothing lies too deep.
fn take(path: String, value: Value, source: u32, depth: usize, secrets: &mut Vec<KnownSecret>) -> bool {
    match value {
        // The text's own memory becomes the secret's, which is wiped.
        Value::String(text) => secrets.push(KnownSecret::new(path, text.into_bytes()).of_source(source)),
        Value::Number(number) => {
            secrets.push(KnownSecret::new(path, number.to_string().into_bytes()).of_source(source));
        }
        Value::Object(entries) => {
            let mut is_shallow = depth < VAULT_DEPTH_MAX;
            for (key, value) in entries {
                is_shallow &= take(format!("{path}/{key}"), value, source, depth + 1, secrets);
            }
            return is_shallow;
        }
        Value::Array(items) => {
            let mut is_shallow = depth < VAULT_DEPTH_MAX;
            for (index, value) in items.into_iter().enumerate() {
                is_shallow &= take(format!("{path}/{index}"), value, source, depth + 1, secrets);
            }
            return is_shallow;
        }
        Value::Null | Value::Bool(_) => {}
    }
    true
}

/// Whether a secret that is not there was deleted: then the answer holds its metadata.
pub(super) fn is_deleted(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[expect(dead_code, reason = "that it is there says it")]
        metadata: RawVersion,
    }
    parsed::<Data<Content>>(body).is_ok()
}

/// How long a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Nothing for ever.
    pub(super) lives: Option<Duration>,
    pub(super) is_renewable: bool,
}

fn lives(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The token of a login or a renewal, and its lease.
pub(super) fn login(body: &[u8]) -> Result<(Zeroizing<String>, Lease), Malformed> {
    #[derive(Deserialize)]
    struct Auth {
        client_token: String,
        #[serde(default)]
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    #[derive(Deserialize)]
    struct Answer {
        auth: Auth,
    }
    let auth = parsed::<Answer>(body)?.auth;
    let lease = Lease { lives: lives(auth.lease_duration), is_renewable: auth.renewable };
    let token = Zeroizing::new(auth.client_token);
    if token.is_empty() { Err(Malformed) } else { Ok((token, lease)) }
}

/// The lease of a token that was looked up.
pub(super) fn lease(body: &[u8]) -> Result<Lease, Malformed> {
    #[derive(Deserialize)]
    struct Token {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
    }
    let token = parsed::<Data<Token>>(body)?.data;
    Ok(Lease { lives: lives(token.ttl), is_renewable: token.renewable })
}

/// Whether an answer with status 503 says that it is sealed, rather than that something is not ready.
pub(super) fn is_sealed(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"ealed").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_steps_of_a_path() {
        assert_eq!(names(br#"{"data":{"keys":["a","b/"]}}"#).unwrap(), ["a", "b/"]);
        for bad in [r#"[""]"#, r#"["/"]"#, r#"["../"]"#, r#"["a/b"]"#, r#"["."]"#, "[1]", "{}"] {
            assert_eq!(names(format!(r#"{{"data":{{"keys":{bad}}}}}"#).as_bytes()), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn every_text_and_number_of_a_secret_is_taken_with_its_place() {
        let body = br#"{"data":{"data":{"a":"x","n":{"b":[1,true,"y"]},"z":null},"metadata":{"version":7}}}"#;
        let (version, secrets) = secrets(body, "p/q", 3).unwrap();
        assert_eq!(version, Version { number: 7, is_readable: true, has_end: false });
        let names: Vec<&str> = secrets.iter().map(KnownSecret::reference).collect();
        assert_eq!(names, ["p/q/a", "p/q/n/b/0", "p/q/n/b/2"]);
    }

    #[test]
    fn what_is_deleted_destroyed_or_malformed_is_told_apart() {
        let deleted =
            br#"{"data":{"data":null,"metadata":{"version":2,"deletion_time":"2026-01-01T00:00:00Z"}}}"#;
        assert!(is_deleted(deleted) && !is_deleted(br#"{"errors":[]}"#));
        let (version, none) = secrets(deleted, "p", 1).unwrap();
        assert!(!version.is_readable && none.is_empty());
        let metadata = br#"{"data":{"current_version":2,"versions":{"2":{"destroyed":true}}}}"#;
        assert!(!super::version(metadata).unwrap().is_readable);
        let metadata =
            br#"{"data":{"current_version":1,"versions":{"1":{"deletion_time":"2030-01-01T00:00:00Z"}}}}"#;
        let expected = Version { number: 1, is_readable: true, has_end: true };
        assert_eq!(super::version(metadata).unwrap(), expected);
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let deep = format!(r#"{{"data":{{"data":{{"a":{deep}}},"metadata":{{"version":1}}}}}}"#);
        for bad in ["", "{}", r#"{"data":{"data":"text","metadata":{"version":1}}}"#, &deep] {
            assert!(secrets(bad.as_bytes(), "p", 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn leases_of_nothing_are_for_ever() {
        let body = br#"{"auth":{"client_token":"synthetic","lease_duration":0,"renewable":false}}"#;
        assert_eq!(login(body).unwrap().1, Lease { lives: None, is_renewable: false });
        let body = br#"{"data":{"ttl":60,"renewable":true}}"#;
        assert_eq!(lease(body).unwrap(), Lease { lives: Some(Duration::from_secs(60)), is_renewable: true });
        assert!(login(br#"{"auth":{"client_token":""}}"#).is_err());
    }
}
