//! Workspaces themselves.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use clawlink_shared::id::{UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::principal::{Person, Principal};
use crate::error::ApiResult;
use crate::executions::timestamp;
use crate::http::extract::{Json, Path, Query};
use crate::http::page;
use crate::workspaces::members::MAX_MEMBERS;
use crate::workspaces::role::MemberRole;
use crate::workspaces::store::members::{self, Row as MemberRow};
use crate::workspaces::store::workspaces::{self, Row};
use crate::workspaces::{Changes, not_found, own};

/// Workspaces on one page, if no less is asked for: old clients read one page.
const MAX_LISTED: i64 = 200;

/// A workspace as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tenant {
    id: WorkspaceId,
    name: String,
    slug: String,
    /// `active`, `suspended` or `archived`.
    status: String,
    members: Vec<TenantMember>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TenantMember {
    user_id: UserId,
    role: MemberRole,
    /// False for those who were removed.
    is_active: bool,
    joined_at: String,
}

impl Tenant {
    fn new(row: Row, members: impl Iterator<Item = MemberRow>) -> Self {
        Self {
            id: WorkspaceId(row.id),
            name: row.name,
            slug: row.slug,
            status: row.status,
            members: members
                .map(|member| TenantMember {
                    user_id: member.user,
                    role: member.role,
                    is_active: member.is_active,
                    joined_at: timestamp(member.joined_at),
                })
                .collect(),
            created_at: timestamp(row.created_at),
            updated_at: timestamp(row.updated_at),
        }
    }
}

/// The workspace as it stands now.
pub(super) async fn shown(app: &App, id: WorkspaceId) -> ApiResult<Tenant> {
    let mut db = app.db.acquire().await?;
    let row = workspaces::find(&mut db, id).await?.ok_or_else(not_found)?;
    let members = members::list(&mut db, &[id.0], MAX_MEMBERS).await?;
    Ok(Tenant::new(row, members.into_iter()))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct ListQuery {
    /// From 1 to 200.
    limit: Option<i64>,
    /// What `nextCursor` of the page before said.
    cursor: Option<i64>,
}

impl ListQuery {
    /// A page of the person's workspaces, and where the next begins.
    async fn page(
        &self,
        app: &App,
        person: &Person,
    ) -> ApiResult<(Vec<(Row, String)>, Option<i64>)> {
        let limit = page::limit_up_to(self.limit, MAX_LISTED, MAX_LISTED)?;
        let after = self.cursor.unwrap_or(0);
        let mut db = app.db.acquire().await?;
        let mut rows = workspaces::of_user(&mut db, person.user, after, limit + 1).await?;
        let next = page::cut(&mut rows, limit).map(|(row, _)| row.id);
        Ok((rows, next))
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TenantList)]
pub(super) struct List {
    tenants: Vec<Tenant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<i64>,
}

/// `GET /api/tenants`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Query(query): Query<ListQuery>,
) -> ApiResult<axum::Json<List>> {
    let (rows, next_cursor) = query.page(&app, &person).await?;
    let ids: Vec<i64> = rows.iter().map(|(row, _)| row.id).collect();
    let mut db = app.db.acquire().await?;
    let mut members = members::list(&mut db, &ids, MAX_MEMBERS)
        .await?
        .into_iter()
        .peekable();
    let mut tenants = Vec::with_capacity(rows.len());
    // Both lists are in order of the workspaces' ids.
    for (row, _) in rows {
        let id = row.id;
        let of_row = std::iter::from_fn(|| members.next_if(|member| member.workspace.0 == id));
        tenants.push(Tenant::new(row, of_row));
    }
    Ok(axum::Json(List {
        tenants,
        next_cursor,
    }))
}

/// A workspace with the caller's role in it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MyTenant {
    id: WorkspaceId,
    name: String,
    slug: String,
    /// One's own role.
    role: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mine {
    tenants: Vec<MyTenant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<i64>,
}

/// `GET /api/tenants/mine`.
pub(super) async fn mine(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Query(query): Query<ListQuery>,
) -> ApiResult<axum::Json<Mine>> {
    let (rows, next_cursor) = query.page(&app, &person).await?;
    let tenants = rows.into_iter().map(|(row, role)| MyTenant {
        id: WorkspaceId(row.id),
        name: row.name,
        slug: row.slug,
        role,
    });
    Ok(axum::Json(Mine {
        tenants: tenants.collect(),
        next_cursor,
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateBody {
    /// 1 to 200 bytes on one line.
    #[schema(required)]
    name: Option<String>,
    /// Instead of the one derived from the name.
    slug: Option<String>,
}

/// `POST /api/tenants` and `POST /api/tenants/create`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Json(body): Json<CreateBody>,
) -> ApiResult<(StatusCode, axum::Json<Tenant>)> {
    let (name, slug) = (body.name.as_deref(), body.slug.as_deref());
    let id = crate::workspaces::create(&app, &person, name, slug).await?;
    Ok((StatusCode::CREATED, axum::Json(shown(&app, id).await?)))
}

/// `GET /api/tenants/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<axum::Json<Tenant>> {
    let id = own(&principal, id)?;
    Ok(axum::Json(shown(&app, id).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateBody {
    name: Option<String>,
    status: Option<TenantStatus>,
}

/// What members can make of a workspace.
#[derive(Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum TenantStatus {
    Active,
    Archived,
}

/// `PATCH /api/tenants/{id}`.
pub(super) async fn update(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
    Json(body): Json<UpdateBody>,
) -> ApiResult<axum::Json<Tenant>> {
    let id = own(&principal, id)?;
    let changes = Changes {
        name: body.name,
        is_archived: body.status.map(|status| status == TenantStatus::Archived),
    };
    crate::workspaces::update(&app, &principal, &changes).await?;
    Ok(axum::Json(shown(&app, id).await?))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct DeleteQuery {
    /// The workspace's slug, typed by whoever deletes; may stand in the body instead.
    confirm: Option<String>,
    /// Cancel what runs first.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
pub(super) struct DeleteBody {
    confirm: Option<String>,
    #[serde(default)]
    force: bool,
}

/// `DELETE /api/tenants/{id}`.
pub(super) async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
    Query(query): Query<DeleteQuery>,
    Json(body): Json<DeleteBody>,
) -> ApiResult<StatusCode> {
    own(&principal, id)?;
    let confirm = query.confirm.or(body.confirm);
    let force = query.force || body.force;
    crate::workspaces::delete(&app, &principal, confirm.as_deref(), force).await?;
    Ok(StatusCode::NO_CONTENT)
}
