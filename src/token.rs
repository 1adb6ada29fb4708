//! `beeacon token new`: a token that is shown once, and the section of the configuration that knows it by its hashes.

use std::io::Write;

use anyhow::Context;
use beeacon_access::{Role, TokenHash, Tokens, new_token};
use beeacon_query::ScramVerifier;

use crate::command_line::{TokenAction, TokenArguments, TokenRole};
use crate::exit::Exit;
use crate::up::say;

pub(crate) fn run(arguments: TokenArguments) -> anyhow::Result<Exit> {
    let TokenAction::New { role, name } = arguments.action;
    let role = match role {
        TokenRole::Agent => Role::Agent,
        TokenRole::Viewer => Role::Viewer,
        TokenRole::Editor => Role::Editor,
        TokenRole::Admin => Role::Admin,
    };
    let token = new_token().context("make a token")?;
    let hash = TokenHash::of(&token);
    Tokens::new().add(&name, role, hash.clone()).context("use this name")?;
    let mut section = format!(
        "[[access.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{}\"\n",
        hash.to_hexadecimal()
    );
    if role.may_read() {
        let verifier = ScramVerifier::of(&token).context("make a token")?;
        section.push_str(&format!("scram = \"{verifier}\"\n"));
    }
    writeln!(std::io::stdout(), "{token}")?;
    say(&format!("this token is not shown again; put into the configuration:\n\n{section}"));
    Ok(Exit::Done)
}
