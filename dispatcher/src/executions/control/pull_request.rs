//! `POST …/pull-request`: opens what the request asked for, with the request's own token.
//!
//! The worker says only when. Repository, branches, words and token are those of the stored
//! request: whoever took over a worker could otherwise use a token that it may have for pushing
//! to write elsewhere. Repeating the call finds what the first one opened.

use axum::Extension;
use axum::extract::State;
use clawlink_shared::control::{Credentials, PullRequest, PullRequestAnswer};
use clawlink_shared::event::EventType;
use clawlink_shared::execution::Spec;
use clawlink_shared::id::{ExecutionId, SessionId};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::claim::content;
use super::protocol::Protocol;
use super::{lease_lost, not_acknowledged};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::admit::LeaseHash;
use crate::error::ApiResult;
use crate::executions::publish;
use crate::executions::references::{self, Opened};
use crate::executions::store::events::{NewEvent, append};
use crate::executions::store::locked::{self, Locked};
use crate::executions::store::{assignment, pulls};
use crate::github::{self, Base, NewPull};
use crate::http::extract::Path;

/// Opens it, in a task of its own: what GitHub has done is recorded also if the worker hears
/// no answer.
pub(super) async fn open(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
) -> ApiResult<axum::Json<PullRequestAnswer>> {
    let tracker = app.shutdown.tracker().clone();
    let opening = tracker.spawn(async move { open_once(&app, id, &hash).await });
    let answer = opening
        .await
        .map_err(|error| anyhow::anyhow!("opening ended badly: {error}"))??;
    Ok(axum::Json(answer))
}

/// What is to be opened.
struct Wanted {
    spec: Spec,
    credentials: Credentials,
    session: SessionId,
    execution: Uuid,
}

async fn open_once(app: &App, id: ExecutionId, hash: &[u8; 32]) -> ApiResult<PullRequestAnswer> {
    let mut tx = app.db.begin().await?;
    let held = current(&mut tx, id, hash).await?;
    if let Some(pull) = pulls::recorded(&mut tx, id).await? {
        return Ok(opened(pull));
    }
    if held.cancel.is_some() {
        return Ok(refused("the execution is being cancelled"));
    }
    let wanted = wanted(app, &mut tx, &held).await?;
    tx.commit().await?;
    let pull = match ask(app, &wanted).await {
        Ok(pull) => pull,
        Err(reason) => {
            tracing::info!(reason, "no pull request opened");
            return Ok(refused(&reason));
        }
    };
    let mut tx = app.db.begin().await?;
    let mut held = current(&mut tx, id, hash).await?;
    let Some(name) = pulls::record(&mut tx, id, &pull).await? else {
        // Another call was faster.
        return Ok(opened(pull));
    };
    let actor = Actor {
        name,
        address: None,
    };
    let resource = ("pull_request", pull.url.clone());
    let entry = Entry::done(held.workspace, &actor, "pull_request.opened", resource);
    audit::record(&mut tx, &entry.with(json!({ "execution": id }))).await?;
    let event = NewEvent::own(EventType::PullRequestCreated, &pull)?;
    let appended = append(&mut tx, &mut held.log, &[event]).await?;
    tx.commit().await?;
    publish(app, id, appended);
    metrics::counter!("clawlink_pull_requests_total").increment(1);
    Ok(opened(pull))
}

/// The execution, if this lease holds it now.
async fn current(db: &mut PgConnection, id: ExecutionId, hash: &[u8; 32]) -> ApiResult<Locked> {
    let held = locked::lock(db, id, Some(hash), None).await?;
    let held = held
        .filter(|held| held.state.is_active())
        .ok_or_else(lease_lost)?;
    if held.acked_at.is_none() {
        return Err(not_acknowledged());
    }
    Ok(held)
}

async fn wanted(app: &App, db: &mut PgConnection, held: &Locked) -> ApiResult<Wanted> {
    let claim = held.claim.ok_or_else(lease_lost)?;
    let stored = assignment::by_claim(db, claim).await?;
    let stored = stored.ok_or_else(lease_lost)?;
    let (spec, sealed) = content(app, &stored)?;
    let credentials = match references::open_locked(app, db, held, sealed).await? {
        Opened::Credentials(credentials) => credentials,
        // Without a token the answer says what is missing.
        Opened::Refused(_) => Credentials::default(),
        Opened::LeaseLost => return Err(lease_lost()),
    };
    Ok(Wanted {
        spec,
        credentials,
        session: stored.session,
        execution: stored.uuid,
    })
}

/// An error says to people why there is no pull request.
async fn ask(app: &App, wanted: &Wanted) -> Result<PullRequest, String> {
    let spec = &wanted.spec;
    let (Some(wish), Some(repository), Some(head)) =
        (&spec.pull_request, &spec.repository, &spec.working_branch)
    else {
        return Err("the request does not ask for one".to_owned());
    };
    let Some(token) = &wanted.credentials.git_token else {
        return Err("the request has no token for the git host".to_owned());
    };
    let from = format!(
        "Clawlink-Session: {}\nClawlink-Execution: {}\n",
        wanted.session, wanted.execution
    );
    let new = NewPull {
        title: wish.title.as_deref().unwrap_or(&spec.session_name),
        body: wish.body.as_deref().unwrap_or(&from),
        head,
        base: match (&wish.base, &repository.branch) {
            (Some(base), _) => Base::Exactly(base),
            (None, Some(branch)) => Base::Preferably(branch),
            (None, None) => Base::Default,
        },
        draft: wish.draft,
    };
    let opening = github::open_pull(app, token, &repository.url, &new);
    opening.await.map_err(|error| error.to_string())
}

fn opened(pull: PullRequest) -> PullRequestAnswer {
    PullRequestAnswer {
        pull_request: Some(pull),
        reason: None,
    }
}

fn refused(reason: &str) -> PullRequestAnswer {
    PullRequestAnswer {
        pull_request: None,
        reason: Some(reason.to_owned()),
    }
}
