//! The log over HTTP: lists in the shape of either generation, and the export.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use clawlink_shared::id::{UserId, WorkspaceId};
use uuid::Uuid;

use super::query::{self, EntriesQuery, Filter};
use super::render::{Event, Line, OlderEvent};
use super::{Actor, Entry, record, store};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;
use crate::http::extract::{Path, Query};
use crate::http::page;

/// Entries of a list where the request says nothing.
const EVENTS: i64 = 100;
/// The same for what one person or client session did.
const ACTIVITY: i64 = 50;
/// Entries of the export read at a time.
const EXPORT_PAGE: i64 = 500;

/// `GET /api/audit/events`.
pub(super) async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<EntriesQuery>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let filter = query.filter(None, None);
    let whose = Some(principal.workspace);
    list(&app, whose, (&query, EVENTS), filter, &headers, &uri).await
}

/// `GET /api/audit/users/{user}/activity`. One whom the workspace does not know did nothing.
pub(super) async fn of_user(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(user): Path<UserId>,
    Query(query): Query<EntriesQuery>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let filter = query.filter(Some(user), None);
    let whose = Some(principal.workspace);
    list(&app, whose, (&query, ACTIVITY), filter, &headers, &uri).await
}

/// `GET /api/audit/sessions/{session}/activity`, of a client session.
pub(super) async fn of_session(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<Uuid>,
    Query(query): Query<EntriesQuery>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let filter = query.filter(None, Some(session));
    let whose = Some(principal.workspace);
    list(&app, whose, (&query, ACTIVITY), filter, &headers, &uri).await
}

/// `GET /api/admin/audit/events`: what belongs to no workspace, such as signing in.
pub(super) async fn of_platform(
    State(app): State<App>,
    Query(query): Query<EntriesQuery>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let filter = query.filter(None, None);
    list(&app, None, (&query, EVENTS), filter, &headers, &uri).await
}

async fn list(
    app: &App,
    whose: Option<WorkspaceId>,
    (query, usual): (&EntriesQuery, i64),
    filter: Filter,
    headers: &HeaderMap,
    uri: &Uri,
) -> ApiResult<Response> {
    let mut asked = query.page(usual)?;
    let limit = asked.limit;
    asked.limit += 1;
    let mut db = app.db.acquire().await?;
    let mut records = store::read::newest(&mut db, whose, &filter, &asked).await?;
    drop(db);
    let next = match page::cut(&mut records, limit) {
        Some(last) => page::next(uri, &query::cursor(last.id)),
        None => HeaderMap::new(),
    };
    if query.is_older(headers) {
        let events: anyhow::Result<Vec<OlderEvent>> =
            records.into_iter().map(OlderEvent::new).collect();
        return Ok((next, Json(events?)).into_response());
    }
    let events = records.into_iter().map(|one| Event::new(whose, one));
    Ok((next, Json(events.collect::<Vec<_>>())).into_response())
}

/// `GET /api/audit/export`: lines of JSON, oldest first, as of now. A page is read when the one
/// before it has been taken, so a slow reader costs nothing.
pub(super) async fn export(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<EntriesQuery>,
) -> ApiResult<Response> {
    let filter = query.filter(None, None);
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    let up_to = store::read::last_id(&mut tx, workspace).await?;
    let actor = Actor::from(&principal);
    let exported = Entry::done(
        workspace,
        &actor,
        "audit.exported",
        ("workspace", workspace.to_string()),
    );
    record(&mut tx, &exported).await?;
    tx.commit().await?;
    let lines = async_stream::try_stream! {
        let mut after = 0;
        loop {
            // Whoever reads sees that the export broke off, not that it ended.
            if app.shutdown.soft().is_cancelled() {
                Err(anyhow::anyhow!("the dispatcher drains"))?;
            }
            let mut db = app.db.acquire().await?;
            let records =
                store::read::oldest(&mut db, workspace, &filter, (after, up_to), EXPORT_PAGE).await?;
            drop(db);
            let Some(last) = records.last() else { break };
            after = last.id;
            let mut text = Vec::new();
            for record in records {
                serde_json::to_writer(&mut text, &Line::new(workspace, record)?)?;
                text.push(b'\n');
            }
            yield Bytes::from(text);
        }
    };
    let lines: std::pin::Pin<Box<dyn futures::Stream<Item = anyhow::Result<Bytes>> + Send>> =
        Box::pin(lines);
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"audit.jsonl\"",
        ),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(lines)).into_response())
}
