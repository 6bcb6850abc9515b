//! Side effects after a commit: written in the transaction, performed afterwards by any
//! replica, at least once. Every effect is idempotent.
//!
//! Two lanes, so that the queue never waits for S3: quick effects (queue) are taken many at a
//! time and performed together; slow ones (S3) one at a time by each of a few loops. A row is
//! taken by pushing its due time forward, so a replica that dies leaves it to another; no
//! transaction is open while an effect is performed.

mod perform;
mod store;

use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::Notify;

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

impl Effect {
    fn is_slow(&self) -> bool {
        match self {
            Self::Enqueue { .. } | Self::Advance { .. } => false,
            Self::ArchiveTurn { .. } | Self::DeleteObjects { .. } => true,
        }
    }
}

/// Wakes this replica's loops.
#[derive(Debug, Default)]
pub struct Pokes {
    quick: Notify,
    slow: Notify,
}

/// Starts the loops that perform effects.
pub fn spawn(app: &App) {
    let tracker = app.shutdown.tracker();
    tracker.spawn(perform::quick_loop(app.clone()));
    for _ in 0..perform::SLOW_LOOPS {
        tracker.spawn(perform::slow_loop(app.clone()));
    }
}

/// Adds an effect to the caller's transaction; after its commit, [`poke`] its lane.
pub async fn add(db: &mut PgConnection, effect: &Effect) -> anyhow::Result<()> {
    add_all(db, std::slice::from_ref(effect)).await
}

/// Adds several effects at once.
pub async fn add_all(db: &mut PgConnection, effects: &[Effect]) -> anyhow::Result<()> {
    store::insert(db, effects).await
}

/// Makes this replica look at once for what belongs to the queue.
pub fn poke(app: &App) {
    app.pokes.quick.notify_one();
}

/// Makes this replica look at once for what talks to S3: an execution ended, a session went.
pub fn poke_slow(app: &App) {
    app.pokes.slow.notify_one();
}
