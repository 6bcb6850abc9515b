//! Who made a request.

use clawlink_shared::id::{ApiKeyId, WorkspaceId};

/// An admitted caller; handlers take it as an extension.
#[derive(Debug, Clone)]
pub struct Principal {
    /// All it can see and change.
    pub workspace: WorkspaceId,
    /// The key it showed.
    pub key: ApiKeyId,
    /// What the key may do.
    pub role: KeyRole,
}

impl Principal {
    /// Its name in rows and logs: `key:7`.
    pub fn name(&self) -> String {
        format!("key:{}", self.key)
    }
}

/// What an API key may do in its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyRole {
    /// Everything.
    Admin,
    /// Submit, read, cancel, delete.
    Developer,
    /// Read.
    Readonly,
    /// Submit, read, cancel.
    Ci,
}

impl KeyRole {
    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Readonly => "readonly",
            Self::Ci => "ci",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Admin, Self::Developer, Self::Readonly, Self::Ci]
            .into_iter()
            .find(|role| role.as_str() == name)
    }

    /// Whether it may submit and cancel executions.
    pub fn may_submit(self) -> bool {
        !matches!(self, Self::Readonly)
    }

    /// Whether it may delete sessions.
    pub fn may_delete(self) -> bool {
        matches!(self, Self::Admin | Self::Developer)
    }

    /// Whether it may run `shell`, whose prompt is code.
    pub fn may_run_shell(self) -> bool {
        !matches!(self, Self::Readonly)
    }
}
