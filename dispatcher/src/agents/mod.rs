//! Stored agents: a name for a runnable kind with its endpoint, configuration and credential,
//! and the skills that it says it has.
//!
//! An agent's credential goes in and never comes out. Agents are deactivated, not deleted,
//! because executions name them.

mod available;
mod definition;
mod http;
mod skills;
mod store;

use clawlink_shared::agent::{AgentKind, Definition};
use clawlink_shared::control::Skill;
use clawlink_shared::id::{AgentId, WorkspaceId};
use clawlink_shared::secret::Secret;
use sqlx::PgConnection;

use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::doc::Doc;
use crate::http::page;
use crate::http::routes::{Access, Routes};
use crate::policies::{self, Resource};
use crate::secrets::Stale;
use crate::workspaces::role::Permission;

pub use available::{Offered, about};

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    let read = Access::Needs(Permission::AgentRead);
    let manage = Access::Needs(Permission::AgentManage);
    Routes::new(app)
        .get(
            "/api/agents",
            read,
            http::list,
            Doc::new("The workspace's agents")
                .query::<http::ListQuery>()
                .gives::<Vec<http::Agent>>(200),
        )
        .post(
            "/api/agents",
            manage,
            http::create,
            Doc::new("Make an agent")
                .body::<http::NewAgent>()
                .gives::<http::Agent>(201),
        )
        .get(
            "/api/agents/available",
            read,
            available::available,
            Doc::new("Which kinds of agents can run, with their versions, or why they cannot")
                .gives::<Vec<available::Available>>(200),
        )
        .get(
            "/api/agents/{id}",
            read,
            http::get,
            Doc::new("An agent").gives::<http::Agent>(200),
        )
        .patch(
            "/api/agents/{id}",
            manage,
            http::update,
            Doc::new("Change an agent; null clears")
                .body::<http::ChangedAgent>()
                .gives::<http::Agent>(200),
        )
        .delete(
            "/api/agents/{id}",
            manage,
            http::deactivate,
            Doc::new("Deactivate an agent").gives::<http::Agent>(200),
        )
        .get(
            "/api/agents/{id}/skills",
            read,
            skills::of_agent,
            Doc::new("An agent's skills")
                .query::<http::ListQuery>()
                .gives::<Vec<skills::Skill>>(200),
        )
        .post(
            "/api/agents/{id}/skills",
            manage,
            skills::create,
            Doc::new("Give an agent a skill")
                .body::<skills::NewSkill>()
                .gives::<skills::Skill>(201),
        )
        .get(
            "/api/skills",
            read,
            skills::list,
            Doc::new("The skills of all of the workspace's agents")
                .query::<http::ListQuery>()
                .gives::<Vec<skills::Skill>>(200),
        )
        .get(
            "/api/skill-assignments/tenant",
            read,
            skills::assignments,
            Doc::new("The skills that the workspace has taken").gives::<skills::Assignments>(200),
        )
        .post(
            "/api/skill-assignments/tenant",
            manage,
            skills::assign,
            Doc::new("Take a skill for the workspace")
                .body::<skills::NewAssignment>()
                .gives::<skills::Assigned>(201),
        )
        .delete(
            "/api/skill-assignments/tenant/{slug}",
            manage,
            skills::unassign,
            Doc::new("Give a skill back")
                .text("slug")
                .gives_nothing(204),
        )
}

/// A stored agent that may run.
#[derive(Debug, Clone)]
pub struct Runnable {
    /// Which.
    pub id: AgentId,
    /// As people call it.
    pub name: String,
    /// What runs it.
    pub kind: AgentKind,
    /// What that runs, where the workspace defines it.
    pub definition: Option<Definition>,
    /// Its credential, sealed.
    sealed_key: Option<Vec<u8>>,
}

impl Runnable {
    /// Its credential, if it has one.
    pub fn key(&self, app: &App) -> anyhow::Result<Option<Secret>> {
        let Some(sealed) = &self.sealed_key else {
            return Ok(None);
        };
        let open = app.keys.open(&owner(self.id), sealed)?;
        let text = String::from_utf8(open).map_err(|_| anyhow::anyhow!("read an agent's key"))?;
        Ok(Some(Secret::new(text)))
    }
}

/// A stored agent as something to run: 404 if this workspace has no such agent, 403 if it is
/// deactivated, 400 if nothing here can run its type.
pub async fn runnable(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: AgentId,
) -> ApiResult<Runnable> {
    let agent = store::find(db, workspace, id).await?.ok_or_else(missing)?;
    if !agent.is_active {
        return Err(ApiError::forbidden(
            "this agent is deactivated; activate it first",
        ));
    }
    let kind = AgentKind::from_spelling(&agent.kind).ok_or_else(|| {
        ApiError::invalid(format!("agents of type {} cannot be run here", agent.kind))
    })?;
    let definition = definition::read(kind, agent.endpoint.as_deref(), agent.config.as_ref())
        .map_err(|fault| ApiError::invalid(format!("this agent cannot run: its {fault}")))?;
    Ok(Runnable {
        id,
        name: agent.name,
        kind,
        definition,
        sealed_key: store::key(db, workspace, id).await?,
    })
}

/// 403 if a policy denies this stored agent to the caller; the denial is recorded.
async fn permit(
    app: &App,
    principal: &Principal,
    id: i64,
    name: &str,
    kind: &str,
) -> ApiResult<()> {
    let id = id.to_string();
    policies::require(app, principal, &Resource::Agent(&[&id, name, kind])).await
}

/// What a stored agent's credential is sealed for.
fn owner(id: AgentId) -> Vec<u8> {
    format!("agent:{id}").into_bytes()
}

/// Credentials of agents that another key sealed, after this id.
pub(crate) async fn stale_seals(
    db: &mut PgConnection,
    current: &[u8],
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Stale>> {
    let keys = store::stale_keys(db, current, after, limit).await?;
    let stale = keys.into_iter().map(|(id, sealed)| Stale {
        id: id.0,
        owner: owner(id),
        sealed,
    });
    Ok(stale.collect())
}

/// Puts one in another seal, unless it was changed.
pub(crate) async fn replace_seal(
    db: &mut PgConnection,
    stale: &Stale,
    sealed: &[u8],
) -> anyhow::Result<()> {
    store::replace_key(db, stale.id, &stale.sealed, sealed).await
}

/// 404 unless this workspace has such a stored agent, active or not.
pub async fn require(db: &mut PgConnection, workspace: WorkspaceId, id: AgentId) -> ApiResult<()> {
    let agent = store::find(db, workspace, id).await?;
    agent.map(|_| ()).ok_or_else(missing)
}

/// A stored agent as catalogues show it.
#[derive(Debug)]
pub struct Listed {
    /// Its number.
    pub id: i64,
    /// As people call it.
    pub name: String,
    /// What runs it.
    pub kind: String,
    /// What it is for.
    pub description: Option<String>,
    /// Names of its skills.
    pub capabilities: Vec<String>,
}

/// The active agents of a workspace, at most as many as a page.
pub async fn active(db: &mut PgConnection, workspace: WorkspaceId) -> anyhow::Result<Vec<Listed>> {
    let rows = store::list(db, workspace, 0, page::MAX_LIMIT).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let names = store::skill_names(db, workspace, &ids, skills::MAX_LISTED).await?;
    let active = rows.into_iter().filter(|row| row.is_active);
    let listed = active.map(|row| Listed {
        capabilities: skills::of(row.id, &names),
        id: row.id,
        name: row.name,
        kind: row.kind,
        description: row.description,
    });
    Ok(listed.collect())
}

/// Most skills that one execution is given.
const MAX_GIVEN: i64 = 50;

/// The skills that an execution is given: those with instructions that the workspace has taken
/// or that the stored agent has which runs, as far as policies let the caller use them.
pub(crate) async fn given_skills(
    app: &App,
    principal: &Principal,
    agent: Option<AgentId>,
) -> ApiResult<Vec<i64>> {
    let mut db = app.db.acquire().await?;
    let offered = store::offered_skills(&mut db, principal.workspace, agent, MAX_GIVEN).await?;
    drop(db);
    if offered.is_empty() {
        return Ok(Vec::new());
    }
    let rules = policies::rules(app, principal).await?;
    let allowed = offered.into_iter().filter(|(id, name)| {
        let names = [name.as_str(), &id.to_string()];
        rules.allow(principal, &Resource::Skill(&names))
    });
    Ok(allowed.map(|(id, _)| id).collect())
}

/// What given skills say, as far as they still exist.
pub(crate) async fn instructions(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    ids: &[i64],
) -> anyhow::Result<Vec<Skill>> {
    store::instructions(db, workspace, ids).await
}

/// A stored skill as catalogues show it.
#[derive(Debug)]
pub struct ListedSkill {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub agent_id: i64,
    /// As people call it.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
}

/// The skills of a workspace's agents.
pub async fn skills_of(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Vec<ListedSkill>> {
    let rows = store::skills(db, workspace, None, 0, skills::MAX_LISTED).await?;
    let listed = rows.into_iter().map(|row| ListedSkill {
        id: row.id,
        agent_id: row.agent_id,
        name: row.name,
        description: row.description,
    });
    Ok(listed.collect())
}

fn missing() -> ApiError {
    ApiError::not_found("agent_not_found", "this workspace has no such agent")
}
