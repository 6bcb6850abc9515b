//! What an execution's steps mean for its task: an effect after the commit, which looks at how
//! the execution stands and may be performed any number of times, in any order.

use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, TaskId, WorkspaceId};
use serde::Serialize;

use super::super::store::portal::{self, Row};
use crate::app::App;
use crate::audit::Actor;
use crate::feed;
use crate::tasks::{self, Step};

/// What the workspace's feed says of an execution.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    id: ExecutionId,
    task_id: TaskId,
    status: &'a str,
}

/// Moves the execution's task and tells the workspace's feed.
pub(crate) async fn follow(app: &App, execution: ExecutionId) -> anyhow::Result<()> {
    let mut tx = app.db.begin().await?;
    let Some((workspace, row)) = portal::of_any(&mut tx, execution).await? else {
        return Ok(());
    };
    let Some(task) = row.task_id.map(TaskId) else {
        return Ok(());
    };
    if let Some(step) = step(&row) {
        let actor = Actor {
            name: row.submitted_by.clone(),
            address: None,
        };
        let moving = tasks::follow(&mut tx, workspace, &actor, task, step).await;
        moving.map_err(|error| anyhow::anyhow!("move task {task}: {}", error.code()))?;
    }
    tell(&mut tx, workspace, execution, task, &row).await?;
    tx.commit().await?;
    feed::poke(app, workspace);
    Ok(())
}

fn step(row: &Row) -> Option<Step<'_>> {
    match row.state {
        State::Running | State::Waiting => Some(Step::Started),
        State::Completed if row.branch.is_some() => Some(Step::Pushed {
            pr_url: row.pr_url.as_deref(),
            pr_number: row.pr_url.as_deref().and_then(number),
        }),
        State::Failed => Some(Step::Failed {
            reason: row
                .error_message
                .as_deref()
                .or(row.error_code.as_deref())
                .unwrap_or("the execution failed"),
        }),
        State::Pending | State::Planning | State::Completed | State::Cancelled => None,
    }
}

/// The number at the end of a pull request's address.
fn number(url: &str) -> Option<i32> {
    url.rsplit('/').next()?.parse().ok()
}

async fn tell(
    db: &mut sqlx::PgConnection,
    workspace: WorkspaceId,
    id: ExecutionId,
    task_id: TaskId,
    row: &Row,
) -> anyhow::Result<()> {
    let told = Told {
        id,
        task_id,
        status: row.state.as_str(),
    };
    feed::append(db, workspace, "execution.updated", &told).await
}
