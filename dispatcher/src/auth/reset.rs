//! Setting a password without the old one: by a token that the operator prints and hands over.
//! It serves once, and ends all sign-ins of the person.

use std::net::IpAddr;
use std::time::Duration;

use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::PgConnection;

use super::person;
use super::settings::SignInSettings;
use super::store::users::NewUser;
use super::store::{resets, sign_ins, users};
use super::{forget, takeover};
use crate::app::App;
use crate::audit::Actor;
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::secrets::{hash_token, random_token};
use crate::{feed, workspaces};

/// How long a token serves.
pub const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// A token for the person with this address; `None` if there is none.
pub async fn issue(db: &mut PgConnection, email: &str) -> anyhow::Result<Option<Secret>> {
    let Some(user) = users::by_email(db, &email.trim().to_lowercase()).await? else {
        return Ok(None);
    };
    let token = random_token();
    resets::insert(db, user.id, &hash_token(&token), VALID).await?;
    let operator = Actor::operator();
    person::record(db, &operator, "user.reset_issued", user.id, json!({})).await?;
    Ok(Some(Secret::new(token)))
}

/// Makes an account without a password, and the token that gives it one. The operator vouches
/// for the address. 409 as for registering.
pub async fn create(db: &mut PgConnection, email: &str, username: &str) -> ApiResult<Secret> {
    let email = person::email_address(email)?;
    let username = person::user_name(username)?;
    let is_first = users::lock_registration(db).await?;
    let new = NewUser {
        email: &email,
        username: &username,
        display_name: None,
        password_hash: None,
        is_platform_admin: is_first,
        is_email_verified: true,
    };
    person::create(db, new, |_| Actor::operator()).await?;
    let token = issue(db, &email).await?;
    Ok(token.ok_or_else(|| anyhow::anyhow!("the account was made a moment ago"))?)
}

/// What the operator is to hand over.
pub fn explain(settings: &SignInSettings, token: &Secret) -> String {
    let (token, hours) = (token.expose(), VALID.as_secs() / 3600);
    match settings.public_url.as_deref() {
        // After the hash sign: it reaches no server's log.
        Some(url) => format!("{}/reset#{token}", url.trim_end_matches('/')),
        None => format!(
            "{token}\nserves once within {hours} hours: POST /api/auth/reset with {{\"token\", \"password\"}}"
        ),
    }
}

/// Sets the password, and accepts what the address was invited to. 401 if the token is unknown, expired or used.
pub(super) async fn reset(
    app: &App,
    token: &Secret,
    password: &Secret,
    address: Option<IpAddr>,
) -> ApiResult<()> {
    app.attempts.of_address(&app.bus, address).await?;
    let hash = app.passwords.hash(password).await?;
    let mut tx = app.db.begin().await?;
    let user = resets::take(&mut tx, &hash_token(token.expose())).await?;
    let user =
        user.ok_or_else(|| ApiError::unauthorized("the reset token is unknown, expired or used"))?;
    let actor = person::actor(user, address);
    // The operator handed the token to whom the address belongs.
    let ended = takeover::prove(&mut tx, user, &actor).await?;
    users::replace_password(&mut tx, user, Some(&hash)).await?;
    sign_ins::revoke_all(&mut tx, user).await?;
    person::record(&mut tx, &actor, "user.password_reset", user, json!({})).await?;
    let mut opened = Vec::new();
    if let Some(found) = users::by_id(&mut tx, user).await? {
        opened = workspaces::accept_for_address(&mut tx, user, &found.email, &actor).await?;
    }
    tx.commit().await?;
    match ended {
        Some(ended) => ended.forget(app),
        None => forget(app, RightsOf::User(user)),
    }
    for workspace in opened {
        feed::poke(app, workspace);
    }
    Ok(())
}
