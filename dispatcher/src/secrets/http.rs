//! Writing secrets. Nothing here answers with a value, or quotes one in an error.

use axum::http::StatusCode;
use axum::{Extension, extract::State};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::{AgentId, WorkspaceId};
use clawlink_shared::problem::FieldFault;
use clawlink_shared::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

use super::store::{self, Key, Row};
use super::{MAX_SECRETS, MAX_VALUE, allow, owner};
use crate::agents;
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::extract::{self, Path, Query};
use crate::policies::{self, Resource};

/// Most names in a list of roles or agents.
const MAX_NAMES: usize = 64;

/// A secret without its value.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SecretInfo)]
pub(super) struct Shown {
    name: String,
    /// `workspace`, or `agent` for one that a single agent gets.
    scope: &'static str,
    /// That agent.
    agent: Option<String>,
    /// Bytes of the value.
    size: i32,
    /// Counts values, from 1.
    version: i64,
    /// Roles that may use it; null: all that may use secrets.
    allowed_roles: Option<Vec<String>>,
    /// Agents that may use it; null: all.
    allowed_agents: Option<Vec<String>>,
    created_at: String,
    created_by: String,
    updated_at: String,
    updated_by: String,
    last_used_at: Option<String>,
}

impl From<Row> for Shown {
    fn from(row: Row) -> Self {
        Self {
            scope: match row.agent {
                Some(_) => "agent",
                None => "workspace",
            },
            name: row.name,
            agent: row.agent,
            size: row.size,
            version: row.version,
            allowed_roles: row.allowed_roles,
            allowed_agents: row.allowed_agents,
            created_at: timestamp(row.created_at),
            created_by: row.created_by,
            updated_at: timestamp(row.updated_at),
            updated_by: row.updated_by,
            last_used_at: row.last_used_at.map(timestamp),
        }
    }
}

/// All secrets of a workspace; their number is bounded.
#[derive(Serialize, ToSchema)]
#[schema(as = SecretList)]
pub(super) struct List {
    count: usize,
    secrets: Vec<Shown>,
}

/// Which of the secrets of a name.
#[derive(Deserialize, IntoParams)]
pub(super) struct Scope {
    /// The agent that alone gets it, as its kind or a stored one's id; absent: the workspace's
    /// secret.
    agent: Option<String>,
}

/// What is written: fields that are absent stay as they are, null clears a list.
#[derive(ToSchema)]
#[schema(as = PutSecret, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "describes the body, which is read without quoting it"
)]
pub(super) struct Put {
    /// The value, 1 to 65536 bytes without NUL; required for a new secret.
    value: Option<String>,
    /// Roles that may use it; null: all that may use secrets.
    allowed_roles: Option<Vec<String>>,
    /// Agents that may use it; null: all.
    allowed_agents: Option<Vec<String>>,
}

/// `GET /api/secrets`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<axum::Json<List>> {
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, principal.workspace).await?;
    let secrets: Vec<Shown> = rows.into_iter().map(Shown::from).collect();
    Ok(axum::Json(List {
        count: secrets.len(),
        secrets,
    }))
}

/// `PUT /api/secrets/{name}`: makes or changes it.
pub(super) async fn put(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Query(scope): Query<Scope>,
    extract::Json(body): extract::Json<Json>,
) -> ApiResult<(StatusCode, axum::Json<Shown>)> {
    let change = Change::read(&name, &body)?;
    policies::require(&app, &principal, &Resource::Secret(&name)).await?;
    let mut tx = app.db.begin().await?;
    let agent = agent(&mut tx, principal.workspace, &scope).await?;
    let agent = agent.as_deref();
    let key = Key {
        workspace: principal.workspace,
        name: &name,
        agent,
    };
    let owner = owner(principal.workspace, agent, &name);
    let seal = |value: &Secret| app.keys.seal(&owner, value.expose().as_bytes());
    let sealed = change.value.as_ref().map(seal);
    let value = change.value.as_ref().zip(sealed.as_deref());
    let value = value.map(|(value, sealed)| store::Value {
        sealed,
        size: i32::try_from(value.expose().len()).unwrap_or(i32::MAX),
    });
    let by = principal.name();
    let (roles, agents) = (change.roles.as_ref(), change.agents.as_ref());
    let mut row = store::update(&mut tx, key, value.as_ref(), roles, agents, &by).await?;
    let mut status = StatusCode::OK;
    if row.is_none() {
        let Some(value) = &value else {
            return Err(fault(
                "value",
                "is required: this secret does not exist yet",
            ));
        };
        let lists = store::Lists {
            roles: change.roles.clone().flatten(),
            agents: change.agents.clone().flatten(),
        };
        row = store::insert(&mut tx, key, value, &lists, &by, MAX_SECRETS).await?;
        status = StatusCode::CREATED;
    }
    if row.is_none() {
        // Somebody else made it at the same moment, or there are too many.
        row = store::update(&mut tx, key, value.as_ref(), roles, agents, &by).await?;
        status = StatusCode::OK;
    }
    let row = row.ok_or_else(|| {
        let detail = format!("a workspace may have {MAX_SECRETS} secrets; delete one first");
        ApiError::conflict("too_many_secrets", detail)
    })?;
    let action = match status {
        StatusCode::CREATED => "secret.created",
        _ => "secret.updated",
    };
    let details = json!({
        "agent": row.agent, "version": row.version, "isNewValue": value.is_some(),
        "allowedRoles": row.allowed_roles, "allowedAgents": row.allowed_agents,
    });
    let actor = Actor::from(&principal);
    let entry = Entry::done(
        principal.workspace,
        &actor,
        action,
        ("secret", name.clone()),
    );
    audit::record(&mut tx, &entry.with(details)).await?;
    tx.commit().await?;
    Ok((status, axum::Json(Shown::from(row))))
}

/// `DELETE /api/secrets/{name}`.
pub(super) async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Query(scope): Query<Scope>,
) -> ApiResult<StatusCode> {
    policies::require(&app, &principal, &Resource::Secret(&name)).await?;
    let mut tx = app.db.begin().await?;
    let agent = agent(&mut tx, principal.workspace, &scope).await?;
    let key = Key {
        workspace: principal.workspace,
        name: &name,
        agent: agent.as_deref(),
    };
    if !store::delete(&mut tx, key).await? {
        return Err(ApiError::not_found(
            "secret_not_found",
            "this workspace has no such secret",
        ));
    }
    let actor = Actor::from(&principal);
    let entry = Entry::done(
        principal.workspace,
        &actor,
        "secret.deleted",
        ("secret", name.clone()),
    );
    audit::record(&mut tx, &entry.with(json!({ "agent": agent }))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A body that may be obeyed.
struct Change {
    value: Option<Secret>,
    roles: Option<Option<Vec<String>>>,
    agents: Option<Option<Vec<String>>>,
}

impl Change {
    fn read(name: &str, body: &Json) -> ApiResult<Self> {
        if !allow::is_name(name) {
            let message = "must have 1 to 128 letters, digits, `_`, `.` or `-`, and no `..`";
            return Err(fault("name", message));
        }
        let Some(body) = body.as_object() else {
            return Err(fault("body", "must be a JSON object"));
        };
        const KNOWN: [&str; 3] = ["value", "allowedRoles", "allowedAgents"];
        if body.keys().any(|key| !KNOWN.contains(&key.as_str())) {
            let message = format!("has an unknown field; known are {}", KNOWN.join(", "));
            return Err(fault("body", message));
        }
        let known_role = |name: &str| allow::is_role(name).then(|| name.to_owned());
        Ok(Self {
            value: value(body.get("value"))?,
            roles: names(body, "allowedRoles", known_role)?,
            agents: names(body, "allowedAgents", agent_name)?,
        })
    }
}

/// An agent by its own name: that of its kind, or a stored one's number.
fn agent_name(name: &str) -> Option<String> {
    let number = || name.parse::<i64>().ok().filter(|id| *id > 0);
    match AgentKind::from_spelling(name) {
        Some(kind) => Some(kind.to_string()),
        None => number().map(|id| id.to_string()),
    }
}

/// The scope's agent by its own name; a stored one must be the workspace's.
async fn agent(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    scope: &Scope,
) -> ApiResult<Option<String>> {
    let Some(name) = &scope.agent else {
        return Ok(None);
    };
    let unknown = || {
        fault(
            "agent",
            "is neither a kind of agent nor the id of a stored one",
        )
    };
    let name = agent_name(name).ok_or_else(unknown)?;
    if let Ok(id) = name.parse() {
        agents::require(db, workspace, AgentId(id)).await?;
    }
    Ok(Some(name))
}

fn value(value: Option<&Json>) -> ApiResult<Option<Secret>> {
    let text = match value {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(text)) => text,
        Some(_) => return Err(fault("value", "must be a string")),
    };
    if text.is_empty() || text.len() > MAX_VALUE {
        let message = format!("must have 1 to {MAX_VALUE} bytes");
        return Err(fault("value", message));
    }
    if text.contains('\0') {
        return Err(fault("value", "must not contain a NUL character"));
    }
    Ok(Some(Secret::new(text.as_str())))
}

/// A list of known names without repetitions; `None` if it is absent.
fn names(
    body: &Map<String, Json>,
    field: &str,
    known: impl Fn(&str) -> Option<String>,
) -> ApiResult<Option<Option<Vec<String>>>> {
    let items = match body.get(field) {
        None => return Ok(None),
        Some(Json::Null) => return Ok(Some(None)),
        Some(Json::Array(items)) if items.len() <= MAX_NAMES => items,
        Some(_) => {
            return Err(fault(
                field,
                "must be an array of at most 64 names, or null",
            ));
        }
    };
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let name = item.as_str().and_then(&known);
        let name = name.ok_or_else(|| fault(field, "holds a name that is not known here"))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(Some(Some(names)))
}

fn fault(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid_fields(vec![FieldFault {
        field: field.to_owned(),
        message: message.into(),
    }])
}
