//! Invitations of people who have no account yet. One is accepted with its token, which is
//! shown once, or by signing in with the invited address where that was verified; never by an
//! address that somebody merely claims.

use std::time::Duration;

use clawlink_shared::id::{UserId, WorkspaceId};
use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::role::MemberRole;
use super::store::invitations::{self as rows, Offer, Row};
use super::store::members;
use super::{lock, members::join};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::{Person, Principal};
use crate::error::{ApiError, ApiResult};
use crate::feed;
use crate::secrets::{hash_token, random_token};

/// How long an invitation is open.
const OPEN: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Open invitations of one workspace.
pub(super) const MAX_OPEN: i64 = 500;
/// Invitations that one sign-in accepts; the next takes more.
const MAX_AT_ONCE: i64 = 50;

/// An invitation that was just left.
#[derive(Debug)]
pub struct Invitation {
    /// What is shown of it.
    pub(super) row: Row,
    /// What the invited person shows; stored as a hash only.
    pub token: Secret,
}

/// Leaves an invitation in the caller's transaction, which holds the workspace's lock.
pub(super) async fn leave(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    actor: &Actor,
    email: &str,
    role: MemberRole,
) -> ApiResult<Invitation> {
    if rows::count(db, workspace).await? >= MAX_OPEN {
        return Err(ApiError::conflict(
            "too_many_invitations",
            format!("{MAX_OPEN} invitations are open; revoke some first"),
        ));
    }
    let token = random_token();
    let expires_at = OffsetDateTime::now_utc() + OPEN;
    let hash = hash_token(&token);
    let row = rows::upsert(db, workspace, email, role, &hash, &actor.name, expires_at).await?;
    let thing = ("invitation", row.id.to_string());
    let entry = Entry::done(workspace, actor, "member.invited", thing)
        .with(json!({"email": email, "role": role}));
    audit::record(db, &entry).await?;
    Ok(Invitation {
        row,
        token: Secret::new(token),
    })
}

/// Takes an open invitation back.
pub(super) async fn revoke(app: &App, principal: &Principal, id: i64) -> ApiResult<()> {
    let mut tx = app.db.begin().await?;
    if !rows::revoke(&mut tx, principal.workspace, id).await? {
        return Err(gone());
    }
    let actor = Actor::from(principal);
    let thing = ("invitation", id.to_string());
    let entry = Entry::done(principal.workspace, &actor, "invitation.revoked", thing);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Takes back what these callers left open, in any workspace; how many there were.
pub(crate) async fn revoke_invitations_by(
    db: &mut PgConnection,
    inviters: &[String],
    actor: &Actor,
    reason: &str,
) -> anyhow::Result<usize> {
    let revoked = rows::revoke_by(db, inviters).await?;
    for (workspace, id) in &revoked {
        let thing = ("invitation", id.to_string());
        let entry = Entry::done(*workspace, actor, "invitation.revoked", thing);
        audit::record(db, &entry.with(json!({"reason": reason}))).await?;
    }
    Ok(revoked.len())
}

/// Makes the person a member of the workspace that the token invites to. 404
/// `invitation_not_found` if it was used, revoked, has expired or never existed.
pub async fn accept(app: &App, person: &Person, token: &str) -> ApiResult<WorkspaceId> {
    let mut tx = app.db.begin().await?;
    let offer = rows::by_token(&mut tx, &hash_token(token)).await?;
    let offer = offer.ok_or_else(gone)?;
    if !take(&mut tx, offer, person.user, &Actor::from(person)).await? {
        return Err(gone());
    }
    tx.commit().await?;
    feed::poke(app, offer.workspace);
    Ok(offer.workspace)
}

/// Accepts what is offered to an address, in the transaction of a sign-in that proved the
/// address to be the person's. Answers the workspaces that this opened, for their feeds to be
/// poked. One that has no room stays closed; nobody is kept from signing in by that.
pub async fn accept_for_address(
    db: &mut PgConnection,
    user: UserId,
    verified_email: &str,
    actor: &Actor,
) -> anyhow::Result<Vec<WorkspaceId>> {
    let email = verified_email.trim().to_lowercase();
    let mut opened = Vec::new();
    for offer in rows::by_email(db, &email, MAX_AT_ONCE).await? {
        let mut step = db.begin().await?;
        match take(&mut step, offer, user, actor).await {
            Ok(true) => {
                step.commit().await?;
                opened.push(offer.workspace);
            }
            Ok(false) => {}
            Err(error) => {
                let (workspace, code) = (offer.workspace, error.code());
                tracing::info!(%workspace, code, "invitation not accepted");
            }
        }
    }
    Ok(opened)
}

/// Closes the invitation and makes the person a member; false if somebody was faster. Who is a
/// member already keeps the role.
async fn take(db: &mut PgConnection, offer: Offer, user: UserId, actor: &Actor) -> ApiResult<bool> {
    lock(db, offer.workspace).await?;
    if !rows::accept(db, offer.workspace, offer.id, user).await? {
        return Ok(false);
    }
    let thing = ("invitation", offer.id.to_string());
    let entry = Entry::done(offer.workspace, actor, "invitation.accepted", thing);
    audit::record(db, &entry).await?;
    if members::role_of(db, offer.workspace, user).await?.is_none() {
        join(db, offer.workspace, user, offer.role, actor).await?;
    }
    Ok(true)
}

fn gone() -> ApiError {
    ApiError::not_found(
        "invitation_not_found",
        "the invitation was used or revoked, has expired, or never existed; ask for another",
    )
}
