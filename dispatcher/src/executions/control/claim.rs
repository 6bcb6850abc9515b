//! `POST /worker/claim`: a long-poll that ends with an assignment or with nothing.
//!
//! The queue proposes, Postgres decides. Without Redis, and while a flushed queue is rebuilt,
//! Postgres also proposes: then claims cost more, and nothing else changes.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use clawlink_shared::agent::{AgentKind, AgentOffer};
use clawlink_shared::control::{
    ArchiveSource, Assignment, ClaimRequest, CommitAuthor, Credentials, ExecutionRef, Failure,
    Lease, Limits, MAX_WAIT_SECONDS, SessionRef,
};
use clawlink_shared::execution::{ErrorCode, Spec};
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use clawlink_shared::secret::Secret;
use rand::RngExt;
use serde::Deserialize;
use tokio::time::Instant;

use super::protocol::Protocol;
use crate::agents;
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::executions::presence::{self, Caller, Waiting};
use crate::executions::queue::{self, Entry, Popped};
use crate::executions::references::{self, Opened, Stored};
use crate::executions::store::assignment::{self, Held};
use crate::executions::store::lease::{self, Claimant, Confirmed, Refusal};
use crate::executions::store::pending;
use crate::executions::{make_ready, publish, sweep};
use crate::http::extract::Json;
use crate::limits;
use crate::secrets::hash_token;

/// A wake-up that was lost costs at most about this long.
const SLOW_POLL: Duration = Duration::from_secs(2);
/// Pops that Postgres may refuse before a claim waits again.
const MAX_REFUSED: usize = 64;
/// Executions that Postgres proposes at one time.
const PROPOSALS: i64 = 16;
/// Bounds of what a worker says about itself.
const MAX_NAME: usize = 128;
const MAX_ROOT: usize = 4096;
const MAX_VALUE: usize = 1024;
const MAX_AGENTS: usize = 64;
const MAX_LABELS: usize = 64;
/// What is said of an execution whose rows make no assignment.
const UNREADABLE: &str =
    "the stored request or its credentials cannot be read any more; submit it again";

/// Waits for work and hands it out.
pub(super) async fn claim(
    _: Protocol,
    State(app): State<App>,
    Json(request): Json<ClaimRequest>,
) -> ApiResult<Response> {
    let kinds = validate(&request)?;
    let wait = Duration::from_secs(request.wait_seconds.min(MAX_WAIT_SECONDS));
    let deadline = Instant::now() + wait;
    let caller = Caller {
        worker: &request.worker_id,
        kinds: &kinds,
        offers: &request.agents,
    };
    let mut waiting = None;
    loop {
        // Registered before looking, so that no wake-up falls between.
        let mut woken = pin!(app.bus.work_for(&kinds));
        let was_woken = futures::poll!(woken.as_mut()).is_ready();
        if let Some(assignment) = shielded(&app, &request, &kinds).await? {
            if waiting.is_none() {
                presence::began(&app, caller);
            }
            return Ok(axum::Json(assignment).into_response());
        }
        if waiting.is_none() {
            // Had there been work, confirming it would have told a repeated claim.
            if let Some(assignment) = repeated(&app, &request).await? {
                return Ok(axum::Json(assignment).into_response());
            }
            waiting = Some(Waiting::enter(&app, caller, wait).await);
        }
        if was_woken && Instant::now() < deadline {
            continue;
        }
        let look_again = Instant::now() + SLOW_POLL.mul_f64(rand::rng().random_range(0.75..1.25));
        tokio::select! {
            () = &mut woken, if !was_woken => {}
            () = tokio::time::sleep_until(look_again.min(deadline)) => {}
            () = app.shutdown.soft().cancelled() => {}
        }
        if Instant::now() >= deadline || app.shutdown.soft().is_cancelled() {
            if let Some(waiting) = waiting {
                waiting.until_it_calls_again();
            }
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}

fn validate(request: &ClaimRequest) -> ApiResult<Vec<AgentKind>> {
    let is_name = |text: &str, max: usize| {
        (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
    };
    if !is_name(&request.worker_id, MAX_NAME) {
        return Err(ApiError::invalid("workerId must have 1 to 128 characters"));
    }
    if !is_name(&request.root, MAX_ROOT) {
        return Err(ApiError::invalid("root must have 1 to 4096 characters"));
    }
    if request.host.len() > MAX_VALUE || request.version.len() > MAX_VALUE {
        return Err(ApiError::invalid(
            "host and version may have 1024 characters",
        ));
    }
    let is_label =
        |(name, value): (&String, &String)| is_name(name, MAX_NAME) && value.len() <= MAX_VALUE;
    if request.labels.len() > MAX_LABELS || !request.labels.iter().all(is_label) {
        return Err(ApiError::invalid(
            "there may be 64 labels, with names of 1 to 128 and values of at most 1024 characters",
        ));
    }
    let is_version = |offer: &AgentOffer| offer.version.len() <= MAX_VALUE;
    if request.agents.len() > MAX_AGENTS || !request.agents.iter().all(is_version) {
        return Err(ApiError::invalid(
            "agents may have 64 entries, with versions of at most 1024 characters",
        ));
    }
    let mut kinds: Vec<AgentKind> = request.agents.iter().map(|offer| offer.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.is_empty() {
        return Err(ApiError::invalid("agents must name at least one kind"));
    }
    Ok(kinds)
}

/// What this claim id holds since an earlier call whose answer was lost.
async fn repeated(app: &App, request: &ClaimRequest) -> ApiResult<Option<Assignment>> {
    let mut db = app.db.acquire().await?;
    let held = assignment::by_claim(&mut db, request.claim_id).await?;
    drop(db);
    let Some(held) = held else { return Ok(None) };
    let hash = &held.lease_hash;
    let token = app
        .keys
        .lease_token_with_hash(held.execution, request.claim_id, hash);
    let Some(token) = token else { return Ok(None) };
    assign(app, request, held, token).await
}

/// The assignment of a held execution; one whose assignment can never be made is ended instead.
async fn assign(
    app: &App,
    request: &ClaimRequest,
    held: Held,
    token: Secret,
) -> ApiResult<Option<Assignment>> {
    let (spec, stored) = match content(app, &held) {
        Ok(content) => content,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(error, execution = %held.execution, "assignment cannot be made");
            let failure = Failure::new(ErrorCode::InternalError, UNREADABLE);
            sweep::end_broken(app, held.execution, request.claim_id, failure).await?;
            return Ok(None);
        }
    };
    if held.is_limited {
        let mut db = app.db.acquire().await?;
        let (session, own) = (Some(held.session), held.session_budget);
        let reached = limits::exhausted(&mut db, held.workspace, session, own).await?;
        drop(db);
        if let Some(reached) = reached {
            let failure = Failure::new(ErrorCode::BudgetExceeded, reached.message());
            sweep::end_broken(app, held.execution, request.claim_id, failure).await?;
            return Ok(None);
        }
    }
    let credentials = match references::open(app, &held, stored).await? {
        Opened::Credentials(credentials) => credentials,
        Opened::Refused(failure) => {
            sweep::end_broken(app, held.execution, request.claim_id, failure).await?;
            return Ok(None);
        }
        Opened::LeaseLost => return Ok(None),
    };
    let assignment = build(app, token, held, spec, credentials).await?;
    Ok(Some(assignment))
}

/// Looks for work in a task of its own: a worker that goes away in the middle of it must not
/// take a popped execution along.
async fn shielded(
    app: &App,
    request: &ClaimRequest,
    kinds: &[AgentKind],
) -> ApiResult<Option<Assignment>> {
    let (app, request, kinds) = (app.clone(), request.clone(), kinds.to_vec());
    let tracker = app.shutdown.tracker().clone();
    let looking = tracker.spawn(async move { look(&app, &request, &kinds).await });
    looking
        .await
        .map_err(|error| anyhow::anyhow!("claim ended badly: {error}"))?
}

async fn look(
    app: &App,
    request: &ClaimRequest,
    kinds: &[AgentKind],
) -> ApiResult<Option<Assignment>> {
    for _ in 0..MAX_REFUSED {
        let entry = match queue::pop(&app.bus, kinds).await {
            Ok(Popped::Entry(entry)) => entry,
            Ok(Popped::Empty) => return Ok(None),
            Ok(Popped::Lost) => {
                app.rebuild.now();
                return look_in_postgres(app, request, kinds).await;
            }
            Err(error) => {
                tracing::debug!(%error, "no queue; Postgres proposes");
                return look_in_postgres(app, request, kinds).await;
            }
        };
        match try_confirm(app, request, entry.execution, entry.workspace).await {
            Ok(Ok(held)) => {
                let agent = entry.agent.as_str();
                metrics::counter!("clawlink_executions_claimed_total", "agent" => agent)
                    .increment(1);
                let built = assign_or_give_back(app, request, held).await?;
                if built.is_some() {
                    return Ok(built);
                }
            }
            Ok(Err(Refusal::Gone)) => {
                metrics::counter!("clawlink_pops_refused_total").increment(1);
            }
            Ok(Err(Refusal::AtCap)) => park(app, &entry).await?,
            Ok(Err(Refusal::ClaimUsed)) => {
                put_back(app, entry.execution).await;
                return repeated(app, request).await;
            }
            Err(error) => {
                put_back(app, entry.execution).await;
                return Err(error);
            }
        }
    }
    Ok(None)
}

async fn look_in_postgres(
    app: &App,
    request: &ClaimRequest,
    kinds: &[AgentKind],
) -> ApiResult<Option<Assignment>> {
    let mut db = app.db.acquire().await?;
    let proposals = pending::ready_for(&mut db, kinds, PROPOSALS).await?;
    drop(db);
    for (execution, workspace) in proposals {
        match try_confirm(app, request, execution, workspace).await? {
            Ok(held) => {
                let built = assign_or_give_back(app, request, held).await?;
                if built.is_some() {
                    return Ok(built);
                }
            }
            Err(Refusal::Gone | Refusal::AtCap) => {}
            Err(Refusal::ClaimUsed) => return repeated(app, request).await,
        }
    }
    Ok(None)
}

async fn try_confirm(
    app: &App,
    request: &ClaimRequest,
    execution: ExecutionId,
    workspace: WorkspaceId,
) -> ApiResult<Result<Held, Refusal>> {
    let token = app.keys.lease_token(execution, request.claim_id);
    let claimant = Claimant {
        claim: request.claim_id,
        worker: &request.worker_id,
        root: &request.root,
        lease: app.tuning.lease,
    };
    let hash = hash_token(token.expose());
    let mut db = app.db.acquire().await?;
    let fresh = app.recent.take_accepted(execution);
    let named = (execution, workspace);
    let confirmed = lease::confirm(&mut db, named, fresh, &hash, &claimant).await?;
    drop(db);
    match confirmed {
        Confirmed::Held {
            held,
            appended,
            waited,
        } => {
            metrics::histogram!("clawlink_queue_wait_seconds").record(waited.as_secs_f64());
            publish(app, execution, appended);
            Ok(Ok(*held))
        }
        Confirmed::Refused(refusal) => Ok(Err(refusal)),
    }
}

/// The assignment of a lease that was just confirmed; if it cannot be made, the execution goes
/// back at once instead of after the acknowledgement's time.
async fn assign_or_give_back(
    app: &App,
    request: &ClaimRequest,
    held: Held,
) -> ApiResult<Option<Assignment>> {
    let execution = held.execution;
    let token = app.keys.lease_token(execution, request.claim_id);
    let built = assign(app, request, held, token).await;
    if built.is_err() {
        sweep::give_back(app, execution, request.claim_id).await;
    }
    built
}

/// Keeps a full workspace's entries from being offered. An end that came before the entry was
/// parked woke nobody, so look once more.
async fn park(app: &App, entry: &Entry) -> ApiResult<()> {
    if let Err(error) = queue::park(&app.bus, entry).await {
        tracing::debug!(%error, "entry not parked; the reconciler brings it back");
        return Ok(());
    }
    let mut db = app.db.acquire().await?;
    let is_at_cap = pending::is_at_cap(&mut db, entry.workspace).await?;
    drop(db);
    if !is_at_cap {
        make_ready(app, &[], &[], &[entry.workspace]).await?;
    }
    Ok(())
}

/// Best effort: the reconciler brings back what is lost here.
async fn put_back(app: &App, execution: ExecutionId) {
    if let Err(error) = make_ready(app, &[execution], &[], &[]).await {
        tracing::debug!(
            error = format!("{error:#}"),
            "popped execution not put back"
        );
    }
}

/// What was stored with the request. An error will come again: another secret key, or a version
/// that wrote something else.
pub(super) fn content(app: &App, held: &Held) -> anyhow::Result<(Spec, Stored)> {
    let spec = Spec::deserialize(&held.spec).context("read stored request")?;
    let stored = match &held.sealed {
        Some(sealed) => {
            let open = app.keys.open(held.uuid.as_bytes(), sealed)?;
            // Without the cause, which may quote what it could not read.
            let read = serde_json::from_slice(&open).ok();
            read.context("read stored credentials")?
        }
        None => Stored::default(),
    };
    Ok((spec, stored))
}

async fn build(
    app: &App,
    token: Secret,
    held: Held,
    spec: Spec,
    credentials: Credentials,
) -> ApiResult<Assignment> {
    let archive = match &held.archive {
        Some(archive) => Some(source(app, archive).await?),
        None => None,
    };
    let skills = match spec.skills.as_slice() {
        [] => Vec::new(),
        ids => {
            let mut db = app.db.acquire().await?;
            agents::instructions(&mut db, held.workspace, ids).await?
        }
    };
    let tuning = &app.tuning;
    let timeout = spec.options.timeout_seconds;
    Ok(Assignment {
        execution: ExecutionRef {
            id: held.execution,
            uuid: held.uuid,
        },
        lease: Lease {
            token,
            expires_in_ms: tuning.lease.as_millis() as u64,
            attempt: u32::try_from(held.attempt).unwrap_or(1),
        },
        request: spec,
        credentials,
        session: SessionRef {
            id: held.session,
            turn: u32::try_from(held.turn).unwrap_or(1),
            archived_root: archive.as_ref().and(held.archive_root),
            archive,
            provider_session_id: held.provider_session_id,
        },
        limits: Limits {
            timeout_seconds: timeout.unwrap_or(tuning.timeout_seconds),
            outage_grace_seconds: tuning.outage_grace.as_secs(),
            max_session_bytes: tuning.max_session_bytes,
            max_session_files: tuning.max_session_files,
            include_ignored: tuning.include_ignored,
            commit_author: CommitAuthor {
                name: tuning.commit_name.clone(),
                email: tuning.commit_email.clone(),
            },
        },
        skills,
    })
}

/// Where an archive can be read.
pub(super) async fn source(app: &App, archive: &assignment::Archive) -> ApiResult<ArchiveSource> {
    let url = app.blobs.presign_get(&archive.key).await;
    Ok(ArchiveSource {
        url: url.map_err(|error| ApiError::unavailable("the storage cannot be reached", error))?,
        size: archive.size.max(0) as u64,
        sha256: archive.sha256.clone(),
    })
}
