//! The last phases: everything emitted is committed, the end is on the disk, and then with
//! the dispatcher.

use clawlink_shared::control::{Complete, Failure};
use clawlink_shared::execution::{ErrorCode, Outcome};

use super::{Ended, Phase, Run};
use crate::agents::StopReason;
use crate::client::CallError;
use crate::events::Pump;
use crate::report::Report;

impl Run<'_> {
    /// Flushes the events and reports the end, until it is recorded or does not count.
    pub(super) async fn report(&self, pump: &Pump, mut report: Complete) -> Ended {
        self.enter(Phase::Flushing);
        report.last_n = match pump.flush().await {
            Ok(last_n) => last_n,
            Err(gone) => return gone.into(),
        };
        // Cancelled while the phases after the agent went on: they are told, the outcome stays.
        if self.stop.reason() == Some(StopReason::Cancel) {
            report.outcome = Outcome::Cancelled;
            report.error = None;
        }
        self.enter(Phase::Completing);
        loop {
            self.keep(&report);
            match self.held.complete(&report).await {
                Ok(()) => {
                    tracing::info!(outcome = ?report.outcome, "the end is recorded");
                    return Ended::Recorded;
                }
                Err(CallError::LeaseLost) => return Ended::LeaseLost,
                Err(CallError::Unreachable) => return Ended::Unreachable,
                Err(CallError::ArchiveMissing) if report.archive.is_some() => {
                    tracing::error!("the uploaded archive is not in the storage");
                    report.archive = None;
                    if report.outcome == Outcome::Completed {
                        report.outcome = Outcome::Failed;
                        let message = "the session's archive vanished from the storage";
                        report.error = Some(Failure::new(ErrorCode::StorageError, message));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the report is refused");
                    return Ended::Refused;
                }
            }
        }
    }

    /// On the disk before it is sent. A full disk does not stop the report itself.
    fn keep(&self, report: &Complete) {
        let kept = self.worker.desk.keep(&Report {
            execution: self.assignment.execution.id,
            token: self.assignment.lease.token.clone(),
            complete: report.clone(),
        });
        if let Err(error) = kept {
            tracing::error!("the report is not on the disk: {error:#}");
        }
    }
}
