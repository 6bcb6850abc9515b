//! Who belongs to a workspace. Every change holds the workspace's lock: the last owner cannot
//! be lost to two concurrent changes, and nobody gives or takes a rank above their own.

use clawlink_shared::id::{UserId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;

use super::invitations::{self, Invitation};
use super::lock;
use super::role::{MemberRole, Permission, Role};
use super::store::members;
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::{api_keys, auth, feed};

/// Members of one workspace.
pub(super) const MAX_MEMBERS: i64 = 1000;

/// Who is to become a member.
#[derive(Debug, Clone)]
pub enum Invited {
    /// Somebody with an account.
    User(UserId),
    /// Somebody with an address; perhaps there is an account whose owner has proved it.
    Email(String),
}

/// Makes somebody a member at once, or, for an address that no account has proved to have,
/// leaves an invitation, whose token is returned this once. Repeating it for a member with that role changes nothing;
/// 409 `already_member` for one with another role.
pub async fn invite(
    app: &App,
    principal: &Principal,
    invited: &Invited,
    role: MemberRole,
) -> ApiResult<Option<Invitation>> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    auth::hold_account(&mut tx, principal).await?;
    lock(&mut tx, workspace).await?;
    let by = auth::renewed(&mut tx, principal, Permission::MemberManage).await?;
    require_rank(&by, role)?;
    let user = match invited {
        Invited::User(user) => *user,
        Invited::Email(email) => match members::by_email(&mut tx, email).await? {
            Some(user) => user,
            None => {
                let actor = Actor::from(principal);
                let invitation =
                    invitations::leave(&mut tx, workspace, &actor, email, role).await?;
                tx.commit().await?;
                return Ok(Some(invitation));
            }
        },
    };
    match members::role_of(&mut tx, workspace, user).await? {
        Some(has) if has == role => return Ok(None),
        Some(has) => {
            let detail = format!("is a {} already; change the role instead", has.as_str());
            return Err(ApiError::conflict("already_member", detail));
        }
        None => {}
    }
    join(&mut tx, workspace, user, role, &Actor::from(principal)).await?;
    tx.commit().await?;
    feed::poke(app, workspace);
    Ok(None)
}

/// Adds a member and says so everywhere, as the last deed of the caller's transaction, which
/// holds the workspace's lock.
pub(super) async fn join(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
    role: MemberRole,
    actor: &Actor,
) -> ApiResult<()> {
    let (count, _) = members::count(db, workspace).await?;
    if count >= MAX_MEMBERS {
        return Err(ApiError::conflict(
            "too_many_members",
            format!("the workspace has {MAX_MEMBERS} members"),
        ));
    }
    if !members::add(db, workspace, user, role).await? {
        return Err(ApiError::not_found(
            "user_not_found",
            "nobody has this id; invite by e-mail instead",
        ));
    }
    tell(db, workspace, actor, "member.added", user, Some(role)).await
}

/// Gives a member another role.
pub async fn change_role(
    app: &App,
    principal: &Principal,
    user: UserId,
    to: MemberRole,
) -> ApiResult<()> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    auth::hold_account(&mut tx, principal).await?;
    lock(&mut tx, workspace).await?;
    let by = auth::renewed(&mut tx, principal, Permission::MemberManage).await?;
    require_rank(&by, to)?;
    let from = current(&mut tx, &by, user).await?;
    if from == to {
        return Ok(());
    }
    if from == MemberRole::Owner {
        require_other_owner(&mut tx, workspace).await?;
    }
    if !members::set_role(&mut tx, workspace, user, (from, to)).await? {
        return Err(no_member());
    }
    let actor = Actor::from(principal);
    tell(&mut tx, workspace, &actor, "member.updated", user, Some(to)).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::User(user));
    feed::poke(app, workspace);
    Ok(())
}

/// Ends somebody's membership at once; `with_keys` revokes the API keys that they made here.
pub async fn remove(
    app: &App,
    principal: &Principal,
    user: UserId,
    with_keys: bool,
) -> ApiResult<()> {
    if with_keys {
        principal.require(Permission::KeyManage)?;
    }
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    lock(&mut tx, workspace).await?;
    if current(&mut tx, principal, user).await? == MemberRole::Owner {
        require_other_owner(&mut tx, workspace).await?;
    }
    if !members::remove(&mut tx, workspace, user).await? {
        return Err(no_member());
    }
    let actor = Actor::from(principal);
    let mut keys = Vec::new();
    if with_keys {
        let reason = "the maker was removed";
        keys = api_keys::revoke_made_by(&mut tx, user, Some(workspace), &actor, reason).await?;
    }
    tell(&mut tx, workspace, &actor, "member.removed", user, None).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::User(user));
    for key in keys {
        auth::forget(app, RightsOf::Key(key));
    }
    feed::poke(app, workspace);
    Ok(())
}

/// The role of a member whom the caller may change: 404 if there is none, 403 if it is above
/// the caller's.
async fn current(
    db: &mut PgConnection,
    principal: &Principal,
    user: UserId,
) -> ApiResult<MemberRole> {
    let role = members::role_of(db, principal.workspace, user).await?;
    let role = role.ok_or_else(no_member)?;
    require_rank(principal, role)?;
    Ok(role)
}

fn require_rank(principal: &Principal, role: MemberRole) -> ApiResult<()> {
    if principal.role.covers(Role::Member(role)) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "the role {} may not give, change or remove the role {}; ask an owner",
        principal.role,
        role.as_str()
    )))
}

async fn require_other_owner(db: &mut PgConnection, workspace: WorkspaceId) -> ApiResult<()> {
    let (_, owners) = members::count(db, workspace).await?;
    if owners > 1 {
        return Ok(());
    }
    Err(ApiError::conflict(
        "last_owner",
        "a workspace needs an owner; make somebody else one first, or delete the workspace",
    ))
}

fn no_member() -> ApiError {
    ApiError::not_found("member_not_found", "this workspace has no such member")
}

async fn tell(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    actor: &Actor,
    deed: &'static str,
    user: UserId,
    role: Option<MemberRole>,
) -> ApiResult<()> {
    let entry =
        Entry::done(workspace, actor, deed, ("user", user.to_string())).with(json!({"role": role}));
    audit::record(db, &entry).await?;
    feed::append(db, workspace, deed, &json!({"userId": user, "role": role})).await?;
    Ok(())
}
