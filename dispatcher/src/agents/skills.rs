//! The client API of skills, and of the skills that a workspace has taken.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use clawlink_shared::id::{AgentId, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::http::{ListQuery, permitted};
use super::missing;
use super::store::{self, SkillRow, SkillValues};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::extract::{self, Path, Query};
use crate::http::page;
use crate::policies::{self, Resource};

/// Most skills or assignments that one answer lists.
pub(super) const MAX_LISTED: i64 = 1000;
const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 10_000;
const MAX_INSTRUCTIONS: usize = 50_000;

/// A skill as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Skill {
    id: i64,
    /// The same as `id`, as text, for older clients.
    #[serde(rename = "skill_id")]
    skill_id: String,
    agent_id: i64,
    name: String,
    description: Option<String>,
    /// Markdown that agents are given.
    instructions: Option<String>,
    #[schema(value_type = Option<Object>)]
    input_schema: Option<Value>,
    #[schema(value_type = Option<Object>)]
    output_schema: Option<Value>,
    created_at: String,
}

/// A new skill.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewSkill {
    name: String,
    description: Option<String>,
    /// Markdown that agents are given.
    instructions: Option<String>,
    #[schema(value_type = Option<Object>)]
    input_schema: Option<Value>,
    #[schema(value_type = Option<Object>)]
    output_schema: Option<Value>,
}

/// What a workspace has taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Assignments {
    assignments: Vec<Assignment>,
}

/// One of them. What a catalogue would add is null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Assignment {
    skill_slug: String,
    assigned_by: String,
    assigned_at: String,
    skill_name: Option<String>,
    skill_desc: Option<String>,
    skill_icon: Option<String>,
    skill_ver: Option<String>,
}

/// What is to be taken.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewAssignment {
    #[serde(alias = "slug", alias = "skill_slug")]
    skill_slug: String,
}

/// That it was taken.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Assigned {
    ok: bool,
    tenant_id: WorkspaceId,
    skill_slug: String,
}

impl From<SkillRow> for Skill {
    fn from(row: SkillRow) -> Self {
        Self {
            id: row.id,
            skill_id: row.id.to_string(),
            agent_id: row.agent_id,
            name: row.name,
            description: row.description,
            instructions: row.instructions,
            input_schema: row.input_schema,
            output_schema: row.output_schema,
            created_at: timestamp(row.created_at),
        }
    }
}

/// The names that belong to this agent.
pub(super) fn of(agent: i64, names: &[(i64, String)]) -> Vec<String> {
    let own = names.iter().filter(|(owner, _)| *owner == agent);
    own.map(|(_, name)| name.clone()).collect()
}

/// `GET /api/skills`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<Skill>>> {
    page_of(&app, &principal, None, &query).await
}

/// `GET /api/agents/{id}/skills`.
pub(super) async fn of_agent(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AgentId>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<Skill>>> {
    let mut db = app.db.acquire().await?;
    store::find(&mut db, principal.workspace, id)
        .await?
        .ok_or_else(missing)?;
    drop(db);
    page_of(&app, &principal, Some(id), &query).await
}

/// A page of skills, of one agent or of all.
async fn page_of(
    app: &App,
    principal: &Principal,
    agent: Option<AgentId>,
    query: &ListQuery,
) -> ApiResult<Json<Vec<Skill>>> {
    let limit = page::limit_up_to(query.limit, MAX_LISTED, MAX_LISTED)?;
    let after = query.after.unwrap_or(0);
    let mut db = app.db.acquire().await?;
    let rows = store::skills(&mut db, principal.workspace, agent, after, limit).await?;
    Ok(Json(rows.into_iter().map(Skill::from).collect()))
}

/// `POST /api/agents/{id}/skills`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<AgentId>,
    extract::Json(new): extract::Json<NewSkill>,
) -> ApiResult<(StatusCode, Json<Skill>)> {
    let values = SkillValues {
        name: new.name.trim().to_owned(),
        description: new.description,
        instructions: new.instructions,
        input_schema: new.input_schema,
        output_schema: new.output_schema,
    };
    extract::check_text("name", &values.name, 1..=MAX_NAME)?;
    let description = values.description.as_deref().unwrap_or_default();
    extract::check_text("description", description, 0..=MAX_DESCRIPTION)?;
    let instructions = values.instructions.as_deref().unwrap_or_default();
    extract::check_text("instructions", instructions, 0..=MAX_INSTRUCTIONS)?;
    extract::check_json("inputSchema", values.input_schema.as_ref())?;
    extract::check_json("outputSchema", values.output_schema.as_ref())?;
    permitted(&app, &principal, id).await?;
    policies::require(&app, &principal, &Resource::Skill(&[&values.name])).await?;
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    store::lock(&mut transaction, workspace, id)
        .await?
        .ok_or_else(missing)?;
    let row = store::insert_skill(&mut transaction, workspace, id, &values)
        .await
        .map_err(|error| {
            ApiError::on_constraint(
                error,
                "skills_agent_id_name_key",
                "skill_exists",
                "this agent has a skill of that name already",
            )
        })?;
    let actor = Actor::from(&principal);
    let entry = Entry::done(
        workspace,
        &actor,
        "skill.created",
        ("skill", row.id.to_string()),
    );
    let details = json!({"agentId": id, "name": row.name});
    audit::record(&mut transaction, &entry.with(details)).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

/// `GET /api/skill-assignments/tenant`.
pub(super) async fn assignments(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<Json<Assignments>> {
    let mut db = app.db.acquire().await?;
    let rows = store::assignments(&mut db, principal.workspace, MAX_LISTED).await?;
    let assignments = rows.into_iter().map(|row| Assignment {
        skill_slug: row.skill_slug,
        assigned_by: row.assigned_by,
        assigned_at: timestamp(row.assigned_at),
        skill_name: None,
        skill_desc: None,
        skill_icon: None,
        skill_ver: None,
    });
    Ok(Json(Assignments {
        assignments: assignments.collect(),
    }))
}

/// `POST /api/skill-assignments/tenant`.
pub(super) async fn assign(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    extract::Json(new): extract::Json<NewAssignment>,
) -> ApiResult<(StatusCode, Json<Assigned>)> {
    extract::check_text("skillSlug", &new.skill_slug, 1..=MAX_NAME)?;
    policies::require(&app, &principal, &Resource::Skill(&[&new.skill_slug])).await?;
    let mut transaction = app.db.begin().await?;
    let workspace = principal.workspace;
    store::assign(
        &mut transaction,
        workspace,
        &new.skill_slug,
        &principal.name(),
    )
    .await?;
    record(
        &mut transaction,
        &principal,
        "skill.assigned",
        &new.skill_slug,
    )
    .await?;
    transaction.commit().await?;
    let assigned = Assigned {
        ok: true,
        tenant_id: workspace,
        skill_slug: new.skill_slug,
    };
    Ok((StatusCode::CREATED, Json(assigned)))
}

/// `DELETE /api/skill-assignments/tenant/{slug}`.
pub(super) async fn unassign(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(slug): Path<String>,
) -> ApiResult<StatusCode> {
    extract::check_text("slug", &slug, 1..=MAX_NAME)?;
    policies::require(&app, &principal, &Resource::Skill(&[&slug])).await?;
    let mut transaction = app.db.begin().await?;
    if !store::unassign(&mut transaction, principal.workspace, &slug).await? {
        return Err(ApiError::not_found(
            "skill_not_assigned",
            "this workspace has not taken that skill",
        ));
    }
    record(&mut transaction, &principal, "skill.unassigned", &slug).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn record(
    db: &mut sqlx::PgConnection,
    principal: &Principal,
    action: &'static str,
    slug: &str,
) -> anyhow::Result<()> {
    let actor = Actor::from(principal);
    let resource = ("skill", slug.to_owned());
    let entry = Entry::done(principal.workspace, &actor, action, resource);
    audit::record(db, &entry).await
}
