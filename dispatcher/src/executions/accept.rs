//! Accepting a request: one transaction writes everything that an execution is. Whatever can
//! be refused is refused before it, and nothing is written for a refusal.

use bytes::Bytes;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, SessionId};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::plan::{self, Inherited, Plan};
use super::references;
use super::request::Request;
use super::store::accept::{self as rows, NewExecution};
use super::store::events::{self, Appended, LockedLog, NewEvent};
use super::store::{idempotency, read};
use super::wait::{self, Outlook};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::outbox::{self, Effect};
use crate::workspaces::role::Permission;

/// What a client that met a full queue is told to wait, in seconds.
const RETRY_AFTER: u64 = 5;

/// An `Idempotency-Key` with the fingerprint of the body it came with.
#[derive(Debug)]
pub(super) struct Once {
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
) -> ApiResult<Accepted> {
    let mut db = app.db.acquire().await?;
    if let Some(earlier) = earlier(&mut db, principal, once.as_ref()).await? {
        return Ok(earlier);
    }
    let inherited = inherited(&mut db, principal, request.resume).await?;
    drop(db);
    references::choose(app, principal, &mut request, inherited.as_ref()).await?;
    let session = request.resume.unwrap_or_else(SessionId::random);
    let plan = plan::complete(&mut request, session, inherited.as_ref(), &app.tuning)?;
    if plan.spec.agent == AgentKind::Shell {
        principal.require(Permission::ShellRun)?;
    }
    let busy = inherited.is_some_and(|session| session.busy);
    let outlook = wait::before_accept(app, principal.workspace, plan.spec.agent, busy).await;
    if !may_wait && outlook.wait_reason.is_some() {
        return Err(ApiError::busy(
            "no worker is idle for this agent",
            RETRY_AFTER,
        ));
    }

    let mut transaction = app.db.begin().await?;
    if let Some(once) = &once {
        idempotency::lock(&mut transaction, &principal.name(), &once.key).await?;
        if let Some(earlier) = earlier(&mut transaction, principal, Some(once)).await? {
            return Ok(earlier);
        }
    }
    let (accepted, appended) = write(
        app,
        &mut transaction,
        principal,
        &request,
        (session, &plan),
        once.as_ref(),
        outlook,
    )
    .await?;
    transaction.commit().await?;
    app.bus
        .publish_events(accepted.id, appended.first_seq, appended.payloads);
    outbox::poke(app);
    tracing::Span::current().record("execution", accepted.id.0);
    metrics::counter!("clawlink_executions_accepted_total", "agent" => plan.spec.agent.as_str())
        .increment(1);
    Ok(accepted)
}

/// What an earlier request with this key made; 409 if its body was another one.
async fn earlier(
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
    Ok(record.map(|record| Accepted {
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
async fn require_room(app: &App, db: &mut PgConnection, principal: &Principal) -> ApiResult<()> {
    let room = rows::room(db, principal.workspace, app.tuning.queue_cap).await?;
    if room.pending >= room.pending_cap {
        let detail = format!("{} executions of this workspace wait already", room.pending);
        return Err(ApiError::busy(detail, RETRY_AFTER));
    }
    if room.total >= app.tuning.queue_cap {
        return Err(ApiError::busy("the queue is full", RETRY_AFTER));
    }
    Ok(())
}

/// All rows of an execution, within the caller's transaction.
async fn write(
    app: &App,
    db: &mut PgConnection,
    principal: &Principal,
    request: &Request,
    (session, plan): (SessionId, &Plan),
    once: Option<&Once>,
    outlook: Outlook,
) -> ApiResult<(Accepted, Appended)> {
    require_room(app, db, principal).await?;
    let turn = if request.resume.is_some() {
        rows::next_turn(db, principal.workspace, session, &plan.spec)
            .await?
            .ok_or_else(no_such_session)?
    } else {
        rows::insert_session(db, principal.workspace, session, &plan.spec).await?;
        1
    };
    let uuid = Uuid::new_v4();
    let credentials = references::to_seal(&plan.credentials, plan.references.as_ref())?;
    let new = NewExecution {
        uuid,
        workspace: principal.workspace,
        session,
        turn,
        spec: &plan.spec,
        priority: request.priority,
        on_worker_lost: request.on_worker_lost,
        submitted_by: &principal.name(),
        wait_reason: outlook.wait_reason,
        sealed_credentials: &app.keys.seal_without_id(uuid.as_bytes(), &credentials),
        idempotency: once.map(|once| (once.key.as_str(), &once.body_macs[0][..])),
    };
    let id = rows::insert_execution(db, &new).await?;
    let mut log = LockedLog {
        execution: id,
        session,
        last_seq: 0,
    };
    let first = first_events(request, session, plan, outlook)?;
    let appended = events::append(db, &mut log, &first).await?;
    outbox::add(db, &Effect::Enqueue { execution: id }).await?;
    let actor = Actor::from(principal);
    let submitted = ("execution", id.to_string());
    let entry = Entry::done(
        principal.workspace,
        &actor,
        "execution.submitted",
        submitted,
    );
    let details = json!({"agent": plan.spec.agent.as_str(), "session": session, "turn": turn});
    audit::record(db, &entry.with(details)).await?;
    let accepted = Accepted {
        id,
        uuid,
        session,
        state: State::Pending,
        fresh: Some(Fresh {
            outlook,
            events: appended.payloads.clone(),
        }),
    };
    Ok((accepted, appended))
}

/// `connected`, `queued`, and a `message` for everything that was asked and will not happen.
fn first_events(
    request: &Request,
    session: SessionId,
    plan: &Plan,
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
        resuming: request.resume.is_some(),
        resumed_from: request.resume.map(|_| session),
        provider: plan.spec.agent.as_str(),
    };
    let mut list = vec![
        NewEvent::own(EventType::Connected, &connected)?,
        NewEvent::own(EventType::Queued, &outlook)?,
    ];
    for message in &plan.notes {
        list.push(NewEvent::own(EventType::Message, &Message { message })?);
    }
    Ok(list)
}
