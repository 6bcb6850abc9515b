//! The client API of questions and answers.

use axum::extract::State;
use axum::{Extension, Json};
use clawlink_shared::approval::{Decision, QuestionKind};
use clawlink_shared::id::{ExecutionId, SessionId};
use clawlink_shared::problem::FieldFault;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::decide;
use super::store::{self, Row};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::{self, timestamp};
use crate::http::extract::{self, Path, Query};
use crate::http::page::{self, Cursor};
use crate::policies;

/// Longest message with an answer, in characters.
const MAX_MESSAGE: usize = 4096;

/// A question as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Approval)]
pub(super) struct Shown {
    approval_id: Uuid,
    execution_id: ExecutionId,
    session_id: SessionId,
    /// The agent's kind.
    provider: String,
    kind: QuestionKind,
    tool: String,
    /// As the agent says it, redacted.
    #[schema(value_type = Object)]
    input: Box<RawValue>,
    /// The input is cut or masked.
    partial: bool,
    /// `open`, `allowed`, `denied`, `expired` or `withdrawn`.
    state: String,
    /// What the agent was told: `allow`, `allow_for_session` or `deny`.
    decision: Option<String>,
    message: Option<String>,
    /// `user:…`, `key:7`, `policy:3`, `session`, `timeout`, `limit`, `agent` or `end`.
    decided_by: Option<String>,
    decided_at: Option<String>,
    created_at: String,
    expires_at: String,
}

impl From<Row> for Shown {
    fn from(row: Row) -> Self {
        Self {
            approval_id: row.id,
            execution_id: row.execution,
            session_id: row.session,
            provider: row.agent,
            kind: row.kind,
            tool: row.tool,
            input: row.input,
            partial: row.is_partial,
            state: row.state,
            decision: row.decision,
            message: row.message,
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(timestamp),
            created_at: timestamp(row.created_at),
            expires_at: timestamp(row.expires_at),
        }
    }
}

/// Questions, oldest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Approvals {
    approvals: Vec<Shown>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An answer.
#[derive(Deserialize, ToSchema)]
#[schema(as = ApprovalAnswer)]
pub(super) struct AnswerBody {
    #[schema(required)]
    decision: Option<Decision>,
    /// Why, for the agent to read.
    message: Option<String>,
}

/// A piece of a list.
#[derive(Deserialize, IntoParams)]
pub(super) struct OpenQuery {
    /// How many; 50 where nothing is said.
    limit: Option<i64>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
}

/// `POST /executions/{id}/approvals/{approvalId}`.
pub(super) async fn answer(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((id, approval)): Path<(String, Uuid)>,
    extract::Json(body): extract::Json<AnswerBody>,
) -> ApiResult<Json<Shown>> {
    let Some(decision) = body.decision else {
        return Err(ApiError::invalid_fields(vec![FieldFault {
            field: "decision".to_owned(),
            message: "is required: allow, allow_for_session or deny".to_owned(),
        }]));
    };
    let message = body.message.filter(|message| !message.is_empty());
    extract::check_text(
        "message",
        message.as_deref().unwrap_or_default(),
        0..=MAX_MESSAGE,
    )?;
    let execution = executions::visible(&app, &principal, &id).await?.id;
    let said = (decision, message.as_deref());
    let row = decide::decide(&app, &principal, execution, approval, said).await?;
    Ok(Json(row.into()))
}

/// `GET /executions/{id}/approvals`.
pub(super) async fn of_execution(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Query(query): Query<OpenQuery>,
) -> ApiResult<Json<Approvals>> {
    let execution = executions::visible(&app, &principal, &id).await?.id;
    let (after, limit) = query.read()?;
    let mut db = app.db.acquire().await?;
    let workspace = principal.workspace;
    let rows = store::of_execution(&mut db, workspace, execution, after, limit + 1).await?;
    Ok(Json(Approvals::page(rows, limit, |_| true)))
}

/// `GET /api/approvals`.
pub(super) async fn open(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<OpenQuery>,
) -> ApiResult<Json<Approvals>> {
    let (after, limit) = query.read()?;
    let rules = policies::rules(&app, &principal).await?;
    let mut db = app.db.acquire().await?;
    let rows = store::open(&mut db, principal.workspace, after, limit + 1).await?;
    let shows = |row: &Row| rules.shows(&principal, row.session);
    Ok(Json(Approvals::page(rows, limit, shows)))
}

/// Where a page begins, and how long it is.
type Place = (Option<(time::OffsetDateTime, Uuid)>, i64);

impl OpenQuery {
    fn read(&self) -> ApiResult<Place> {
        let cursor = self.cursor.as_deref().map(Cursor::decode).transpose()?;
        let after = cursor.map(|cursor| (cursor.time(), cursor.id));
        Ok((after, page::limit(self.limit)?))
    }
}

impl Approvals {
    /// The first `limit` of these rows, without those that the caller may not see.
    fn page(mut rows: Vec<Row>, limit: i64, shows: impl Fn(&Row) -> bool) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| has_more);
        let next_cursor = last.map(|row| Cursor::at(row.created_at, row.id).encode());
        Self {
            approvals: rows.into_iter().filter(shows).map(Shown::from).collect(),
            next_cursor,
        }
    }
}
