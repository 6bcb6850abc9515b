//! Accepting a request: one transaction writes everything that an execution is. Whatever can
//! be refused is refused before it, and nothing is written for a refusal.

use bytes::Bytes;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::defined;
use super::plan::{self, Inherited, Plan};
use super::publish;
use super::references;
use super::request::Request;
use super::store::accept::{self as rows, Link, NewExecution, Room, Written};
use super::store::events::{LockedLog, NewEvent};
use super::store::pending::Blocks;
use super::store::{idempotency, read};
use super::wait::{Forecast, Outlook};
use crate::agents;
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::limits;
use crate::outbox::{self, Effect, Places};
use crate::policies::{self, Submission};
use crate::workspaces::role::Permission;

/// What a client that met a full queue is told to wait, in seconds.
const RETRY_AFTER: u64 = 5;

/// An `Idempotency-Key` with the fingerprint of the body it came with.
#[derive(Debug)]
pub(crate) struct Once {
    pub(super) key: String,
    /// With every accepted key; the first is stored.
    pub(super) body_macs: Vec<[u8; 32]>,
}

/// An execution that exists, made now or by an earlier request with the same key.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) id: ExecutionId,
    pub(super) uuid: Uuid,
    pub(super) session: SessionId,
    pub(super) state: State,
    /// The first events when it was made now.
    pub(super) fresh: Option<Fresh>,
}

/// What is known of an execution that was just made.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) outlook: Outlook,
    /// Envelopes from seq 1.
    pub(super) events: Vec<Bytes>,
}

/// Accepts a request, or finds what an earlier one with the same key made. With `may_wait`
/// false it is refused unless an idle worker is about to take it.
pub(super) async fn accept(
    app: &App,
    principal: &Principal,
    mut request: Request,
    once: Option<Once>,
    may_wait: bool,
    link: &Link,
) -> ApiResult<Accepted> {
    let link = &Link {
        agent: link.agent.or(request.stored_agent),
        ..link.clone()
    };
    if let Some(session) = request.resume {
        policies::require_session(app, principal, session).await?;
    }
    let mut db = app.db.acquire().await?;
    if let Some(earlier) = earlier(&mut db, principal, once.as_ref()).await? {
        return Ok(earlier);
    }
    let inherited = inherited(&mut db, principal, request.resume).await?;
    drop(db);
    let stored = defined::resolve(app, principal, &mut request, inherited.as_ref(), link).await?;
    let stored_id = stored.as_ref().map(|stored| stored.id);
    references::choose(app, principal, &mut request, inherited.as_ref(), stored_id).await?;
    let session = request.resume.unwrap_or_else(SessionId::random);
    let mut plan = plan::complete(&mut request, session, inherited.as_ref(), &app.tuning)?;
    if plan.spec.agent == AgentKind::Shell {
        principal.require(Permission::ShellRun)?;
    }
    let number = stored_id.map(|id| id.to_string());
    let names = stored.as_ref().map(|stored| stored.name.as_str());
    let names: Vec<&str> = std::iter::once(plan.spec.agent.as_str())
        .chain(number.as_deref())
        .chain(names)
        .collect();
    let submission = Submission {
        agent: &names,
        repository: plan.spec.repository.as_ref().map(|one| one.url.as_str()),
    };
    policies::admit(app, principal, &submission).await?;
    let workspace = principal.workspace;
    let (room, forecast, skills) = tokio::join!(
        room(app, workspace, request.resume),
        Forecast::of(app, None, plan.spec.agent, workspace),
        given_skills(app, principal, &plan, link),
    );
    let room = room?;
    plan.spec.skills = skills?;
    if room.is_limited {
        limits::admit(app, workspace, request.resume, room.session_budget).await?;
        let mut db = app.db.acquire().await?;
        limits::require_allowed(&mut db, workspace, request.session_budget).await?;
    }
    let outlook = forecast.outlook(&Blocks {
        workspace,
        agent: plan.spec.agent,
        is_session_busy: inherited.is_some_and(|session| session.busy),
        is_at_cap: room.is_at_cap,
    });
    if let Some(reason) = outlook.wait_reason.filter(|_| !may_wait) {
        return Err(ApiError::busy(reason.as_text(), RETRY_AFTER));
    }
    require_room(app, &room)?;
    let made = (room.next, session, &plan);
    let accepted = write(app, principal, &request, made, once.as_ref(), outlook, link).await?;
    tracing::Span::current().record("execution", accepted.id.0);
    Ok(accepted)
}

/// A script reads no instructions.
async fn given_skills(
    app: &App,
    principal: &Principal,
    plan: &Plan,
    link: &Link,
) -> ApiResult<Vec<i64>> {
    match plan.spec.agent {
        AgentKind::Shell => Ok(Vec::new()),
        _ => agents::given_skills(app, principal, link.agent).await,
    }
}

async fn room(app: &App, workspace: WorkspaceId, session: Option<SessionId>) -> ApiResult<Room> {
    let mut db = app.db.acquire().await?;
    Ok(rows::room(&mut db, workspace, session, app.tuning.queue_cap).await?)
}

/// What an earlier request with this key made; 409 if its body was another one, or if it was sent
/// to another workspace: a person's keys are the same in all of theirs.
pub(super) async fn earlier(
    db: &mut PgConnection,
    principal: &Principal,
    once: Option<&Once>,
) -> ApiResult<Option<Accepted>> {
    let Some(once) = once else { return Ok(None) };
    let Some(earlier) = idempotency::find(db, &principal.name(), &once.key).await? else {
        return Ok(None);
    };
    if !once.body_macs.iter().any(|mac| earlier.body_mac == mac) {
        return Err(ApiError::conflict(
            "idempotency_conflict",
            "this Idempotency-Key came with another body before; use a new key for a new request",
        ));
    }
    let name = read::Name::Number(earlier.execution.0);
    let record = read::find(db, principal.workspace, name).await?;
    let record = record.ok_or_else(|| {
        ApiError::conflict(
            "idempotency_conflict",
            "this Idempotency-Key was used in another of your workspaces; use a new key",
        )
    })?;
    Ok(Some(Accepted {
        id: record.id,
        uuid: record.uuid,
        session: record.session,
        state: record.state,
        fresh: None,
    }))
}

async fn inherited(
    db: &mut PgConnection,
    principal: &Principal,
    session: Option<SessionId>,
) -> ApiResult<Option<Inherited>> {
    let Some(session) = session else {
        return Ok(None);
    };
    match rows::inherited(db, principal.workspace, session).await? {
        Some(inherited) => Ok(Some(inherited)),
        None => Err(no_such_session()),
    }
}

/// 404 for a session that this workspace does not have.
pub(crate) fn no_such_session() -> ApiError {
    ApiError::not_found("session_not_found", "this workspace has no such session")
}

/// Refuses when the queue is at a bound.
fn require_room(app: &App, room: &Room) -> ApiResult<()> {
    if room.pending >= room.pending_cap {
        let detail = format!("{} executions of this workspace wait already", room.pending);
        return Err(ApiError::busy(detail, RETRY_AFTER));
    }
    if room.total >= app.tuning.queue_cap {
        return Err(ApiError::busy("the queue is full", RETRY_AFTER));
    }
    Ok(())
}

/// Writes the execution, tells who waits for it, and has it queued; or finds what a request
/// with the same key has just made.
async fn write(
    app: &App,
    principal: &Principal,
    request: &Request,
    (id, session, plan): (ExecutionId, SessionId, &Plan),
    once: Option<&Once>,
    outlook: Outlook,
    link: &Link,
) -> ApiResult<Accepted> {
    let uuid = Uuid::now_v7();
    let credentials = references::to_seal(&plan.credentials, plan.references.as_ref())?;
    let mut places = Places::reserve(app);
    let enqueue = Effect::Enqueue { execution: id };
    let actor = Actor::from(principal);
    let subject = ("execution", id.to_string());
    let entry = Entry::done(principal.workspace, &actor, "execution.submitted", subject);
    let mut details = json!({"agent": plan.spec.agent.as_str(), "session": session});
    if let Some(budget) = request.session_budget {
        details["sessionBudgetUsd"] = json!(budget);
    }
    let entry = entry.with(details);
    let new = NewExecution {
        id,
        uuid,
        workspace: principal.workspace,
        session,
        resuming: request.resume.is_some(),
        session_budget: request.session_budget,
        spec: &plan.spec,
        priority: request.priority,
        on_worker_lost: request.on_worker_lost,
        submitted_by: &principal.name(),
        wait_reason: outlook.wait_reason,
        sealed_credentials: &app.keys.seal_without_id(uuid.as_bytes(), &credentials),
        link,
        idempotency: once.map(|once| (once.key.as_str(), &once.body_macs[0][..])),
        events: &first_events(request.resume, plan.spec.agent, &plan.notes, outlook)?,
        enqueue: &outbox::Rows::of(std::slice::from_ref(&enqueue), &places)?,
        entry: audit::Columns::from(&entry),
    };
    let mut db = app.db.acquire().await?;
    let (appended, row) = match rows::insert(&mut db, &new).await? {
        Written::Now { appended, row } => (appended, row),
        Written::NoSession => return Err(no_such_session()),
        Written::KeyUsed => {
            let earlier = earlier(&mut db, principal, once).await?;
            let gone = || anyhow::anyhow!("an idempotency key was used and is gone");
            return Ok(earlier.ok_or_else(gone)?);
        }
    };
    drop(db);
    places.perform(app, row, enqueue);
    let events = appended.payloads.clone();
    app.recent.accepted(LockedLog {
        execution: id,
        session,
        last_seq: events.len() as i64,
    });
    publish(app, id, appended);
    metrics::counter!("clawlink_executions_accepted_total", "agent" => plan.spec.agent.as_str())
        .increment(1);
    Ok(Accepted {
        id,
        uuid,
        session,
        state: State::Pending,
        fresh: Some(Fresh { outlook, events }),
    })
}

/// `connected`, `queued`, and a `message` for everything that was asked and will not happen.
pub(super) fn first_events(
    resumed: Option<SessionId>,
    agent: AgentKind,
    notes: &[String],
    outlook: Outlook,
) -> anyhow::Result<Vec<NewEvent>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Connected {
        resuming: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        resumed_from: Option<SessionId>,
        provider: &'static str,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    let connected = Connected {
        resuming: resumed.is_some(),
        resumed_from: resumed,
        provider: agent.as_str(),
    };
    let mut list = vec![
        NewEvent::own(EventType::Connected, &connected)?,
        NewEvent::own(EventType::Queued, &outlook)?,
    ];
    for message in notes {
        list.push(NewEvent::own(EventType::Message, &Message { message })?);
    }
    Ok(list)
}
