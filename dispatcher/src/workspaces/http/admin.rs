//! Workspaces as those who run the installation see them.

use axum::Extension;
use axum::extract::State;
use clawlink_shared::id::WorkspaceId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::principal::Person;
use crate::error::ApiResult;
use crate::executions::timestamp;
use crate::http::extract::{self, Json, Path, Query};
use crate::http::page;
use crate::workspaces::store::workspaces::{self, Overview};
use crate::workspaces::suspend::{self, Turn};

/// Longest reason, in characters.
const MAX_REASON: usize = 1000;

/// A workspace without anything that is in it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TenantOverview)]
pub(super) struct Shown {
    id: WorkspaceId,
    name: String,
    slug: String,
    /// `active`, `suspended` or `archived`.
    status: String,
    /// Active members.
    member_count: i64,
    created_at: String,
    updated_at: String,
}

impl From<Overview> for Shown {
    fn from(row: Overview) -> Self {
        Self {
            id: WorkspaceId(row.id),
            name: row.name,
            slug: row.slug,
            status: row.status,
            member_count: row.members,
            created_at: timestamp(row.created_at),
            updated_at: timestamp(row.updated_at),
        }
    }
}

/// What a workspace can be.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnyTenantStatus)]
enum Status {
    Active,
    Suspended,
    Archived,
}

#[derive(Deserialize, IntoParams)]
pub(super) struct ListQuery {
    /// Only those that are so.
    #[param(inline)]
    status: Option<Status>,
    /// Only the one with this slug.
    slug: Option<String>,
    /// From 1 to 200; 50 where nothing is said.
    limit: Option<i64>,
    /// What `nextCursor` of the page before said.
    cursor: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TenantOverviews)]
pub(super) struct List {
    tenants: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<i64>,
}

/// `GET /api/admin/tenants`.
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> ApiResult<axum::Json<List>> {
    let limit = page::limit(query.limit)?;
    let status = query.status.map(|status| match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Archived => "archived",
    });
    let slug = query.slug.as_deref();
    extract::check_text("slug", slug.unwrap_or_default(), 0..=MAX_REASON)?;
    let after = query.cursor.unwrap_or(0);
    let mut db = app.db.acquire().await?;
    let mut rows = workspaces::overview(&mut db, None, (status, slug), after, limit + 1).await?;
    let next_cursor = page::cut(&mut rows, limit).map(|row| row.id);
    Ok(axum::Json(List {
        tenants: rows.into_iter().map(Shown::from).collect(),
        next_cursor,
    }))
}

/// Why; may be empty.
#[derive(Deserialize, Default, ToSchema)]
#[schema(as = SuspensionReason)]
pub(super) struct Reason {
    reason: Option<String>,
}

/// `POST /api/admin/tenants/{id}/suspend`.
pub(super) async fn suspend(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(id): Path<i64>,
    Json(body): Json<Reason>,
) -> ApiResult<axum::Json<Shown>> {
    turn(&app, &person, id, Turn::Suspended, body).await
}

/// `POST /api/admin/tenants/{id}/resume`.
pub(super) async fn resume(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(id): Path<i64>,
    Json(body): Json<Reason>,
) -> ApiResult<axum::Json<Shown>> {
    turn(&app, &person, id, Turn::Resumed, body).await
}

async fn turn(
    app: &App,
    person: &Person,
    id: i64,
    turn: Turn,
    body: Reason,
) -> ApiResult<axum::Json<Shown>> {
    let reason = body.reason.unwrap_or_default();
    extract::check_text("reason", &reason, 0..=MAX_REASON)?;
    let shown = suspend::turn(app, person, WorkspaceId(id), turn, &reason).await?;
    Ok(axum::Json(Shown::from(shown)))
}
