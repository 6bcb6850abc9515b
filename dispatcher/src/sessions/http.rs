//! The client API of sessions.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use clawlink_shared::id::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::store::{self, Row};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::accept::no_such_session;
use crate::executions::http::{Shown, of_session};
use crate::executions::sse::{self, Format};
use crate::executions::timestamp;
use crate::http::extract::{self, Path, Query, wants};
use crate::http::page::{self, Cursor};
use crate::limits::Amount;
use crate::policies;
use crate::usage::money::Micros;

/// A session as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    session_id: SessionId,
    session_name: String,
    provider: String,
    /// Where its archive is; always `s3`.
    storage: &'static str,
    created_at: String,
    updated_at: String,
    turns: i32,
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_bytes: Option<i64>,
    /// What all its turns may cost, in US dollars, if it has a limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_budget_usd: Option<Micros>,
    #[serde(skip_serializing_if = "Option::is_none")]
    github: Option<Github>,
}

/// Its repository.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Github {
    repo_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    /// The branch that its work is committed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    working_branch: Option<String>,
    auto_commit: bool,
}

impl From<Row> for Session {
    fn from(row: Row) -> Self {
        let github = row.repo_url.map(|repo_url| Github {
            repo_url,
            branch: row.repo_branch,
            directory: row.repo_directory,
            working_branch: row.working_branch,
            auto_commit: row.auto_commit,
        });
        Self {
            session_id: SessionId(row.id),
            session_name: row.name,
            provider: row.agent,
            storage: "s3",
            created_at: timestamp(row.created_at),
            updated_at: timestamp(row.updated_at),
            turns: row.turns,
            status: row.state,
            archive_bytes: row.archive_size,
            session_budget_usd: row.budget_micros.map(Micros),
            github,
        }
    }
}

#[derive(Deserialize, IntoParams)]
pub(super) struct ListQuery {
    limit: Option<i64>,
    cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    /// Sessions on this page.
    count: usize,
    sessions: Vec<Session>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET /sessions`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<List>> {
    let limit = page::limit(query.limit)?;
    let cursor = query.cursor.as_deref().map(Cursor::decode).transpose()?;
    let rules = policies::rules(&app, &principal).await?;
    let mut db = app.db.acquire().await?;
    let mut rows = store::list(&mut db, principal.workspace, None, cursor, limit + 1).await?;
    let last = page::cut(&mut rows, limit);
    let next_cursor = last.map(|row| Cursor::at(row.created_at, row.id).encode());
    let sessions: Vec<Session> = rows
        .into_iter()
        .filter(|row| rules.shows(&principal, SessionId(row.id)))
        .map(Session::from)
        .collect();
    Ok(Json(List {
        count: sessions.len(),
        sessions,
        next_cursor,
    }))
}

fn session_id(text: &str) -> ApiResult<SessionId> {
    text.parse()
        .map_err(|_| ApiError::invalid("a session's id is a UUID"))
}

async fn find(app: &App, principal: &Principal, id: &str) -> ApiResult<Session> {
    let id = session_id(id)?;
    policies::require_session(app, principal, id).await?;
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, principal.workspace, Some(id), None, 1).await?;
    let row = rows.into_iter().next();
    row.map(Session::from).ok_or_else(no_such_session)
}

#[derive(Serialize)]
pub(super) struct WithExecutions {
    #[serde(flatten)]
    session: Session,
    /// In order of turn; of a very long session the last ones.
    executions: Vec<Shown>,
}

/// `GET /sessions/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> ApiResult<Json<WithExecutions>> {
    let session = find(&app, &principal, &id).await?;
    let executions = of_session(&app, principal.workspace, session.session_id).await?;
    Ok(Json(WithExecutions {
        session,
        executions,
    }))
}

/// What may be changed of a session.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SessionChange)]
pub(super) struct Change {
    /// US dollars for all its turns; null: what the workspace allows each session.
    #[serde(default)]
    #[schema(value_type = Option<f64>, required)]
    session_budget_usd: Amount,
}

/// `PATCH /sessions/{id}`.
pub(super) async fn change(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    extract::Json(body): extract::Json<Change>,
) -> ApiResult<Json<Session>> {
    let mut faults = Vec::new();
    let budget = body
        .session_budget_usd
        .read("sessionBudgetUsd", &mut faults);
    if !faults.is_empty() {
        return Err(ApiError::invalid_fields(faults));
    }
    let session = find(&app, &principal, &id).await?;
    super::set_budget(&app, &principal, session.session_id, budget).await?;
    find(&app, &principal, &id).await.map(Json)
}

#[derive(Deserialize, IntoParams)]
pub(super) struct StreamQuery {
    after: Option<String>,
}

/// `GET /sessions/{id}/stream`: all turns from the start or from after an id.
pub(super) async fn stream(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let session = find(&app, &principal, &id).await?;
    let after = match headers.get("last-event-id") {
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => query.after.as_deref(),
    };
    let position = after.map(place).transpose()?.unwrap_or((0, 0));
    let format = if wants(&headers, "application/x-ndjson") {
        Format::JsonLines
    } else {
        Format::EventStream
    };
    let workspace = principal.workspace;
    Ok(sse::of_session(
        &app,
        workspace,
        session.session_id,
        position,
        format,
    ))
}

/// `<turn>.<seq>`.
fn place(text: &str) -> ApiResult<(i32, i64)> {
    text.trim()
        .split_once('.')
        .and_then(|(turn, seq)| Some((turn.parse().ok()?, seq.parse().ok()?)))
        .filter(|(turn, seq)| *turn >= 0 && *seq >= 0)
        .ok_or_else(|| ApiError::invalid("Last-Event-ID must have the form <turn>.<seq>"))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct DeleteQuery {
    #[serde(default)]
    force: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Deleted {
    session_id: SessionId,
    deleted: bool,
}

/// `DELETE /sessions/{id}`.
pub(super) async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> ApiResult<Json<Deleted>> {
    let session_id = session_id(&id)?;
    policies::require_session(&app, &principal, session_id).await?;
    super::delete(&app, &principal, session_id, query.force).await?;
    Ok(Json(Deleted {
        session_id,
        deleted: true,
    }))
}
