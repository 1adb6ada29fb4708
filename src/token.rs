//! `beeacon token`: a token that is shown once, with the section of the configuration that knows it by its hashes; the tokens of a
//! configuration; one taken out of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use beeacon_access::{Role, TokenHash, Tokens, new_token};
use beeacon_filters::in_columns;
use beeacon_query::ScramVerifier;
use beeacon_settings::{Document, Process};

use crate::command_line::{ListenArguments, TokenAction, TokenArguments, TokenRole};
use crate::config::{self, Config, HTTP_TOKEN};
use crate::exit::Exit;
use crate::up::say;

pub(crate) fn run(arguments: TokenArguments) -> anyhow::Result<Exit> {
    match arguments.action {
        TokenAction::New { role, name } => make(role, &name),
        TokenAction::List { config } => list(&config),
        TokenAction::Revoke { name, config } => revoke(&config, &name),
    }
}

fn make(role: TokenRole, name: &str) -> anyhow::Result<Exit> {
    let role = match role {
        TokenRole::Agent => Role::Agent,
        TokenRole::Viewer => Role::Viewer,
        TokenRole::Editor => Role::Editor,
        TokenRole::Admin => Role::Admin,
    };
    let token = new_token().context("make a token")?;
    let hash = TokenHash::of(&token);
    Tokens::new().add(name, role, hash.clone()).context("use this name")?;
    let mut section = format!(
        "[[access.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{}\"\n",
        hash.to_hexadecimal()
    );
    if role.may_read() {
        let verifier = ScramVerifier::of(&token).context("make a token")?;
        section.push_str(&format!("scram = \"{verifier}\"\n"));
    }
    writeln!(io::stdout(), "{token}")?;
    say(&format!("this token is not shown again; put into the configuration:\n\n{section}"));
    Ok(Exit::Done)
}

/// Keys with their values.
type Settings = Vec<(String, Option<String>)>;

/// What a text configures, and all of its settings but for tokens.
fn read(path: &Path, text: &str) -> anyhow::Result<(Config, Settings)> {
    let document = Document::parse(&path.display().to_string(), text, &Process);
    let config = config::resolve(document, None, &ListenArguments::default())?;
    let settings = config.server.settings.iter();
    let others = settings.filter(|setting| !setting.key.starts_with("access.token"));
    let others = others.map(|setting| (setting.key.clone(), setting.value.clone())).collect();
    Ok((config, others))
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read the configuration from {}", path.display()))
}

fn list(path: &Path) -> anyhow::Result<Exit> {
    let (config, _) = read(path, &text_of(path)?)?;
    let access = &config.server.access;
    let mut rows = vec![["NAME", "ROLE", "POSTGRESQL"].map(str::to_owned)];
    for principal in access.tokens.principals() {
        let opens =
            principal.name == HTTP_TOKEN || access.logins.iter().any(|login| login.user == principal.name);
        let opens = if opens { "yes" } else { "no" };
        rows.push([principal.name.clone(), principal.role.to_string(), opens.to_owned()]);
    }
    io::stdout().write_all(in_columns(&rows).as_bytes())?;
    Ok(Exit::Done)
}

fn revoke(path: &Path, name: &str) -> anyhow::Result<Exit> {
    let text = text_of(path)?;
    let (before, settings) = read(path, &text)?;
    let before = before.server.access.tokens;
    anyhow::ensure!(name != HTTP_TOKEN, "{HTTP_TOKEN} is no [[access.token]]: take token out of [http]");
    anyhow::ensure!(before.has(name), "{} has no token named \"{name}\"", path.display());
    let after_text = without(&text, name);
    let shown = path.display();
    let (after, settings_after) = read(path, &after_text)
        .with_context(|| format!("take \"{name}\" out of {shown}, which is as it was"))?;
    let after = after.server.access.tokens;
    // Whatever the file looks like: the token is gone, and nothing else is.
    let is_right = before.gone(&after).into_iter().eq([name.to_owned()])
        && after.gone(&before).is_empty()
        && settings == settings_after;
    anyhow::ensure!(
        is_right,
        "the section of \"{name}\" in {shown} is not written as \"beeacon token new\" writes it: take it out by hand"
    );
    replace(path, &after_text).with_context(|| format!("write {shown}"))?;
    say(&format!("\"{name}\" is taken out of {shown}; a server that runs with it notices within seconds"));
    Ok(Exit::Done)
}

/// The text without the section of the token with this name, and otherwise as it was. Comments before the next section stay.
fn without(text: &str, name: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let is_token = |line: &str| line.replace(' ', "").starts_with("[[access.token]]");
    let is_name = |line: &&str| -> bool {
        let value = line.trim().strip_prefix("name").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.is_some_and(|value| value.trim().trim_matches(['"', '\'']) == name)
    };
    let mut kept: Vec<&str> = Vec::with_capacity(lines.len());
    let mut rest = lines.as_slice();
    while let Some((line, behind)) = rest.split_first() {
        let end = behind.iter().position(|line| is_header(line)).unwrap_or(behind.len());
        let (body, next) = behind.split_at_checked(end).unwrap_or((behind, &[]));
        if is_token(line) && body.iter().any(is_name) {
            let of_next = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
            let own = body.iter().rposition(|line| !of_next(line)).map_or(0, |last| last + 1);
            kept.extend(body.get(own..).unwrap_or_default().iter().copied());
            rest = next;
        } else {
            kept.push(*line);
            rest = behind;
        }
    }
    kept.concat()
}

/// Puts a file's new text into its place in one step, with the same permissions.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = File::create_new(&new)?;
        file.set_permissions(fs::metadata(path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What was begun is of no use; the file is as it was.
        fs::remove_file(&new).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[http]\nlisten = \"127.0.0.1:1\"\n\n# Anna's.\n[[access.token]]\nname = \"anna\"\nrole = \"viewer\"\ntoken = \"annas-token-of-letters\"\n\n\
        [[access.token]]\nrole = \"agent\" # ships\nname = 'web 1'\ntoken = \"another-token-of-letters\"\n\n# Behind.\n[redis]\n";

    #[test]
    fn a_section_is_taken_out_and_nothing_else() {
        let left = without(TEXT, "web 1");
        assert_eq!(left, TEXT.replace("[[access.token]]\nrole = \"agent\" # ships\nname = 'web 1'\ntoken = \"another-token-of-letters\"\n", ""));
        assert_eq!(without(TEXT, "nobody"), TEXT);
        let none = without(&left, "anna");
        assert!(!none.contains("token") && none.contains("# Anna's.") && none.contains("# Behind.\n[redis]"));
    }

    #[test]
    fn a_file_is_replaced_only_when_the_token_is_gone_and_all_else_is_as_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("beeacon.toml");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        };
        write(TEXT);
        assert_eq!(revoke(&path, "anna").unwrap(), Exit::Done);
        assert_eq!(fs::read_to_string(&path).unwrap(), without(TEXT, "anna"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for (text, name) in [
            (TEXT.to_owned(), "nobody"),
            (TEXT.to_owned(), HTTP_TOKEN),
            // Another form of the same.
            (
                "access.token = [{name = \"anna\", role = \"viewer\", token = \"annas-token-of-letters\"}]\n"
                    .to_owned(),
                "anna",
            ),
            // The last one of a server that others reach.
            (
                without(&TEXT.replace("127.0.0.1", "0.0.0.0"), "web 1") + "[postgres]\nlisten = \"none\"\n",
                "anna",
            ),
        ] {
            write(&text);
            assert!(revoke(&path, name).is_err(), "{name}: {text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
