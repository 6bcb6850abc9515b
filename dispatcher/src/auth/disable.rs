//! Whom the operator keeps out, and lets in again. Dispatchers learn of it by an effect, because
//! the operator's command may not reach Redis.

use clawlink_shared::id::{ApiKeyId, UserId};
use serde_json::json;
use sqlx::PgConnection;

use super::forget;
use super::person;
use super::store::users::User;
use super::store::{resets, sign_ins, users};
use crate::api_keys;
use crate::app::App;
use crate::audit::Actor;
use crate::bus::RightsOf;
use crate::outbox::{self, Effect};

/// What was done to somebody's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disabled {
    /// Whether it had been disabled before.
    pub was_disabled: bool,
    /// API keys that were revoked.
    pub revoked_keys: usize,
    /// API keys that they made and that are valid still.
    pub valid_keys: i64,
}

impl Disabled {
    /// What the operator should know.
    pub fn explain(&self, email: &str) -> String {
        let mut text = match self.was_disabled {
            true => format!("{email} was disabled already"),
            false => format!("{email} is disabled, and all sign-ins have ended"),
        };
        if self.revoked_keys > 0 {
            text.push_str(&format!("\nAPI keys revoked: {}", self.revoked_keys));
        }
        if self.valid_keys > 0 {
            text.push_str(&format!(
                "\nAPI keys that they made and that are valid still: {} (--revoke-keys revokes them)",
                self.valid_keys
            ));
        }
        text
    }
}

/// Keeps the person with this address out; `with_keys` revokes the API keys that they made.
/// `None` if there is nobody.
pub async fn disable(
    db: &mut PgConnection,
    email: &str,
    with_keys: bool,
) -> anyhow::Result<Option<Disabled>> {
    let Some(User { id, .. }) = find(db, email).await? else {
        return Ok(None);
    };
    let operator = Actor::operator();
    let was_disabled = !users::set_disabled(db, id, true).await?;
    sign_ins::revoke_all(db, id).await?;
    resets::void(db, id).await?;
    let mut keys = Vec::new();
    if with_keys {
        let reason = "the maker was disabled";
        keys = api_keys::revoke_made_by(db, id, None, &operator, reason).await?;
    }
    let revoked_keys = keys.len();
    if !was_disabled {
        let details = json!({"revokedKeys": revoked_keys});
        person::record(db, &operator, "user.disabled", id, details).await?;
    }
    outbox::add(db, &Effect::ForgetRights { user: id, keys }).await?;
    Ok(Some(Disabled {
        was_disabled,
        revoked_keys,
        valid_keys: api_keys::count_valid_made_by(db, id).await?,
    }))
}

/// Lets the person with this address sign in again; whether they were kept out. `None` if there
/// is nobody.
pub async fn enable(db: &mut PgConnection, email: &str) -> anyhow::Result<Option<bool>> {
    let Some(User { id, .. }) = find(db, email).await? else {
        return Ok(None);
    };
    let was_disabled = users::set_disabled(db, id, false).await?;
    if was_disabled {
        person::record(db, &Actor::operator(), "user.enabled", id, json!({})).await?;
    }
    Ok(Some(was_disabled))
}

/// Makes rights that ended elsewhere end at all dispatchers.
pub(crate) fn perform(app: &App, user: UserId, keys: &[ApiKeyId]) {
    forget(app, RightsOf::User(user));
    for key in keys {
        forget(app, RightsOf::Key(*key));
    }
}

async fn find(db: &mut PgConnection, email: &str) -> anyhow::Result<Option<User>> {
    users::by_email(db, &email.trim().to_lowercase()).await
}
