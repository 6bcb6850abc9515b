//! Side effects after a commit: written in the transaction, performed afterwards by any
//! replica, at least once. Every effect is idempotent.

use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::app::App;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Effect {
    /// An execution became pending: put it into the ready queue if it is eligible.
    Enqueue {
        /// Which.
        execution: ExecutionId,
    },
    /// An execution ended: its session's next turn and its workspace's waiting executions may
    /// be eligible now.
    Advance {
        /// The session whose next turn may start.
        session: SessionId,
        /// The workspace that has one more free place.
        workspace: WorkspaceId,
    },
    /// A turn ended: write its log to `turns/{n}.events.jsonl` and prune old archives.
    ArchiveTurn {
        /// Which.
        execution: ExecutionId,
    },
    /// A session was deleted: delete its objects.
    DeleteObjects {
        /// Whose.
        session: SessionId,
    },
}

/// Starts the loop that performs effects.
pub fn spawn(_app: &App) {}

/// Adds an effect to the caller's transaction; after its commit, [`poke`].
pub async fn add(db: &mut PgConnection, effect: &Effect) -> anyhow::Result<()> {
    let effect = serde_json::to_value(effect)?;
    sqlx::query!("insert into outbox (effect) values ($1)", effect)
        .execute(db)
        .await?;
    Ok(())
}

/// Makes this replica's loop look at once.
pub fn poke(_app: &App) {}
