//! What executions consume, as their workers report it: recorded in the transaction of the
//! report, and held against the limits while the execution is locked.
//!
//! What must never happen: a report is stored and its usage is not, or the other way round.

use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Usage};
use sqlx::PgConnection;

use super::store::events::NewEvent;
use super::store::locked::Locked;
use super::store::spending::{self, Facts};
use crate::app::App;
use crate::limits::{self, Own};
use crate::usage::money::Micros;
use crate::usage::{self, Consumer};

/// What a batch of events says that was consumed: the last report, which replaces those before.
/// One that cannot be read says nothing.
pub(super) fn reported(events: &[NewEvent]) -> Option<Usage> {
    let reports = events.iter().rev();
    reports
        .filter(|event| event.kind == EventType::Usage)
        .find_map(|event| serde_json::from_str(event.fields.get()).ok())
}

/// Records a report of an execution that the caller has locked, and orders its stop if a limit is
/// reached; says whether it did. The caller commits, then tells who listens.
pub(super) async fn take(
    app: &App,
    db: &mut PgConnection,
    held: &Locked,
    usage: &Usage,
) -> anyhow::Result<bool> {
    let facts = record(app, db, held, usage).await?;
    if facts.is_stopped {
        return Ok(false);
    }
    let own = Own {
        session: facts.session_budget,
        execution: facts.max_budget.and_then(Micros::from_dollars),
    };
    let (execution, session) = (held.log.execution, held.log.session);
    let reached = limits::reached(db, held.workspace, session, execution, own).await?;
    let Some(reached) = reached else {
        return Ok(false);
    };
    let (code, message) = (ErrorCode::BudgetExceeded, reached.message());
    spending::order_stop(db, execution, code, &message).await?;
    metrics::counter!("clawlink_budget_stops_total").increment(1);
    Ok(true)
}

/// Records the last report of a locked execution, and says what all its attempts have consumed.
pub(super) async fn settle(
    app: &App,
    db: &mut PgConnection,
    held: &Locked,
    usage: &Usage,
) -> anyhow::Result<Option<Usage>> {
    record(app, db, held, usage).await?;
    usage::of_execution(db, held.workspace, held.log.execution).await
}

async fn record(
    app: &App,
    db: &mut PgConnection,
    held: &Locked,
    usage: &Usage,
) -> anyhow::Result<Facts> {
    let facts = spending::facts(db, held.log.execution).await?;
    let consumer = Consumer {
        workspace: held.workspace,
        execution: held.log.execution,
        attempt: held.attempt,
        session: held.log.session,
        task: held.task.map(|task| task.0),
        project: facts.project,
        agent: facts.agent.clone(),
        model: facts.model.clone(),
        submitted_by: facts.submitted_by.clone(),
    };
    usage::record(db, &app.prices, &consumer, usage).await?;
    Ok(facts)
}
