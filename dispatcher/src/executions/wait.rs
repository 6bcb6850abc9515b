//! Why an execution waits, and behind how many others.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use serde::Serialize;

use crate::app::App;

/// Why a pending execution is not running yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Workers that offer the agent are all busy.
    NoIdleWorker,
    /// No live worker offers the agent.
    NoWorkerOffersAgent,
    /// The workspace runs as many executions as it may.
    WorkspaceAtCap,
    /// An earlier turn of the session has not ended.
    SessionBusy,
}

impl WaitReason {
    /// The name on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoIdleWorker => "no_idle_worker",
            Self::NoWorkerOffersAgent => "no_worker_offers_agent",
            Self::WorkspaceAtCap => "workspace_at_cap",
            Self::SessionBusy => "session_busy",
        }
    }
}

/// What a waiting execution can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// Executions that will be handed out before this one, as far as is known now.
    pub position: u64,
    /// Why it waits; absent while an idle worker is about to take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_reason: Option<WaitReason>,
}

/// The outlook of a request that is about to be accepted.
pub async fn before_accept(
    _app: &App,
    _workspace: WorkspaceId,
    _agent: AgentKind,
    _session_busy: bool,
) -> Outlook {
    Outlook {
        position: 0,
        wait_reason: None,
    }
}

/// The outlook of a pending execution.
pub async fn of_pending(_app: &App, _execution: ExecutionId) -> Outlook {
    Outlook {
        position: 0,
        wait_reason: None,
    }
}
