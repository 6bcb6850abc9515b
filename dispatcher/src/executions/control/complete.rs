//! `POST …/complete`: the one report of an end, refused until everything it speaks of is
//! there, and repeatable until its answer was heard.

use axum::Extension;
use axum::extract::State as AppState;
use clawlink_shared::control::{ARCHIVE_MISSING, ArchiveDone, Complete, Failure, MAX_EVENT_BYTES};
use clawlink_shared::execution::{ErrorCode, Outcome, State};
use clawlink_shared::id::ExecutionId;
use serde_json::json;
use time::Duration;

use super::archive::key_of;
use super::protocol::Protocol;
use super::recent::Looks;
use super::{lease_lost, not_acknowledged, told};
use crate::app::App;
use crate::auth::admit::LeaseHash;
use crate::error::{ApiError, ApiResult};
use crate::executions::spending;
use crate::executions::store::finish::{self, End, Ended, Work};
use crate::executions::store::locked::{self, Locked};
use crate::executions::wind_up::{self, WoundUp};
use crate::http::extract::{Json, Path};
use crate::outbox::Places;

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
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
    let archive = report.archive.as_ref();
    if archive.is_some_and(|archive| !is_hash(&archive.sha256)) {
        return Err(ApiError::invalid("archive.sha256 must be 64 hex digits"));
    }
    let work = work_of(&report);
    let mut places = Places::reserve(&app);
    let mut archive_is_there = None;
    let mut looks = Looks::of(&app, id, &hash);
    loop {
        let mut db = app.db.acquire().await?;
        let is_done = |held: &Locked| {
            held.state == State::Running
                && held.acked_at.is_some()
                && u64::try_from(held.last_n) == Ok(report.last_n)
        };
        let held = looks.next(&mut db, is_done).await?;
        if is_recorded(&held)? {
            return Ok(done());
        }
        // It reports an end, so nobody waits for an answer any more.
        if held.state == State::Waiting {
            drop(db);
            told::stop_waiting(&app, id, &hash).await?;
            continue;
        }
        let end = judge(&held, &report)?;
        if let Some(archive) = &report.archive {
            if archive.key != key_of(&held) {
                return Err(no_archive());
            }
            // Without a connection: S3 may take its time. What is there stays: only this lease
            // may write it.
            if archive_is_there.is_none() {
                drop(db);
                archive_is_there = Some(is_there(&app, archive).await?);
                db = app.db.acquire().await?;
            }
            if archive_is_there == Some(false) {
                if looks.are_sure() {
                    return Err(no_archive());
                }
                continue;
            }
        }
        let reported = Reported {
            held: &held,
            end: &end,
            work: &work,
            hash: &hash,
        };
        let (ended, wound_up) = if held.orders > 0 || work.usage.is_some() {
            drop(db);
            Box::pin(reported.wind_up(&app, &places)).await?
        } else {
            let ended = finish::end_reported(&mut db, &held, &end, &work, &hash, &places).await?;
            drop(db);
            (ended, WoundUp::default())
        };
        match ended {
            Ended::Now(appended, effects) => {
                wound_up.publish(&app, id, appended);
                for (row, effect) in effects {
                    places.perform(&app, row, effect);
                }
                let state = end.state().as_str();
                metrics::counter!("clawlink_executions_ended_total", "state" => state).increment(1);
                return Ok(done());
            }
            Ended::NoArchive if looks.are_sure() => return Err(no_archive()),
            // It may have been recorded elsewhere, with this archive.
            Ended::NoArchive => {}
            Ended::Changed => {}
        }
    }
}

/// A report that can be recorded.
struct Reported<'a> {
    held: &'a Locked,
    end: &'a End,
    work: &'a Work,
    hash: &'a [u8; 32],
}

impl Reported<'_> {
    /// Records the end of an execution whose worker was given orders, or reports what it
    /// consumed: what it has not heard is seen to, and its account settled, in one transaction.
    async fn wind_up(&self, app: &App, places: &Places) -> ApiResult<(Ended, WoundUp)> {
        let id = self.held.log.execution;
        let mut tx = app.db.begin().await?;
        let locked = locked::lock(&mut tx, id, Some(self.hash), None).await?;
        let is_same = |locked: &Locked| {
            locked.log.last_seq == self.held.log.last_seq
                && locked.state == self.held.state
                && locked.cancel.is_some() == self.held.cancel.is_some()
        };
        let Some(mut locked) = locked.filter(is_same) else {
            return Ok((Ended::Changed, WoundUp::default()));
        };
        let mut work = self.work.clone();
        if let Some(usage) = &self.work.usage {
            work.usage = spending::settle(app, &mut tx, &locked, usage).await?;
        }
        let wound_up = wind_up::before_end(app, &mut tx, &mut locked, self.end).await?;
        let (end, hash) = (self.end, self.hash);
        let ended = finish::end_reported(&mut tx, &locked, end, &work, hash, places).await?;
        if matches!(ended, Ended::Now(..)) {
            tx.commit().await?;
        }
        Ok((ended, wound_up))
    }
}

/// How a held execution ends by this report; an error if it cannot yet, or not so.
fn judge(held: &Locked, report: &Complete) -> ApiResult<End> {
    if held.last_n < i64::try_from(report.last_n).unwrap_or(i64::MAX) {
        return Err(ApiError::events_missing(held.last_n as u64));
    }
    let end = end_of(held, report);
    if held.state.can_become(end.state()) {
        return Ok(end);
    }
    Err(ApiError::conflict(
        "state_conflict",
        format!(
            "{} cannot become {}; ask for `running` first",
            held.state.as_str(),
            end.state().as_str()
        ),
    ))
}

fn work_of(report: &Complete) -> Work {
    let name = |text: &Option<String>| text.as_deref().map(|text| cut(text, MAX_NAME));
    Work {
        result: report.result.as_deref().map(|text| cut(text, MAX_RESULT)),
        usage: report.usage.clone(),
        branch: name(&report.branch),
        commit_hash: name(&report.commit_hash),
        provider_session_id: name(&report.provider_session_id),
        archive: report.archive.clone(),
    }
}

fn no_archive() -> ApiError {
    ApiError::conflict(
        ARCHIVE_MISSING,
        "the archive is not there with that size under the granted key; upload it again",
    )
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
