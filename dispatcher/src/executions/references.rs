//! Secrets of a request: chosen when it is accepted, opened when its worker comes. Requests
//! without any cost nothing.

use clawlink_shared::control::{Credentials, Failure};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::id::{AgentId, ExecutionId};
use clawlink_shared::secret::Secret;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::plan::Inherited;
use super::request::Request;
use super::store::assignment::Held;
use super::store::credentials;
use super::store::locked::{self, Locked};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;
use crate::secrets::{self, Asker, Holder, Place, References, Refusal, Stale, Wanted};

/// What is sealed with an execution. Without references it reads as it always did.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Stored {
    #[serde(flatten)]
    credentials: Credentials,
    references: Option<References>,
}

/// The bytes to seal; [`Stored`] reads them back.
pub(super) fn to_seal(
    credentials: &Credentials,
    references: Option<&References>,
) -> anyhow::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct ToSeal<'a> {
        #[serde(flatten)]
        credentials: &'a Credentials,
        #[serde(skip_serializing_if = "Option::is_none")]
        references: Option<&'a References>,
    }
    Ok(serde_json::to_vec(&ToSeal {
        credentials,
        references,
    })?)
}

/// Puts the request's references in order: those it names, and the usual ones for what it
/// neither names nor sends. `stored` is the stored agent that is to run, if it is one.
pub(super) async fn choose(
    app: &App,
    principal: &Principal,
    request: &mut Request,
    session: Option<&Inherited>,
    stored: Option<AgentId>,
) -> ApiResult<()> {
    let Some(agent) = request.agent.or(session.map(|session| session.agent)) else {
        return Ok(());
    };
    let named = std::mem::take(&mut request.named_secrets);
    let is_open = |place: Place, sent: Option<&Secret>| {
        sent.is_none() && !named.iter().any(|reference| reference.place == place)
    };
    let mut usual = Vec::new();
    if is_open(Place::Agent, request.credentials.agent.as_ref()) {
        let names = secrets::usual_for_agent(agent);
        usual.push((
            Place::Agent,
            names.iter().map(|&name| name.into()).collect(),
        ));
    }
    if is_open(Place::Git, request.credentials.git_token.as_ref()) {
        let sent = request
            .github
            .as_ref()
            .and_then(|github| github.url.as_ref());
        let kept = session.and_then(|session| session.repository.as_ref());
        // A session keeps its repository, whatever a request says about it.
        let url = match session {
            Some(_) => kept.map(|repository| &repository.url),
            None => sent,
        };
        let names = url.map(|url| secrets::usual_for_repository(url));
        usual.push((Place::Git, names.unwrap_or_default()));
    }
    usual.retain(|(_, names)| !names.is_empty());
    if named.is_empty() && usual.is_empty() {
        return Ok(());
    }
    let asker = Asker::new(principal, agent, stored);
    let wanted = secrets::permitted(app, principal, Wanted { named, usual }).await?;
    let mut db = app.db.acquire().await?;
    request.references = secrets::choose(&mut db, principal, asker, wanted).await?;
    Ok(())
}

/// What becomes of stored references.
#[derive(Debug)]
pub(super) enum Opened {
    /// Everything the worker gets.
    Credentials(Credentials),
    /// One that the request names cannot be had any more.
    Refused(Failure),
    /// The worker does not hold the execution any more.
    LeaseLost,
}

/// Opens the secrets of a held execution and records their use, while its lease is locked.
pub(super) async fn open(app: &App, held: &Held, stored: Stored) -> ApiResult<Opened> {
    if stored.references.is_none() {
        return Ok(Opened::Credentials(stored.credentials));
    }
    let mut tx = app.db.begin().await?;
    let locked = match held.lease_hash.as_slice().try_into() {
        Ok(hash) => locked::lock(&mut tx, held.execution, Some(hash), None).await?,
        Err(_) => None,
    };
    let Some(locked) = locked else {
        return Ok(Opened::LeaseLost);
    };
    let opened = open_locked(app, &mut tx, &locked, stored).await?;
    tx.commit().await?;
    Ok(opened)
}

/// The same for a caller who has locked the execution, and commits.
pub(super) async fn open_locked(
    app: &App,
    db: &mut PgConnection,
    locked: &Locked,
    stored: Stored,
) -> anyhow::Result<Opened> {
    let mut credentials = stored.credentials;
    let Some(references) = &stored.references else {
        return Ok(Opened::Credentials(credentials));
    };
    let Some(holder) = holder(locked) else {
        return Ok(Opened::LeaseLost);
    };
    let given = secrets::hand_out(db, &app.keys, &holder, references).await?;
    let given = match given {
        Ok(given) => given,
        Err(refusal) => return Ok(Opened::Refused(failure(&refusal))),
    };
    for (place, value) in given {
        match place {
            Place::Agent => credentials.agent = Some(value),
            Place::Git => credentials.git_token = Some(value),
            Place::Env(variable) => drop(credentials.env.insert(variable, value)),
        }
    }
    Ok(Opened::Credentials(credentials))
}

/// Who holds this execution; `None` if nobody does.
pub(super) fn holder(locked: &Locked) -> Option<Holder<'_>> {
    let claim = locked.claim.filter(|_| locked.state.is_active())?;
    Some(Holder {
        workspace: locked.workspace,
        execution: locked.log.execution,
        claim,
        attempt: locked.attempt,
        worker: locked.worker.as_deref(),
    })
}

fn failure(refusal: &Refusal) -> Failure {
    let code = match refusal.place() {
        Place::Agent => ErrorCode::AuthError,
        Place::Git => ErrorCode::RepoAuthFailed,
        Place::Env(_) => ErrorCode::ValidationError,
    };
    Failure::new(code, refusal.message())
}

/// Sealed credentials that do not begin with the current key's id, after this execution.
pub(crate) async fn stale_seals(
    db: &mut PgConnection,
    current: &[u8],
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Stale>> {
    credentials::stale(db, current, after, limit).await
}

/// Puts them in another seal.
pub(crate) async fn replace_seal(
    db: &mut PgConnection,
    stale: &Stale,
    sealed: &[u8],
) -> anyhow::Result<()> {
    credentials::replace(db, ExecutionId(stale.id), &stale.sealed, sealed).await
}
