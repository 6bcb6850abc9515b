//! Who did what: everything that changes something, every login, secret use and refusal.
//!
//! An entry is written in the transaction of what it tells, so there is neither a deed without
//! an entry nor an entry without a deed. Entries are never changed or deleted, and never hold
//! a secret.

mod store;

use std::net::IpAddr;

use clawlink_shared::id::WorkspaceId;
use serde_json::Value;
use sqlx::PgConnection;

use crate::auth::principal::{Person, Principal};

/// Who did it, from where.
#[derive(Debug, Clone)]
pub struct Actor {
    /// `user:…`, `key:7`, `client:…`, `operator`, `anonymous`.
    pub name: String,
    /// The address that the request came from, if known.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// Somebody at the command line of the installation.
    pub fn operator() -> Self {
        Self {
            name: "operator".to_owned(),
            address: None,
        }
    }
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        Self {
            name: principal.name(),
            address: principal.address,
        }
    }
}

impl From<&Person> for Actor {
    fn from(person: &Person) -> Self {
        Self {
            name: format!("user:{}", person.user),
            address: person.address,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Allowed,
    /// It was refused.
    Denied,
    /// It was allowed and failed.
    Error,
}

impl Outcome {
    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

/// What is to be recorded.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Where; `None` for what belongs to no workspace.
    pub workspace: Option<WorkspaceId>,
    /// Who.
    pub actor: &'a Actor,
    /// A thing and what happened to it: `task.created`.
    pub action: &'static str,
    /// The thing's type and id.
    pub resource: Option<(&'static str, String)>,
    /// How it ended.
    pub outcome: Outcome,
    /// More, as an object; never a secret.
    pub details: Value,
}

impl<'a> Entry<'a> {
    /// Something that was done in a workspace.
    pub fn done(
        workspace: WorkspaceId,
        actor: &'a Actor,
        action: &'static str,
        resource: (&'static str, String),
    ) -> Self {
        Self {
            workspace: Some(workspace),
            actor,
            action,
            resource: Some(resource),
            outcome: Outcome::Allowed,
            details: Value::Object(serde_json::Map::new()),
        }
    }

    /// The same with details, which must be an object.
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

/// Writes an entry in the caller's transaction.
pub async fn record(db: &mut PgConnection, entry: &Entry<'_>) -> anyhow::Result<()> {
    store::insert(db, entry).await
}
