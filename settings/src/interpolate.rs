//! References in text values: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${file:/path}`, `$$`.

/// What a configuration may refer to outside its own text. Tests need no environment: they bring their own.
pub trait Surroundings {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file, without its final newline; the error is for people and holds no content.
    ///
    /// # Errors
    /// Why the file cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// No variables and no files.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Surroundings for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Err("no files here".to_owned())
    }
}

/// The process's environment and file system.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        /// A secret is a line; 64 KiB also hold a certificate chain.
        const FILE_BYTES_MAX: u64 = 64 << 10;
        let size = std::fs::metadata(path).map_err(|error| error.kind().to_string())?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("has {size} bytes, allowed are {FILE_BYTES_MAX}"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.kind().to_string())?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }
}

/// Replaces every reference in a text that is no TOML, such as another file that the configuration names.
///
/// ```
/// use beeacon_settings::{Nothing, fill_in};
///
/// assert_eq!(fill_in("key: ${KEY:-none}, 5 $", &Nothing), Ok("key: none, 5 $".to_owned()));
/// assert!(fill_in("${KEY}", &Nothing).is_err());
/// ```
///
/// # Errors
/// The first reference that leads nowhere; no value that another one brought.
pub fn fill_in(text: &str, surroundings: &dyn Surroundings) -> Result<String, String> {
    resolve(text, surroundings).map(|(text, _)| text)
}

/// Replaces every reference. Tells also whether there was one, since what it brought may be secret.
pub(crate) fn resolve(text: &str, surroundings: &dyn Surroundings) -> Result<(String, bool), String> {
    let mut out = String::with_capacity(text.len());
    let mut from_outside = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{') {
            let (reference, tail) = tail.split_once('}').ok_or("a reference \"${\" has no closing brace")?;
            out.push_str(&look_up(reference, surroundings)?);
            from_outside = true;
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok((out, from_outside))
}

fn look_up(reference: &str, surroundings: &dyn Surroundings) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        return surroundings.file(path).map_err(|error| format!("file {path} cannot be read: {error}"));
    }
    let (name, otherwise) = match reference.split_once(':') {
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (reference, None),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("\"${{{reference}}}\" is not a reference: write ${{NAME}} or ${{file:/path}}"));
    }
    match (surroundings.variable(name).filter(|value| !value.is_empty()), otherwise) {
        (Some(value), _) => Ok(value),
        (None, Some(otherwise)) => match (otherwise.strip_prefix('-'), otherwise.strip_prefix('?')) {
            (Some(default), _) => Ok(default.to_owned()),
            (None, Some(message)) => Err(format!("environment variable {name} is not set: {message}")),
            (None, None) => {
                Err(format!("\"${{{reference}}}\" is not a reference: after the colon comes - or ?"))
            }
        },
        (None, None) => Err(format!("environment variable {name} is not set")),
    }
}
