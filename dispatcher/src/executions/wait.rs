//! Why an execution waits, and behind how many others.

use std::collections::HashMap;

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

/// The outlook of a request that is about to be accepted.
pub async fn before_accept(
    app: &App,
    workspace: WorkspaceId,
    agent: AgentKind,
    session_busy: bool,
) -> Outlook {
    let is_at_cap = async {
        let mut db = app.db.acquire().await?;
        pending::is_at_cap(&mut db, workspace).await
    };
    let blocks = Blocks {
        workspace,
        agent,
        is_session_busy: session_busy,
        // The answer is a forecast: where it cannot be had, the request says what is wrong.
        is_at_cap: is_at_cap.await.unwrap_or(false),
    };
    outlook(app, None, &blocks).await
}

/// The outlook of a pending execution.
pub async fn of_pending(app: &App, execution: ExecutionId) -> Outlook {
    let blocks = async {
        let mut db = app.db.acquire().await?;
        pending::blocks(&mut db, execution).await
    };
    match blocks.await {
        Ok(Some(blocks)) => outlook(app, Some(execution), &blocks).await,
        Ok(None) | Err(_) => Outlook {
            position: 0,
            wait_reason: None,
        },
    }
}

async fn outlook(app: &App, execution: Option<ExecutionId>, blocks: &Blocks) -> Outlook {
    let (position, offers) = tokio::join!(
        queue::position(&app.bus, execution, blocks.agent, blocks.workspace),
        presence::offers(&app.bus),
    );
    // Without Redis nobody knows who is idle, and nothing is said that may be wrong.
    let position = position.unwrap_or(0);
    let offer = offers
        .ok()
        .map(|offers| offers.get(&blocks.agent).copied().unwrap_or_default());
    let wait_reason = if blocks.is_session_busy {
        Some(WaitReason::SessionBusy)
    } else if blocks.is_at_cap {
        Some(WaitReason::WorkspaceAtCap)
    } else {
        match offer {
            Some(offer) if offer.alive == 0 => Some(WaitReason::NoWorkerOffersAgent),
            Some(offer) if offer.idle > position => None,
            _ => Some(WaitReason::NoIdleWorker),
        }
    };
    Outlook {
        position,
        wait_reason,
    }
}

/// One round: logs a `queued` event for executions whose reason changed. Only what has been
/// pending for a tick is looked at; most executions never are.
pub async fn record_reasons(app: &App) -> anyhow::Result<()> {
    let offers = presence::offers(&app.bus).await.unwrap_or_else(|_| {
        let unknown = Offer { alive: 1, idle: 0 };
        HashMap::from(AgentKind::ALL.map(|kind| (kind, unknown)))
    });
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
