//! Wait reasons, as they are recorded and logged.

use std::time::Duration;

use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use sqlx::{Connection, PgConnection};

use super::events::{Appended, NewEvent, append};
use super::lease::interval;
use super::locked::{agent, lock};
use crate::executions::wait::{Outlook, WaitReason};
use clawlink_shared::agent::AgentKind;

/// A pending execution whose reason is not the recorded one.
#[derive(Debug)]
pub(crate) struct Stale {
    /// Which.
    pub(crate) execution: ExecutionId,
    /// Its tenant.
    pub(crate) workspace: WorkspaceId,
    /// Its kind.
    pub(crate) agent: AgentKind,
    /// The reason now.
    pub(crate) reason: WaitReason,
}

/// Executions that have been pending for `at_least` and wait for another reason than the
/// recorded one; an execution that an idle worker is about to take keeps its reason.
pub(crate) async fn stale(
    db: &mut PgConnection,
    offered: &[AgentKind],
    idle: &[AgentKind],
    at_least: Duration,
    limit: i64,
) -> anyhow::Result<Vec<Stale>> {
    let names = |kinds: &[AgentKind]| -> Vec<String> {
        kinds.iter().map(|kind| kind.as_str().to_owned()).collect()
    };
    let rows = sqlx::query!(
        "with full_workspaces as materialized (
            select w.id from workspaces w
            where w.running_cap <= (select count(*) from executions a
                where a.workspace_id = w.id and a.state in ('planning', 'running', 'waiting')
                    and not a.is_external)
         ), now_waiting as (
            select e.id, e.workspace_id, e.agent, e.wait_reason, e.queued_at,
                case
                    when exists (select from executions earlier
                        where earlier.session_id = e.session_id and earlier.turn < e.turn
                            and earlier.state in ('pending', 'planning', 'running', 'waiting'))
                        then 'session_busy'
                    when e.workspace_id in (select id from full_workspaces)
                        then 'workspace_at_cap'
                    when e.agent <> all($1) then 'no_worker_offers_agent'
                    when e.agent <> all($2) then 'no_idle_worker'
                    else e.wait_reason
                end as reason
            from executions e
            where e.state = 'pending' and e.queued_at < now() - $3::interval
         )
         select id, workspace_id, agent, reason as \"reason!\" from now_waiting
         where reason is distinct from wait_reason
         order by queued_at, id limit $4",
        &names(offered),
        &names(idle),
        interval(at_least),
        limit,
    )
    .fetch_all(db)
    .await?;
    // What this release does not know, another one tells.
    let known = rows.into_iter().filter_map(|row| {
        Some(Stale {
            execution: ExecutionId(row.id),
            workspace: WorkspaceId(row.workspace_id),
            agent: agent(&row.agent).ok()?,
            reason: WaitReason::from_name(&row.reason)?,
        })
    });
    Ok(known.collect())
}

/// Records an outlook and logs it as `queued`, if the execution still waits and has another
/// reason; in a transaction of its own.
pub(crate) async fn record(
    db: &mut PgConnection,
    execution: ExecutionId,
    outlook: &Outlook,
) -> anyhow::Result<Option<Appended>> {
    let mut tx = db.begin().await?;
    let Some(mut row) = lock(&mut tx, execution, None, None).await? else {
        return Ok(None);
    };
    if row.state != State::Pending {
        return Ok(None);
    }
    let reason = outlook.wait_reason.map(WaitReason::as_str);
    let recorded = sqlx::query!(
        "update executions set wait_reason = $2
         where id = $1 and state = 'pending' and wait_reason is distinct from $2",
        execution.0,
        reason,
    )
    .execute(&mut *tx)
    .await?;
    if recorded.rows_affected() == 0 {
        return Ok(None);
    }
    let event = NewEvent::own(EventType::Queued, outlook)?;
    let appended = append(&mut tx, &mut row.log, &[event]).await?;
    tx.commit().await?;
    Ok(Some(appended))
}
