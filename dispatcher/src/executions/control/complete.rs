//! `POST …/complete`: the one report of an end, refused until everything it speaks of is
//! there, and repeatable until its answer was heard.

use axum::Extension;
use axum::extract::State as AppState;
use clawlink_shared::control::{ARCHIVE_MISSING, ArchiveDone, Complete, Failure, MAX_EVENT_BYTES};
use clawlink_shared::execution::{ErrorCode, Outcome};
use clawlink_shared::id::ExecutionId;
use serde_json::json;
use time::Duration;

use super::archive::key_of;
use super::protocol::Protocol;
use super::{lease_lost, not_acknowledged};
use crate::app::App;
use crate::auth::admit::LeaseHash;
use crate::error::{ApiError, ApiResult};
use crate::executions::publish;
use crate::executions::store::finish::{self, End, Work};
use crate::executions::store::locked::{self, Locked};
use crate::http::extract::{Json, Path};
use crate::outbox;

/// How long after the end the same lease may repeat its report.
const REPEATABLE: Duration = Duration::hours(24);
/// Texts of a terminal event, so that it stays below the bound of all events: JSON may need six
/// bytes for one of a text's.
const MAX_RESULT: usize = MAX_EVENT_BYTES / 8;
const MAX_MESSAGE: usize = 4096;
/// Names of branches, hashes and conversations.
const MAX_NAME: usize = 1024;

/// Records an end.
pub(super) async fn complete(
    _: Protocol,
    AppState(app): AppState<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Json(report): Json<Complete>,
) -> ApiResult<axum::Json<serde_json::Value>> {
    // Before the transaction, since none is open across a call to S3; but only for the object
    // of a current lease.
    let archive_is_there = match &report.archive {
        Some(archive) => {
            let mut db = app.db.acquire().await?;
            let held = locked::lock(&mut db, id, Some(&hash), None).await?;
            drop(db);
            let held = held.ok_or_else(lease_lost)?;
            if is_recorded(&held)? {
                return Ok(done());
            }
            archive.key == key_of(&held) && is_there(&app, archive).await?
        }
        None => true,
    };
    let mut tx = app.db.begin().await?;
    let held = locked::lock(&mut tx, id, Some(&hash), None).await?;
    let mut held = held.ok_or_else(lease_lost)?;
    if is_recorded(&held)? {
        return Ok(done());
    }
    if held.last_n < i64::try_from(report.last_n).unwrap_or(i64::MAX) {
        return Err(ApiError::events_missing(held.last_n as u64));
    }
    let end = end_of(&held, &report);
    if !held.state.can_become(end.state()) {
        return Err(ApiError::conflict(
            "state_conflict",
            format!(
                "{} cannot become {}; ask for `running` first",
                held.state.as_str(),
                end.state().as_str()
            ),
        ));
    }
    if let Some(archive) = &report.archive {
        let accepted = archive_is_there && finish::accept_archive(&mut tx, &held, archive).await?;
        if !accepted {
            return Err(ApiError::conflict(
                ARCHIVE_MISSING,
                "the archive is not there with that size under the granted key; upload it again",
            ));
        }
    }
    let conversation = report.provider_session_id.as_deref();
    let conversation = conversation.map(|text| cut(text, MAX_NAME));
    finish::touch_session(&mut tx, &held, conversation.as_deref()).await?;
    let work = Work {
        result: report.result.as_deref().map(|text| cut(text, MAX_RESULT)),
        usage: report.usage.clone(),
        branch: report.branch.as_deref().map(|text| cut(text, MAX_NAME)),
        commit_hash: report
            .commit_hash
            .as_deref()
            .map(|text| cut(text, MAX_NAME)),
    };
    let appended = finish::end(&mut tx, &mut held, &end, &work, true).await?;
    tx.commit().await?;
    publish(&app, id, appended);
    outbox::poke(&app);
    outbox::poke_slow(&app);
    let state = end.state().as_str();
    metrics::counter!("clawlink_executions_ended_total", "state" => state).increment(1);
    Ok(done())
}

/// Whether an end was recorded under this lease before; an error if it may not report one.
fn is_recorded(held: &Locked) -> ApiResult<bool> {
    if held.state.is_terminal() {
        let since = held.ended_at.map(|ended| held.now - ended);
        return if since.is_some_and(|since| since < REPEATABLE) {
            Ok(true)
        } else {
            Err(lease_lost())
        };
    }
    if held.acked_at.is_none() {
        return Err(not_acknowledged());
    }
    Ok(false)
}

async fn is_there(app: &App, archive: &ArchiveDone) -> ApiResult<bool> {
    let size = app.blobs.size(&archive.key).await;
    let size =
        size.map_err(|error| ApiError::unavailable("the storage cannot be reached", error))?;
    Ok(size == Some(archive.size))
}

/// A cancel request outweighs whatever the worker reports.
fn end_of(held: &Locked, report: &Complete) -> End {
    if let Some(cancel) = &held.cancel {
        return End::Cancelled {
            reason: cancel.reason.clone(),
            by: cancel.by.clone(),
        };
    }
    let failed = |fallback: Failure| {
        let failure = report.error.clone().unwrap_or(fallback);
        End::Failed {
            code: failure.code,
            message: cut(&failure.message, MAX_MESSAGE),
        }
    };
    match report.outcome {
        Outcome::Completed => End::Completed,
        Outcome::Failed => failed(Failure::new(
            ErrorCode::InternalError,
            "the worker gave no reason",
        )),
        Outcome::Interrupted => failed(Failure::new(
            ErrorCode::Interrupted,
            "the worker was stopped before the agent was done",
        )),
        Outcome::Cancelled => End::Cancelled {
            reason: "stopped by the worker".to_owned(),
            by: None,
        },
    }
}

/// At most `max` bytes, whole characters, without NUL, which Postgres' texts cannot hold.
fn cut(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text[..end].replace('\0', "\u{fffd}")
}

fn done() -> axum::Json<serde_json::Value> {
    axum::Json(json!({}))
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn texts_are_cut_between_characters_and_lose_nul() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("a\0b", 10), "a\u{fffd}b");
    }
}
