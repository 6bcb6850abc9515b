//! Performing effects: the two loops.

use std::time::Duration;

use tokio::sync::mpsc;

use super::store;
use super::{Effect, Lane, Own};
use crate::app::App;
use crate::executions;

/// Quick effects of one round: one query, one script call, one delete for all of them.
const QUICK_BATCH: usize = 200;
/// Slow effects that one replica performs side by side.
pub(super) const SLOW_LOOPS: usize = 6;
/// A replica that does not finish an effect in this time has lost it to others.
const QUICK_LEASE: Duration = Duration::from_secs(30);
const SLOW_LEASE: Duration = Duration::from_secs(600);
/// The same for effects that the replica itself has just written: it begins them at once, and if
/// it dies, others may have them soon.
pub(super) const QUICK_HOLD: Duration = Duration::from_secs(5);
pub(super) const SLOW_HOLD: Duration = Duration::from_secs(60);
/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Without Redis, queueing is tried again soon; the reconciler makes good what is late.
const QUICK_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn quick_loop(app: App) {
    let mut own = app.lanes.quick.own.lock().await;
    let mut batch = Vec::new();
    loop {
        let round = async {
            // What this replica wrote itself needs no looking for.
            while own.try_recv().map(|one| batch.push(one)).is_ok() && batch.len() < QUICK_BATCH {}
            let is_own = !batch.is_empty();
            if !is_own {
                batch = quick_due(&app).await?;
            }
            let count = batch.len();
            perform_quick(&app, std::mem::take(&mut batch)).await?;
            anyhow::Ok(is_own || count == QUICK_BATCH)
        };
        match round.await {
            // There may be more.
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "outbox not performed"),
        }
        tokio::select! {
            one = own.recv() => batch.extend(one),
            goes_on = rest(&app, &app.lanes.quick) => if !goes_on { break },
        }
    }
    leave(&app, &mut own).await;
}

/// Leaves what this replica still had for itself to the others.
async fn leave(app: &App, own: &mut mpsc::Receiver<Own>) {
    own.close();
    let mut ids = Vec::new();
    while let Ok(one) = own.try_recv() {
        ids.push(one.id);
    }
    if ids.is_empty() {
        return;
    }
    let leaving = async {
        let mut db = app.db.acquire().await?;
        store::put_off(&mut db, &ids, Duration::ZERO).await
    };
    if let Err(error) = leaving.await {
        tracing::warn!(
            error = format!("{error:#}"),
            "others perform these effects later"
        );
    }
}

/// Takes what is due, whoever wrote it.
async fn quick_due(app: &App) -> anyhow::Result<Vec<Own>> {
    let mut db = app.db.acquire().await?;
    let taken = store::take(&mut db, false, QUICK_LEASE, QUICK_BATCH as i64).await?;
    let known = taken.into_iter().filter_map(|one| {
        if one.effect.is_none() {
            tracing::error!(id = one.id, "outbox row of an unknown kind");
        }
        let (id, effect) = (one.id, one.effect?);
        Some(Own { id, effect })
    });
    Ok(known.collect())
}

async fn perform_quick(app: &App, batch: Vec<Own>) -> anyhow::Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let (mut enqueued, mut sessions, mut workspaces) = (Vec::new(), Vec::new(), Vec::new());
    for one in &batch {
        match &one.effect {
            Effect::Enqueue { execution } => enqueued.push(*execution),
            Effect::Advance { session, workspace } => {
                sessions.push(*session);
                workspaces.push(*workspace);
            }
            _ => tracing::error!(id = one.id, "outbox row in the wrong lane"),
        }
    }
    workspaces.sort_unstable();
    workspaces.dedup();
    let performed = executions::make_ready(app, &enqueued, &sessions, &workspaces).await;
    let ids: Vec<i64> = batch.iter().map(|one| one.id).collect();
    let mut db = app.db.acquire().await?;
    match performed {
        Ok(()) => store::done(&mut db, &ids).await,
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "queue not reached");
            store::put_off(&mut db, &ids, QUICK_PAUSE).await
        }
    }
}

/// One of several: a long effect holds up its own loop only.
pub(super) async fn slow_loop(app: App) {
    let lane = &app.lanes.slow;
    loop {
        let own = lane
            .own
            .try_lock()
            .ok()
            .and_then(|mut own| own.try_recv().ok());
        match slow_step(&app, own).await {
            Ok(true) if !app.shutdown.soft().is_cancelled() => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "outbox not performed"),
        }
        let next = async { lane.own.lock().await.recv().await };
        tokio::select! {
            own = next => {
                if let Err(error) = slow_step(&app, own).await {
                    tracing::warn!(error = format!("{error:#}"), "outbox not performed");
                }
            }
            goes_on = rest(&app, lane) => if !goes_on { break },
        }
    }
    leave(&app, &mut *lane.own.lock().await).await;
}

/// Performs this effect, or else one that is due; false if there is none.
async fn slow_step(app: &App, own: Option<Own>) -> anyhow::Result<bool> {
    let (id, effect, attempts) = match own {
        Some(own) => (own.id, Some(own.effect), 1),
        None => {
            let mut db = app.db.acquire().await?;
            let taken = store::take(&mut db, true, SLOW_LEASE, 1).await?;
            let Some(one) = taken.into_iter().next() else {
                return Ok(false);
            };
            (one.id, one.effect, one.attempts)
        }
    };
    let performed = match &effect {
        Some(Effect::ArchiveTurn { execution }) => executions::archive_turn(app, *execution).await,
        Some(Effect::FollowTask { execution }) => {
            executions::portal::follow::follow(app, *execution).await
        }
        Some(Effect::DeleteObjects { session }) => executions::delete_objects(app, *session).await,
        _ => Err(anyhow::anyhow!("outbox row in the wrong lane or unknown")),
    };
    let mut db = app.db.acquire().await?;
    match performed {
        Ok(()) => store::done(&mut db, &[id]).await?,
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                id,
                ?effect,
                attempts,
                "effect failed; it is tried again"
            );
            store::put_off(&mut db, &[id], pause_after(attempts)).await?;
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
async fn rest(app: &App, lane: &Lane) -> bool {
    tokio::select! {
        () = lane.poked.notified() => true,
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
