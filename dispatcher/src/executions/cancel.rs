//! Cancelling: recorded first, then obeyed on whatever path the execution ends.

use clawlink_shared::execution::State;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;

use super::store::finish::End;
use super::store::{cancel, locked};
use super::{queue, wind_up};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::error::{ApiError, ApiResult};

/// What a request to cancel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is recorded, now or earlier; the execution will end cancelled, or has.
    Requested,
    /// The execution had ended otherwise.
    AlreadyEnded,
}

/// Asks for an execution to be cancelled. `reason` is for people.
/// 404 `execution_not_found` if the workspace has none with this id. One that no worker holds
/// ends here; else its worker is told, and the sweeper ends it after a while in any case.
pub async fn request(
    app: &App,
    workspace: WorkspaceId,
    id: ExecutionId,
    by: &Actor,
    reason: &str,
) -> ApiResult<CancelOutcome> {
    let mut tx = app.db.begin().await?;
    let found = locked::lock(&mut tx, id, None, Some(workspace)).await?;
    let Some(held) = found else {
        return Err(ApiError::not_found(
            "execution_not_found",
            "this workspace has no such execution",
        ));
    };
    match held.state {
        State::Cancelled => Ok(CancelOutcome::Requested),
        State::Completed | State::Failed => Ok(CancelOutcome::AlreadyEnded),
        State::Planning | State::Running | State::Waiting if !held.is_external => {
            if cancel::request(&mut tx, &held, reason, &by.name).await? {
                record(&mut tx, workspace, id, by, reason).await?;
            }
            tx.commit().await?;
            app.bus.publish_control(id);
            Ok(CancelOutcome::Requested)
        }
        // Nobody here holds it.
        State::Pending | State::Planning | State::Running | State::Waiting => {
            let end = End::Cancelled {
                reason: reason.to_owned(),
                by: Some(by.name.clone()),
            };
            record(&mut tx, workspace, id, by, reason).await?;
            wind_up::end(app, tx, held, &end).await?;
            if let Err(error) = queue::remove(&app.bus, id).await {
                tracing::debug!(%error, %id, "stays queued; Postgres refuses it");
            }
            Ok(CancelOutcome::Requested)
        }
    }
}

async fn record(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ExecutionId,
    by: &Actor,
    reason: &str,
) -> anyhow::Result<()> {
    let execution = ("execution", id.to_string());
    let entry = Entry::done(workspace, by, "execution.cancelled", execution);
    audit::record(db, &entry.with(json!({"reason": reason}))).await
}
