//! People: registering, signing in and out, choosing a workspace, passwords.

use std::net::IpAddr;

use clawlink_shared::id::UserId;
use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::principal::{Person, Who};
use super::settings::Registration;
use super::store::users::{NewUser, User};
use super::store::{resets, sign_ins, users};
use super::token::{self, TenantId};
use super::{forget, refresh, rights};
use crate::app::{App, FIRST_WORKSPACE};
use crate::audit::{self, Actor, Entry, Outcome};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::workspaces;
use crate::workspaces::role::{MemberRole, Role};

/// Characters of the longest e-mail address.
const MAX_EMAIL: usize = 254;
/// Characters of the longest user name.
const MAX_USERNAME: usize = 64;

/// A sign-in that has begun, with the tokens that it gives.
pub struct SignIn {
    pub(super) user: User,
    pub(super) web: Secret,
    pub(super) refresh: Secret,
}

impl SignIn {
    /// Who signed in.
    pub fn user(&self) -> UserId {
        self.user.id
    }

    /// The web token.
    pub fn token(&self) -> &Secret {
        &self.web
    }
}

/// Makes an account and signs in. The first person runs the installation and owns the first
/// workspace. 403 if registration is closed, 409 `email_taken` or `username_taken`.
pub(super) async fn register(
    app: &App,
    email: &str,
    username: &str,
    password: &Secret,
    address: Option<IpAddr>,
) -> ApiResult<SignIn> {
    let email = email_address(email)?;
    let username = user_name(username)?;
    let registration = app.sign_in.registration;
    if registration == Registration::Closed {
        return Err(registration_closed());
    }
    app.attempts.of_address(&app.bus, address).await?;
    if registration == Registration::First {
        // Hashing for those who come too late would cost those who sign in.
        let mut db = app.db.acquire().await?;
        if !users::is_nobody_here(&mut db).await? {
            return Err(registration_closed());
        }
    }
    let hash = app.passwords.hash(password).await?;
    let mut tx = app.db.begin().await?;
    let is_first = users::lock_registration(&mut tx).await?;
    if registration == Registration::First && !is_first {
        return Err(registration_closed());
    }
    let new = NewUser {
        email: &email,
        username: &username,
        display_name: None,
        password_hash: Some(&hash),
        is_platform_admin: is_first,
        is_email_verified: false,
    };
    let user = create(&mut tx, new, |user| actor(user, address)).await?;
    let sign_in = begin(app, &mut tx, user, "password", address).await?;
    tx.commit().await?;
    Ok(sign_in)
}

/// Adds a person, and whatever being the first one gives; `by` says who does that.
pub(super) async fn create(
    db: &mut PgConnection,
    new: NewUser<'_>,
    by: impl FnOnce(UserId) -> Actor,
) -> ApiResult<User> {
    let user = users::insert(db, new).await.map_err(taken)?;
    if user.is_platform_admin
        && let Some(workspace) = workspaces::by_slug(db, FIRST_WORKSPACE).await?
    {
        workspaces::join(db, workspace, user.id, MemberRole::Owner).await?;
    }
    let actor = by(user.id);
    let details = json!({"isPlatformAdmin": user.is_platform_admin});
    record(db, &actor, "user.registered", user.id, details).await?;
    Ok(user)
}

/// Why nobody new comes in.
pub(super) fn registration_closed() -> ApiError {
    ApiError::forbidden("registration is closed; ask whoever runs this for an account")
}

fn taken(error: sqlx::Error) -> ApiError {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    if constraint == Some("users_username_key") {
        return ApiError::conflict("username_taken", "this user name is taken");
    }
    let detail = "this e-mail address has an account; sign in";
    ApiError::on_constraint(error, "users_email_key", "email_taken", detail)
}

/// Signs in. 401 says the same for a wrong password, an unknown account and a disabled one.
pub(super) async fn login(
    app: &App,
    email: &str,
    password: &Secret,
    address: Option<IpAddr>,
) -> ApiResult<SignIn> {
    let wrong = || ApiError::unauthorized("the e-mail address or the password is wrong");
    app.attempts.of_address(&app.bus, address).await?;
    let email = email_address(email).unwrap_or_default();
    app.attempts.at_account(&app.bus, &email).await?;
    let mut db = app.db.acquire().await?;
    let user = users::by_email(&mut db, &email).await?;
    // Computing takes a while; others need the connection.
    drop(db);
    let stored = user.as_ref().and_then(|user| user.password_hash.clone());
    let verdict = app.passwords.verify(password, stored.clone()).await?;
    let user = user.filter(|user| verdict.is_right && !user.is_disabled);
    let user = user.ok_or_else(wrong)?;
    let mut tx = app.db.begin().await?;
    // Comparing took a while: a password that was changed meanwhile begins nothing.
    if !users::lock_unchanged(&mut tx, user.id, stored.as_deref()).await? {
        return Err(wrong());
    }
    if let Some(hash) = verdict.rehashed {
        users::set_password(&mut tx, user.id, stored.as_deref(), &hash).await?;
    }
    let sign_in = begin(app, &mut tx, user, "password", address).await?;
    tx.commit().await?;
    Ok(sign_in)
}

/// Begins a sign-in of somebody who proved who they are.
pub(super) async fn begin(
    app: &App,
    db: &mut PgConnection,
    user: User,
    method: &'static str,
    address: Option<IpAddr>,
) -> ApiResult<SignIn> {
    let id = sign_ins::insert(db, user.id, method, address).await?;
    let refresh = refresh::issue(app, db, id).await?;
    let actor = actor(user.id, address);
    let details = json!({"method": method});
    record(db, &actor, "user.signed_in", user.id, details).await?;
    let web = token::web(&app.tokens, user.id, id, &user.email, &user.username);
    Ok(SignIn { user, web, refresh })
}

/// A person by id; for those who have a right to know.
pub(super) async fn find(app: &App, id: UserId) -> ApiResult<User> {
    let mut db = app.db.acquire().await?;
    let user = users::by_id(&mut db, id).await?;
    user.ok_or_else(|| ApiError::unauthorized("the account does not exist any more"))
}

/// A workspace token. 401 unless the person is a member.
pub(super) async fn choose(app: &App, person: &Person, tenant: TenantId) -> ApiResult<Secret> {
    let none = || ApiError::unauthorized("you are not a member of this workspace");
    let workspace = tenant.workspace().ok_or_else(none)?;
    let rights = rights::of_sign_in(app, person.user, person.sign_in, Some(workspace)).await?;
    let (role, _) = rights.and_then(|rights| rights.member).ok_or_else(none)?;
    let who = Who::User(person.user);
    let role = Role::Member(role);
    Ok(token::workspace(
        &app.tokens,
        who,
        Some(person.sign_in),
        tenant,
        role,
    ))
}

/// Sets a new password; every sign-in and reset token ends, and a new sign-in begins. 401 if the
/// old one is wrong.
pub(super) async fn change_password(
    app: &App,
    person: &Person,
    current: &Secret,
    new: &Secret,
) -> ApiResult<SignIn> {
    let account = person.user.to_string();
    app.attempts.at_account(&app.bus, &account).await?;
    let user = find(app, person.user).await?;
    let stored = user.password_hash.clone();
    let verdict = app.passwords.verify(current, stored.clone()).await?;
    if !verdict.is_right {
        return Err(ApiError::unauthorized("the current password is wrong"));
    }
    let hash = app.passwords.hash(new).await?;
    let mut tx = app.db.begin().await?;
    if !users::set_password(&mut tx, user.id, stored.as_deref(), &hash).await? {
        return Err(ApiError::conflict(
            "password_changed",
            "the password was changed meanwhile; sign in again",
        ));
    }
    sign_ins::revoke_all(&mut tx, user.id).await?;
    resets::void(&mut tx, user.id).await?;
    record(
        &mut tx,
        &Actor::from(person),
        "user.password_changed",
        user.id,
        json!({}),
    )
    .await?;
    let sign_in = begin(app, &mut tx, user, "password", person.address).await?;
    tx.commit().await?;
    forget(app, RightsOf::User(person.user));
    Ok(sign_in)
}

/// Ends the sign-in that the person came with.
pub(super) async fn sign_out(app: &App, person: &Person) -> ApiResult<()> {
    let mut tx = app.db.begin().await?;
    if sign_ins::revoke(&mut tx, person.sign_in).await? {
        record(
            &mut tx,
            &Actor::from(person),
            "user.signed_out",
            person.user,
            json!({}),
        )
        .await?;
    }
    tx.commit().await?;
    forget(app, RightsOf::User(person.user));
    Ok(())
}

/// Ends all sign-ins of the person.
pub(super) async fn sign_out_everywhere(app: &App, person: &Person) -> ApiResult<()> {
    let mut tx = app.db.begin().await?;
    sign_ins::revoke_all(&mut tx, person.user).await?;
    let details = json!({"everywhere": true});
    record(
        &mut tx,
        &Actor::from(person),
        "user.signed_out",
        person.user,
        details,
    )
    .await?;
    tx.commit().await?;
    forget(app, RightsOf::User(person.user));
    Ok(())
}

/// An account without a password that is signed in at once: for tools and tests that stand in
/// for the forms.
pub async fn create_signed_in(app: &App, email: &str, username: &str) -> ApiResult<(SignIn, Uuid)> {
    let mut tx = app.db.begin().await?;
    let new = NewUser {
        email,
        username,
        display_name: None,
        password_hash: None,
        is_platform_admin: false,
        is_email_verified: false,
    };
    let user = create(&mut tx, new, |user| actor(user, None)).await?;
    let sign_in = begin(app, &mut tx, user, "password", None).await?;
    tx.commit().await?;
    let proof = token::verify(&app.tokens, sign_in.web.expose()).and_then(|proof| proof.sign_in);
    Ok((sign_in, proof.unwrap_or_default()))
}

pub(super) fn actor(user: UserId, address: Option<IpAddr>) -> Actor {
    Actor {
        name: Who::User(user).name(),
        address,
    }
}

/// Records what a person did with the own account, which belongs to no workspace.
pub(super) async fn record(
    db: &mut PgConnection,
    actor: &Actor,
    action: &'static str,
    user: UserId,
    details: serde_json::Value,
) -> anyhow::Result<()> {
    let entry = Entry {
        workspace: None,
        actor,
        action,
        resource: Some(("user", user.to_string())),
        outcome: Outcome::Allowed,
        details,
    };
    audit::record(db, &entry).await
}

/// An address as it is stored: trimmed, lower case. 400 unless it can be one.
pub fn email_address(text: &str) -> ApiResult<String> {
    let email = text.trim().to_lowercase();
    let is_one = email.chars().count() <= MAX_EMAIL
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        && email.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.contains('@')
        });
    is_one
        .then_some(email)
        .ok_or_else(|| ApiError::invalid("email: must be an e-mail address"))
}

/// A user name as it is stored. 400 unless it can be one.
pub(super) fn user_name(text: &str) -> ApiResult<String> {
    let name = text.trim().to_lowercase();
    let is_one = (1..=MAX_USERNAME).contains(&name.chars().count())
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "._-".contains(c));
    is_one.then_some(name).ok_or_else(|| {
        ApiError::invalid(format!(
            "username: must be 1 to {MAX_USERNAME} letters, digits, `.`, `_` or `-`"
        ))
    })
}
