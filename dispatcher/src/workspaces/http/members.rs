//! Members and invitations.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use clawlink_shared::id::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tenants::{Tenant, shown};
use crate::app::App;
use crate::auth::person::email_address;
use crate::auth::principal::{Person, Principal};
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::extract::{Json, Path, Query};
use crate::workspaces::invitations::{self, MAX_OPEN};
use crate::workspaces::members::MAX_MEMBERS;
use crate::workspaces::role::MemberRole;
use crate::workspaces::store::invitations as rows;
use crate::workspaces::store::members;
use crate::workspaces::{self, Invited, own};

/// A member as colleagues see one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NamedMember {
    user_id: UserId,
    email: String,
    username: String,
    display_name: Option<String>,
    role: MemberRole,
    is_active: bool,
    joined_at: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Members {
    members: Vec<NamedMember>,
}

/// `GET /api/tenants/{id}/members`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<axum::Json<Members>> {
    let id = own(&principal, id)?;
    let mut db = app.db.acquire().await?;
    let rows = members::list(&mut db, &[id.0], MAX_MEMBERS).await?;
    let members = rows.into_iter().map(|row| NamedMember {
        user_id: row.user,
        email: row.email,
        username: row.username,
        display_name: row.display_name,
        role: row.role,
        is_active: row.is_active,
        joined_at: timestamp(row.joined_at),
    });
    Ok(axum::Json(Members {
        members: members.collect(),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InviteBody {
    /// Somebody who has an account; also as `userId`.
    new_user_id: Option<Uuid>,
    user_id: Option<Uuid>,
    /// Or somebody's address.
    email: Option<String>,
    #[schema(required)]
    role: Option<MemberRole>,
}

impl InviteBody {
    fn invited(self) -> ApiResult<(Invited, MemberRole)> {
        let role = self
            .role
            .ok_or_else(|| ApiError::invalid("role is required"))?;
        let user = self.new_user_id.or(self.user_id);
        let invited = match (user, self.email) {
            (Some(user), None) => Invited::User(UserId(user)),
            (None, Some(email)) => Invited::Email(email_address(&email)?),
            _ => return Err(ApiError::invalid("give either newUserId or email")),
        };
        Ok((invited, role))
    }
}

/// The workspace, and the invitation if one was left.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InvitedTenant {
    #[serde(flatten)]
    tenant: Tenant,
    #[serde(skip_serializing_if = "Option::is_none")]
    invitation: Option<OpenInvitation>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OpenInvitation {
    id: i64,
    email: String,
    role: String,
    invited_by: String,
    created_at: String,
    expires_at: String,
    /// Shown once: what the invited person sends to `POST /api/invitations/accept`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl OpenInvitation {
    fn new(row: rows::Row, token: Option<String>) -> Self {
        Self {
            id: row.id,
            email: row.email,
            role: row.role,
            invited_by: row.invited_by,
            created_at: timestamp(row.created_at),
            expires_at: timestamp(row.expires_at),
            token,
        }
    }
}

/// `POST /api/tenants/{id}/members`.
pub(super) async fn invite(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
    Json(body): Json<InviteBody>,
) -> ApiResult<axum::Json<InvitedTenant>> {
    let id = own(&principal, id)?;
    let (invited, role) = body.invited()?;
    let invitation = workspaces::invite(&app, &principal, &invited, role).await?;
    let invitation = invitation.map(|invitation| {
        let token = invitation.token.expose().to_owned();
        OpenInvitation::new(invitation.row, Some(token))
    });
    Ok(axum::Json(InvitedTenant {
        tenant: shown(&app, id).await?,
        invitation,
    }))
}

#[derive(Deserialize, ToSchema)]
pub(super) struct RoleBody {
    #[schema(required)]
    role: Option<MemberRole>,
}

/// `PATCH /api/tenants/{id}/members/{userId}`.
pub(super) async fn change(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((id, user)): Path<(i64, Uuid)>,
    Json(body): Json<RoleBody>,
) -> ApiResult<axum::Json<Tenant>> {
    let id = own(&principal, id)?;
    let role = body
        .role
        .ok_or_else(|| ApiError::invalid("role is required"))?;
    workspaces::change_role(&app, &principal, UserId(user), role).await?;
    Ok(axum::Json(shown(&app, id).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(super) struct RemoveQuery {
    /// Also revoke the API keys that they made here; else those live on.
    #[serde(default)]
    revoke_keys: bool,
}

/// `DELETE /api/tenants/{id}/members/{userId}`.
pub(super) async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((id, user)): Path<(i64, Uuid)>,
    Query(query): Query<RemoveQuery>,
) -> ApiResult<axum::Json<Tenant>> {
    let id = own(&principal, id)?;
    workspaces::remove(&app, &principal, UserId(user), query.revoke_keys).await?;
    Ok(axum::Json(shown(&app, id).await?))
}

#[derive(Serialize, ToSchema)]
pub(super) struct Invitations {
    invitations: Vec<OpenInvitation>,
}

/// `GET /api/tenants/{id}/invitations`.
pub(super) async fn invitations(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<axum::Json<Invitations>> {
    let id = own(&principal, id)?;
    let mut db = app.db.acquire().await?;
    let rows = rows::list(&mut db, id, MAX_OPEN).await?;
    let list = rows.into_iter().map(|row| OpenInvitation::new(row, None));
    Ok(axum::Json(Invitations {
        invitations: list.collect(),
    }))
}

/// `DELETE /api/tenants/{id}/invitations/{invitationId}`.
pub(super) async fn revoke(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((id, invitation)): Path<(i64, i64)>,
) -> ApiResult<StatusCode> {
    own(&principal, id)?;
    invitations::revoke(&app, &principal, invitation).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(super) struct AcceptBody {
    #[schema(required)]
    token: Option<String>,
}

/// `POST /api/invitations/accept`.
pub(super) async fn accept(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Json(body): Json<AcceptBody>,
) -> ApiResult<axum::Json<Tenant>> {
    let token = body
        .token
        .ok_or_else(|| ApiError::invalid("token is required"))?;
    let id = workspaces::accept(&app, &person, &token).await?;
    Ok(axum::Json(shown(&app, id).await?))
}
