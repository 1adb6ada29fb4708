//! The token: where it comes from, how long it lives, and what to do before it ends.

use std::time::{Duration, Instant};

use http::header::HeaderValue;
use zeroize::Zeroizing;

use super::answer::{self, Lease, Malformed};
use super::client::{Answer, Ask, VaultClient, secret_line};
use super::config::VaultLogin;
use super::error::VaultError;
use super::{malformed, post};

const LOOKUP: &str = "auth/token/lookup-self";
const RENEW: &str = "auth/token/renew-self";

/// Who asks, and with which token.
pub(super) struct Session {
    login: VaultLogin,
    token: Option<Token>,
}

struct Token {
    header: HeaderValue,
    /// When it ends; `None` for one that does not.
    ends: Option<Instant>,
    /// When two thirds of its life are over.
    is_due: Option<Instant>,
    is_renewable: bool,
}

/// What to do before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    LogIn,
    Renew,
    Go,
}

impl Token {
    fn new(text: &str, lease: Lease, now: Instant) -> Result<Token, VaultError> {
        let mut header = HeaderValue::try_from(text).map_err(|_| VaultError::Token)?;
        header.set_sensitive(true);
        let mut token = Token { header, ends: None, is_due: None, is_renewable: false };
        token.grant(lease, now);
        Ok(token)
    }

    fn grant(&mut self, lease: Lease, now: Instant) {
        let after =
            |part: fn(Duration) -> Duration| lease.lives.and_then(|lives| now.checked_add(part(lives)));
        self.ends = after(|lives| lives);
        self.is_due = after(|lives| lives / 3 * 2);
        self.is_renewable = lease.is_renewable;
    }

    fn step(&self, now: Instant, can_log_in: bool) -> Step {
        let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match () {
            () if has_come(self.ends) => Step::LogIn,
            () if !has_come(self.is_due) => Step::Go,
            () if self.is_renewable => Step::Renew,
            () if can_log_in => Step::LogIn,
            () => Step::Go,
        }
    }
}

impl Session {
    pub(super) fn new(login: VaultLogin) -> Session {
        Session { login, token: None }
    }

    /// A valid token: the one in hand, renewed, or a new one.
    pub(super) async fn ensure(
        &mut self,
        client: &VaultClient,
        now: Instant,
    ) -> Result<HeaderValue, VaultError> {
        let can_log_in = !matches!(self.login, VaultLogin::Token(_));
        match self.token.as_mut().map(|token| (token.step(now, can_log_in), token)) {
            Some((Step::Go, token)) => Ok(token.header.clone()),
            Some((Step::Renew, token)) => {
                let ask = post(RENEW, &serde_json::json!({}));
                match client.ask(&ask, Some(&token.header)).await {
                    Ok(Answer::Body(body)) => {
                        let (_, lease) = answer::login(&body).map_err(|Malformed| malformed(RENEW))?;
                        token.grant(lease, now);
                        Ok(token.header.clone())
                    }
                    Ok(Answer::Missing(_)) => Err(VaultError::Missing { what: RENEW.to_owned() }),
                    Err(VaultError::Denied { .. }) => self.log_in(client, now).await,
                    // It is still valid: a Vault that is away for a moment is asked again.
                    Err(error) if error.may_pass() => Ok(token.header.clone()),
                    Err(error) => Err(error),
                }
            }
            Some((Step::LogIn, _)) | None => self.log_in(client, now).await,
        }
    }

    /// Another token than the one that was refused; `None` when there is no other.
    pub(super) async fn replace(
        &mut self,
        client: &VaultClient,
        now: Instant,
    ) -> Result<Option<HeaderValue>, VaultError> {
        let refused = self.token.take().map(|token| token.header);
        let token = self.log_in(client, now).await?;
        Ok((refused.as_ref() != Some(&token)).then_some(token))
    }

    async fn log_in(&mut self, client: &VaultClient, now: Instant) -> Result<HeaderValue, VaultError> {
        self.token = None;
        let token = match &self.login {
            VaultLogin::Token(text) => looked_up(client, text, now).await?,
            VaultLogin::TokenFile(path) => looked_up(client, &secret_line(path)?, now).await?,
            VaultLogin::AppRole { mount, role_id, secret_id_file } => {
                let path = format!("auth/{mount}/login");
                let secret_id = secret_line(secret_id_file)?;
                let body = Zeroizing::new(
                    serde_json::to_vec(&Credentials { role_id, secret_id: &secret_id }).unwrap_or_default(),
                );
                let ask = Ask { body, ..post(&path, &serde_json::Value::Null) };
                match client.ask(&ask, None).await {
                    Ok(Answer::Body(body)) => {
                        let (text, lease) = answer::login(&body).map_err(|Malformed| malformed(&path))?;
                        Token::new(&text, lease, now)?
                    }
                    Ok(Answer::Missing(_)) => return Err(VaultError::Missing { what: path }),
                    Err(VaultError::Denied { .. } | VaultError::Status { status: 400, .. }) => {
                        return Err(VaultError::Login { by: "with role_id and secret_id_file" });
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let header = token.header.clone();
        self.token = Some(token);
        Ok(header)
    }
}

#[derive(serde::Serialize)]
struct Credentials<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

async fn looked_up(client: &VaultClient, text: &str, now: Instant) -> Result<Token, VaultError> {
    let forever = Lease { lives: None, is_renewable: false };
    let mut token = Token::new(text, forever, now)?;
    match client.ask(&Ask::get(LOOKUP), Some(&token.header)).await {
        Ok(Answer::Body(body)) => {
            token.grant(answer::lease(&body).map_err(|Malformed| malformed(LOOKUP))?, now);
            Ok(token)
        }
        Ok(Answer::Missing(_)) => Err(VaultError::Missing { what: LOOKUP.to_owned() }),
        Err(VaultError::Denied { .. }) => Err(VaultError::Login { by: "with the token" }),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_after_two_thirds_of_its_life_and_replaced_at_its_end() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let lease = |is_renewable| Lease { lives: Some(Duration::from_secs(90)), is_renewable };
        let token = Token::new("synthetic", lease(true), now).unwrap();
        for (seconds, step) in [(0, Step::Go), (59, Step::Go), (60, Step::Renew), (90, Step::LogIn)] {
            assert_eq!(token.step(at(seconds), false), step, "{seconds}");
        }
        let token = Token::new("synthetic", lease(false), now).unwrap();
        assert_eq!((token.step(at(60), true), token.step(at(60), false)), (Step::LogIn, Step::Go));
        assert_eq!(token.step(at(90), false), Step::LogIn);
        let token = Token::new("synthetic", Lease { lives: None, is_renewable: true }, now).unwrap();
        assert_eq!(token.step(at(1 << 30), true), Step::Go);
    }
}
