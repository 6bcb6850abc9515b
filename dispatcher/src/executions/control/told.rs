//! Events of a worker that mean something here: its agent asks people, does not wait for an
//! answer any more, or has taken what somebody said.
//!
//! They are stored under the execution's row lock, in one transaction with what follows from
//! them: so a question is in the log before anybody can answer it, and `waiting` exactly while
//! one is open. Repeating the batch changes nothing, as with all events.

use clawlink_shared::approval::{MAX_TOOL_BYTES, Requested, Taken, Withdrawn};
use clawlink_shared::event::{EventType, WorkerEvent};
use clawlink_shared::execution::State;
use clawlink_shared::id::ExecutionId;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{lease_lost, not_acknowledged};
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::executions::store::events::{Appended, NewEvent, append};
use crate::executions::store::lease;
use crate::executions::store::locked::{self, Locked};
use crate::executions::{live, spending};
use crate::{approvals, feed, messages};

/// Whether events of this type are stored here.
pub(super) fn is_ours(kind: EventType) -> bool {
    matches!(
        kind,
        EventType::ApprovalRequested | EventType::ApprovalWithdrawn | EventType::UserMessage
    )
}

/// Why an event cannot be stored, if it cannot.
pub(super) fn fault(event: &WorkerEvent) -> Option<String> {
    let read = match event.kind {
        EventType::ApprovalRequested => read::<Requested>(event).map(|_| ()),
        EventType::ApprovalWithdrawn => read::<Withdrawn>(event).map(|_| ()),
        EventType::UserMessage => read::<Taken>(event).map(|_| ()),
        _ => Ok(()),
    };
    let why = |error: serde_json::Error| format!("its fields are not as expected: {error}");
    read.err().map(why)
}

/// Stores what is new of the numbers `first..=last`; answers the highest number that is
/// committed, and what there is to publish.
pub(super) async fn keep(
    app: &App,
    id: ExecutionId,
    hash: &[u8; 32],
    events: &[WorkerEvent],
    (first, last): (i64, i64),
) -> ApiResult<(i64, Option<Appended>)> {
    let mut tx = app.db.begin().await?;
    let mut held = current(&mut tx, id, hash).await?;
    if held.last_n < first - 1 {
        return Err(ApiError::events_missing(held.last_n as u64));
    }
    let mut batch = Batch::default();
    let known = held.last_n;
    for event in events.iter().filter(|event| event.n as i64 > known) {
        batch.take(app, &mut tx, &mut held, event).await?;
    }
    let length = app.tuning.lease;
    let reached = last.max(held.last_n);
    let stored =
        lease::append_from_worker(&mut tx, &held, hash, length, &batch.events, reached).await?;
    let stored = stored.ok_or_else(|| anyhow::anyhow!("a locked row changed"))?;
    held.log.last_seq += batch.events.len() as i64;
    if let Some(usage) = spending::reported(&batch.events) {
        batch.has_orders |= spending::take(app, &mut tx, &held, &usage).await?;
    }
    let moved = follow(&mut tx, &mut held).await?;
    approvals::announce(&mut tx, &held, &batch.asked).await?;
    tx.commit().await?;
    if !batch.asked.is_empty() {
        feed::poke(app, held.workspace);
    }
    if batch.has_orders {
        app.bus.publish_control(id);
    }
    Ok((reached, Some(stored.and(moved))))
}

/// Withdraws what a waiting agent asked: its worker says that it waits no more.
pub(super) async fn stop_waiting(app: &App, id: ExecutionId, hash: &[u8; 32]) -> ApiResult<()> {
    let mut tx = app.db.begin().await?;
    let mut held = current(&mut tx, id, hash).await?;
    if held.state != State::Waiting {
        return Ok(());
    }
    let events = approvals::withdraw_all(&mut tx, &held).await?;
    let told = append(&mut tx, &mut held.log, &events).await?;
    let moved = live::go_on(&mut tx, &mut held).await?;
    tx.commit().await?;
    live::publish(app, id, told.and(Some(moved)));
    Ok(())
}

/// The execution, locked, if this lease holds it now.
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

/// An execution waits while a question is open, and only then.
async fn follow(db: &mut PgConnection, held: &mut Locked) -> ApiResult<Option<Appended>> {
    let is_asking = approvals::is_asking(db, held).await?;
    let to = match (held.state, is_asking) {
        (State::Running, true) => State::Waiting,
        (State::Waiting, false) => State::Running,
        _ => return Ok(None),
    };
    Ok(Some(lease::step(db, held, to).await?))
}

/// What becomes of a batch.
#[derive(Default)]
struct Batch {
    /// To be appended.
    events: Vec<NewEvent>,
    /// Questions that wait for people.
    asked: Vec<Uuid>,
    /// The worker has something to hear.
    has_orders: bool,
}

impl Batch {
    async fn take(
        &mut self,
        app: &App,
        db: &mut PgConnection,
        held: &mut Locked,
        event: &WorkerEvent,
    ) -> ApiResult<()> {
        let origin = Some((held.attempt, event.n as i64));
        let refused = |_| ApiError::event_refused(event.n, "its fields are not as expected");
        let (kind, fields) = match event.kind {
            EventType::ApprovalRequested => {
                if held.state == State::Planning {
                    let detail = "an agent that does not run yet cannot ask";
                    return Err(ApiError::event_refused(event.n, detail));
                }
                let mut requested: Requested = read(event).map_err(refused)?;
                // Postgres' texts hold no NUL.
                requested.tool = requested.tool.replace('\0', "\u{fffd}");
                let end = requested.tool.floor_char_boundary(MAX_TOOL_BYTES);
                requested.tool.truncate(end);
                let asked = approvals::ask(app, db, held, &requested).await?;
                let again = || ApiError::event_refused(event.n, "this question was asked before");
                let asked = asked.ok_or_else(again)?;
                self.events.push(NewEvent {
                    origin,
                    ..asked.event
                });
                match asked.resolved {
                    Some(resolved) => {
                        self.events.push(resolved);
                        self.has_orders = true;
                    }
                    None => self.asked.push(requested.approval_id),
                }
                return Ok(());
            }
            EventType::ApprovalWithdrawn => {
                let withdrawn: Withdrawn = read(event).map_err(refused)?;
                let resolved = approvals::withdraw(db, held, withdrawn.approval_id).await?;
                self.asked.retain(|id| *id != withdrawn.approval_id);
                self.events
                    .extend(resolved.map(|event| NewEvent { origin, ..event }));
                return Ok(());
            }
            EventType::UserMessage => {
                let taken: Taken = read(event).map_err(refused)?;
                messages::taken(db, held, taken.message_id).await?;
                (event.kind, event.fields.clone())
            }
            _ => (event.kind, event.fields.clone()),
        };
        self.events.push(NewEvent {
            kind,
            fields,
            origin,
        });
        Ok(())
    }
}

fn read<T: DeserializeOwned>(event: &WorkerEvent) -> serde_json::Result<T> {
    serde_json::from_str(event.fields.get())
}
