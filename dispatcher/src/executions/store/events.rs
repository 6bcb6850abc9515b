//! The event log: numbered under the execution's row lock, stored as the bytes that clients
//! will see.

use bytes::{BufMut, Bytes, BytesMut};
use clawlink_shared::event::EventType;
use clawlink_shared::id::{ExecutionId, SessionId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::macros::format_description;

/// An execution whose row the caller has locked, with the end of its log.
#[derive(Debug, Clone)]
pub struct LockedLog {
    /// Which.
    pub execution: ExecutionId,
    /// Its session.
    pub session: SessionId,
    /// Seq of the last event, 0 if none.
    pub last_seq: i64,
}

/// An event that is to be appended.
#[derive(Debug)]
pub struct NewEvent {
    /// Its type.
    pub kind: EventType,
    /// A JSON object with the type's own fields.
    pub fields: Box<RawValue>,
    /// `(attempt, n)` when a worker sent it.
    pub origin: Option<(i32, i64)>,
}

impl NewEvent {
    /// An event that the dispatcher writes; `fields` must serialize to an object.
    pub fn own(kind: EventType, fields: &impl Serialize) -> anyhow::Result<Self> {
        Ok(Self {
            kind,
            fields: serde_json::value::to_raw_value(fields)?,
            origin: None,
        })
    }
}

/// Consecutive envelopes that were appended; to be published after the commit.
#[derive(Debug)]
pub struct Appended {
    /// Seq of the first.
    pub first_seq: i64,
    /// Whole envelopes.
    pub payloads: Vec<Bytes>,
}

impl Appended {
    /// Together with what was appended right after it.
    pub(crate) fn and(mut self, more: Option<Self>) -> Self {
        self.payloads
            .extend(more.into_iter().flat_map(|more| more.payloads));
        self
    }
}

/// Events with their numbers and envelopes, as columns of rows.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) seqs: Vec<i64>,
    /// Of the worker that sent them.
    pub(super) attempts: Vec<Option<i32>>,
    pub(super) numbers: Vec<Option<i64>>,
    /// Whole envelopes.
    pub(super) payloads: Vec<Bytes>,
}

impl Numbered {
    /// Numbers events from the end of a log on, which is not moved.
    pub(super) fn after(log: &LockedLog, events: &[NewEvent]) -> anyhow::Result<Self> {
        let now = OffsetDateTime::now_utc();
        let mut new = Self {
            seqs: Vec::with_capacity(events.len()),
            attempts: Vec::with_capacity(events.len()),
            numbers: Vec::with_capacity(events.len()),
            payloads: Vec::with_capacity(events.len()),
        };
        for (event, seq) in events.iter().zip(log.last_seq + 1..) {
            new.seqs.push(seq);
            new.attempts.push(event.origin.map(|(attempt, _)| attempt));
            new.numbers.push(event.origin.map(|(_, n)| n));
            new.payloads.push(envelope(log, seq, now, event)?);
        }
        Ok(new)
    }

    /// The envelopes as Postgres takes them.
    pub(super) fn bytes(&self) -> Vec<&[u8]> {
        self.payloads.iter().map(|payload| &payload[..]).collect()
    }

    /// What there is to publish once they are committed.
    pub(super) fn appended(self, log: &LockedLog) -> Appended {
        Appended {
            first_seq: log.last_seq + 1,
            payloads: self.payloads,
        }
    }
}

/// Appends events to a locked log and moves its end. The caller commits, then publishes.
pub async fn append(
    db: &mut PgConnection,
    log: &mut LockedLog,
    events: &[NewEvent],
) -> anyhow::Result<Appended> {
    let new = Numbered::after(log, events)?;
    sqlx::query!(
        "with log as (
            update executions set last_seq = last_seq + cardinality($2::bigint[]) where id = $1
         )
         insert into events (execution_id, seq, attempt, n, payload)
         select $1, seq, attempt, n, payload
         from unnest($2::bigint[], $3::integer[], $4::bigint[], $5::bytea[])
              as new (seq, attempt, n, payload)",
        log.execution.0,
        &new.seqs,
        &new.attempts as &[Option<i32>],
        &new.numbers as &[Option<i64>],
        &new.bytes() as &[&[u8]],
    )
    .execute(db)
    .await?;
    let appended = new.appended(log);
    log.last_seq += events.len() as i64;
    Ok(appended)
}

/// Up to `limit` envelopes after `seq`, in order.
pub async fn read_after(
    db: &mut PgConnection,
    execution: ExecutionId,
    seq: i64,
    limit: i64,
) -> anyhow::Result<Vec<(i64, Bytes)>> {
    let rows = sqlx::query!(
        "select seq, payload from events where execution_id = $1 and seq > $2
         order by seq limit $3",
        execution.0,
        seq,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.seq, Bytes::from(row.payload)))
        .collect())
}

/// `{type, seq, executionId, sessionId, timestamp, …fields}`, with the fields byte for byte.
fn envelope(
    log: &LockedLog,
    seq: i64,
    now: OffsetDateTime,
    event: &NewEvent,
) -> anyhow::Result<Bytes> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Head<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        seq: i64,
        execution_id: ExecutionId,
        session_id: SessionId,
        timestamp: String,
    }
    let head = Head {
        kind: event.kind.as_str(),
        seq,
        execution_id: log.execution,
        session_id: log.session,
        timestamp: timestamp(now),
    };
    let mut bytes = BytesMut::new().writer();
    serde_json::to_writer(&mut bytes, &head)?;
    let mut bytes = bytes.into_inner();
    let fields = event.fields.get().trim();
    let inside = fields
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or_else(|| anyhow::anyhow!("event fields are not an object"))?
        .trim();
    if !inside.is_empty() {
        bytes.truncate(bytes.len() - 1);
        bytes.put_u8(b',');
        bytes.put_slice(inside.as_bytes());
        bytes.put_u8(b'}');
    }
    Ok(bytes.freeze())
}

/// ISO 8601 with milliseconds and `Z`.
pub fn timestamp(at: OffsetDateTime) -> String {
    at.format(format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    ))
    .expect("every date has this form")
}
