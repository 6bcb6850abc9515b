//! The portal's calls.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use clawlink_shared::execution::State as ExecutionState;
use clawlink_shared::id::{AgentId, ExecutionId, TaskId, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::super::store::portal::{self, Filter, Row};
use super::super::{cancel as cancelling, no_such_execution, timestamp};
use super::pull;
use super::submit::{self, Asked};
use crate::app::App;
use crate::audit::Actor;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::extract::{self, Path, Query};
use crate::http::page;
use crate::policies;
use crate::tasks;

/// Longest payload and echoed texts, in characters.
const MAX_PAYLOAD: usize = 256 * 1024;
const MAX_ECHO: usize = 256;
/// Pages looked through for executions that no policy hides.
const MAX_PAGES: usize = 20;

/// An execution as the portal sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Execution)]
pub(super) struct Shown {
    id: ExecutionId,
    task_id: Option<TaskId>,
    agent_id: Option<AgentId>,
    tenant_id: WorkspaceId,
    /// A person's id, or the name of a key: `key:7`.
    submitted_by: String,
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    payload: Option<String>,
    result: Option<String>,
    error_message: Option<String>,
    claw_id: Option<String>,
    session_id: Option<String>,
    branch: Option<String>,
    pr_url: Option<String>,
    /// What it consumed, once it has ended: `inputTokens`, `outputTokens`, `costUsd`, ….
    #[schema(value_type = Option<Object>)]
    usage: Option<Value>,
    started_at: Option<String>,
    completed_at: Option<String>,
    created_at: String,
    updated_at: String,
}

/// What is to be run.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewExecution {
    /// The task's number, also as text.
    #[serde(alias = "task_id")]
    #[schema(value_type = i64)]
    task_id: Value,
    /// A stored agent's number, or a kind of agent.
    #[serde(alias = "agent_id")]
    #[schema(value_type = Option<i64>)]
    agent_id: Option<Value>,
    /// What is wanted, if not what the task says: text, or JSON with a `prompt`.
    #[schema(value_type = Option<String>)]
    payload: Option<Value>,
    /// Echoed.
    #[serde(alias = "claw_id")]
    #[schema(value_type = Option<String>)]
    claw_id: Option<Value>,
    /// Echoed.
    #[serde(alias = "session_id")]
    session_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListQuery {
    /// How many; 50 where nothing is said.
    limit: Option<i64>,
    /// Only those with a smaller number: the last one of the page before.
    before: Option<i64>,
    /// Only those with this status.
    status: Option<String>,
    /// Only those of this task.
    #[serde(alias = "task_id")]
    task_id: Option<i64>,
    /// Only those of this stored agent.
    #[serde(alias = "agent_id")]
    agent_id: Option<i64>,
}

impl Shown {
    pub(super) fn of(workspace: WorkspaceId, row: Row) -> Self {
        let submitted_by = match row.submitted_by.strip_prefix("user:") {
            Some(id) => id.to_owned(),
            None => row.submitted_by,
        };
        Self {
            id: ExecutionId(row.id),
            task_id: row.task_id.map(TaskId),
            agent_id: row.agent_id.map(AgentId),
            tenant_id: workspace,
            submitted_by,
            status: status(row.state, row.cancel_requested_at.is_some()),
            payload: row.payload,
            result: row.result,
            error_message: row.error_message.or(row.error_code),
            claw_id: row.claw_id,
            session_id: row.client_session,
            branch: row.branch,
            pr_url: row.pr_url,
            usage: row.usage,
            started_at: row.started_at.map(timestamp),
            completed_at: row.ended_at.map(timestamp),
            created_at: timestamp(row.created_at),
            updated_at: timestamp(row.updated_at),
        }
    }
}

/// The words that adapters know. From the wish to cancel on, every path ends in `cancelled`.
fn status(state: ExecutionState, is_cancelling: bool) -> &'static str {
    match state {
        ExecutionState::Completed | ExecutionState::Failed | ExecutionState::Cancelled => {
            state.as_str()
        }
        _ if is_cancelling => "cancelled",
        ExecutionState::Pending => "pending",
        ExecutionState::Planning | ExecutionState::Running | ExecutionState::Waiting => "running",
    }
}

/// A number, also as text.
fn number(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

/// Text as it is, anything else as its JSON.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// What a payload asks for: its `prompt` if it is JSON with one, else all of it.
fn prompt(payload: &str) -> Option<String> {
    let json: Option<Value> = serde_json::from_str(payload).ok();
    let Some(Value::Object(fields)) = json else {
        return (!payload.trim().is_empty()).then(|| payload.to_owned());
    };
    let names = ["prompt", "input", "description", "userRequest"];
    let named = names.iter().find_map(|name| fields.get(*name)?.as_str());
    named.map(str::to_owned)
}

/// `POST /api/runtime/executions`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    extract::Json(new): extract::Json<NewExecution>,
) -> ApiResult<(StatusCode, Json<Shown>)> {
    let task = number(&new.task_id)
        .map(TaskId)
        .ok_or_else(|| ApiError::invalid("taskId must be a task's number"))?;
    let asked = asked(new)?;
    let accepted = submit::of_task(&app, &principal, task, asked).await?;
    Ok((
        StatusCode::CREATED,
        shown(&app, &principal, accepted.id).await?,
    ))
}

fn asked(new: NewExecution) -> ApiResult<Asked> {
    let payload = new.payload.and_then(text);
    let claw_id = new.claw_id.and_then(text);
    for (field, text, longest) in [
        ("payload", &payload, MAX_PAYLOAD),
        ("clawId", &claw_id, MAX_ECHO),
        ("sessionId", &new.session_id, MAX_ECHO),
    ] {
        extract::check_text(field, text.as_deref().unwrap_or_default(), 0..=longest)?;
    }
    let agent = new.agent_id.as_ref().and_then(number).map(AgentId);
    Ok(Asked {
        agent_kind: match agent {
            Some(_) => None,
            None => new.agent_id.and_then(text),
        },
        agent,
        prompt: payload.as_deref().and_then(prompt),
        payload,
        claw_id,
        client_session: new.session_id,
    })
}

/// `GET /api/runtime/executions`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<Shown>>> {
    let task = query.task_id.map(TaskId);
    listed(&app, &principal, query, task).await
}

/// `GET /api/tasks/{id}/executions`.
pub(super) async fn of_task(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Vec<Shown>>> {
    let mut db = app.db.acquire().await?;
    let found = tasks::find(&mut db, principal.workspace, id).await?;
    drop(db);
    found.ok_or_else(tasks::no_such_task)?;
    listed(&app, &principal, query, Some(id)).await
}

async fn listed(
    app: &App,
    principal: &Principal,
    query: ListQuery,
    task: Option<TaskId>,
) -> ApiResult<Json<Vec<Shown>>> {
    let states: Option<Vec<&str>> = match query.status.as_deref() {
        None => None,
        Some("running") => Some(vec!["planning", "running", "waiting"]),
        Some("submitted") => Some(vec!["pending"]),
        Some(name) if ExecutionState::from_name(name).is_some() => Some(vec![name]),
        Some(_) => return Err(ApiError::invalid("status is not one that executions have")),
    };
    let mut filter = Filter {
        task,
        agent: query.agent_id.map(AgentId),
        states,
        before: query.before,
        limit: page::limit(query.limit)?,
    };
    let rules = policies::rules(app, principal).await?;
    let mut db = app.db.acquire().await?;
    let mut shown = Vec::new();
    // Clients take a page that is not full for the last one: hidden ones make room for others.
    for _ in 0..MAX_PAGES {
        let rows = portal::list(&mut db, principal.workspace, &filter).await?;
        let is_last = (rows.len() as i64) < filter.limit;
        filter.before = rows.last().map(|row| row.id);
        let seen = rows.into_iter();
        shown.extend(seen.filter(|row| rules.shows(principal, row.session)));
        if is_last || shown.len() as i64 >= filter.limit {
            break;
        }
    }
    shown.truncate(usize::try_from(filter.limit).unwrap_or(usize::MAX));
    let shown = shown
        .into_iter()
        .map(|row| Shown::of(principal.workspace, row));
    Ok(Json(shown.collect()))
}

/// `GET /api/runtime/executions/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ExecutionId>,
) -> ApiResult<Json<Shown>> {
    shown(&app, &principal, id).await
}

/// `POST /api/runtime/executions/{id}/cancel`.
pub(super) async fn cancel(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ExecutionId>,
) -> ApiResult<Json<Shown>> {
    // What a policy hides is not there to be cancelled either.
    find(&app, &principal, id).await?;
    let by = Actor::from(&principal);
    match cancelling::request(&app, principal.workspace, id, &by, "requested").await? {
        cancelling::CancelOutcome::Requested => shown(&app, &principal, id).await,
        cancelling::CancelOutcome::AlreadyEnded => Err(already_ended()),
    }
}

/// 409: nothing changes an execution that has ended.
pub(super) fn already_ended() -> ApiError {
    ApiError::conflict("already_ended", "the execution has ended; it cannot change")
}

pub(super) async fn shown(
    app: &App,
    principal: &Principal,
    id: ExecutionId,
) -> ApiResult<Json<Shown>> {
    let row = find(app, principal, id).await?;
    Ok(Json(Shown::of(principal.workspace, row)))
}

/// 404 for an execution that the workspace does not have, or that a policy hides.
async fn find(app: &App, principal: &Principal, id: ExecutionId) -> ApiResult<Row> {
    let rules = policies::rules(app, principal).await?;
    let mut db = app.db.acquire().await?;
    let row = portal::find(&mut db, principal.workspace, id).await?;
    row.filter(|row| rules.shows(principal, row.session))
        .ok_or_else(no_such_execution)
}

/// What a pull request is to say.
#[derive(Deserialize, Default, ToSchema)]
pub(super) struct NewPull {
    /// Absent: the task's key and title.
    title: Option<String>,
    /// Absent: the task's description.
    body: Option<String>,
    /// The branch that it is for; absent: the project's, else the repository's own default.
    base: Option<String>,
    #[serde(default)]
    draft: bool,
}

/// A pull request that is open now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OpenedPullRequest)]
pub(super) struct Pull {
    pr_url: String,
    pr_number: u64,
    branch: String,
}

/// `POST /api/tasks/{id}/create_pr`.
pub(super) async fn create_pr(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
    extract::Json(new): extract::Json<NewPull>,
) -> ApiResult<Json<Pull>> {
    for (field, text) in [
        ("title", &new.title),
        ("body", &new.body),
        ("base", &new.base),
    ] {
        extract::check_text(field, text.as_deref().unwrap_or_default(), 0..=MAX_PAYLOAD)?;
    }
    let asked = pull::Asked {
        title: new.title,
        body: new.body,
        base: new.base,
        draft: new.draft,
    };
    let (opened, branch) = pull::open(&app, &principal, id, asked).await?;
    Ok(Json(Pull {
        pr_url: opened.url,
        pr_number: opened.number,
        branch,
    }))
}
