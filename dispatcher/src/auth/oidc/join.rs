//! Whose account somebody from elsewhere has here.

use std::net::IpAddr;

use serde_json::json;

use super::provider::{Identity, Provider};
use crate::app::App;
use crate::auth::person::{self, SignIn};
use crate::auth::settings::Registration;
use crate::auth::store::users::NewUser;
use crate::auth::store::{identities, users};
use crate::auth::takeover;
use crate::error::{ApiError, ApiResult};
use crate::{feed, workspaces};

/// Characters that a user name keeps of the one elsewhere.
const KEPT: usize = 40;

/// Signs in whom the provider named: with the account that was joined before, else with the
/// one that has the same verified address, else with a new one where registration is open. What
/// the address was invited to is accepted.
pub(super) async fn sign_in(
    app: &App,
    provider: &Provider,
    identity: Identity,
    address: Option<IpAddr>,
) -> ApiResult<SignIn> {
    let mut tx = app.db.begin().await?;
    // Serializes those who come for the first time.
    let is_first = users::lock_registration(&mut tx).await?;
    let known = identities::user(&mut tx, provider.name, &identity.subject).await?;
    let mut ended = None;
    let user = match known {
        Some(user) => users::by_id(&mut tx, user).await?,
        None => {
            let email = identity
                .email
                .as_deref()
                .and_then(|email| person::email_address(email).ok());
            let email = email.ok_or_else(|| {
                ApiError::forbidden(format!(
                    "{} does not say that your e-mail address is verified",
                    provider.title
                ))
            })?;
            let user = match users::by_email(&mut tx, &email).await? {
                Some(user) => {
                    let actor = person::actor(user.id, address);
                    ended = takeover::prove(&mut tx, user.id, &actor).await?;
                    if ended.is_some() {
                        users::replace_password(&mut tx, user.id, None).await?;
                    }
                    user
                }
                None => {
                    let is_open = match app.sign_in.registration {
                        Registration::Open => true,
                        Registration::First => is_first,
                        Registration::Closed => false,
                    };
                    if !is_open {
                        return Err(person::registration_closed());
                    }
                    let username = free_name(&mut tx, &identity, &email).await?;
                    let new = NewUser {
                        email: &email,
                        username: &username,
                        display_name: identity.name.as_deref(),
                        password_hash: None,
                        is_platform_admin: is_first,
                        is_email_verified: true,
                    };
                    person::create(&mut tx, new, |user| person::actor(user, address)).await?
                }
            };
            identities::insert(&mut tx, provider.name, &identity.subject, user.id).await?;
            let actor = person::actor(user.id, address);
            let details = json!({"provider": provider.name});
            person::record(&mut tx, &actor, "user.identity_joined", user.id, details).await?;
            Some(user)
        }
    };
    let user = user.filter(|user| !user.is_disabled);
    let user = user.ok_or_else(|| ApiError::unauthorized("this account may not sign in"))?;
    let id = user.id;
    let sign_in = person::begin(app, &mut tx, user, provider.name, address).await?;
    let mut opened = Vec::new();
    if let Some(email) = &identity.email {
        let actor = person::actor(id, address);
        opened = workspaces::accept_for_address(&mut tx, id, email, &actor).await?;
    }
    tx.commit().await?;
    if let Some(ended) = ended {
        ended.forget(app);
    }
    for workspace in opened {
        feed::poke(app, workspace);
    }
    Ok(sign_in)
}

/// A user name like the one elsewhere that nobody has here.
async fn free_name(
    db: &mut sqlx::PgConnection,
    identity: &Identity,
    email: &str,
) -> ApiResult<String> {
    let wanted = identity.login.as_deref().unwrap_or(email);
    let wanted = wanted.split('@').next().unwrap_or_default();
    let mut name: String = wanted
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || "._-".contains(*c))
        .take(KEPT)
        .collect();
    if name.is_empty() {
        name.push_str("user");
    }
    if users::has_username(db, &name).await? {
        let more = uuid::Uuid::new_v4().simple().to_string();
        name = format!("{name}-{}", &more[..8]);
    }
    Ok(name)
}
