//! The reconciler: whatever happened to Redis, the queue is whole again soon.
//!
//! It pushes everything that Postgres calls eligible; what is queued already stays as it is.
//! One replica does so at a time (a lock in Redis that lapses), every few seconds, and at once
//! when a claim finds the queue flushed.

use std::time::Duration;

use tracing::Instrument;

use super::store::pending::{self, Cursor};
use super::{offer, queue};
use crate::app::App;

/// Between two rounds of all replicas together.
const PERIOD: Duration = Duration::from_secs(5);
/// Executions read and pushed at a time.
const PAGE: i64 = 500;

/// Wakes the reconciler of this replica.
#[derive(Debug, Default)]
pub struct Rebuild(tokio::sync::Notify);

impl Rebuild {
    /// The queue was found flushed.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Reconciles until the process drains.
pub(super) async fn reconcile_loop(app: App) {
    loop {
        let turn = async {
            if is_my_turn(&app).await? {
                reconcile(&app).await?;
            }
            anyhow::Ok(())
        };
        let turn = turn.instrument(tracing::debug_span!("reconcile"));
        if let Err(error) = turn.await {
            tracing::debug!(error = format!("{error:#}"), "queue not reconciled");
        }
        tokio::select! {
            () = app.rebuild.0.notified() => {}
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// Takes the lock for one period. A flush takes it away, so that the next tick rebuilds.
async fn is_my_turn(app: &App) -> redis::RedisResult<bool> {
    let taken: Option<String> = redis::cmd("SET")
        .arg(app.bus.key("reconcile"))
        .arg(app.replica.to_string())
        .arg("NX")
        .arg("PX")
        .arg(PERIOD.as_millis() as u64)
        .query_async(&mut app.bus.redis())
        .await?;
    Ok(taken.is_some())
}

/// One round over everything eligible.
pub async fn reconcile(app: &App) -> anyhow::Result<()> {
    let mut cursor = Some(Cursor::START);
    while let Some(after) = cursor {
        let mut db = app.db.acquire().await?;
        let (ready, next) = pending::ready_page(&mut db, after, PAGE).await?;
        drop(db);
        offer(app, &ready).await?;
        cursor = next;
    }
    queue::mark(&app.bus).await?;
    Ok(())
}
