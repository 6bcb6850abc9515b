//! Questions that nobody answered in time become what the workspace wants them to be.

use clawlink_shared::approval::{Decision, UNANSWERED};
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use tracing::Instrument;
use uuid::Uuid;

use super::{Answer, BY_END, decide, store};
use crate::app::App;
use crate::executions::live;
use crate::{db, feed};

/// Questions looked at in one round.
const BATCH: i64 = 100;

/// Expires what is due at every tick until the process drains.
pub(super) async fn expire_loop(app: App) {
    loop {
        let round = expire(&app).instrument(tracing::debug_span!("expire approvals"));
        if let Err(error) = round.await {
            tracing::warn!(error = format!("{error:#}"), "approvals not expired");
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// One round; answers how many questions it settled. One that cannot be settled is tried again,
/// and holds up no other.
pub async fn expire(app: &App) -> anyhow::Result<usize> {
    let mut db = app.db.acquire().await?;
    let due = store::due(&mut db, BATCH).await?;
    drop(db);
    let mut settled = 0;
    for (workspace, execution, id) in due {
        match expire_one(app, workspace, execution, id).await {
            Ok(is_settled) => settled += usize::from(is_settled),
            Err(error) if db::is_away(&error) => return Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, %execution, approval = %id, "question not expired");
            }
        }
    }
    Ok(settled)
}

async fn expire_one(
    app: &App,
    workspace: WorkspaceId,
    execution: ExecutionId,
    id: Uuid,
) -> anyhow::Result<bool> {
    let mut tx = app.db.begin().await?;
    let held = live::lock(&mut tx, workspace, execution).await?;
    let row = store::find(&mut tx, workspace, execution, id).await?;
    let (Some(mut held), Some(row)) = (held, row) else {
        return Ok(false);
    };
    if row.state != "open" || row.expires_at > held.now {
        return Ok(false);
    }
    if !decide::is_waiting(&held, &row) {
        store::withdraw(&mut tx, workspace, execution, Some(id), BY_END).await?;
        tx.commit().await?;
        return Ok(true);
    }
    let settings = store::rules::settings(&mut tx, workspace).await?;
    let decision = settings.fallback(&app.tuning);
    let answer = Answer {
        state: "expired",
        decision,
        message: (decision == Decision::Deny).then_some(UNANSWERED),
        by: "timeout",
    };
    let told = decide::settle(&mut tx, &mut held, id, &answer).await?;
    decide::announce(&mut tx, &held, id, decision.as_str()).await?;
    tx.commit().await?;
    live::publish(app, execution, told);
    feed::poke(app, workspace);
    metrics::counter!("clawlink_approvals_total", "decision" => "expired").increment(1);
    tracing::info!(%execution, approval = %id, decision = decision.as_str(), "nobody answered");
    Ok(true)
}
