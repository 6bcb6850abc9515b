//! Messages: what people say to an agent while it runs.
//!
//! A message waits in Postgres, as an order to the execution's worker, until an event of that
//! worker says that the agent has taken it. One that the agent does not take before it ends
//! becomes the session's next turn, in the transaction of the end: none is lost, and none is
//! heard twice by the same run.

mod http;
mod store;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::Order;
use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::app::App;
use crate::executions::live::Locked;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

/// A message that no agent took.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    /// What was said.
    pub(crate) text: String,
    /// By whom: `user:…`, `key:7`.
    pub(crate) sent_by: String,
}

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app).post(
        "/executions/{id}/messages",
        Access::Needs(Permission::ExecutionSubmit),
        http::send,
        Doc::new("Say something to a running agent, or as the session's next turn")
            .text("id")
            .body::<http::MessageBody>()
            .gives::<http::Sent>(202),
    )
}

/// Whether agents of this kind take messages while they run.
fn is_listening(agent: AgentKind) -> bool {
    !matches!(agent, AgentKind::Shell | AgentKind::Http)
}

/// Messages after this number that the execution's agent has not taken.
pub(crate) async fn orders(
    db: &mut PgConnection,
    execution: ExecutionId,
    after: i64,
) -> anyhow::Result<Vec<(i64, Order)>> {
    store::orders(db, execution, after).await
}

/// The agent of a locked execution has taken a message.
pub(crate) async fn taken(db: &mut PgConnection, held: &Locked, id: Uuid) -> anyhow::Result<()> {
    store::taken(db, held.workspace, held.log.execution, id).await
}

/// What the agent of a locked execution has not taken, in order.
pub(crate) async fn open(db: &mut PgConnection, held: &Locked) -> anyhow::Result<Vec<Left>> {
    store::open(db, held.workspace, held.log.execution).await
}

/// It is in the session's next turn now.
pub(crate) async fn moved(
    db: &mut PgConnection,
    held: &Locked,
    to: ExecutionId,
) -> anyhow::Result<()> {
    store::close(db, held.workspace, held.log.execution, "moved", Some(to)).await
}

/// Nobody will take it any more.
pub(crate) async fn drop_open(db: &mut PgConnection, held: &Locked) -> anyhow::Result<()> {
    store::close(db, held.workspace, held.log.execution, "dropped", None).await
}

/// A locked execution begins anew with another worker: that one hears all that was said.
pub(crate) async fn reopen(db: &mut PgConnection, held: &Locked) -> anyhow::Result<()> {
    store::reopen(db, held.workspace, held.log.execution).await
}
