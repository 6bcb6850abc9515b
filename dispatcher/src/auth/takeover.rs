//! Proving that an address is one's own. Whoever had registered it before, without a proof, is
//! out from then on: sign-ins, tokens that set a password, the API keys that they made, and the
//! invitations that they or their keys left open, all end. The password is the caller's to
//! replace. Members whom they brought in are people of their own, and stay.
//!
//! No credential that the account gave before its proof may be good after it.

use clawlink_shared::id::{ApiKeyId, UserId};
use serde_json::json;
use sqlx::PgConnection;

use super::forget;
use super::person;
use super::principal::Who;
use super::store::{resets, sign_ins, users};
use crate::app::App;
use crate::audit::Actor;
use crate::bus::RightsOf;
use crate::{api_keys, workspaces};

/// Why keys and invitations end, in the audit log.
const REASON: &str = "nobody had proved the maker's address before";

/// What has ended with the transaction in which the address was proved.
#[derive(Debug)]
pub(super) struct Ended {
    user: UserId,
    keys: Vec<ApiKeyId>,
}

impl Ended {
    /// Makes it take effect everywhere. To be called after the commit.
    pub(super) fn forget(self, app: &App) {
        forget(app, RightsOf::User(self.user));
        for key in self.keys {
            forget(app, RightsOf::Key(key));
        }
    }
}

/// Notes that the account's address is the caller's. `None` if that was known before.
pub(super) async fn prove(
    db: &mut PgConnection,
    user: UserId,
    actor: &Actor,
) -> anyhow::Result<Option<Ended>> {
    if users::verify_email(db, user).await? {
        return Ok(None);
    }
    sign_ins::revoke_all(db, user).await?;
    resets::void(db, user).await?;
    let keys = api_keys::revoke_made_by(db, user, None, actor, REASON).await?;
    let mut names = vec![Who::User(user).name()];
    for key in api_keys::made_by(db, user).await? {
        names.push(Who::Key(key).name());
    }
    let invitations = workspaces::revoke_invitations_by(db, &names, actor, REASON).await?;
    let details = json!({"revokedKeys": keys.len(), "revokedInvitations": invitations});
    person::record(db, actor, "user.email_verified", user, details).await?;
    Ok(Some(Ended { user, keys }))
}
