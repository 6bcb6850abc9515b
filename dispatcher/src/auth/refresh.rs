//! Refresh tokens: each serves once and gives the next one.
//!
//! A token that is shown again after it was exchanged is held by two; nobody can say who is
//! the thief, so the whole sign-in ends. Two requests of one client that race are told apart
//! by time: the loser is refused, and nothing ends.

use std::net::IpAddr;
use std::time::Duration;

use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::person::{self, SignIn};
use super::store::sign_ins::{self, Exchange};
use super::store::users;
use super::{forget, token};
use crate::app::App;
use crate::audit::{self, Entry, Outcome};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::secrets::{hash_token, random_token};

/// Within this time after an exchange the same token is taken for a race, not a theft.
const RACE: Duration = Duration::from_secs(10);

/// Gives a sign-in its next refresh token.
pub(super) async fn issue(app: &App, db: &mut PgConnection, sign_in: Uuid) -> ApiResult<Secret> {
    let token = random_token();
    sign_ins::insert_refresh(db, sign_in, &hash_token(&token), app.sign_in.refresh).await?;
    Ok(Secret::new(token))
}

/// Exchanges a refresh token. 401 if it is unknown, expired, revoked or was used before; 409
/// `refresh_raced` if another request exchanged it this moment.
pub(super) async fn exchange(
    app: &App,
    shown: &Secret,
    address: Option<IpAddr>,
) -> ApiResult<SignIn> {
    let refused =
        || ApiError::unauthorized("the refresh token is unknown, expired or used; sign in again");
    let mut tx = app.db.begin().await?;
    match sign_ins::exchange(&mut tx, &hash_token(shown.expose()), RACE).await? {
        Exchange::Done { sign_in, user } => {
            let user = users::by_id(&mut tx, user).await?.ok_or_else(refused)?;
            let refresh = issue(app, &mut tx, sign_in).await?;
            tx.commit().await?;
            let web = token::web(&app.tokens, user.id, sign_in, &user.email, &user.username);
            Ok(SignIn { user, web, refresh })
        }
        Exchange::Raced => Err(ApiError::conflict(
            "refresh_raced",
            "another request exchanged this refresh token just now; use what that one got",
        )),
        Exchange::Reused { sign_in, user } => {
            sign_ins::revoke(&mut tx, sign_in).await?;
            let actor = person::actor(user, address);
            let entry = Entry {
                workspace: None,
                actor: &actor,
                action: "user.refresh_reused",
                resource: Some(("user", user.to_string())),
                outcome: Outcome::Denied,
                details: json!({"signIn": sign_in}),
            };
            audit::record(&mut tx, &entry).await?;
            tx.commit().await?;
            forget(app, RightsOf::User(user));
            Err(refused())
        }
        Exchange::Refused => Err(refused()),
    }
}
