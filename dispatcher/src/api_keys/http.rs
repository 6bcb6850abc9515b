//! The client API of API keys.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use clawlink_shared::id::{ApiKeyId, UserId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::store::{self, Row};
use super::{MAX_KEYS, New};
use crate::app::App;
use crate::auth::principal::{KeyRole, Principal, Who};
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::body::maybe_moment;
use crate::http::doc::Doc;
use crate::http::extract::{Json, Path};
use crate::http::routes::{Access, Routes};
use crate::workspaces;
use crate::workspaces::role::Permission;

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/tenants/{id}/keys",
            Access::Needs(Permission::KeyRead),
            list,
            Doc::new("The workspace's API keys, without their secrets").gives::<Keys>(200),
        )
        .post(
            "/api/tenants/{id}/keys",
            Access::Needs(Permission::KeyManage),
            create,
            Doc::new("Make an API key; its secret is shown this once")
                .body::<KeyBody>()
                .gives::<MadeKey>(201),
        )
        .delete(
            "/api/tenants/{id}/keys/{keyId}",
            Access::Needs(Permission::KeyManage),
            revoke,
            Doc::new("Revoke an API key at once").gives_nothing(204),
        )
}

/// A key as lists show it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownKey {
    id: i64,
    name: String,
    /// `admin`, `developer`, `readonly` or `ci`.
    role: String,
    /// The first characters, to recognize it by.
    prefix: String,
    created_at: String,
    expires_at: Option<String>,
    /// To the minute.
    last_used_at: Option<String>,
    /// `user:…`: who made it, be it with another key; null for the operator's and older ones.
    created_by: Option<String>,
    /// Whether that person still is a member and may sign in.
    is_creator_active: Option<bool>,
}

impl From<Row> for ShownKey {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            role: row.role,
            prefix: row.prefix,
            created_at: timestamp(row.created_at),
            expires_at: row.expires_at.map(timestamp),
            last_used_at: row.last_used_at.map(timestamp),
            created_by: row.created_by.map(|user| Who::User(UserId(user)).name()),
            is_creator_active: row.created_by.map(|_| row.is_creator_active),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Keys {
    keys: Vec<ShownKey>,
}

/// `GET /api/tenants/{id}/keys`.
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<axum::Json<Keys>> {
    let id = workspaces::own(&principal, id)?;
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, id, None, MAX_KEYS).await?;
    let keys = rows.into_iter().map(Into::into).collect();
    Ok(axum::Json(Keys { keys }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeyBody {
    #[schema(required)]
    name: Option<String>,
    #[schema(required)]
    role: Option<KeyRole>,
    /// Absent: it is valid until it is revoked.
    #[serde(default, deserialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<OffsetDateTime>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MadeKey {
    #[serde(flatten)]
    shown: ShownKey,
    /// The key itself; it cannot be shown again.
    api_key: String,
}

/// `POST /api/tenants/{id}/keys`.
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
    Json(body): Json<KeyBody>,
) -> ApiResult<(StatusCode, axum::Json<MadeKey>)> {
    let workspace = workspaces::own(&principal, id)?;
    let role = body
        .role
        .ok_or_else(|| ApiError::invalid("role is required"))?;
    if body
        .expires_at
        .is_some_and(|end| end <= OffsetDateTime::now_utc())
    {
        return Err(ApiError::invalid("expiresAt must be in the future"));
    }
    let new = New {
        name: workspaces::name("name", body.name.as_deref())?,
        role,
        expires_at: body.expires_at,
    };
    let (id, secret) = super::create(&app, &principal, &new).await?;
    let mut db = app.db.acquire().await?;
    let row = store::list(&mut db, workspace, Some(id), 1).await?.pop();
    let row = row.ok_or_else(|| {
        ApiError::conflict("key_revoked", "the key was revoked while it was made")
    })?;
    let made = MadeKey {
        shown: row.into(),
        api_key: secret.expose().to_owned(),
    };
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// `DELETE /api/tenants/{id}/keys/{keyId}`.
async fn revoke(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((id, key)): Path<(i64, i64)>,
) -> ApiResult<StatusCode> {
    workspaces::own(&principal, id)?;
    super::revoke(&app, &principal, ApiKeyId(key)).await?;
    Ok(StatusCode::NO_CONTENT)
}
