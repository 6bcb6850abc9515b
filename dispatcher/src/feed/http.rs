//! The client API of the feed.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::stream;
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;
use crate::http::extract::{Query, last_event_id};

#[derive(Deserialize, IntoParams)]
pub(super) struct EventsQuery {
    /// Only what came after this number; `Last-Event-ID` says the same.
    after: Option<i64>,
}

/// `GET /api/events`.
pub(super) async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let after = last_event_id(&headers, query.after)?;
    Ok(stream::of_workspace(&app, principal.workspace, after))
}
