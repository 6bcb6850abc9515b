//! Executions that a client runs itself: it takes a pending one by reporting on it.
//!
//! Taking and every step are guarded by the state that was read under the row's lock: a worker's
//! claim and a report exclude each other. Somebody who stops reporting loses the execution as a
//! worker loses its lease, only later.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use clawlink_shared::execution::{ErrorCode, State as ExecutionState};
use clawlink_shared::id::ExecutionId;
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::super::store::events::Appended;
use super::super::store::finish::{self, End, Work};
use super::super::store::locked::{self, Locked};
use super::super::store::portal;
use super::super::{no_such_execution, publish, queue, wind_up};
use super::http::{Shown, already_ended, shown};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::extract::{self, Path};
use crate::outbox::{self, Effect};
use crate::policies;

/// How long somebody outside may be silent.
const SILENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest result and message, in characters.
const MAX_TEXT: usize = 256 * 1024;

/// How an execution goes.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExecutionReport)]
pub(super) struct Report {
    status: Reported,
    result: Option<String>,
    error_message: Option<String>,
}

/// What may be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Reported {
    Running,
    Completed,
    Failed,
    Cancelled,
}

/// `PATCH /api/runtime/executions/{id}/state`.
pub(super) async fn report(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ExecutionId>,
    extract::Json(report): extract::Json<Report>,
) -> ApiResult<Json<Shown>> {
    for (field, text) in [
        ("result", &report.result),
        ("errorMessage", &report.error_message),
    ] {
        extract::check_text(field, text.as_deref().unwrap_or_default(), 0..=MAX_TEXT)?;
    }
    let rules = policies::rules(&app, &principal).await?;
    let mut tx = app.db.begin().await?;
    let found = locked::lock(&mut tx, id, None, Some(principal.workspace)).await?;
    let found = found.filter(|held| rules.shows(&principal, held.log.session));
    let mut held = found.ok_or_else(no_such_execution)?;
    let taken = take(&mut tx, &mut held, &principal).await?;
    let mut ended = None;
    match end(&report, &held, &principal) {
        Some(end) => {
            // What was said to a worker that was lost before.
            let wound_up = wind_up::before_end(&app, &mut tx, &mut held, &end).await?;
            let work = Work {
                result: report.result,
                ..Work::default()
            };
            let appended = finish::end_with(&mut tx, &held, &end, &work).await?;
            ended = Some((wound_up, appended));
        }
        None if taken.is_some() => {}
        None => portal::renew(&mut tx, id, SILENCE).await?,
    }
    tx.commit().await?;
    if let Some(taken) = taken {
        publish(&app, id, taken);
        if let Err(error) = queue::remove(&app.bus, id).await {
            tracing::debug!(%error, %id, "stays queued; Postgres refuses it");
        }
    }
    if let Some((wound_up, appended)) = ended {
        wound_up.publish(&app, id, appended);
    }
    outbox::poke(&app);
    outbox::poke_slow(&app);
    shown(&app, &principal, id).await
}

/// Takes a locked execution that is pending, and says what there is to publish; one that the
/// outside runs already stays as it is. 409 for any other.
async fn take(
    db: &mut PgConnection,
    held: &mut Locked,
    principal: &Principal,
) -> ApiResult<Option<Appended>> {
    match held.state {
        ExecutionState::Pending => {}
        state if state.is_terminal() => return Err(already_ended()),
        _ if held.is_external => return Ok(None),
        _ => {
            return Err(ApiError::conflict(
                "held_by_worker",
                "a worker runs this execution; only it may report how it goes",
            ));
        }
    }
    let taken = portal::take(db, held, &principal.name(), SILENCE).await?;
    let taken = taken.ok_or_else(|| {
        ApiError::conflict(
            "session_busy",
            "an earlier turn of this session has not ended; wait for it",
        )
    })?;
    if held.task.is_some() {
        let execution = held.log.execution;
        outbox::add(db, &Effect::FollowTask { execution }).await?;
    }
    Ok(Some(taken))
}

/// The end that a report tells, if it tells one. From the wish to cancel on there is one end.
fn end(report: &Report, held: &Locked, principal: &Principal) -> Option<End> {
    if let Some(cancel) = &held.cancel {
        return Some(End::Cancelled {
            reason: cancel.reason.clone(),
            by: cancel.by.clone(),
        });
    }
    match report.status {
        Reported::Running => None,
        Reported::Completed => Some(End::Completed),
        Reported::Failed => {
            let message = report.error_message.clone().or(report.result.clone());
            Some(End::Failed {
                code: ErrorCode::AgentError,
                message: message.unwrap_or_else(|| "whoever ran it reported a failure".to_owned()),
            })
        }
        Reported::Cancelled => Some(End::Cancelled {
            reason: "whoever ran it gave it up".to_owned(),
            by: Some(principal.name()),
        }),
    }
}
