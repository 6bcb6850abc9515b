//! The client API of executions.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::{BufMut, BytesMut};
use clawlink_shared::execution::{Priority, State as ExecutionState};
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::IntoParams;
use uuid::Uuid;

use super::accept::{self, Accepted, Once};
use super::cancel::{self, CancelOutcome};
use super::request;
use super::sse::{self, CancelOnDrop};
use super::store::accept::Link;
use super::store::events::timestamp;
use super::store::read::{self, Record};
use super::wait::{self, Outlook};
use crate::app::App;
use crate::audit::Actor;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::doc::Doc;
use crate::http::extract::{Body, Path, Query, last_event_id, require_json, wants};
use crate::http::routes::{Access, Routes};
use crate::usage;
use crate::workspaces::role::Permission;

/// Longest `Idempotency-Key`, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Events of a JSON page where the request says nothing.
const PAGE_EVENTS: i64 = 100;
/// Most events of a JSON page.
const MAX_PAGE_EVENTS: i64 = 1000;
/// Bytes of a JSON page, exceeded by at most one event.
const PAGE_BYTES: i64 = 1024 * 1024;

/// Executions that a session's answer lists.
const MAX_LISTED: i64 = 200;

/// What clients call.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .post(
            "/execute",
            Access::Needs(Permission::ExecutionSubmit),
            execute,
            Doc::new("Submit an execution; answers as a stream, or with ids for JSON")
                .query::<ExecuteQuery>()
                .any_body()
                .streams()
                .gives_any(202),
        )
        .get(
            "/executions/{id}",
            Access::Needs(Permission::ExecutionRead),
            get,
            Doc::new("An execution, by number or UUID")
                .text("id")
                .gives_any(200),
        )
        .get(
            "/executions/{id}/events",
            Access::Needs(Permission::ExecutionRead),
            events,
            Doc::new("An execution's events, as a stream or as a page of JSON")
                .text("id")
                .query::<EventsQuery>()
                .streams()
                .gives_any(200),
        )
        .post(
            "/executions/{id}/cancel",
            Access::Needs(Permission::ExecutionCancel),
            cancel,
            Doc::new("Cancel an execution")
                .text("id")
                .any_body()
                .gives_any(202),
        )
}

#[derive(Deserialize, IntoParams)]
struct ExecuteQuery {
    queue: Option<bool>,
}

/// The answer to clients that want JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Submitted {
    execution_id: ExecutionId,
    execution_uuid: Uuid,
    session_id: SessionId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Outlook>,
}

/// `POST /execute`.
async fn execute(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ExecuteQuery>,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response> {
    require_json(&headers)?;
    let body = request::json(&body)?;
    let once = once(&app, &headers, &body)?;
    let request = request::parse(&body, &app.tuning)?;
    drop(body);
    let cancel_on_disconnect = request.cancel_on_disconnect;
    let may_wait = query.queue.unwrap_or(true);
    let accepted = Box::pin(accept::accept(
        &app,
        &principal,
        request,
        once,
        may_wait,
        &Link::default(),
    ))
    .await?;
    let (id, session) = (accepted.id, accepted.session);
    let mut response = if wants(&headers, "application/json") {
        submitted(&app, accepted).await
    } else {
        let guard = (cancel_on_disconnect && accepted.fresh.is_some())
            .then(|| CancelOnDrop::new(&app, principal.workspace, id, Actor::from(&principal)));
        let (cursor, first) = match accepted.fresh {
            Some(fresh) => (0, fresh.events),
            None => (last_event_id(&headers, None)?.unwrap_or(0), Vec::new()),
        };
        let stream = (session, id);
        sse::of_execution(&app, principal.workspace, stream, cursor, first, guard)
    };
    let headers = response.headers_mut();
    headers.insert("x-execution-id", HeaderValue::from(id.0));
    let session = HeaderValue::from_str(&session.to_string()).expect("a UUID is ASCII");
    headers.insert("x-session-id", session);
    Ok(response)
}

pub(super) fn once(app: &App, headers: &HeaderMap, body: &Value) -> ApiResult<Option<Once>> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= MAX_IDEMPOTENCY_KEY)
        .ok_or_else(|| {
            ApiError::invalid(format!(
                "Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters"
            ))
        })?;
    Ok(Some(Once {
        key: key.to_owned(),
        body_macs: app.keys.body_macs(&request::canonical(body)),
    }))
}

async fn submitted(app: &App, accepted: Accepted) -> Response {
    let queue = match accepted.fresh {
        Some(fresh) => Some(fresh.outlook),
        None if accepted.state == ExecutionState::Pending => {
            Some(wait::of_pending(app, accepted.id).await)
        }
        None => None,
    };
    let submitted = Submitted {
        execution_id: accepted.id,
        execution_uuid: accepted.uuid,
        session_id: accepted.session,
        status: accepted.state.as_str(),
        queue,
    };
    let location = [(header::LOCATION, format!("/executions/{}", accepted.id))];
    (StatusCode::ACCEPTED, location, Json(submitted)).into_response()
}

/// An execution as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    execution_id: ExecutionId,
    execution_uuid: Uuid,
    session_id: SessionId,
    turn: i32,
    provider: String,
    priority: Option<Priority>,
    status: &'static str,
    attempt: i32,
    last_seq: i64,
    submitted_by: String,
    created_at: String,
    #[serde(flatten)]
    rest: ShownLater,
}

/// What an execution gets on its way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownLater {
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Outlook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_requested_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ShownError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pr_url: Option<String>,
}

#[derive(Serialize)]
struct ShownError {
    code: String,
    message: Option<String>,
}

impl Shown {
    /// As it stands, with its outlook while it waits.
    async fn now(app: &App, record: Record) -> Self {
        let queue = match record.state {
            ExecutionState::Pending => Some(wait::of_pending(app, record.id).await),
            _ => None,
        };
        let message = record.error_message;
        Self {
            execution_id: record.id,
            execution_uuid: record.uuid,
            session_id: record.session,
            turn: record.turn,
            provider: record.agent,
            priority: Priority::from_i16(record.priority),
            status: record.state.as_str(),
            attempt: record.attempt,
            last_seq: record.last_seq,
            submitted_by: record.submitted_by,
            created_at: timestamp(record.created_at),
            rest: ShownLater {
                queue,
                worker_id: record.worker_id,
                started_at: record.started_at.map(timestamp),
                ended_at: record.ended_at.map(timestamp),
                cancel_requested_at: record.cancel_requested_at.map(timestamp),
                result: record.result,
                usage: record.usage,
                error: record.error_code.map(|code| ShownError { code, message }),
                branch: record.branch,
                commit_hash: record.commit_hash,
                pr_url: record.pr_url,
            },
        }
    }
}

/// A session's executions, in order of turn.
pub(crate) async fn of_session(
    app: &App,
    workspace: WorkspaceId,
    session: SessionId,
) -> ApiResult<Vec<Shown>> {
    let mut db = app.db.acquire().await?;
    let mut records = read::of_session(&mut db, workspace, session, MAX_LISTED).await?;
    add_usage(&mut db, workspace, &mut records).await?;
    drop(db);
    let mut shown = Vec::with_capacity(records.len());
    for record in records.into_iter().rev() {
        shown.push(Shown::now(app, record).await);
    }
    Ok(shown)
}

/// Says of executions that have begun what they consumed so far; with an end it stands there.
async fn add_usage(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    records: &mut [Record],
) -> ApiResult<()> {
    let lacks = |record: &&Record| record.usage.is_none() && record.started_at.is_some();
    let ids: Vec<ExecutionId> = records.iter().filter(lacks).map(|one| one.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    for (id, usage) in usage::of_executions(db, workspace, &ids).await? {
        let usage = serde_json::to_value(usage).map_err(anyhow::Error::from)?;
        if let Some(record) = records.iter_mut().find(|record| record.id == id) {
            record.usage = Some(usage);
        }
    }
    Ok(())
}

/// The execution of this number or UUID; 404 if the caller may not see one.
pub(crate) async fn find(app: &App, principal: &Principal, id: &str) -> ApiResult<Record> {
    let name = id
        .parse()
        .map_err(|()| ApiError::invalid("an execution's id is its number or its UUID"))?;
    super::find(app, principal, name).await
}

/// `GET /executions/{id}`.
async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    let mut record = find(&app, &principal, &id).await?;
    let mut db = app.db.acquire().await?;
    add_usage(
        &mut db,
        principal.workspace,
        std::slice::from_mut(&mut record),
    )
    .await?;
    drop(db);
    Ok(Json(Shown::now(&app, record).await))
}

#[derive(Deserialize, IntoParams)]
struct EventsQuery {
    after: Option<i64>,
    limit: Option<i64>,
}

/// `GET /executions/{id}/events`: a stream, or a page for `Accept: application/json`.
async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let record = find(&app, &principal, &id).await?;
    let after = last_event_id(&headers, query.after)?.unwrap_or(0);
    if !wants(&headers, "application/json") {
        let workspace = principal.workspace;
        return Ok(sse::of_execution(
            &app,
            workspace,
            (record.session, record.id),
            after,
            Vec::new(),
            None,
        ));
    }
    let limit = query.limit.unwrap_or(PAGE_EVENTS);
    if !(1..=MAX_PAGE_EVENTS).contains(&limit) {
        return Err(ApiError::invalid(format!(
            "limit must be from 1 to {MAX_PAGE_EVENTS}"
        )));
    }
    let mut db = app.db.acquire().await?;
    let page = read::log_page(
        &mut db,
        principal.workspace,
        record.id,
        after,
        limit,
        PAGE_BYTES,
    )
    .await?
    .unwrap_or_default();
    Ok(page_of(&page))
}

/// `{events: […], nextAfter?}`, with the envelopes byte for byte.
fn page_of(page: &read::LogPage) -> Response {
    let mut body = BytesMut::from(&b"{\"events\":["[..]);
    for (index, (_, payload)) in page.events.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.put_slice(payload);
    }
    body.put_u8(b']');
    if let Some((seq, _)) = page.events.last().filter(|_| page.has_more) {
        body.put_slice(format!(",\"nextAfter\":{seq}").as_bytes());
    }
    body.put_u8(b'}');
    ([(header::CONTENT_TYPE, "application/json")], body.freeze()).into_response()
}

#[derive(Deserialize, Default)]
struct CancelBody {
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cancelling {
    execution_id: ExecutionId,
    execution_uuid: Uuid,
    status: &'static str,
}

/// `POST /executions/{id}/cancel`.
async fn cancel(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Body(body): Body,
) -> ApiResult<Response> {
    let record = find(&app, &principal, &id).await?;
    let reason = reason(&body)?;
    let by = Actor::from(&principal);
    match cancel::request(&app, principal.workspace, record.id, &by, &reason).await? {
        CancelOutcome::Requested => {
            let body = Cancelling {
                execution_id: record.id,
                execution_uuid: record.uuid,
                status: "cancelling",
            };
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        CancelOutcome::AlreadyEnded => Err(ApiError::conflict(
            "already_ended",
            "the execution has ended; it can no longer be cancelled",
        )),
    }
}

/// The optional `{reason}` of a cancel request; old clients send no body at all.
fn reason(body: &[u8]) -> ApiResult<String> {
    const MAX_REASON: usize = 1000;
    if body.trim_ascii().is_empty() {
        return Ok("requested".to_owned());
    }
    let body: CancelBody = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is not as expected: {error}")))?;
    match body.reason {
        Some(reason) if reason.len() > MAX_REASON || reason.contains('\0') => Err(
            ApiError::invalid(format!("reason must be text of at most {MAX_REASON} bytes")),
        ),
        Some(reason) if !reason.is_empty() => Ok(reason),
        _ => Ok("requested".to_owned()),
    }
}
