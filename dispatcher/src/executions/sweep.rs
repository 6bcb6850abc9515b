//! The sweeper: executions whose worker is silent, and cancels that nobody obeyed.
//!
//! Any replica sweeps at any time; each execution is changed under its row lock, after looking
//! again. A database that was away has kept workers from renewing, so a replica expires
//! nothing until it has itself seen one lease length without a database error.

use std::time::Duration;

use clawlink_shared::execution::{ErrorCode, OnWorkerLost, State};
use clawlink_shared::id::{ClaimId, ExecutionId};
use tokio::time::Instant;

use super::publish;
use super::store::finish::{self, End, Work};
use super::store::locked::{self, Locked};
use super::store::requeue::{self, Because};
use crate::app::App;
use crate::outbox;

/// Executions looked at in one sweep.
const BATCH: i64 = 100;

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
        match sweep(&app, Trust::after(&app, healthy_for)).await {
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

/// One sweep; answers how many executions it changed.
pub async fn sweep(app: &App, trust: Trust) -> anyhow::Result<usize> {
    let mut db = app.db.acquire().await?;
    let tuning = &app.tuning;
    let overdue = requeue::overdue(&mut db, tuning.ack, tuning.cancel, BATCH).await?;
    drop(db);
    let mut changed = 0;
    for execution in overdue {
        if sweep_one(app, execution, trust).await? {
            changed += 1;
        }
    }
    Ok(changed)
}

/// Puts an execution back whose assignment could not be made. Best effort: the sweep does the
/// same when the time to acknowledge is over.
pub(super) async fn give_back(app: &App, execution: ExecutionId, claim: ClaimId) {
    let giving = async {
        let mut tx = app.db.begin().await?;
        let held = locked::lock(&mut tx, execution, None, None).await?;
        let Some(mut held) = held.filter(|held| {
            held.state == State::Planning && held.acked_at.is_none() && held.claim == Some(claim)
        }) else {
            return Ok(());
        };
        let appended = requeue::requeue(&mut tx, &mut held, Because::Unacknowledged).await?;
        tx.commit().await?;
        publish(app, execution, appended);
        outbox::poke(app);
        anyhow::Ok(())
    };
    if let Err(error) = giving.await {
        tracing::warn!(error = format!("{error:#}"), %execution, "not given back");
    }
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
    let from = held.state;
    let appended = match &verdict {
        Verdict::Requeue(because) => requeue::requeue(&mut tx, &mut held, *because).await?,
        Verdict::End(end) => finish::end(&mut tx, &mut held, end, &Work::default(), false).await?,
    };
    tx.commit().await?;
    publish(app, execution, appended);
    app.bus.publish_control(execution);
    outbox::poke(app);
    let what = match &verdict {
        Verdict::Requeue(Because::Unacknowledged) => "unacknowledged",
        Verdict::Requeue(Because::LostEarly | Because::Resume) => "requeued",
        Verdict::End(end) => {
            outbox::poke_slow(app);
            let state = end.state().as_str();
            metrics::counter!("clawlink_executions_ended_total", "state" => state).increment(1);
            state
        }
    };
    metrics::counter!("clawlink_leases_lost_total", "from" => from.as_str(), "then" => what)
        .increment(1);
    tracing::info!(%execution, from = from.as_str(), then = what, worker = held.worker, "swept");
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
    let is_expired = trust.leases
        && held
            .lease_expires_at
            .is_some_and(|expires| expires < held.now);
    if let Some(cancel) = &held.cancel {
        let is_over = trust.cancels && passed(Some(cancel.at), app.tuning.cancel);
        return (is_unacknowledged || is_expired || is_over).then(|| {
            Verdict::End(End::Cancelled {
                reason: cancel.reason.clone(),
                by: cancel.by.clone(),
            })
        });
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
