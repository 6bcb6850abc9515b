//! What is said to a session whose agent cannot take it now: a request like any other.

use axum::http::HeaderMap;
use clawlink_shared::id::{ExecutionId, SessionId};
use serde_json::Value;
use uuid::Uuid;

use super::accept::{self, Accepted};
use super::store::accept::Link;
use super::{http, request};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;

pub(crate) use super::accept::Once;

/// A turn that exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Its number.
    pub(crate) id: ExecutionId,
    /// Its other name.
    pub(crate) uuid: Uuid,
    /// Whose it is.
    pub(crate) session: SessionId,
}

impl From<Accepted> for Turn {
    fn from(accepted: Accepted) -> Self {
        Self {
            id: accepted.id,
            uuid: accepted.uuid,
            session: accepted.session,
        }
    }
}

/// The request's `Idempotency-Key` with this body, as executions keep it.
pub(crate) fn once(app: &App, headers: &HeaderMap, body: &Value) -> ApiResult<Option<Once>> {
    http::once(app, headers, body)
}

/// What an earlier request with this key made.
pub(crate) async fn earlier(
    app: &App,
    principal: &Principal,
    once: Option<&Once>,
) -> ApiResult<Option<Turn>> {
    if once.is_none() {
        return Ok(None);
    }
    let mut db = app.db.acquire().await?;
    let earlier = accept::earlier(&mut db, principal, once).await?;
    Ok(earlier.map(Turn::from))
}

/// Submits what `POST /execute` would be sent.
pub(crate) async fn submit(
    app: &App,
    principal: &Principal,
    body: &Value,
    once: Option<Once>,
) -> ApiResult<Turn> {
    let request = request::parse(body, &app.tuning)?;
    let link = Link::default();
    let accepting = accept::accept(app, principal, request, once, true, &link);
    Ok(Box::pin(accepting).await?.into())
}
