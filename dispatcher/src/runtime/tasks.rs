//! Submitting, looking and cancelling in the words of that generation. A task there is an
//! execution here; its id is the execution's UUID.

use axum::extract::State;
use axum::{Extension, Json};
use clawlink_shared::execution::State as ExecutionState;
use clawlink_shared::id::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::sessions::{self, OfSession};
use crate::app::App;
use crate::audit::Actor;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::cancel::{self, CancelOutcome};
use crate::executions::{self, Name, Record};
use crate::http::extract::{self, Path, Query};

/// The agent of clients that have no opinion: the installation's default.
pub(super) const GENERAL_PURPOSE: &str = "general-purpose";
/// The agent of an installation without a default.
const FALLBACK_AGENT: &str = "claude";

/// What is to be done.
#[derive(Deserialize, ToSchema)]
pub(super) struct Submission {
    agent_type: Option<String>,
    prompt: String,
    /// Anything more that the agent is to know; it is put behind the prompt.
    #[schema(value_type = Option<Object>)]
    context: Option<Value>,
    session_id: Option<Uuid>,
    /// A task of the workspace that this is for: its number, also as text.
    #[schema(value_type = Option<String>)]
    task_id: Option<Value>,
}

/// An execution in the words of that generation.
#[derive(Serialize, ToSchema)]
#[schema(as = RuntimeTask)]
pub(super) struct Task {
    task_id: Uuid,
    execution_uuid: Uuid,
    /// `pending`, `planning`, `running`, `waiting`, `completed`, `failed` or `cancelled`.
    state: &'static str,
    /// False once it failed or was cancelled.
    success: bool,
    result: Option<String>,
    error: Option<String>,
    /// Seconds from its start to its end, or until now.
    execution_time: Option<f64>,
    #[schema(value_type = Object)]
    metadata: Value,
}

/// That cancelling was asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = RuntimeTaskCancelled)]
pub(super) struct Cancelled {
    success: bool,
    task_id: Uuid,
}

/// The session in the body of a request that may have none.
#[derive(Deserialize, Default)]
pub(super) struct InBody {
    session_id: Option<Uuid>,
}

impl From<Record> for Task {
    fn from(record: Record) -> Self {
        let failed = matches!(
            record.state,
            ExecutionState::Failed | ExecutionState::Cancelled
        );
        let until = record
            .ended_at
            .unwrap_or_else(time::OffsetDateTime::now_utc);
        let error = record.error_message.or(record.error_code);
        Self {
            task_id: record.uuid,
            execution_uuid: record.uuid,
            state: record.state.as_str(),
            success: !failed,
            result: record.result,
            error: error.filter(|_| failed),
            execution_time: record
                .started_at
                .map(|started| (until - started).as_seconds_f64()),
            metadata: json!({
                "executionId": record.id,
                "sessionId": record.session,
                "agentType": record.agent,
                "branch": record.branch,
                "commitHash": record.commit_hash,
                "prUrl": record.pr_url,
            }),
        }
    }
}

/// `POST /api/runtime/tasks/submit`.
pub(super) async fn submit(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<OfSession>,
    extract::Json(submission): extract::Json<Submission>,
) -> ApiResult<Json<Task>> {
    let session = submission.session_id.or(query.session_id);
    sessions::require(&app, &principal, session).await?;
    let task = submission.task_id.as_ref().and_then(number).map(TaskId);
    let request = request(&app, &submission);
    let accepted = executions::submit(&app, &principal, &request, task).await?;
    shown(&app, &principal, accepted).await
}

/// The body of `POST /execute` that asks for the same.
fn request(app: &App, submission: &Submission) -> Value {
    let mut prompt = submission.prompt.clone();
    if let Some(context) = submission.context.as_ref().filter(|value| !value.is_null()) {
        prompt.push_str(&format!("\n\nContext:\n{context:#}"));
    }
    let asked = submission.agent_type.as_deref();
    let default = app.tuning.default_agent.as_deref();
    let agent = asked
        .filter(|agent| *agent != GENERAL_PURPOSE)
        .or(default)
        .unwrap_or(FALLBACK_AGENT);
    let mut request = Map::new();
    request.insert("userRequest".to_owned(), prompt.into());
    request.insert("codingAssistantProvider".to_owned(), agent.into());
    Value::Object(request)
}

/// A number, also as text; other names of tasks belong to other systems.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// `GET /api/runtime/tasks/{id}/state`.
pub(super) async fn state(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
    Query(query): Query<OfSession>,
) -> ApiResult<Json<Task>> {
    sessions::require(&app, &principal, query.session_id).await?;
    shown(&app, &principal, id).await
}

/// `POST /api/runtime/tasks/{id}/cancel`.
pub(super) async fn cancel_task(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
    Query(query): Query<OfSession>,
    extract::Json(body): extract::Json<InBody>,
) -> ApiResult<Json<Cancelled>> {
    let session = body.session_id.or(query.session_id);
    sessions::require(&app, &principal, session).await?;
    let record = find(&app, &principal, id).await?;
    let by = Actor::from(&principal);
    match cancel::request(&app, principal.workspace, record.id, &by, "requested").await? {
        CancelOutcome::Requested => {}
        CancelOutcome::AlreadyEnded => {
            return Err(ApiError::conflict(
                "already_ended",
                "the execution has ended; it can no longer be cancelled",
            ));
        }
    }
    Ok(Json(Cancelled {
        success: true,
        task_id: id,
    }))
}

async fn shown(app: &App, principal: &Principal, id: Uuid) -> ApiResult<Json<Task>> {
    Ok(Json(find(app, principal, id).await?.into()))
}

async fn find(app: &App, principal: &Principal, id: Uuid) -> ApiResult<Record> {
    executions::find(app, principal, Name::Uuid(id)).await
}
