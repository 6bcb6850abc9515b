//! Ends: the only place that writes a terminal state and a terminal event.

use anyhow::Context;
use clawlink_shared::control::ArchiveDone;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, State, Usage};
use serde::Serialize;
use sqlx::PgConnection;

use super::events::{Appended, NewEvent, append};
use super::locked::Locked;
use crate::outbox::{self, Effect};

/// How an execution ends.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The agent did what was asked.
    Completed,
    /// It did not.
    Failed {
        /// Stable.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// Somebody asked.
    Cancelled {
        /// For people.
        reason: String,
        /// Who: `key:7`.
        by: Option<String>,
    },
}

impl End {
    /// The state it leads to.
    pub(crate) fn state(&self) -> State {
        match self {
            Self::Completed => State::Completed,
            Self::Failed { .. } => State::Failed,
            Self::Cancelled { .. } => State::Cancelled,
        }
    }
}

/// What is known about the work when it ends; nothing when the worker is not there to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    /// The agent's last word.
    pub(crate) result: Option<String>,
    /// What was consumed.
    pub(crate) usage: Option<Usage>,
    /// The branch that holds the work.
    pub(crate) branch: Option<String>,
    /// Its tip.
    pub(crate) commit_hash: Option<String>,
}

/// Ends a locked execution whose state may become `end`. Its credentials go, its session and
/// workspace move on. The lease stays known if the worker itself reported, so that it may
/// repeat that; otherwise it is lost, and its claim may hold another one. The caller commits, then publishes and pokes both lanes of
/// the outbox.
pub(crate) async fn end(
    db: &mut PgConnection,
    held: &mut Locked,
    end: &End,
    work: &Work,
    keeps_lease: bool,
) -> anyhow::Result<Appended> {
    let to = end.state();
    anyhow::ensure!(
        held.state.can_become(to),
        "{} cannot become {}",
        held.state.as_str(),
        to.as_str()
    );
    let (code, message) = match end {
        End::Failed { code, message } => (Some(code.as_str()), Some(message.as_str())),
        End::Completed | End::Cancelled { .. } => (None, None),
    };
    let usage = work.usage.as_ref().map(serde_json::to_value).transpose()?;
    let ended = sqlx::query_scalar!(
        "with gone as (delete from credentials where execution_id = $1)
         update executions set state = $3, ended_at = now(), wait_reason = null,
            lease_hash = case when $4 then lease_hash end,
            claim_id = case when $4 then claim_id end, lease_expires_at = null,
            result = $5, usage = $6, error_code = $7, error_message = $8,
            branch = $9, commit_hash = $10
         where id = $1 and state = $2
         returning pr_url",
        held.log.execution.0,
        held.state.as_str(),
        to.as_str(),
        keeps_lease,
        work.result,
        usage,
        code,
        message,
        work.branch,
        work.commit_hash,
    )
    .fetch_optional(&mut *db)
    .await?;
    let pr_url = ended.context("a locked row changed")?;
    let event = terminal_event(held, end, work, pr_url.as_deref())?;
    let appended = append(&mut *db, &mut held.log, &[event]).await?;
    let effects = [
        Effect::Advance {
            session: held.log.session,
            workspace: held.workspace,
        },
        Effect::ArchiveTurn {
            execution: held.log.execution,
        },
    ];
    outbox::add_all(&mut *db, &effects).await?;
    Ok(appended)
}

/// Makes an uploaded archive the session's current one, in the transaction that ends the turn.
/// False if nothing was granted under that key, or it was given up meanwhile.
pub(crate) async fn accept_archive(
    db: &mut PgConnection,
    held: &Locked,
    archive: &ArchiveDone,
) -> anyhow::Result<bool> {
    let accepted = sqlx::query!(
        "with granted as (
            delete from uploads where key = $2 and execution_id = $6 and not is_abandoned
            returning key
         ),
         kept as (
            insert into archives (key, session_id, turn) select key, $1, $7 from granted
         )
         update sessions set archive_key = granted.key, archive_size = $3, archive_sha256 = $4,
            archive_root = $5
         from granted where id = $1",
        held.log.session.0,
        archive.key,
        archive.size as i64,
        archive.sha256,
        held.worker_root,
        held.log.execution.0,
        held.turn,
    )
    .execute(db)
    .await?;
    Ok(accepted.rows_affected() == 1)
}

/// Notes in the session that a turn ended, and how its agent calls the conversation.
pub(crate) async fn touch_session(
    db: &mut PgConnection,
    held: &Locked,
    provider_session_id: Option<&str>,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update sessions set updated_at = now(),
            provider_session_id = coalesce($2, provider_session_id)
         where id = $1",
        held.log.session.0,
        provider_session_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

fn terminal_event(
    held: &Locked,
    end: &End,
    work: &Work,
    pr_url: Option<&str>,
) -> anyhow::Result<NewEvent> {
    #[derive(Serialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Fields<'a> {
        // The one name that existing clients read in snake case.
        #[serde(rename = "duration_ms", skip_serializing_if = "Option::is_none")]
        duration_ms: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retryable: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<&'a Usage>,
        #[serde(skip_serializing_if = "Option::is_none")]
        branch: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        commit_hash: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pr_url: Option<&'a str>,
    }
    let common = Fields {
        branch: work.branch.as_deref(),
        commit_hash: work.commit_hash.as_deref(),
        pr_url,
        ..Fields::default()
    };
    let (kind, fields) = match end {
        End::Completed => {
            let begun = held.claimed_at.unwrap_or(held.now);
            let took = (held.now - begun).whole_milliseconds();
            let fields = Fields {
                duration_ms: Some(i64::try_from(took).unwrap_or(i64::MAX)),
                result: work.result.as_deref(),
                usage: work.usage.as_ref(),
                ..common
            };
            (EventType::Completed, fields)
        }
        End::Failed { code, message } => {
            let fields = Fields {
                error: Some(message),
                code: Some(*code),
                retryable: Some(code.is_retryable()),
                ..common
            };
            (EventType::Error, fields)
        }
        End::Cancelled { reason, by } => {
            let fields = Fields {
                reason: Some(reason),
                by: by.as_deref(),
                ..common
            };
            (EventType::Cancelled, fields)
        }
    };
    NewEvent::own(kind, &fields)
}
