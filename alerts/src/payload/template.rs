//! Bodies that a user's minijinja template makes.
//!
//! The template sees `status`, `receiver`, `alerts`, `groupLabels`, `commonLabels`, `commonAnnotations`, `externalURL`,
//! `groupKey`, `truncatedAlerts` as they are in Alertmanager's payload, `title`, `text`, `reason` and `id`. It has the filters
//! of minijinja, `tojson` among them. It reads no file, and stops after [`TEMPLATE_FUEL`] steps.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use thiserror::Error;

use super::alertmanager::{Message, text};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_FUEL};
use crate::notify::Notification;

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyTemplateError {
    /// It cannot be read.
    #[error("`template` cannot be read, in its line {line}: {kind}")]
    Syntax {
        /// Where.
        line: usize,
        /// What kind of fault.
        kind: String,
    },
    /// It is too long.
    #[error("`template` has {0} bytes, the limit is {TEMPLATE_BYTES_MAX}")]
    Long(usize),
}

/// What a template makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text: values come out as they are.
    Text,
    /// HTML: values come out escaped.
    Html,
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // A place that names nothing is a fault of the template, and not an empty body.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

/// Whether a text is a template.
///
/// # Errors
///
/// When it is not, or too long.
pub fn check(source: &str) -> Result<(), BodyTemplateError> {
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(BodyTemplateError::Long(source.len()));
    }
    environment().template_from_str(source).map(|_| ()).map_err(|error| BodyTemplateError::Syntax {
        line: error.line().unwrap_or(1),
        kind: error.kind().to_string(),
    })
}

/// The body. A failure is told by its line and kind: its text may hold what an alert holds.
pub(super) fn render(
    source: &str,
    form: Form,
    message: &Message,
    notification: &Notification,
) -> Result<String, (usize, String)> {
    let failed = |error: minijinja::Error| (error.line().unwrap_or(1), error.kind().to_string());
    let mut environment = environment();
    environment.set_auto_escape_callback(move |_| match form {
        Form::Text => AutoEscape::None,
        Form::Html => AutoEscape::Html,
    });
    let template = environment.template_from_str(source).map_err(failed)?;
    let title = super::title(message);
    let scope = context! {
        id => notification.id.as_str(),
        reason => minijinja::Value::from(Serde(notification.reason)),
        title => title,
        text => text(message),
        ..minijinja::Value::from(Serde(message))
    };
    template.render(scope).map_err(failed)
}
