//! A held execution as other features may touch it: locked first, then appended to, given
//! orders, moved between `running` and `waiting`. Whoever uses this commits, then publishes.

use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use sqlx::PgConnection;

use super::store::{events, lease, locked, orders};
use crate::app::App;

pub(crate) use super::store::events::{Appended, NewEvent};
pub(crate) use super::store::locked::Locked;

/// Locks an execution of this workspace until the transaction ends.
pub(crate) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<Option<Locked>> {
    locked::lock(db, execution, None, Some(workspace)).await
}

/// Appends events of the dispatcher's own.
pub(crate) async fn append(
    db: &mut PgConnection,
    held: &mut Locked,
    list: &[NewEvent],
) -> anyhow::Result<Appended> {
    events::append(db, &mut held.log, list).await
}

/// The number of an order to its worker.
pub(crate) async fn number_order(db: &mut PgConnection, held: &mut Locked) -> anyhow::Result<i64> {
    orders::number(db, held).await
}

/// Its agent waits for nobody any more.
pub(crate) async fn go_on(db: &mut PgConnection, held: &mut Locked) -> anyhow::Result<Appended> {
    lease::step(db, held, State::Running).await
}

/// Tells streams, and its worker, what was committed.
pub(crate) fn publish(app: &App, execution: ExecutionId, appended: Appended) {
    super::publish(app, execution, appended);
    app.bus.publish_control(execution);
}
