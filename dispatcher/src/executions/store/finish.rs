//! Ends: the only place that writes a terminal state and a terminal event.

use clawlink_shared::control::ArchiveDone;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, State, Usage};
use serde::Serialize;
use sqlx::PgConnection;

use super::events::{Appended, NewEvent, Numbered};
use super::locked::Locked;
use crate::outbox::{self, Effect, Places};

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
    /// How the agent calls the conversation.
    pub(crate) provider_session_id: Option<String>,
    /// What was uploaded; it becomes the session's current archive.
    pub(crate) archive: Option<ArchiveDone>,
}

/// What became of an end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is written, with these effects in the outbox.
    Now(Appended, Vec<(i64, Effect)>),
    /// The execution is not as it was read; look again.
    Changed,
    /// Nothing was granted under the archive's key, or it was given up meanwhile.
    NoArchive,
}

/// Ends a locked execution without its worker, which loses the lease; its claim may hold another
/// one. The caller commits, then publishes and pokes both lanes of the outbox.
pub(crate) async fn end(
    db: &mut PgConnection,
    held: &Locked,
    end: &End,
) -> anyhow::Result<Appended> {
    end_with(db, held, end, &Work::default()).await
}

/// The same where somebody outside says what came of it.
pub(crate) async fn end_with(
    db: &mut PgConnection,
    held: &Locked,
    end: &End,
    work: &Work,
) -> anyhow::Result<Appended> {
    let rows = outbox::Rows::of(&effects_of(held), &Places::default())?;
    match write(db, held, end, work, None, &rows).await? {
        Ended::Now(appended, _) => Ok(appended),
        Ended::Changed | Ended::NoArchive => anyhow::bail!("a locked row changed"),
    }
}

/// Ends an execution as the holder of its lease reported, if it still is as it was read. The
/// lease stays known, so that the report may be repeated. The caller publishes and pokes.
pub(crate) async fn end_reported(
    db: &mut PgConnection,
    held: &Locked,
    end: &End,
    work: &Work,
    lease_hash: &[u8; 32],
    places: &Places,
) -> anyhow::Result<Ended> {
    let rows = outbox::Rows::of(&effects_of(held), places)?;
    write(db, held, end, work, Some(lease_hash), &rows).await
}

/// What follows every end.
fn effects_of(held: &Locked) -> Vec<Effect> {
    let execution = held.log.execution;
    let mut effects = vec![
        Effect::Advance {
            session: held.log.session,
            workspace: held.workspace,
        },
        Effect::ArchiveTurn { execution },
    ];
    effects.extend(held.task.map(|_| Effect::FollowTask { execution }));
    effects
}

/// All of an end in one statement, so in one transaction: state, terminal event, archive and
/// session, credentials, and what follows. An order given since the execution was read, such as a
/// message, appends no event; it counts as a change all the same, or nobody would see to it.
async fn write(
    db: &mut PgConnection,
    held: &Locked,
    end: &End,
    work: &Work,
    lease_hash: Option<&[u8; 32]>,
    following: &outbox::Rows,
) -> anyhow::Result<Ended> {
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
    let archive = work.archive.as_ref();
    let new = Numbered::after(
        &held.log,
        &[terminal_event(held, end, work, held.pr_url.as_deref())?],
    )?;
    let row = sqlx::query!(
        "with granted as (
            select from uploads where key = $14 and execution_id = $1 and not is_abandoned
         ), ended as (
            update executions set state = $3, ended_at = now(), wait_reason = null,
                lease_hash = $4, claim_id = case when $4::bytea is not null then claim_id end,
                lease_expires_at = null, result = $5, usage = $6, error_code = $7,
                error_message = $8, branch = $9, commit_hash = $10, last_seq = last_seq + 1
            where id = $1 and state = $2 and last_seq = $11
                and ($4::bytea is null or lease_hash = $4)
                and (cancel_requested_at is not null) = $12 and pr_url is not distinct from $21
                and orders = $22
                and ($14::text is null or exists (select from granted))
            returning id, session_id, turn, worker_root
         ), logged as (
            insert into events (execution_id, seq, payload) select id, $11 + 1, $13 from ended
         ), sealed as (
            delete from credentials using ended where execution_id = ended.id
         ), accepted as (
            delete from uploads using ended where key = $14
         ), kept as (
            insert into archives (key, session_id, turn)
            select $14, session_id, turn from ended where $14 is not null
         ), noted as (
            update sessions s set updated_at = now(),
                provider_session_id = coalesce($15, s.provider_session_id),
                archive_key = coalesce($14, s.archive_key),
                archive_size = case when $14 is null then s.archive_size else $16 end,
                archive_sha256 = case when $14 is null then s.archive_sha256 else $17 end,
                archive_root = case when $14 is null then s.archive_root
                    else ended.worker_root end
            from ended where s.id = ended.session_id and $4 is not null
         ), following as (
            insert into outbox (effect, is_slow, due_at)
            select effect, is_slow, now() + make_interval(secs => due_in)
            from ended, unnest($18::jsonb[], $19::boolean[], $20::float8[])
                as new (effect, is_slow, due_in)
            returning id
         )
         select exists (select from ended) as \"has_ended!\",
            array(select id from following order by id) as \"ids!\",
            ($14 is null or exists (select from granted)) as \"is_granted!\"",
        held.log.execution.0,
        held.state.as_str(),
        to.as_str(),
        lease_hash.map(|hash| &hash[..]),
        work.result,
        usage,
        code,
        message,
        work.branch,
        work.commit_hash,
        held.log.last_seq,
        held.cancel.is_some(),
        &new.payloads[0][..],
        archive.map(|archive| archive.key.as_str()),
        work.provider_session_id,
        archive.map(|archive| archive.size as i64),
        archive.map(|archive| archive.sha256.as_str()),
        &following.effects,
        &following.slow,
        &following.due_in,
        held.pr_url,
        held.orders,
    )
    .fetch_one(db)
    .await?;
    Ok(match (row.has_ended, row.is_granted) {
        (true, _) => {
            let effects = row.ids.into_iter().zip(effects_of(held)).collect();
            Ended::Now(new.appended(&held.log), effects)
        }
        (false, true) => Ended::Changed,
        (false, false) => Ended::NoArchive,
    })
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
