//! Errors as the protocol has them: a class of five letters, a message, a place.

use super::message::{Answer, Malformed};
use super::parameters::Misfit;
use super::settings::SettingError;
use crate::error::QueryError;

/// An error for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqlError {
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
    /// Where in the query, in characters from one.
    pub(crate) position: Option<usize>,
    /// Whether the connection ends with it.
    pub(crate) is_fatal: bool,
}

impl SqlError {
    pub(crate) fn new(state: &'static str, message: impl Into<String>) -> Self {
        SqlError { state, message: message.into(), hint: None, position: None, is_fatal: false }
    }

    pub(crate) fn fatal(state: &'static str, message: impl Into<String>) -> Self {
        SqlError { is_fatal: true, ..SqlError::new(state, message) }
    }

    pub(crate) fn cancelled() -> Self {
        SqlError::new("57014", "canceling statement due to user request")
    }

    /// What the room says, with the place in the text that was asked.
    pub(crate) fn of_query(error: &QueryError, text: &str) -> Self {
        let message = error.for_the_asker();
        let state = state(error, &message);
        let position = error.place().and_then(|place| {
            let line = usize::try_from(place.line).ok()?.checked_sub(1)?;
            let before: usize = text.split_inclusive('\n').take(line).map(|line| line.chars().count()).sum();
            Some(before + usize::try_from(place.column).ok()?)
        });
        let hint = match error {
            QueryError::ReadOnly => Some("rows come from containers; nothing can be written or set here"),
            QueryError::Time { .. } => Some("narrow the time or the services that are asked about"),
            QueryError::Busy { .. } => Some("try again in a moment"),
            _ => None,
        };
        SqlError { state, message, hint, position, is_fatal: false }
    }

    pub(crate) fn write(&self, answer: &mut Answer) {
        let severity = if self.is_fatal { "FATAL" } else { "ERROR" };
        let position = self.position.map(|position| position.to_string());
        let mut fields =
            vec![(b'S', severity), (b'V', severity), (b'C', self.state), (b'M', self.message.as_str())];
        fields.extend(self.hint.map(|hint| (b'H', hint)));
        fields.extend(position.as_deref().map(|position| (b'P', position)));
        answer.error(&fields);
    }
}

fn state(error: &QueryError, message: &str) -> &'static str {
    let says = |part: &str| message.contains(part);
    match error {
        QueryError::TextBytes { .. }
        | QueryError::Tokens { .. }
        | QueryError::Depth { .. }
        | QueryError::Growth { .. } => "54001",
        QueryError::Rows { .. } | QueryError::Bytes { .. } | QueryError::Files { .. } => "54000",
        QueryError::Empty | QueryError::Syntax { .. } | QueryError::Statements { .. } => "42601",
        QueryError::Parameters { .. } => "08P01",
        QueryError::ReadOnly => "25006",
        QueryError::Plan { .. } if says("table '") => "42P01",
        QueryError::Plan { .. } if says("No field named") => "42703",
        QueryError::Plan { .. } if says("Ambiguous") || says("ambiguous") => "42702",
        QueryError::Plan { .. } if says("Invalid function") => "42883",
        QueryError::Plan { .. } if says("there is no setting") => "42704",
        QueryError::Plan { .. } if says("not implemented") => "0A000",
        QueryError::Plan { .. } if says("coerce") || says("coercion") || says("No function matches") => {
            "42804"
        }
        QueryError::Plan { .. } => "42000",
        QueryError::Execution { .. } if says("Divide by zero") => "22012",
        QueryError::Execution { .. } if says("verflow") => "22003",
        QueryError::Execution { .. } if says("parsing timestamp") => "22007",
        QueryError::Execution { .. } if says("cast") || says("pars") => "22P02",
        QueryError::Execution { .. } => "22000",
        QueryError::Time { .. } => "57014",
        QueryError::Memory { .. } => "53200",
        QueryError::Busy { .. } => "53300",
        QueryError::Format { .. } => "0A000",
        QueryError::Store(_) | QueryError::Relation { .. } => "58030",
        QueryError::ForeignFile | QueryError::Setup(_) | QueryError::Internal { .. } => "XX000",
    }
}

impl From<Malformed> for SqlError {
    fn from(error: Malformed) -> Self {
        let state = if matches!(error, Malformed::Version { .. }) { "0A000" } else { "08P01" };
        SqlError::fatal(state, error.to_string())
    }
}

impl From<Misfit> for SqlError {
    fn from(error: Misfit) -> Self {
        SqlError::new("22P02", error.to_string())
    }
}

impl From<SettingError> for SqlError {
    fn from(error: SettingError) -> Self {
        let state = match &error {
            SettingError::Unknown(_) => "42704",
            SettingError::Fixed { .. } => "55P02",
            SettingError::Value { .. } => "22023",
        };
        SqlError::new(state, error.to_string())
    }
}
