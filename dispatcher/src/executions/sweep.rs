//! The sweeper: executions whose worker is silent, and cancels that nobody obeyed.
//!
//! Any replica sweeps at any time; each execution is changed under its row lock, after looking
//! again. A database that was away has kept workers from renewing, so a replica expires
//! nothing until it has itself seen one lease length without a database error.

use std::time::Duration;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::{ErrorCode, OnWorkerLost, State};
use clawlink_shared::id::{ClaimId, ExecutionId};
use tokio::time::Instant;
use tracing::Instrument;

use super::store::finish::End;
use super::store::locked::{self, Locked};
use super::store::requeue::{self, Because};
use super::{publish, wind_up};
use crate::app::App;
use crate::{db, outbox};

/// Executions looked at in one sweep.
const BATCH: i64 = 100;
/// A worker that renews its lease while it stops, archives and pushes has this many times
/// [`cancel`](crate::config::Tuning::cancel) before its execution is ended without it.
const CANCEL_PATIENCE: u32 = 10;
/// Hand-outs that no worker acknowledged before the execution fails.
const MAX_UNACKNOWLEDGED: i32 = 10;

/// What a sweep may decide about lapsed times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// Leases may be taken as lost.
    pub leases: bool,
    /// Workers have had the time to hear of a cancel.
    pub cancels: bool,
}

impl Trust {
    /// For a database that has answered without error for this long.
    fn after(app: &App, healthy_for: Duration) -> Self {
        Self {
            leases: healthy_for >= app.tuning.lease,
            cancels: healthy_for >= app.tuning.cancel,
        }
    }
}

/// Sweeps at every tick until the process drains.
pub(super) async fn sweep_loop(app: App) {
    let mut healthy_since: Option<Instant> = None;
    loop {
        let healthy_for = healthy_since.map_or(Duration::ZERO, |since| since.elapsed());
        let sweeping = sweep(&app, Trust::after(&app, healthy_for));
        match sweeping.instrument(tracing::debug_span!("sweep")).await {
            Ok(_) => {
                healthy_since.get_or_insert_with(Instant::now);
            }
            Err(error) => {
                healthy_since = None;
                tracing::warn!(error = format!("{error:#}"), "sweep failed");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// One sweep; answers how many executions it changed. One that cannot be swept is tried again,
/// and holds up no other; an error means that the database is away.
pub async fn sweep(app: &App, trust: Trust) -> anyhow::Result<usize> {
    let mut db = app.db.acquire().await?;
    let tuning = &app.tuning;
    // Cancelled executions whose lease has lapsed are found by that.
    let patience = tuning.cancel * CANCEL_PATIENCE;
    let overdue = requeue::overdue(&mut db, tuning.ack, patience, BATCH).await?;
    drop(db);
    let mut changed = 0;
    for execution in overdue {
        match sweep_one(app, execution, trust).await {
            Ok(true) => changed += 1,
            Ok(false) => {}
            Err(error) if db::is_away(&error) => return Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, %execution, "an overdue execution cannot be swept");
            }
        }
    }
    Ok(changed)
}

/// Puts an execution back whose assignment could not be made, or ends it if somebody asked for
/// that meanwhile. Best effort: the sweep does the same when the time to acknowledge is over.
pub(super) async fn give_back(app: &App, execution: ExecutionId, claim: ClaimId) {
    let giving = async {
        let mut tx = app.db.begin().await?;
        let held = locked::lock(&mut tx, execution, None, None).await?;
        let Some(mut held) = held.filter(|held| {
            held.state == State::Planning && held.acked_at.is_none() && held.claim == Some(claim)
        }) else {
            return Ok(());
        };
        if let Some(end) = cancelled(&held) {
            return wind_up::end(app, tx, held, &end).await;
        }
        let appended = requeue::requeue(&mut tx, &mut held, Because::NotHandedOut).await?;
        tx.commit().await?;
        publish(app, execution, appended);
        outbox::poke(app);
        anyhow::Ok(())
    };
    if let Err(error) = giving.await {
        tracing::warn!(error = format!("{error:#}"), %execution, "not given back");
    }
}

/// Ends an execution whose assignment no dispatcher can make, for this reason: handing it out
/// again would fail in the same way.
pub(super) async fn end_broken(
    app: &App,
    execution: ExecutionId,
    claim: ClaimId,
    failure: Failure,
) -> anyhow::Result<()> {
    let mut tx = app.db.begin().await?;
    let held = locked::lock(&mut tx, execution, None, None).await?;
    let Some(held) = held.filter(|held| held.state.is_active() && held.claim == Some(claim)) else {
        return Ok(());
    };
    let end = cancelled(&held).unwrap_or(End::Failed {
        code: failure.code,
        message: failure.message,
    });
    wind_up::end(app, tx, held, &end).await
}

/// The end of an execution that somebody asked to cancel.
fn cancelled(held: &Locked) -> Option<End> {
    let cancel = held.cancel.as_ref()?;
    Some(End::Cancelled {
        reason: cancel.reason.clone(),
        by: cancel.by.clone(),
    })
}

/// What becomes of an overdue execution.
enum Verdict {
    Requeue(Because),
    End(End),
}

async fn sweep_one(app: &App, execution: ExecutionId, trust: Trust) -> anyhow::Result<bool> {
    let mut tx = app.db.begin().await?;
    let Some(mut held) = locked::lock(&mut tx, execution, None, None).await? else {
        return Ok(false);
    };
    let Some(verdict) = judge(app, &held, trust) else {
        return Ok(false);
    };
    let (from, worker) = (held.state.as_str(), held.worker.clone());
    let then = match verdict {
        Verdict::Requeue(because) => {
            let wound_up = wind_up::before_requeue(&mut tx, &mut held).await?;
            let appended = requeue::requeue(&mut tx, &mut held, because).await?;
            tx.commit().await?;
            wound_up.publish(app, execution, appended);
            app.bus.publish_control(execution);
            outbox::poke(app);
            match because {
                Because::Unacknowledged => "unacknowledged",
                _ => "requeued",
            }
        }
        Verdict::End(end) => {
            wind_up::end(app, tx, held, &end).await?;
            end.state().as_str()
        }
    };
    metrics::counter!("clawlink_leases_lost_total", "from" => from, "then" => then).increment(1);
    tracing::info!(%execution, from, then, worker, "swept");
    Ok(true)
}

/// Decides under the lock; `None` if it is not overdue any more, or may not be judged yet.
fn judge(app: &App, held: &Locked, trust: Trust) -> Option<Verdict> {
    if !held.state.is_active() {
        return None;
    }
    let passed = |since: Option<time::OffsetDateTime>, limit: Duration| {
        since.is_some_and(|since| held.now - since > limit)
    };
    let is_unacknowledged = held.acked_at.is_none() && passed(held.claimed_at, app.tuning.ack);
    let has_lapsed = held
        .lease_expires_at
        .is_some_and(|expires| expires < held.now);
    let is_expired = trust.leases && has_lapsed;
    if let Some(cancel) = &held.cancel {
        let limit = if has_lapsed {
            app.tuning.cancel
        } else {
            app.tuning.cancel * CANCEL_PATIENCE
        };
        let is_over = trust.cancels && passed(Some(cancel.at), limit);
        let is_due = is_unacknowledged || is_expired || is_over;
        return is_due.then(|| cancelled(held).map(Verdict::End)).flatten();
    }
    if is_unacknowledged && held.unacknowledged + 1 >= MAX_UNACKNOWLEDGED {
        return Some(Verdict::End(End::Failed {
            code: ErrorCode::WorkerLost,
            message: format!(
                "handed out {MAX_UNACKNOWLEDGED} times, and no worker confirmed that it arrived"
            ),
        }));
    }
    if is_unacknowledged {
        return Some(Verdict::Requeue(Because::Unacknowledged));
    }
    if !is_expired {
        return None;
    }
    let may_run_again = match held.state {
        State::Planning => held.attempt < app.tuning.max_attempts,
        _ => held.on_worker_lost == OnWorkerLost::Resume && !held.was_resumed,
    };
    Some(if may_run_again {
        Verdict::Requeue(if held.state == State::Planning {
            Because::LostEarly
        } else {
            Because::Resume
        })
    } else {
        Verdict::End(End::Failed {
            code: ErrorCode::WorkerLost,
            message: format!(
                "the worker {} was not heard of any more",
                held.worker.as_deref().unwrap_or("(unknown)")
            ),
        })
    })
}
