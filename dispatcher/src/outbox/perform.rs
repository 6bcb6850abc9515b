//! Performing effects: the loops of the two lanes.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::store::{self, Kind};
use super::{Effect, Own};
use crate::app::App;
use crate::{auth, executions};

/// Quick effects of one round: one query, one script call, one delete for all of them.
const QUICK_BATCH: usize = 200;
/// Slow effects that are taken at one time; they are performed one by one.
const SLOW_BATCH: usize = 64;
/// Slow effects that one replica performs side by side. Nobody waits for them, and on a machine
/// that everything shares they must not hold up what somebody waits for.
pub(super) const SLOW_LOOPS: usize = 3;
/// A replica that does not finish an effect in this time has lost it to others.
const QUICK_LEASE: Duration = Duration::from_secs(30);
const SLOW_LEASE: Duration = Duration::from_secs(600);
/// The same for effects that the replica itself has just written: it comes to them soon, and if
/// it dies, others may have them soon.
pub(super) const QUICK_HOLD: Duration = Duration::from_secs(5);
pub(super) const SLOW_HOLD: Duration = Duration::from_secs(60);
/// While a replica is busy with effects of its own, it looks this often for those of others.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Without Redis, queueing is tried again soon; the reconciler makes good what is late.
const QUICK_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn quick_loop(app: App) {
    let mut own = app.lanes.quick.own.lock().await;
    let mut looks = Looks::default();
    let mut batch = Vec::new();
    loop {
        let round = async {
            // What this replica wrote itself needs no looking for.
            while batch.len() < QUICK_BATCH && own.try_recv().map(|one| batch.push(one)).is_ok() {}
            perform_quick(&app, std::mem::take(&mut batch)).await?;
            if looks.are_due() {
                let found = take(&app, Kind::Quick, QUICK_LEASE, QUICK_BATCH).await?;
                looks.found(found.len() == QUICK_BATCH);
                perform_quick(&app, found).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = round.await {
            tracing::warn!(error = format!("{error:#}"), "outbox not performed");
        } else if looks.are_due() {
            continue;
        }
        tokio::select! {
            one = own.recv() => batch.extend(one),
            goes_on = rest(&app, &app.lanes.quick.poked) => match goes_on {
                true => looks.ask(),
                false => break,
            },
        }
    }
    leave(&app, &mut own).await;
}

/// When a lane looks into the outbox: when somebody asks, while it finds more than it can take
/// at once, and now and then.
struct Looks {
    last: Instant,
    is_asked: bool,
}

impl Default for Looks {
    /// What an earlier process left may be waiting.
    fn default() -> Self {
        Self {
            last: Instant::now(),
            is_asked: true,
        }
    }
}

impl Looks {
    fn ask(&mut self) {
        self.is_asked = true;
    }

    fn are_due(&self) -> bool {
        self.is_asked || self.last.elapsed() >= LOOK_EVERY
    }

    fn found(&mut self, may_be_more: bool) {
        self.last = Instant::now();
        self.is_asked = may_be_more;
    }
}

/// Leaves what this replica still had for itself to the others.
async fn leave(app: &App, own: &mut mpsc::Receiver<Own>) {
    own.close();
    let mut left = Vec::new();
    while let Ok(one) = own.try_recv() {
        left.push(one);
    }
    give_back(app, left).await;
}

/// Makes effects that this replica has taken due for all.
async fn give_back(app: &App, left: Vec<Own>) {
    if left.is_empty() {
        return;
    }
    // What lapsed meanwhile may be in other hands.
    let now = Instant::now();
    let left = left.iter().filter(|one| one.until > now);
    let ids: Vec<i64> = left.map(|one| one.id).collect();
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
async fn take(app: &App, kind: Kind, lease: Duration, limit: usize) -> anyhow::Result<Vec<Own>> {
    let mut db = app.db.acquire().await?;
    let until = Instant::now() + lease;
    let taken = store::take(&mut db, kind, lease, limit as i64).await?;
    let known = taken.into_iter().filter_map(|one| {
        if one.effect.is_none() {
            tracing::error!(id = one.id, "outbox row of an unknown kind");
        }
        Some(Own {
            id: one.id,
            effect: one.effect?,
            attempts: one.attempts,
            until,
        })
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
            Effect::ForgetRights { user, keys } => auth::disable::perform(app, *user, keys),
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

/// Looks for slow effects that are due, and leaves them to this replica's loops. Where those
/// have enough, it waits, and others may take the rest.
pub(super) async fn slow_looks(app: App) {
    let lane = &app.lanes.slow;
    let mut found = Vec::new();
    loop {
        match take(&app, Kind::Slow, SLOW_LEASE, SLOW_BATCH).await {
            Ok(taken) => found = taken,
            Err(error) => tracing::warn!(error = format!("{error:#}"), "outbox not read"),
        }
        let may_be_more = found.len() == SLOW_BATCH;
        while !found.is_empty() {
            tokio::select! {
                place = lane.places.reserve() => match place {
                    Ok(place) => place.send(found.remove(0)),
                    Err(_) => break,
                },
                () = app.shutdown.soft().cancelled() => break,
            }
        }
        if !found.is_empty() || (!may_be_more && !rest(&app, &lane.poked).await) {
            break;
        }
    }
    give_back(&app, found).await;
}

/// One of several: a long effect holds up its own loop only.
pub(super) async fn slow_loop(app: App) {
    let lane = &app.lanes.slow;
    loop {
        let next = async { lane.own.lock().await.recv().await };
        tokio::select! {
            one = next => match one {
                // One that waited for too long is due for all; whoever takes it performs it.
                Some(one) if one.until <= Instant::now() => {}
                Some(one) => perform_slow(&app, one).await,
                None => break,
            },
            () = app.shutdown.soft().cancelled() => break,
        }
    }
    leave(&app, &mut *lane.own.lock().await).await;
}

/// Effects of tasks: they must not wait for an S3 that is away.
pub(super) async fn task_loop(app: App) {
    loop {
        let found = take(&app, Kind::Task, QUICK_LEASE, SLOW_BATCH).await;
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "outbox not read");
            Vec::new()
        });
        let may_be_more = found.len() == SLOW_BATCH;
        for one in found {
            perform_slow(&app, one).await;
        }
        if app.shutdown.soft().is_cancelled()
            || (!may_be_more && !rest(&app, &app.lanes.tasks).await)
        {
            return;
        }
    }
}

async fn perform_slow(app: &App, one: Own) {
    let performed = match &one.effect {
        Effect::ArchiveTurn { execution } => executions::archive_turn(app, *execution).await,
        Effect::FollowTask { execution } => {
            executions::portal::follow::follow(app, *execution).await
        }
        Effect::DeleteObjects { session } => executions::delete_objects(app, *session).await,
        Effect::Enqueue { .. } | Effect::Advance { .. } | Effect::ForgetRights { .. } => {
            Err(anyhow::anyhow!("outbox row in the wrong lane"))
        }
    };
    let noted = async {
        let mut db = app.db.acquire().await?;
        match &performed {
            Ok(()) => store::done_one(&mut db, one.id).await,
            Err(_) => store::put_off(&mut db, &[one.id], pause_after(one.attempts)).await,
        }
    };
    let noted = noted.await;
    if let Err(error) = performed {
        let error = format!("{error:#}");
        tracing::warn!(error, effect = ?one, "effect failed; it is tried again");
    }
    if let Err(error) = noted {
        tracing::warn!(
            error = format!("{error:#}"),
            "the effect is performed again"
        );
    }
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
