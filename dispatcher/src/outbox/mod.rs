//! Side effects after a commit: written in the transaction, performed afterwards by any
//! replica, at least once. Every effect is idempotent.
//!
//! Two lanes, so that the queue never waits for S3: quick effects (queue) are performed many
//! together; slow ones (S3) one by one, in a few loops side by side, and those of tasks in one of
//! their own, because they need no S3. A row is
//! taken by pushing its due time forward, so a replica that dies leaves it to another; no
//! transaction is open while an effect is performed. The rows of the busiest paths are written
//! as taken by the replica that writes them, if it has room ([`Places`]).

mod perform;
mod store;

use std::time::{Duration, Instant};

use clawlink_shared::id::{ApiKeyId, ExecutionId, SessionId, UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::{Notify, mpsc};

use crate::app::App;

/// Effects that wait in one replica for its own loops; more are left to whoever looks first.
const QUICK_PLACES: usize = 1024;
const SLOW_PLACES: usize = 256;

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
    /// The operator ended somebody's rights: dispatchers must not remember them.
    ForgetRights {
        /// Whose.
        user: UserId,
        /// Keys that ended with them.
        keys: Vec<ApiKeyId>,
    },
    /// A turn ended: write its log to `turns/{n}.events.jsonl` and prune old archives.
    ArchiveTurn {
        /// Which.
        execution: ExecutionId,
    },
    /// An execution of a task started or ended: its task follows.
    FollowTask {
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
    /// Whether it is never performed first by who wrote it: there is one place for each lane,
    /// and an end needs it for its log.
    fn has_no_place(&self) -> bool {
        matches!(self, Self::FollowTask { .. })
    }

    fn is_slow(&self) -> bool {
        match self {
            Self::Enqueue { .. } | Self::Advance { .. } | Self::ForgetRights { .. } => false,
            Self::ArchiveTurn { .. } | Self::FollowTask { .. } | Self::DeleteObjects { .. } => true,
        }
    }
}

/// Effects as columns of rows, for a statement of another store that writes them together with
/// what they follow.
#[derive(Debug)]
pub struct Rows {
    /// The column `effect`.
    pub effects: Vec<serde_json::Value>,
    /// The column `is_slow`.
    pub slow: Vec<bool>,
    /// Seconds from now to the column `due_at`.
    pub due_in: Vec<f64>,
}

impl Rows {
    /// One row for each; those that have a place are not due for others before this replica had
    /// its time.
    pub fn of(effects: &[Effect], places: &Places) -> anyhow::Result<Self> {
        let rows = effects.iter().map(serde_json::to_value);
        Ok(Self {
            effects: rows.collect::<Result<_, _>>()?,
            slow: effects.iter().map(Effect::is_slow).collect(),
            due_in: effects.iter().map(|one| places.due_in(one)).collect(),
        })
    }
}

/// An effect that this replica performs before anybody else.
#[derive(Debug)]
struct Own {
    id: i64,
    effect: Effect,
    /// How often it was begun, this time included.
    attempts: i32,
    /// Then it is due for all.
    until: Instant,
}

/// One lane of this replica: what it performs first, and what wakes it to look for more.
#[derive(Debug)]
struct Lane {
    poked: Notify,
    places: mpsc::Sender<Own>,
    own: tokio::sync::Mutex<mpsc::Receiver<Own>>,
}

impl Lane {
    fn new(places: usize) -> Self {
        let (places, own) = mpsc::channel(places);
        Self {
            poked: Notify::new(),
            places,
            own: tokio::sync::Mutex::new(own),
        }
    }
}

/// This replica's lanes.
#[derive(Debug)]
pub struct Lanes {
    quick: Lane,
    slow: Lane,
    /// Wakes the loop of effects that need Postgres alone: those of tasks.
    tasks: Notify,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            quick: Lane::new(QUICK_PLACES),
            slow: Lane::new(SLOW_PLACES),
            tasks: Notify::new(),
        }
    }
}

/// Places in this replica's lanes, reserved before effects are written: with one, the row is
/// written as already taken, and nobody has to look for it. Dropped, they are free again.
#[derive(Debug, Default)]
pub struct Places {
    quick: Option<mpsc::OwnedPermit<Own>>,
    slow: Option<mpsc::OwnedPermit<Own>>,
}

impl Places {
    /// One place in each lane that has room; without one, an effect is due at once for all.
    pub fn reserve(app: &App) -> Self {
        let place = |lane: &Lane| lane.places.clone().try_reserve_owned().ok();
        Self {
            quick: place(&app.lanes.quick),
            slow: place(&app.lanes.slow),
        }
    }

    fn due_in(&self, effect: &Effect) -> f64 {
        if effect.has_no_place() {
            return 0.0;
        }
        let (place, lease) = if effect.is_slow() {
            (&self.slow, perform::SLOW_HOLD)
        } else {
            (&self.quick, perform::QUICK_HOLD)
        };
        place.as_ref().map_or(0.0, |_| lease.as_secs_f64())
    }

    /// Performs a committed effect as soon as its lane comes to it.
    pub fn perform(&mut self, app: &App, id: i64, effect: Effect) {
        let lanes = &app.lanes;
        let (place, hold, poked) = if effect.has_no_place() {
            (None, Duration::ZERO, &lanes.tasks)
        } else if effect.is_slow() {
            (self.slow.take(), perform::SLOW_HOLD, &lanes.slow.poked)
        } else {
            (self.quick.take(), perform::QUICK_HOLD, &lanes.quick.poked)
        };
        match place {
            Some(place) => drop(place.send(Own {
                id,
                effect,
                attempts: 1,
                until: Instant::now() + hold,
            })),
            None => poked.notify_one(),
        }
    }
}

/// Starts the loops that perform effects.
pub fn spawn(app: &App) {
    let tracker = app.shutdown.tracker();
    tracker.spawn(perform::quick_loop(app.clone()));
    tracker.spawn(perform::slow_looks(app.clone()));
    tracker.spawn(perform::task_loop(app.clone()));
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
    app.lanes.quick.poked.notify_one();
}

/// Makes this replica look at once for what talks to S3 and what follows for tasks: an execution
/// ended, a session went.
pub fn poke_slow(app: &App) {
    app.lanes.slow.poked.notify_one();
    app.lanes.tasks.notify_one();
}
