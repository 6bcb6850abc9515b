//! Performing effects: the two loops.

use std::time::Duration;

use tokio::sync::Notify;

use super::Effect;
use super::store;
use crate::app::App;
use crate::executions;

/// Quick effects of one round: one query, one script call, one delete for all of them.
const QUICK_BATCH: i64 = 200;
/// Slow effects that one replica performs side by side.
pub(super) const SLOW_LOOPS: usize = 6;
/// A replica that does not finish an effect in this time has lost it to others.
const QUICK_LEASE: Duration = Duration::from_secs(30);
const SLOW_LEASE: Duration = Duration::from_secs(600);
/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Without Redis, queueing is tried again soon; the reconciler makes good what is late.
const QUICK_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn quick_loop(app: App) {
    loop {
        match quick_round(&app).await {
            // A full round: there may be more.
            Ok(count) if count as i64 == QUICK_BATCH => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "outbox not performed"),
        }
        if !rest(&app, &app.pokes.quick).await {
            return;
        }
    }
}

/// One round; answers how many effects it took.
async fn quick_round(app: &App) -> anyhow::Result<usize> {
    let mut db = app.db.acquire().await?;
    let taken = store::take(&mut db, false, QUICK_LEASE, QUICK_BATCH).await?;
    drop(db);
    if taken.is_empty() {
        return Ok(0);
    }
    let (mut enqueued, mut sessions, mut workspaces) = (Vec::new(), Vec::new(), Vec::new());
    for one in &taken {
        match &one.effect {
            Some(Effect::Enqueue { execution }) => enqueued.push(*execution),
            Some(Effect::Advance { session, workspace }) => {
                sessions.push(*session);
                workspaces.push(*workspace);
            }
            _ => tracing::error!(id = one.id, "outbox row in the wrong lane or unknown"),
        }
    }
    workspaces.sort_unstable();
    workspaces.dedup();
    let performed = executions::make_ready(app, &enqueued, &sessions, &workspaces).await;
    let ids: Vec<i64> = taken.iter().map(|one| one.id).collect();
    let mut db = app.db.acquire().await?;
    match performed {
        Ok(()) => store::done(&mut db, &ids).await?,
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "queue not reached");
            store::put_off(&mut db, &ids, QUICK_PAUSE).await?;
        }
    }
    Ok(taken.len())
}

/// One of several: a long effect holds up its own loop only.
pub(super) async fn slow_loop(app: App) {
    loop {
        match slow_step(&app).await {
            Ok(true) if !app.shutdown.soft().is_cancelled() => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "outbox not performed"),
        }
        if !rest(&app, &app.pokes.slow).await {
            return;
        }
    }
}

/// Performs one effect; false if none is due.
async fn slow_step(app: &App) -> anyhow::Result<bool> {
    let mut db = app.db.acquire().await?;
    let taken = store::take(&mut db, true, SLOW_LEASE, 1).await?;
    drop(db);
    let Some(one) = taken.into_iter().next() else {
        return Ok(false);
    };
    let performed = match &one.effect {
        Some(Effect::ArchiveTurn { execution }) => executions::archive_turn(app, *execution).await,
        Some(Effect::DeleteObjects { session }) => executions::delete_objects(app, *session).await,
        _ => Err(anyhow::anyhow!("outbox row in the wrong lane or unknown")),
    };
    let mut db = app.db.acquire().await?;
    match performed {
        Ok(()) => store::done(&mut db, &[one.id]).await?,
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                id = one.id,
                effect = ?one.effect,
                attempts = one.attempts,
                "effect failed; it is tried again"
            );
            store::put_off(&mut db, &[one.id], pause_after(one.attempts)).await?;
        }
    }
    Ok(true)
}

/// 2 s, 4 s, 8 s …, up to the longest pause.
fn pause_after(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(1).min(16);
    Duration::from_secs(1 << doublings).min(MAX_PAUSE)
}

/// Waits for a poke or the tick; false when the process drains.
async fn rest(app: &App, poked: &Notify) -> bool {
    tokio::select! {
        () = poked.notified() => true,
        () = tokio::time::sleep(app.tuning.tick) => true,
        () = app.shutdown.soft().cancelled() => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        assert_eq!(pause_after(1), Duration::from_secs(2));
        assert_eq!(pause_after(4), Duration::from_secs(16));
        assert_eq!(pause_after(1000), MAX_PAUSE);
    }
}
