//! The client API of agents. Old clients read `agent_type`, newer ones `type`: answers have both.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::available::Offered;
use super::store::{self, Row, Values};
use super::{definition, missing, owner, permit, skills};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::body::{Patched, patched};
use crate::http::extract::{self, Path, Query};
use crate::http::page;

/// Longest name, type and endpoint, in characters.
const MAX_NAME: usize = 200;
const MAX_ENDPOINT: usize = 2000;
const MAX_DESCRIPTION: usize = 10_000;
/// Longest credential, in bytes.
const MAX_KEY: usize = 16 * 1024;

/// An agent as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Agent {
    id: i64,
    tenant_id: i64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    /// The same as `type`.
    #[serde(rename = "agent_type")]
    agent_type: String,
    endpoint: Option<String>,
    description: Option<String>,
    /// Names of its skills.
    capabilities: Vec<String>,
    /// Always null: what is stored of a credential is nobody's business.
    api_key_hash: Option<String>,
    has_api_key: bool,
    is_active: bool,
    /// Whether it is active and a worker that lives offers its type.
    available: bool,
    /// Why not: `deactivated`, `unknown_type`, `no_worker_offers_agent`, or null.
    unavailable_reason: Option<&'static str>,
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    created_at: String,
    updated_at: String,
}

/// A new agent.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewAgent {
    name: String,
    #[serde(rename = "type", alias = "agentType", alias = "agent_type")]
    kind: String,
    endpoint: Option<String>,
    description: Option<String>,
    /// Its credential: stored sealed, never shown.
    #[serde(alias = "api_key")]
    api_key: Option<String>,
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
}

/// Changes of an agent; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangedAgent {
    name: Option<String>,
    #[serde(rename = "type", alias = "agentType", alias = "agent_type")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<String>)]
    endpoint: Patched<String>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<String>)]
    description: Patched<String>,
    #[serde(default, deserialize_with = "patched", alias = "api_key")]
    #[schema(value_type = Option<String>)]
    api_key: Patched<String>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Object>)]
    config: Patched<Value>,
    is_active: Option<bool>,
}

#[derive(Deserialize, IntoParams)]
pub(super) struct ListQuery {
    /// How many.
    pub(super) limit: Option<i64>,
    /// Only those with a greater number.
    pub(super) after: Option<i64>,
}

impl Agent {
    fn of(row: Row, capabilities: Vec<String>, offered: &Offered) -> Self {
        let kind = AgentKind::from_spelling(&row.kind);
        let unavailable_reason = match kind {
            _ if !row.is_active => Some("deactivated"),
            None => Some("unknown_type"),
            Some(kind) if offered.of(kind).alive == 0 => Some("no_worker_offers_agent"),
            Some(_) => None,
        };
        Self {
            available: unavailable_reason.is_none(),
            unavailable_reason,
            id: row.id,
            tenant_id: row.workspace_id,
            name: row.name,
            agent_type: row.kind.clone(),
            kind: row.kind,
            endpoint: row.endpoint,
            description: row.description,
            capabilities,
            api_key_hash: None,
            has_api_key: row.has_api_key,
            is_active: row.is_active,
            config: row.config,
            created_at: timestamp(row.created_at),
            updated_at: timestamp(row.updated_at),
        }
    }
}

/// `GET /api/agents`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<Agent>>> {
    let limit = page::limit(query.limit.or(Some(page::MAX_LIMIT)))?;
    let offered = Offered::now(&app).await;
    let mut db = app.db.acquire().await?;
    let workspace = principal.workspace;
    let rows = store::list(&mut db, workspace, query.after.unwrap_or(0), limit).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let names = store::skill_names(&mut db, workspace, &ids, skills::MAX_LISTED).await?;
    let agents = rows.into_iter().map(|row| {
        let own = skills::of(row.id, &names);
        Agent::of(row, own, &offered)
    });
    Ok(Json(agents.collect()))
}

/// `GET /api/agents/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    shown(&app, &principal, id).await
}

/// `POST /api/agents`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    extract::Json(new): extract::Json<NewAgent>,
) -> ApiResult<(StatusCode, Json<Agent>)> {
    let values = Values {
        name: new.name.trim().to_owned(),
        kind: new.kind.trim().to_owned(),
        endpoint: new.endpoint,
        description: new.description,
        config: new.config,
        is_active: true,
    };
    check(&values, new.api_key.as_deref())?;
    let mut transaction = app.db.begin().await?;
    let id = store::insert(&mut transaction, principal.workspace, &values).await?;
    if let Some(key) = &new.api_key {
        let sealed = seal(&app, id, key);
        store::set_key(&mut transaction, principal.workspace, id, Some(&sealed)).await?;
    }
    record(&mut transaction, &principal, "agent.created", id, &values).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, shown(&app, &principal, id).await?))
}

/// `PATCH /api/agents/{id}`.
pub(super) async fn update(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AgentId>,
    extract::Json(changed): extract::Json<ChangedAgent>,
) -> ApiResult<Json<Agent>> {
    permitted(&app, &principal, id).await?;
    let mut transaction = app.db.begin().await?;
    let row = store::lock(&mut transaction, principal.workspace, id)
        .await?
        .ok_or_else(missing)?;
    let values = Values {
        name: changed.name.unwrap_or(row.name).trim().to_owned(),
        kind: changed.kind.unwrap_or(row.kind).trim().to_owned(),
        endpoint: changed.endpoint.unwrap_or(row.endpoint),
        description: changed.description.unwrap_or(row.description),
        config: changed.config.unwrap_or(row.config),
        is_active: changed.is_active.unwrap_or(row.is_active),
    };
    let key = changed.api_key.as_ref().map(Option::as_deref);
    check(&values, key.flatten())?;
    store::update(&mut transaction, principal.workspace, id, &values).await?;
    if let Some(key) = key {
        let sealed = key.map(|key| seal(&app, id, key));
        store::set_key(&mut transaction, principal.workspace, id, sealed.as_deref()).await?;
    }
    record(&mut transaction, &principal, "agent.updated", id, &values).await?;
    transaction.commit().await?;
    shown(&app, &principal, id).await
}

/// `DELETE /api/agents/{id}`.
pub(super) async fn deactivate(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AgentId>,
) -> ApiResult<Json<Agent>> {
    permitted(&app, &principal, id).await?;
    let mut transaction = app.db.begin().await?;
    let row = store::lock(&mut transaction, principal.workspace, id)
        .await?
        .ok_or_else(missing)?;
    let values = Values {
        name: row.name,
        kind: row.kind,
        endpoint: row.endpoint,
        description: row.description,
        config: row.config,
        is_active: false,
    };
    store::update(&mut transaction, principal.workspace, id, &values).await?;
    record(
        &mut transaction,
        &principal,
        "agent.deactivated",
        id,
        &values,
    )
    .await?;
    transaction.commit().await?;
    shown(&app, &principal, id).await
}

/// 404 for an agent that is not the workspace's, 403 for one that a policy denies.
pub(super) async fn permitted(app: &App, principal: &Principal, id: AgentId) -> ApiResult<()> {
    let mut db = app.db.acquire().await?;
    let found = store::find(&mut db, principal.workspace, id).await?;
    drop(db);
    let row = found.ok_or_else(missing)?;
    permit(app, principal, row.id, &row.name, &row.kind).await
}

async fn shown(app: &App, principal: &Principal, id: AgentId) -> ApiResult<Json<Agent>> {
    let offered = Offered::now(app).await;
    let mut db = app.db.acquire().await?;
    let row = store::find(&mut db, principal.workspace, id)
        .await?
        .ok_or_else(missing)?;
    let workspace = principal.workspace;
    let names = store::skill_names(&mut db, workspace, &[row.id], skills::MAX_LISTED).await?;
    let own = skills::of(row.id, &names);
    Ok(Json(Agent::of(row, own, &offered)))
}

async fn record(
    db: &mut sqlx::PgConnection,
    principal: &Principal,
    action: &'static str,
    id: AgentId,
    values: &Values,
) -> anyhow::Result<()> {
    let actor = Actor::from(principal);
    let entry = Entry::done(
        principal.workspace,
        &actor,
        action,
        ("agent", id.to_string()),
    );
    let details = json!({"name": values.name, "type": values.kind});
    audit::record(db, &entry.with(details)).await
}

/// The credential, sealed for this agent alone.
fn seal(app: &App, id: AgentId, key: &str) -> Vec<u8> {
    app.keys.seal(&owner(id), key.as_bytes())
}

fn check(values: &Values, key: Option<&str>) -> ApiResult<()> {
    extract::check_text("name", &values.name, 1..=MAX_NAME)?;
    extract::check_text("type", &values.kind, 1..=MAX_NAME)?;
    let endpoint = values.endpoint.as_deref().unwrap_or_default();
    extract::check_text("endpoint", endpoint, 0..=MAX_ENDPOINT)?;
    let description = values.description.as_deref().unwrap_or_default();
    extract::check_text("description", description, 0..=MAX_DESCRIPTION)?;
    extract::check_json("config", values.config.as_ref())?;
    // What is not there yet may come later; what is there must be usable.
    let is_begun = values.endpoint.is_some() || values.config.is_some();
    if let Some(kind) = AgentKind::from_spelling(&values.kind).filter(|_| is_begun) {
        definition::read(kind, values.endpoint.as_deref(), values.config.as_ref())
            .map_err(ApiError::invalid)?;
    }
    match key {
        Some(key) if key.is_empty() || key.len() > MAX_KEY => Err(ApiError::invalid(format!(
            "apiKey must have 1 to {MAX_KEY} bytes"
        ))),
        _ => Ok(()),
    }
}
