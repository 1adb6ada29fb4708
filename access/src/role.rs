//! Roles, and what each of them may do.

use std::fmt;

use serde::Serialize;

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ships lines, and nothing else.
    Agent,
    /// Reads: SQL, status, metrics, alerts.
    Viewer,
    /// Also works with alerts: acknowledges, silences, asks for reports.
    Editor,
    /// Everything, the configuration included.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Agent, Role::Viewer, Role::Editor, Role::Admin];

    /// Its name in configuration, audit and documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Admin => "admin",
        }
    }

    /// Whether its holder may read rows, which is all that the PostgreSQL door does.
    pub const fn may_read(self) -> bool {
        !matches!(self, Role::Agent)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a route asks of whoever uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: whether the process lives is nobody's secret.
    Nothing,
    /// An agent, or an administrator.
    Ingest,
    /// A viewer or more.
    Viewer,
    /// An editor or more.
    Editor,
    /// An administrator.
    Admin,
}

impl Needs {
    /// Whether someone with this role, or nobody in particular, may pass.
    ///
    /// ```
    /// use beeacon_access::{Needs, Role};
    /// assert!(Needs::Viewer.is_met_by(Some(Role::Editor)));
    /// assert!(!Needs::Viewer.is_met_by(Some(Role::Agent)));
    /// assert!(!Needs::Viewer.is_met_by(None));
    /// ```
    pub const fn is_met_by(self, role: Option<Role>) -> bool {
        match (self, role) {
            (Needs::Nothing, _) => true,
            (_, None) => false,
            (Needs::Ingest, Some(role)) => matches!(role, Role::Agent | Role::Admin),
            (Needs::Viewer, Some(role)) => matches!(role, Role::Viewer | Role::Editor | Role::Admin),
            (Needs::Editor, Some(role)) => matches!(role, Role::Editor | Role::Admin),
            (Needs::Admin, Some(role)) => matches!(role, Role::Admin),
        }
    }

    /// The least role, as documentation names it.
    pub const fn name(self) -> &'static str {
        match self {
            Needs::Nothing => "nobody",
            Needs::Ingest => "agent",
            Needs::Viewer => "viewer",
            Needs::Editor => "editor",
            Needs::Admin => "admin",
        }
    }
}
