//! The pull request after a push. The dispatcher opens it; that there is none fails no run.

use std::time::Duration;

use clawlink_shared::control::Complete;

use super::Run;
use crate::agents::StopReason;
use crate::client::CallError;

/// How long a dispatcher may take to answer, with all repetitions of the call.
const PATIENCE: Duration = Duration::from_secs(120);

impl Run<'_> {
    /// Has the pull request opened that the request asks for, if there can be one. Emits a
    /// `message` if there is none; the event of one that is open comes from the dispatcher.
    pub(super) async fn open_pull_request(&self, report: &Complete) {
        let assignment = &self.assignment;
        let is_over = matches!(
            self.stop.reason(),
            Some(StopReason::Cancel | StopReason::LeaseLost)
        );
        if assignment.request.pull_request.is_none() || is_over {
            return;
        }
        // An earlier turn or attempt may have pushed what this one finds in order.
        let is_first = assignment.session.turn == 1 && assignment.lease.attempt == 1;
        let reason = if !report.pushed && is_first {
            Some("nothing was pushed".to_owned())
        } else {
            self.ask_for_pull_request().await
        };
        if let Some(reason) = reason {
            let text = format!("No pull request was opened: {reason}");
            self.events.message(text).await;
        }
    }

    /// Why there is none.
    async fn ask_for_pull_request(&self) -> Option<String> {
        match tokio::time::timeout(PATIENCE, self.held.pull_request()).await {
            Ok(Ok(answer)) => answer.reason,
            // Then nobody listens.
            Ok(Err(CallError::LeaseLost | CallError::Unreachable)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no dispatcher answered in time".to_owned()),
        }
    }
}
