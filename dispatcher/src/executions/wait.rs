//! Why an execution waits, and behind how many others.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use serde::Serialize;

use super::presence::{self, Offer};
use super::store::pending::{self, Blocks};
use super::store::waiting;
use super::{publish, queue};
use crate::app::App;

/// Reasons recorded in one round.
const BATCH: i64 = 100;

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
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::NoIdleWorker,
        Self::NoWorkerOffersAgent,
        Self::WorkspaceAtCap,
        Self::SessionBusy,
    ];

    /// The name on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoIdleWorker => "no_idle_worker",
            Self::NoWorkerOffersAgent => "no_worker_offers_agent",
            Self::WorkspaceAtCap => "workspace_at_cap",
            Self::SessionBusy => "session_busy",
        }
    }

    /// What a client that does not want to wait is told.
    pub fn as_text(self) -> &'static str {
        match self {
            Self::NoIdleWorker => "no worker is idle for this agent",
            Self::NoWorkerOffersAgent => "no worker offers this agent",
            Self::WorkspaceAtCap => "this workspace runs as many executions as it may",
            Self::SessionBusy => "an earlier turn of this session has not ended",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// What a waiting execution can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// Executions that will be handed out before this one, as far as is known now.
    pub position: u64,
    /// Why it waits; null while an idle worker is about to take it.
    pub wait_reason: Option<WaitReason>,
}

/// The outlook of a pending execution.
pub async fn of_pending(app: &App, execution: ExecutionId) -> Outlook {
    let blocks = async {
        let mut db = app.db.acquire().await?;
        pending::blocks(&mut db, execution).await
    };
    match blocks.await {
        Ok(Some(blocks)) => {
            let forecast = Forecast::of(app, Some(execution), blocks.agent, blocks.workspace);
            forecast.await.outlook(&blocks)
        }
        Ok(None) | Err(_) => Outlook {
            position: 0,
            wait_reason: None,
        },
    }
}

/// What Redis knows about an execution's turn.
#[derive(Debug)]
pub struct Forecast {
    position: u64,
    /// Workers for its kind. Without Redis nobody knows who is idle, and nothing is said that
    /// may be wrong.
    offer: Option<Offer>,
}

impl Forecast {
    /// For a queued execution, or for a request that is about to be accepted if `None`.
    pub async fn of(
        app: &App,
        execution: Option<ExecutionId>,
        agent: AgentKind,
        workspace: WorkspaceId,
    ) -> Self {
        let (position, offers) = tokio::join!(
            queue::position(&app.bus, execution, agent, workspace),
            presence::offers(&app.bus),
        );
        Self {
            position: position.unwrap_or(0),
            offer: offers
                .ok()
                .map(|offers| offers.get(&agent).copied().unwrap_or_default()),
        }
    }

    /// Together with what Postgres knows.
    pub(crate) fn outlook(&self, blocks: &Blocks) -> Outlook {
        let wait_reason = if blocks.is_session_busy {
            Some(WaitReason::SessionBusy)
        } else if blocks.is_at_cap {
            Some(WaitReason::WorkspaceAtCap)
        } else {
            match self.offer {
                Some(offer) if offer.alive == 0 => Some(WaitReason::NoWorkerOffersAgent),
                Some(offer) if offer.idle > self.position => None,
                _ => Some(WaitReason::NoIdleWorker),
            }
        };
        Outlook {
            position: self.position,
            wait_reason,
        }
    }
}

/// One round: logs a `queued` event for executions whose reason changed. Only what has been
/// pending for a tick is looked at; most executions never are. Without Redis nothing is known of
/// workers: a replica that guessed would contradict those that know.
pub async fn record_reasons(app: &App) -> anyhow::Result<()> {
    let Ok(offers) = presence::offers(&app.bus).await else {
        return Ok(());
    };
    let kinds = |count: fn(&Offer) -> u64| -> Vec<AgentKind> {
        let some = offers.iter().filter(|(_, offer)| count(offer) > 0);
        some.map(|(kind, _)| *kind).collect()
    };
    let (offered, idle) = (kinds(|offer| offer.alive), kinds(|offer| offer.idle));
    let mut db = app.db.acquire().await?;
    let stale = waiting::stale(&mut db, &offered, &idle, app.tuning.tick, BATCH).await?;
    for one in stale {
        let position = queue::position(&app.bus, Some(one.execution), one.agent, one.workspace);
        let outlook = Outlook {
            position: position.await.unwrap_or(0),
            wait_reason: Some(one.reason),
        };
        if let Some(appended) = waiting::record(&mut db, one.execution, &outlook).await? {
            publish(app, one.execution, appended);
        }
    }
    Ok(())
}
