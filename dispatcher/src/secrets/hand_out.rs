//! From a name to a value: checked when a request is accepted, so that it is refused at once,
//! and again when its worker comes, so that what was changed, narrowed or deleted meanwhile
//! counts: the secret, its lists, and the workspace's policies.

use std::borrow::Cow;

use clawlink_shared::id::{ClaimId, ExecutionId, WorkspaceId};
use clawlink_shared::problem::FieldFault;
use clawlink_shared::secret::Secret;
use serde_json::json;
use sqlx::PgConnection;

use super::allow::{self, Asker, Denied};
use super::reference::{Place, Reference, References, shaped, usual_for_repository};
use super::store::uses::{self, Candidate, Use};
use super::{Keys, owner};
use crate::app::App;
use crate::audit::{self, Actor, Entry, Outcome};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::policies::{self, Recheck, Resource};
use crate::workspaces::role::Permission;

/// Longest git token, in bytes.
const MAX_TOKEN: usize = 4096;

/// What a request wants: names that it says, and for a place about which it says nothing the
/// names that are usual there, the best first.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) named: Vec<Reference>,
    pub(crate) usual: Vec<(Place, Vec<String>)>,
}

/// What a request wants less the usual secrets that a policy denies to the caller; 403 if one
/// denies a secret that it names, and the denial is recorded.
pub(crate) async fn permitted(
    app: &App,
    principal: &Principal,
    mut wanted: Wanted,
) -> ApiResult<Wanted> {
    for reference in &wanted.named {
        policies::require(app, principal, &Resource::Secret(&reference.name)).await?;
    }
    let rules = policies::rules(app, principal).await?;
    for (_, names) in &mut wanted.usual {
        names.retain(|name| rules.allow(principal, &Resource::Secret(name)));
    }
    Ok(wanted)
}

/// Checks what a request wants. `None` if it uses no secret; 400 for one that does not exist,
/// 403 for one that this caller or agent may not use.
pub(crate) async fn choose(
    db: &mut PgConnection,
    principal: &Principal,
    asker: Asker,
    wanted: Wanted,
) -> ApiResult<Option<References>> {
    if !wanted.named.is_empty() {
        principal.require(Permission::SecretUse)?;
    }
    let may_use = principal.role.may(Permission::SecretUse);
    let usual = if may_use { wanted.usual } else { Vec::new() };
    let names = wanted.named.iter().map(|reference| &reference.name);
    let names: Vec<String> = names
        .chain(usual.iter().flat_map(|(_, names)| names))
        .cloned()
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    let found = uses::candidates(db, principal.workspace, &names, &asker.agents).await?;
    let mut faults = Vec::new();
    for reference in &wanted.named {
        let Err(refusal) = find(&found, &asker, reference) else {
            continue;
        };
        if refusal.is_denied {
            let actor = Actor::from(principal);
            deny(db, principal.workspace, &actor, &asker, &refusal, None).await?;
            return Err(ApiError::forbidden(refusal.message()));
        }
        faults.push(FieldFault {
            field: refusal.reference.place.field(),
            message: refusal.message(),
        });
    }
    if !faults.is_empty() {
        return Err(ApiError::invalid_fields(faults));
    }
    let first = |(place, names): (Place, Vec<String>)| {
        let mut references = names.into_iter().map(|name| Reference {
            place: place.clone(),
            name,
        });
        references.find(|reference| find(&found, &asker, reference).is_ok())
    };
    let references = References {
        named: wanted.named,
        usual: usual.into_iter().filter_map(first).collect(),
        asker,
    };
    let is_empty = references.named.is_empty() && references.usual.is_empty();
    Ok((!is_empty).then_some(references))
}

/// Who holds the lease that secrets are handed out to; the caller has locked it.
#[derive(Debug)]
pub(crate) struct Holder<'a> {
    pub(crate) workspace: WorkspaceId,
    pub(crate) execution: ExecutionId,
    pub(crate) claim: ClaimId,
    pub(crate) attempt: i32,
    pub(crate) worker: Option<&'a str>,
}

/// Opens an execution's secrets for the holder of its lease, and records each use, in the
/// caller's transaction. The refusal of one that the request names is recorded too; what is
/// only usual and gone is left out.
pub(crate) async fn hand_out(
    db: &mut PgConnection,
    keys: &Keys,
    holder: &Holder<'_>,
    references: &References,
) -> anyhow::Result<Result<Vec<(Place, Secret)>, Refusal>> {
    let asker = &references.asker;
    let all = references.named.iter().chain(&references.usual);
    let names: Vec<String> = all
        .clone()
        .map(|reference| reference.name.clone())
        .collect();
    let found = uses::candidates(db, holder.workspace, &names, &asker.agents).await?;
    let (role, trust) = (asker.role.into(), asker.trust);
    let policies = Recheck::of(db, holder.workspace, &asker.name, role, trust).await?;
    let actor = Actor {
        name: asker.name.clone(),
        address: None,
    };
    let mut given = Vec::new();
    let mut used = Vec::new();
    for (index, reference) in all.enumerate() {
        let opened = find(&found, asker, reference)
            .and_then(|secret| still_permitted(&policies, secret, reference))
            .and_then(|secret| Ok((secret, open(keys, holder.workspace, secret, reference)?)));
        let (secret, value) = match opened {
            Ok(opened) => opened,
            Err(_) if index >= references.named.len() => continue,
            Err(refusal) => {
                deny(db, holder.workspace, &actor, asker, &refusal, Some(holder)).await?;
                return Ok(Err(refusal));
            }
        };
        let place = reference.place.name();
        let one = Use {
            place: &place,
            secret: secret.id,
            version: secret.version,
        };
        if uses::remember(db, holder.execution, holder.claim, &one).await? {
            let resource = ("secret", secret.name.clone());
            let entry = Entry::done(holder.workspace, &actor, "secret.used", resource);
            let details = json!({
                "execution": holder.execution, "attempt": holder.attempt, "worker": holder.worker,
                "place": place, "agents": asker.agents, "scope": secret.agent,
                "version": secret.version,
            });
            audit::record(db, &entry.with(details)).await?;
            used.push(secret.id);
        }
        given.push((reference.place.clone(), value));
    }
    if !used.is_empty() {
        uses::touch(db, &used).await?;
    }
    Ok(Ok(given))
}

/// The workspace's token for a repository's host, for what is done for a caller at once. `None`
/// if there is none that this caller may use; the use is recorded.
pub(crate) async fn git_token(
    app: &App,
    principal: &Principal,
    repository_url: &str,
) -> ApiResult<Option<Secret>> {
    let asker = Asker::without_agent(principal);
    let wanted = Wanted {
        named: Vec::new(),
        usual: vec![(Place::Git, usual_for_repository(repository_url))],
    };
    let wanted = permitted(app, principal, wanted).await?;
    let mut db = app.db.acquire().await?;
    let db = &mut *db;
    let Some(references) = choose(db, principal, asker, wanted).await? else {
        return Ok(None);
    };
    let names: Vec<String> = references
        .usual
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let found = uses::candidates(db, principal.workspace, &names, &[]).await?;
    for reference in &references.usual {
        let Ok(secret) = find(&found, &references.asker, reference) else {
            continue;
        };
        let Ok(value) = open(&app.keys, principal.workspace, secret, reference) else {
            continue;
        };
        let actor = Actor::from(principal);
        let resource = ("secret", secret.name.clone());
        let entry = Entry::done(principal.workspace, &actor, "secret.used", resource);
        let details = json!({"place": reference.place.name(), "version": secret.version});
        audit::record(db, &entry.with(details)).await?;
        uses::touch(db, &[secret.id]).await?;
        return Ok(Some(value));
    }
    Ok(None)
}

/// Why a secret is not used.
#[derive(Debug)]
pub(crate) struct Refusal {
    reference: Reference,
    why: Cow<'static, str>,
    is_denied: bool,
}

impl Refusal {
    /// Which one, and why.
    pub(crate) fn message(&self) -> String {
        format!("the secret {} {}", shown(&self.reference.name), self.why)
    }

    /// Where it was to be used.
    pub(crate) fn place(&self) -> &Place {
        &self.reference.place
    }
}

/// A name as clients sent it, on one line and bounded: it need not be that of a secret.
fn shown(name: &str) -> String {
    name.escape_debug().take(128).collect()
}

fn find<'a>(
    found: &'a [Candidate],
    asker: &Asker,
    reference: &Reference,
) -> Result<&'a Candidate, Refusal> {
    let refusal = |why: &'static str, is_denied| Refusal {
        reference: reference.clone(),
        why: why.into(),
        is_denied,
    };
    let secret = found.iter().find(|secret| secret.name == reference.name);
    let secret = secret.ok_or_else(|| {
        refusal(
            "does not exist in this workspace; store it, or send the value itself",
            false,
        )
    })?;
    let (roles, agents) = (&secret.allowed_roles, &secret.allowed_agents);
    match allow::check(asker, roles.as_deref(), agents.as_deref()) {
        Ok(()) => Ok(secret),
        Err(Denied::Role) => Err(refusal("may not be used with your role", true)),
        Err(Denied::Agent) => Err(refusal("may not be used by this agent", true)),
    }
}

/// Policies that were made or changed since the request was accepted.
fn still_permitted<'a>(
    policies: &Recheck,
    secret: &'a Candidate,
    reference: &Reference,
) -> Result<&'a Candidate, Refusal> {
    let Some(denial) = policies.denial(&Resource::Secret(&secret.name)) else {
        return Ok(secret);
    };
    Err(Refusal {
        reference: reference.clone(),
        why: format!(
            "may not be used any more: policy {} denies it ({}); change the policy or send another \
             credential, then submit again",
            denial.policy, denial.reason
        )
        .into(),
        is_denied: true,
    })
}

/// The value as its place takes it.
fn open(
    keys: &Keys,
    workspace: WorkspaceId,
    secret: &Candidate,
    reference: &Reference,
) -> Result<Secret, Refusal> {
    let refusal = |why: &'static str| Refusal {
        reference: reference.clone(),
        why: why.into(),
        is_denied: false,
    };
    let owner = owner(workspace, secret.agent.as_deref(), &secret.name);
    let opened = keys.open(&owner, &secret.sealed).ok();
    let text = opened.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text
        .map(Secret::new)
        .ok_or_else(|| refusal("cannot be opened with the configured key; store it again"))?;
    match reference.place {
        Place::Agent => Ok(shaped(&secret.name, text.expose())),
        Place::Env(_) => Ok(text),
        Place::Git => {
            let token = text.expose().trim();
            let is_token = (1..=MAX_TOKEN).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic());
            let token = is_token.then(|| Secret::new(token));
            token.ok_or_else(|| refusal("is not a token: it must be visible ASCII characters"))
        }
    }
}

async fn deny(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    actor: &Actor,
    asker: &Asker,
    refusal: &Refusal,
    holder: Option<&Holder<'_>>,
) -> anyhow::Result<()> {
    let resource = ("secret", shown(&refusal.reference.name));
    let entry = Entry {
        outcome: Outcome::Denied,
        ..Entry::done(workspace, actor, "secret.used", resource)
    };
    let details = json!({
        "execution": holder.map(|holder| holder.execution), "why": refusal.why,
        "place": refusal.reference.place.name(), "agents": asker.agents,
    });
    audit::record(db, &entry.with(details)).await
}
