//! Messages in Postgres. Whoever writes here has locked the execution.

use clawlink_shared::control::Order;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Left;

/// Writes a message as an order with this number.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    (id, text): (Uuid, &str),
    sent_by: &str,
    number: i64,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into messages (id, workspace_id, execution_id, text, sent_by, state, order_number)
         values ($1, $2, $3, $4, $5, 'open', $6)",
        id,
        workspace.0,
        execution.0,
        text,
        sent_by,
        number,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How many the agent has not taken.
pub(super) async fn count_open(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from messages
         where workspace_id = $1 and execution_id = $2 and state = 'open'",
        workspace.0,
        execution.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Those after an order's number; a lease was checked.
pub(super) async fn orders(
    db: &mut PgConnection,
    execution: ExecutionId,
    after: i64,
) -> anyhow::Result<Vec<(i64, Order)>> {
    let rows = sqlx::query!(
        "select id, text, order_number from messages
         where execution_id = $1 and order_number > $2 and state = 'open' order by order_number",
        execution.0,
        after,
    )
    .fetch_all(db)
    .await?;
    let orders = rows.into_iter().map(|row| {
        let (id, text) = (row.id, row.text);
        (row.order_number, Order::Message { id, text })
    });
    Ok(orders.collect())
}

/// The agent has it.
pub(super) async fn taken(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    id: Uuid,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update messages set state = 'taken'
         where workspace_id = $1 and execution_id = $2 and id = $3 and state = 'open'",
        workspace.0,
        execution.0,
        id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What was not taken, in order.
pub(super) async fn open(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<Vec<Left>> {
    let left = sqlx::query_as!(
        Left,
        "select text, sent_by from messages
         where workspace_id = $1 and execution_id = $2 and state = 'open' order by order_number",
        workspace.0,
        execution.0,
    )
    .fetch_all(db)
    .await?;
    Ok(left)
}

/// Nothing is open any more.
pub(super) async fn close(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
    state: &str,
    moved_to: Option<ExecutionId>,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update messages set state = $3, moved_to = $4
         where workspace_id = $1 and execution_id = $2 and state = 'open'",
        workspace.0,
        execution.0,
        state,
        moved_to.map(|id| id.0),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What was taken by a worker that is lost is to be taken again.
pub(super) async fn reopen(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    execution: ExecutionId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update messages set state = 'open'
         where workspace_id = $1 and execution_id = $2 and state = 'taken'",
        workspace.0,
        execution.0,
    )
    .execute(db)
    .await?;
    Ok(())
}
