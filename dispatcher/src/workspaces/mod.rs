//! Workspaces: the tenants, their members, and what a role may do in one. Old contracts call
//! them tenants, and so does the wire.
//!
//! A workspace never lacks an owner: whoever changes members holds the workspace's lock. Nobody
//! gives rights that they lack. The audit log outlives a workspace, nothing else does.

mod delete;
mod http;
mod invitations;
mod manage;
mod members;
pub mod role;
mod slug;
mod store;
mod suspend;

use clawlink_shared::id::{UserId, WorkspaceId};
use sqlx::PgConnection;

use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::routes::Routes;

pub use delete::delete;
pub(crate) use invitations::revoke_invitations_by;
pub use invitations::{accept, accept_for_address};
pub use manage::{Changes, create, update};
pub use members::{Invited, change_role, invite, remove};
pub use store::memberships::{Membership, by_slug, join, of_user};
pub use store::workspaces::ensure;

/// Longest name of a workspace, key or device, in bytes.
pub(crate) const MAX_NAME: usize = 200;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
}

/// The workspace that a path names, if it is the caller's own.
pub(crate) fn own(principal: &Principal, id: i64) -> ApiResult<WorkspaceId> {
    if principal.workspace.0 == id {
        return Ok(principal.workspace);
    }
    Err(not_found())
}

/// 404 for a workspace that does not exist or is not the caller's.
pub(crate) fn not_found() -> ApiError {
    ApiError::not_found("workspace_not_found", "there is no such workspace")
}

/// Locks the workspace against other changes of its members, keys and the like, so that limits
/// hold; 404 if it is gone.
pub(crate) async fn lock(db: &mut PgConnection, workspace: WorkspaceId) -> ApiResult<()> {
    if store::workspaces::lock(db, workspace).await? {
        return Ok(());
    }
    Err(not_found())
}

/// The same for what those make who may only read, which the route table lets pass everywhere;
/// 403 if the workspace is archived or suspended.
pub(crate) async fn lock_active(db: &mut PgConnection, workspace: WorkspaceId) -> ApiResult<()> {
    match store::workspaces::lock_status(db, workspace).await? {
        Some(true) => Ok(()),
        Some(false) => Err(ApiError::forbidden(
            "this workspace is archived or suspended: it can be read, but not changed",
        )),
        None => Err(not_found()),
    }
}

/// Whether a person is a member now.
pub(crate) async fn is_member(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
) -> anyhow::Result<bool> {
    let role = store::members::role_of(db, workspace, user).await?;
    Ok(role.is_some())
}

/// A name that people may give to something: trimmed, not empty, one line. 400 otherwise.
pub(crate) fn name(field: &str, text: Option<&str>) -> ApiResult<String> {
    let text = text.unwrap_or_default().trim();
    if text.is_empty() || text.len() > MAX_NAME || text.contains(char::is_control) {
        return Err(ApiError::invalid(format!(
            "{field} must be 1 to {MAX_NAME} bytes of text on one line"
        )));
    }
    Ok(text.to_owned())
}
