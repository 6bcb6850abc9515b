//! The client API of devices.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clawlink_shared::id::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::store::{self, Row};
use super::{missing, proof};
use crate::app::App;
use crate::auth::principal::{Principal, Trust};
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::doc::Doc;
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{self, Cursor};
use crate::http::routes::{Access, Routes};
use crate::workspaces;
use crate::workspaces::role::Permission;

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/devices",
            Access::Needs(Permission::DeviceRead),
            list,
            Doc::new("The workspace's devices, newest first")
                .query::<ListQuery>()
                .gives::<Devices>(200),
        )
        .post(
            "/api/devices",
            Access::Needs(Permission::WorkspaceRead),
            register,
            Doc::new("Register a device of one's own, untrusted")
                .body::<DeviceBody>()
                .gives::<Device>(201),
        )
        .patch(
            "/api/devices/{id}",
            Access::Needs(Permission::DeviceTrust),
            trust,
            Doc::new("Raise or lower the trust in a device")
                .uuid("id")
                .body::<TrustBody>()
                .gives::<Device>(200),
        )
        .delete(
            "/api/devices/{id}",
            Access::Needs(Permission::DeviceTrust),
            remove,
            Doc::new("Forget a device").uuid("id").gives_nothing(204),
        )
}

/// A device as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Device {
    id: Uuid,
    /// Whose credentials it may accompany: `user:…`, `key:7`.
    owner: String,
    name: String,
    /// Ed25519, in base64.
    public_key: String,
    /// `untrusted`, `verified` or `trusted`.
    trust: String,
    created_at: String,
    /// To the minute.
    last_seen_at: Option<String>,
}

impl From<Row> for Device {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            owner: row.owner,
            name: row.name,
            public_key: BASE64_STANDARD.encode(row.public_key),
            trust: row.trust,
            created_at: timestamp(row.created_at),
            last_seen_at: row.last_seen_at.map(timestamp),
        }
    }
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    limit: Option<i64>,
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Devices {
    devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET /api/devices`.
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<axum::Json<Devices>> {
    let limit = page::limit(query.limit)?;
    let cursor = query.cursor.as_deref().map(Cursor::decode).transpose()?;
    let mut db = app.db.acquire().await?;
    let mut rows = store::list(&mut db, principal.workspace, None, cursor, limit + 1).await?;
    let last = page::cut(&mut rows, limit);
    let next_cursor = last.map(|row| Cursor::at(row.created_at, row.id).encode());
    let devices = rows.into_iter().map(Into::into).collect();
    Ok(axum::Json(Devices {
        devices,
        next_cursor,
    }))
}

async fn shown(app: &App, principal: &Principal, id: DeviceId) -> ApiResult<axum::Json<Device>> {
    let mut db = app.db.acquire().await?;
    let mut rows = store::list(&mut db, principal.workspace, Some(id), None, 1).await?;
    let row = rows.pop().ok_or_else(missing)?;
    Ok(axum::Json(row.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeviceBody {
    #[schema(required)]
    name: Option<String>,
    /// An Ed25519 public key: 32 bytes in base64.
    #[schema(required)]
    public_key: Option<String>,
}

/// `POST /api/devices`.
async fn register(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<DeviceBody>,
) -> ApiResult<(StatusCode, axum::Json<Device>)> {
    let name = workspaces::name("name", body.name.as_deref())?;
    let key = body.public_key.as_deref().and_then(proof::public_key);
    let key = key.ok_or_else(|| {
        ApiError::invalid("publicKey must be an Ed25519 public key: 32 bytes in base64")
    })?;
    let id = super::register(&app, &principal, &name, &key).await?;
    Ok((StatusCode::CREATED, shown(&app, &principal, id).await?))
}

#[derive(Deserialize, ToSchema)]
struct TrustBody {
    trust: Option<Trust>,
}

/// `PATCH /api/devices/{id}`.
async fn trust(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
    Json(body): Json<TrustBody>,
) -> ApiResult<axum::Json<Device>> {
    let id = DeviceId(id);
    if let Some(to) = body.trust {
        super::trust(&app, &principal, id, to).await?;
    }
    shown(&app, &principal, id).await
}

/// `DELETE /api/devices/{id}`.
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    super::remove(&app, &principal, DeviceId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
