//! Callers who give access to others: a request is admitted some moments before it is performed,
//! and what it gives would outlive rights that ended in between. Therefore such a request holds
//! the account behind its caller, and asks again. Order of locks: account, workspace, key.

use clawlink_shared::id::UserId;
use sqlx::PgConnection;

use super::principal::{Principal, Who};
use super::store::{keys, users};
use crate::error::{ApiError, ApiResult};
use crate::workspaces::role::{Permission, Role};

/// The person behind the caller: who signed in, or made the key. Until the transaction ends
/// nobody takes the account over or disables it.
pub(crate) async fn hold_account(
    db: &mut PgConnection,
    principal: &Principal,
) -> anyhow::Result<Option<UserId>> {
    let person = match principal.who {
        Who::User(user) => Some(user),
        Who::Key(key) => keys::maker(db, key).await?,
        Who::Client(_) => None,
    };
    if let Some(user) = person {
        users::hold(db, user).await?;
    }
    Ok(person)
}

/// The caller with the role of this moment, once the account and the workspace are locked: 401
/// if the credential gives nothing any more, 403 if it gives this permission no more.
pub(crate) async fn renewed(
    db: &mut PgConnection,
    principal: &Principal,
    permission: Permission,
) -> ApiResult<Principal> {
    let role = match (principal.who, principal.sign_in) {
        (Who::User(user), Some(sign_in)) => {
            let rights = users::rights(db, user, sign_in, Some(principal.workspace)).await?;
            let member = rights.and_then(|rights| rights.member);
            member.map(|(role, _)| Role::Member(role))
        }
        (Who::User(_), None) => None,
        (Who::Key(key), _) => {
            let found = keys::principal(db, key).await?;
            found.map(|(principal, _)| principal.role)
        }
        (Who::Client(_), _) => Some(principal.role),
    };
    let role = role.ok_or_else(|| ApiError::unauthorized("your right to this has just ended"))?;
    let renewed = Principal {
        role,
        ..principal.clone()
    };
    renewed.require(permission)?;
    Ok(renewed)
}
