//! Putting a task in its place on the board, under the project's lock: two who put tasks into
//! the same gap get two places.

use clawlink_shared::id::{ProjectId, TaskId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;

use super::no_such_task;
use super::rank::{self, MAX_RANK};
use super::store::order;
use crate::error::ApiResult;
use crate::feed;

/// Neighbours on each side that are spread anew at first, when a gap has become too narrow.
const WINDOW: i64 = 64;

/// Where a task is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind all others.
    Last,
    /// Right before this one.
    Before(TaskId),
    /// Right behind this one.
    After(TaskId),
}

/// The position for this place in a locked project; `task` is the one that moves, if it exists.
/// Neighbours may get new positions on the way; true if they did.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    task: Option<TaskId>,
    place: Place,
) -> ApiResult<(String, bool)> {
    let (Place::Before(anchor) | Place::After(anchor)) = place else {
        let last = order::last(db, workspace, project, task).await?;
        return Ok((rank::between(last.as_deref(), None), false));
    };
    let mut window = WINDOW;
    let mut is_spread = false;
    loop {
        let at = order::position(db, workspace, project, anchor).await?;
        let at = at.ok_or_else(no_such_task)?;
        let (low, high) = match place {
            Place::Before(_) => {
                let low = order::before(db, workspace, project, &at, task, 1).await?;
                (low.into_iter().next().map(|(_, low)| low), Some(at.clone()))
            }
            _ => {
                let high = order::after(db, workspace, project, &at, task, 1).await?;
                (
                    Some(at.clone()),
                    high.into_iter().next().map(|(_, high)| high),
                )
            }
        };
        let position = rank::between(low.as_deref(), high.as_deref());
        if position.len() <= MAX_RANK {
            return Ok((position, is_spread));
        }
        spread(db, workspace, project, &at, window).await?;
        is_spread = true;
        window *= 2;
    }
}

/// Spreads the tasks around a place evenly between those that stand further away.
async fn spread(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
    at: &str,
    window: i64,
) -> ApiResult<()> {
    let mut low = order::before(db, workspace, project, at, None, window + 1).await?;
    let mut around = order::after(db, workspace, project, at, None, window + 1).await?;
    let beyond = |side: &mut Vec<(TaskId, String)>| {
        let is_full = side.len() as i64 > window;
        is_full
            .then(|| side.pop())
            .flatten()
            .map(|(_, position)| position)
    };
    let (floor, ceiling) = (beyond(&mut low), beyond(&mut around));
    low.reverse();
    let mut tasks: Vec<i64> = low.iter().map(|(task, _)| task.0).collect();
    tasks.extend(
        order::at(db, workspace, project, at)
            .await?
            .map(|task| task.0),
    );
    tasks.extend(around.iter().map(|(task, _)| task.0));
    let positions = rank::spread(floor.as_deref(), ceiling.as_deref(), tasks.len());
    order::reposition(db, workspace, &tasks, &positions).await?;
    Ok(())
}

/// Tells boards that positions changed beside the task's own.
pub(super) async fn tell(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    project: ProjectId,
) -> anyhow::Result<()> {
    let data = json!({"projectId": project});
    feed::append(db, workspace, "task.reordered", &data).await
}

impl Place {
    /// Whether it is named by this very task: then it is there already.
    pub(super) fn is_beside(self, task: TaskId) -> bool {
        match self {
            Self::Last => false,
            Self::Before(anchor) | Self::After(anchor) => anchor == task,
        }
    }
}
