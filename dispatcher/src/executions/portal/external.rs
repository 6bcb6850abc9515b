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
use utoipa::ToSchema;

use super::super::store::finish::{self, End, Work};
use super::super::store::locked::{self, Locked};
use super::super::store::portal;
use super::super::{no_such_execution, publish, queue};
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
    let was_pending = held.state == ExecutionState::Pending;
    let mut appended = Vec::new();
    if was_pending {
        let taken = portal::take(&mut tx, &mut held, &principal.name(), SILENCE).await?;
        appended.push(taken.ok_or_else(|| {
            ApiError::conflict(
                "session_busy",
                "an earlier turn of this session has not ended; wait for it",
            )
        })?);
        if held.task.is_some() {
            outbox::add(&mut tx, &Effect::FollowTask { execution: id }).await?;
        }
    } else if held.state.is_terminal() {
        return Err(already_ended());
    } else if !held.is_external {
        return Err(ApiError::conflict(
            "held_by_worker",
            "a worker runs this execution; only it may report how it goes",
        ));
    }
    match end(&report, &held, &principal) {
        Some(end) => {
            let work = Work {
                result: report.result,
                ..Work::default()
            };
            appended.push(finish::end_with(&mut tx, &held, &end, &work).await?);
        }
        None if was_pending => {}
        None => portal::renew(&mut tx, id, SILENCE).await?,
    }
    tx.commit().await?;
    for appended in appended {
        publish(&app, id, appended);
    }
    outbox::poke(&app);
    outbox::poke_slow(&app);
    if was_pending && let Err(error) = queue::remove(&app.bus, id).await {
        tracing::debug!(%error, %id, "stays queued; Postgres refuses it");
    }
    shown(&app, &principal, id).await
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
