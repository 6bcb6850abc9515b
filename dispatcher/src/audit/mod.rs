//! Who did what: everything that changes something, every login, secret use and refusal.
//!
//! An entry is written in the transaction of what it tells, so there is neither a deed without
//! an entry nor an entry without a deed. Entries are never changed or deleted (the
//! application's database role may not), never hold a secret, and outlive their workspace. A
//! loop chains them by keyed hashes, which `clawlink audit verify` checks. Strangers without
//! a valid credential are only counted.

pub mod chain;
pub mod refusals;
pub mod verify;

mod denials;
mod http;
mod link;
mod query;
mod render;
mod store;

use std::net::IpAddr;

use clawlink_shared::id::WorkspaceId;
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use denials::Denials;

use crate::app::App;
use crate::auth::principal::{Person, Principal};
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

/// The field of an entry's details that names the client session of the older runtime API in
/// which something was done, where the actor is a person.
pub const CLIENT_SESSION: &str = "clientSession";

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
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

/// An entry as columns of its row, for a statement of another store that writes it together
/// with what it tells of.
#[derive(Debug)]
pub struct Columns<'a> {
    /// The column `workspace_id`.
    pub workspace: Option<i64>,
    /// The column `actor`.
    pub actor: &'a str,
    /// The column `address`.
    pub address: Option<String>,
    /// The column `action`.
    pub action: &'static str,
    /// The column `resource_type`.
    pub resource_type: Option<&'static str>,
    /// The column `resource_id`.
    pub resource_id: Option<&'a str>,
    /// The column `outcome`.
    pub outcome: &'static str,
    /// The column `details`.
    pub details: &'a Value,
}

impl<'a> From<&'a Entry<'_>> for Columns<'a> {
    fn from(entry: &'a Entry<'_>) -> Self {
        let resource = entry.resource.as_ref();
        Self {
            workspace: entry.workspace.map(|workspace| workspace.0),
            actor: &entry.actor.name,
            address: entry.actor.address.map(|address| address.to_string()),
            action: entry.action,
            resource_type: resource.map(|(kind, _)| *kind),
            resource_id: resource.map(|(_, id)| id.as_str()),
            outcome: entry.outcome.as_str(),
            details: &entry.details,
        }
    }
}

/// Writes an entry in the caller's transaction.
pub async fn record(db: &mut PgConnection, entry: &Entry<'_>) -> anyhow::Result<()> {
    store::insert(db, entry).await
}

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    let read = Access::Needs(Permission::AuditRead);
    let list = |summary| {
        Doc::new(summary)
            .query::<query::EntriesQuery>()
            .gives::<Vec<render::Event>>(200)
    };
    Routes::new(app)
        .get(
            "/api/audit/events",
            read,
            http::events,
            list("Entries of the audit log, newest first"),
        )
        .get(
            "/api/audit/users/{user}/activity",
            read,
            http::of_user,
            list("What a person did, newest first").uuid("user"),
        )
        .get(
            "/api/audit/sessions/{session}/activity",
            read,
            http::of_session,
            list("What was done in a client session, newest first").uuid("session"),
        )
        .get(
            "/api/admin/audit/events",
            Access::PlatformAdmin,
            http::of_platform,
            list("Entries that belong to no workspace, newest first"),
        )
        .get(
            "/api/audit/export",
            read,
            http::export,
            Doc::new("The audit log as lines of JSON, oldest first")
                .query::<query::EntriesQuery>()
                .gives_as(200, "application/x-ndjson"),
        )
}

/// Forgets counts of refused strangers that are old; entries stay.
pub async fn clean(app: &App) -> anyhow::Result<()> {
    denials::forget(app).await
}

/// Starts the loops that any replica may run at any time.
pub fn spawn_loops(app: &App) {
    let tracker = app.shutdown.tracker();
    tracker.spawn(chain::chain_loop(app.clone()));
    tracker.spawn(denials::flush_loop(app.clone()));
}
