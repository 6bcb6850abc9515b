//! Usage: what executions consumed, in tokens and in money.
//!
//! A worker's reports say what its attempt has consumed so far; each replaces the one before,
//! attempts are added. So neither a repeated report nor a repeated `complete` nor an agent that
//! counts cumulatively is ever counted twice. It is recorded in the transaction that stores the
//! report. What an agent does not price is priced by a table; what that does not know costs an
//! unknown amount, and never nothing.

mod http;
pub mod money;
pub mod prices;
mod store;

use clawlink_shared::execution::Usage;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;

use crate::app::App;
use crate::http::routes::Routes;

use money::Micros;
use prices::Prices;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
}

/// Most that is believed of one attempt, in tokens of a kind and in micro-dollars: sums of very
/// many still fit into a column.
const MOST: u64 = 1_000_000_000_000;

/// Longest name of a model that is kept, in bytes.
const MAX_MODEL: usize = 128;

/// Whose consumption a report is about.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The execution.
    pub execution: ExecutionId,
    /// Its attempt.
    pub attempt: i32,
    /// Its session.
    pub session: SessionId,
    /// The task that it works on.
    pub task: Option<i64>,
    /// That task's project.
    pub project: Option<i64>,
    /// The agent's kind.
    pub agent: String,
    /// The model that was asked for.
    pub model: Option<String>,
    /// Who asked: `key:7`.
    pub submitted_by: String,
}

/// Records what an attempt has consumed so far. The caller has locked the execution.
pub async fn record(
    db: &mut PgConnection,
    prices: &Prices,
    consumer: &Consumer,
    usage: &Usage,
) -> anyhow::Result<()> {
    let model = usage.model.as_deref().or(consumer.model.as_deref());
    let model = model.map(|model| &model[..model.floor_char_boundary(MAX_MODEL)]);
    let said = usage.cost_usd.and_then(Micros::from_dollars);
    let cost = said.or_else(|| prices.cost(model?, usage));
    let cost = cost.map(|cost| Micros(cost.0.min(MOST.cast_signed())));
    let report = store::Report {
        model: model.map(|model| model.replace('\0', "\u{fffd}")),
        cost,
        is_estimate: said.is_none() && cost.is_some(),
        usage,
    };
    store::record(db, consumer, &report).await
}

/// What an execution has consumed in all its attempts; `None` if nothing was reported.
pub async fn of_execution(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<Option<Usage>> {
    let all = of_executions(db, workspace, &[execution]).await?;
    Ok(all.into_iter().next().map(|(_, usage)| usage))
}

/// The same of several; those of which nothing was reported are left out.
pub async fn of_executions(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    executions: &[ExecutionId],
) -> anyhow::Result<Vec<(ExecutionId, Usage)>> {
    let ids: Vec<i64> = executions.iter().map(|id| id.0).collect();
    store::of_executions(db, workspace, &ids).await
}

/// What was spent, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// By the workspace, today (UTC).
    pub day: Micros,
    /// By the session, ever.
    pub session: Micros,
    /// By the execution, in all its attempts.
    pub execution: Micros,
}

/// What was spent so far. Without a session or an execution its part is nothing.
pub async fn spent(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: Option<SessionId>,
    execution: Option<ExecutionId>,
) -> anyhow::Result<Spent> {
    store::spent(db, workspace, session, execution).await
}
