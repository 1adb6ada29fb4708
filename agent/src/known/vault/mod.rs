//! Known secrets from a HashiCorp Vault: its key-value engine of version 2, read through its HTTP interface.
//!
//! What always holds:
//! - a look is whole or fails: nothing is taken of a Vault that answers in part;
//! - what has not changed, by its metadata's version, is not read again. Where a policy lets data be read and not metadata, data
//!   is, and what has not changed is wiped at once;
//! - folders, paths, secrets, bytes, answers, tries and waits are bounded;
//! - answers and values are wiped when they have been used. What HTTP and TLS keep in buffers of their own is not.

mod answer;
mod client;
mod config;
mod error;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Instant;

use beeacon_filters::KnownSecret;
use futures_util::{StreamExt, TryStreamExt};
use http::Method;
use http::header::HeaderValue;

use self::answer::{Malformed, Version};
use self::client::{Answer, Ask, VaultClient};
use self::session::Session;
use crate::limits::{VAULT_DEPTH_MAX, VAULT_PATHS_MAX, VAULT_REQUESTS_MAX};

pub use self::config::{VaultConfig, VaultLogin};
pub use self::error::VaultError;

/// What was taken of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// The source of its secrets in the set.
    source: u32,
    version: u64,
    secrets: usize,
    bytes: usize,
}

/// A Vault as a source of known secrets.
pub struct Vault {
    config: VaultConfig,
    client: VaultClient,
    session: Session,
    seen: BTreeMap<String, Seen>,
    last_source: u32,
}

/// What has changed since the last look that was accepted.
pub struct Changes {
    /// The sources whose secrets are no longer what they were.
    pub dropped: HashSet<u32>,
    /// The secrets that are new, or have a new value.
    pub secrets: Vec<KnownSecret>,
    /// What to accept once they are in use.
    pub seen: SeenPaths,
}

/// What a look has seen, path by path.
#[derive(Default)]
pub struct SeenPaths(BTreeMap<String, Seen>);

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.secrets.is_empty()
    }
}

/// What a path holds now, beside what was taken of it before.
enum Content {
    Same,
    Gone,
    New(u64, Vec<KnownSecret>),
}

impl Vault {
    /// A Vault that has not been asked yet.
    ///
    /// # Errors
    /// When TLS or the namespace cannot be used.
    pub fn new(config: VaultConfig) -> Result<Vault, VaultError> {
        let client = VaultClient::new(&config)?;
        let session = Session::new(config.login.clone());
        Ok(Vault { config, client, session, seen: BTreeMap::new(), last_source: 0 })
    }

    /// Its configuration.
    pub fn config(&self) -> &VaultConfig {
        &self.config
    }

    /// Forgets what was taken, so that the next look reads everything.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// What was found is in use: the next look finds what has changed since.
    pub fn accept(&mut self, seen: SeenPaths) {
        self.seen = seen.0;
    }

    /// Renews the token when its time has come, so that it does not run out between looks.
    ///
    /// # Errors
    /// When there is no valid token.
    pub async fn keep_alive(&mut self, now: Instant) -> Result<(), VaultError> {
        self.session.ensure(&self.client, now).await.map(drop)
    }

    /// Looks for what has changed. A token that is refused is replaced once.
    ///
    /// # Errors
    /// When not everything that is configured could be read.
    pub async fn look(&mut self, now: Instant) -> Result<Changes, VaultError> {
        let token = self.session.ensure(&self.client, now).await?;
        let denied = match self.look_with(&token).await {
            Err(denied @ VaultError::Denied { .. }) => denied,
            outcome => return outcome,
        };
        match self.session.replace(&self.client, now).await? {
            Some(token) => self.look_with(&token).await,
            None => Err(denied),
        }
    }

    async fn look_with(&mut self, token: &HeaderValue) -> Result<Changes, VaultError> {
        let paths = self.paths(token).await?;
        let mut next = self.last_source;
        let mut asked = Vec::with_capacity(paths.len());
        for path in paths {
            let before = self.seen.get(&path).copied();
            let source = before.map_or_else(
                || {
                    next += 1;
                    next
                },
                |seen| seen.source,
            );
            asked.push((path, source, before));
        }
        self.last_source = next;
        let this = &*self;
        let reading = asked.into_iter().map(|(path, source, before)| async move {
            let content = this.content(&path, source, before, token).await?;
            Ok::<_, VaultError>((path, source, before, content))
        });
        let mut reading = futures_util::stream::iter(reading).buffer_unordered(VAULT_REQUESTS_MAX);
        let mut changes =
            Changes { dropped: HashSet::new(), secrets: Vec::new(), seen: SeenPaths::default() };
        let (mut count, mut bytes) = (0_usize, 0_usize);
        while let Some((path, source, before, content)) = reading.try_next().await? {
            let seen = match (content, before) {
                (Content::Same, Some(before)) => before,
                (Content::Same | Content::Gone, _) => continue,
                (Content::New(version, secrets), _) => {
                    if before.is_some() {
                        changes.dropped.insert(source);
                    }
                    let bytes = secrets.iter().map(KnownSecret::bytes).sum();
                    let seen = Seen { source, version, secrets: secrets.len(), bytes };
                    changes.secrets.extend(secrets);
                    seen
                }
            };
            count += seen.secrets;
            bytes += seen.bytes;
            changes.seen.0.insert(path, seen);
            let (secrets_max, bytes_max) = (self.config.secrets_max, self.config.bytes_max);
            if count > secrets_max {
                return Err(VaultError::TooMany { count, secrets_max });
            }
            if bytes > bytes_max {
                return Err(VaultError::TooLarge { bytes, bytes_max });
            }
        }
        let gone = self.seen.iter().filter(|(path, _)| !changes.seen.0.contains_key(*path));
        changes.dropped.extend(gone.map(|(_, seen)| seen.source));
        Ok(changes)
    }

    /// Every path that is configured or lies below a configured folder.
    async fn paths(&self, token: &HeaderValue) -> Result<BTreeSet<String>, VaultError> {
        let all = [String::new()];
        let configured = if self.config.paths.is_empty() { &all[..] } else { &self.config.paths };
        let mut paths = BTreeSet::new();
        let mut folders = Vec::new();
        for path in configured {
            match path.trim_start_matches('/') {
                folder if folder.is_empty() || folder.ends_with('/') => folders.push((folder.to_owned(), 0)),
                path => drop(paths.insert(path.to_owned())),
            }
        }
        let mut listed = 0;
        while let Some((folder, depth)) = folders.pop() {
            if depth > VAULT_DEPTH_MAX {
                return Err(VaultError::TooDeep { path: folder, depth_max: VAULT_DEPTH_MAX });
            }
            let what = format!("{}/metadata/{folder}", self.config.mount);
            let ask = Ask { query: "?list=true", ..Ask::get(&what) };
            let names = match self.client.ask(&ask, Some(token)).await? {
                Answer::Body(body) => answer::names(&body).map_err(|Malformed| malformed(&what))?,
                // Its last secret may have gone since the folder above was listed.
                Answer::Missing(_) if depth > 0 => Vec::new(),
                Answer::Missing(_) => return Err(VaultError::Missing { what }),
            };
            listed += 1;
            for name in names {
                let path = format!("{folder}{name}");
                if path.ends_with('/') {
                    folders.push((path, depth + 1));
                } else {
                    paths.insert(path);
                }
            }
            if paths.len() + folders.len() + listed > VAULT_PATHS_MAX {
                return Err(VaultError::TooManyPaths { paths_max: VAULT_PATHS_MAX });
            }
        }
        Ok(paths)
    }

    /// What a path holds, read only where its version is another one.
    async fn content(
        &self,
        path: &str,
        source: u32,
        before: Option<Seen>,
        token: &HeaderValue,
    ) -> Result<Content, VaultError> {
        let is_same = |version: Version| before.is_some_and(|before| before.version == version.number);
        if before.is_some() {
            let what = format!("{}/metadata/{path}", self.config.mount);
            match self.client.ask(&Ask::get(&what), Some(token)).await {
                Ok(Answer::Body(body)) => {
                    let version = answer::version(&body).map_err(|Malformed| malformed(&what))?;
                    if !version.is_readable {
                        return Ok(Content::Gone);
                    }
                    if is_same(version) && !version.has_end {
                        return Ok(Content::Same);
                    }
                }
                Ok(Answer::Missing(_)) => return self.gone(path, what),
                // Many policies let data be read and not its metadata.
                Err(VaultError::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let what = format!("{}/data/{path}", self.config.mount);
        match self.client.ask(&Ask::get(&what), Some(token)).await? {
            Answer::Body(body) => {
                let (version, secrets) =
                    answer::secrets(&body, path, source).map_err(|Malformed| malformed(&what))?;
                match version {
                    Version { is_readable: false, .. } => Ok(Content::Gone),
                    version if is_same(version) => Ok(Content::Same),
                    version => Ok(Content::New(version.number, secrets)),
                }
            }
            Answer::Missing(body) if answer::is_deleted(&body) => Ok(Content::Gone),
            Answer::Missing(_) => self.gone(path, what),
        }
    }

    /// A path that is not there: one that is configured by itself has to be.
    fn gone(&self, path: &str, what: String) -> Result<Content, VaultError> {
        let is_configured = self.config.paths.iter().any(|one| one.trim_start_matches('/') == path);
        if is_configured { Err(VaultError::Missing { what }) } else { Ok(Content::Gone) }
    }
}

fn malformed(what: &str) -> VaultError {
    VaultError::Malformed { what: what.to_owned() }
}

/// Asks with a body of JSON.
fn post<'a>(path: &'a str, body: &serde_json::Value) -> Ask<'a> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    Ask { method: Method::POST, body: body.into(), ..Ask::get(path) }
}
