//! `POST …/events`: lines in, numbered events in the log, the highest committed number out.
//!
//! A line that can never be stored is named and refused; what stands before it is stored.
//! Numbers that are known already are passed over; a gap is refused, naming what is known.

use std::collections::HashSet;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use clawlink_shared::control::{EventsAck, MAX_BATCH_BYTES, MAX_EVENT_BYTES};
use clawlink_shared::event::WorkerEvent;
use clawlink_shared::id::ExecutionId;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sqlx::Connection;

use super::protocol::Protocol;
use super::recent::Looks;
use super::{lease_lost, not_acknowledged, told};
use crate::app::App;
use crate::auth::admit::LeaseHash;
use crate::error::{ApiError, ApiResult};
use crate::executions::store::events::{Appended, NewEvent};
use crate::executions::store::lease;
use crate::executions::{publish, spending};
use crate::http::extract::{Path, read};

/// Keys of the envelope; a worker's fields may not name them again.
const ENVELOPE: [&str; 5] = ["type", "seq", "executionId", "sessionId", "timestamp"];
/// Room that the envelope takes beside the fields.
const ENVELOPE_BYTES: usize = 512;

/// Stores a batch of lines.
pub(super) async fn events(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    request: Request,
) -> ApiResult<Response> {
    let begun = Instant::now();
    let body = read(request, MAX_BATCH_BYTES, app.tuning.request).await?;
    let (events, refusal) = parse(&body);
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        return Err(refusal.unwrap_or_else(|| ApiError::invalid("send at least one event line")));
    };
    let (first, last) = (first.n as i64, last.n as i64);

    let (acked_n, appended) = if events.iter().any(|event| told::is_ours(event.kind)) {
        Box::pin(told::keep(&app, id, &hash, &events, (first, last))).await?
    } else {
        store(&app, id, &hash, &events, (first, last)).await?
    };
    if let Some(appended) = appended {
        publish(&app, id, appended);
        metrics::histogram!("clawlink_event_append_seconds").record(begun.elapsed().as_secs_f64());
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let ack = EventsAck {
        acked_n: acked_n as u64,
        lease_expires_in_ms: app.tuning.lease.as_millis() as u64,
    };
    Ok(axum::Json(ack).into_response())
}

/// Stores what is new of the numbers `first..=last` and renews the lease; answers the highest
/// number that is committed, and what there is to publish.
async fn store(
    app: &App,
    id: ExecutionId,
    hash: &[u8; 32],
    events: &[WorkerEvent],
    (first, last): (i64, i64),
) -> ApiResult<(i64, Option<Appended>)> {
    let lease = app.tuning.lease;
    let mut looks = Looks::of(app, id, hash);
    let mut db = app.db.acquire().await?;
    loop {
        let mut held = looks.next(&mut db, |held| held.last_n == first - 1).await?;
        if !held.state.is_active() {
            return Err(lease_lost());
        }
        if held.acked_at.is_none() {
            return Err(not_acknowledged());
        }
        if held.last_n < first - 1 {
            return Err(ApiError::events_missing(held.last_n as u64));
        }
        if held.last_n >= last {
            let worker = lease::renew(&mut db, id, hash, lease).await?;
            worker.ok_or_else(lease_lost)?;
            return Ok((held.last_n, None));
        }
        let new: Vec<NewEvent> = events
            .iter()
            .filter(|event| event.n as i64 > held.last_n)
            .map(|event| NewEvent {
                kind: event.kind,
                fields: event.fields.clone(),
                origin: Some((held.attempt, event.n as i64)),
            })
            .collect();
        let stored = match spending::reported(&new) {
            None => lease::append_from_worker(&mut db, &held, hash, lease, &new, last).await?,
            Some(usage) => {
                let mut tx = db.begin().await?;
                // Its row is locked from here on.
                let stored =
                    lease::append_from_worker(&mut tx, &held, hash, lease, &new, last).await?;
                let is_stopped =
                    stored.is_some() && spending::take(app, &mut tx, &held, &usage).await?;
                tx.commit().await?;
                if is_stopped {
                    app.bus.publish_control(id);
                }
                stored
            }
        };
        if stored.is_some() {
            held.last_n = last;
            held.log.last_seq += new.len() as i64;
            looks.keep(held);
            return Ok((last, stored));
        }
    }
}

/// The events up to the first line that cannot be stored, and why that one cannot.
fn parse(body: &[u8]) -> (Vec<WorkerEvent>, Option<ApiError>) {
    let mut events: Vec<WorkerEvent> = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let expected = events.last().map(|event| event.n + 1);
        let event = match parse_line(line, expected) {
            Ok(event) => event,
            Err(refusal) => return (events, Some(refusal)),
        };
        if event.n == 0 || event.n > i64::MAX as u64 || expected.is_some_and(|n| n != event.n) {
            let detail = format!("`n` {} does not follow; number lines without gaps", event.n);
            return (events, Some(ApiError::invalid(detail)));
        }
        events.push(event);
    }
    (events, None)
}

fn parse_line(line: &[u8], expected: Option<u64>) -> ApiResult<WorkerEvent> {
    /// What must be readable for a refusal to name its line.
    #[derive(Deserialize)]
    struct Number {
        n: u64,
    }
    let event: WorkerEvent = match serde_json::from_slice(line) {
        Ok(event) => event,
        Err(error) => {
            let named = serde_json::from_slice::<Number>(line)
                .ok()
                .map(|line| line.n);
            let detail = format!("the line is not an event: {error}");
            return Err(match named.or(expected) {
                Some(n) => ApiError::event_refused(n, detail),
                None => ApiError::invalid(detail),
            });
        }
    };
    let refuse = |detail: &str| Err(ApiError::event_refused(event.n, detail));
    if !event.kind.is_from_worker() {
        return refuse("only the dispatcher writes events of this type");
    }
    if event.fields.get().len() + ENVELOPE_BYTES > MAX_EVENT_BYTES {
        return refuse("the event is larger than 256 KiB; cut its text and say so");
    }
    match serde_json::from_str::<Keys>(event.fields.get()) {
        Ok(Keys(None)) => match told::fault(&event) {
            None => Ok(event),
            Some(fault) => refuse(&fault),
        },
        Ok(Keys(Some(fault))) => refuse(&fault),
        Err(_) => refuse("`fields` must be a JSON object"),
    }
}

/// The keys of an object, looked through for ones that the envelope owns or that come twice.
struct Keys(Option<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Keys, M::Error> {
                let (mut seen, mut fault) = (HashSet::new(), None);
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if ENVELOPE.contains(&key.as_str()) {
                        fault = Some(format!("`fields` may not have `{key}`"));
                    } else if !seen.insert(key.clone()) {
                        fault = Some(format!("`fields` has `{key}` twice"));
                    }
                }
                Ok(Keys(fault))
            }
        }
        deserializer.deserialize_map(Look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawlink_shared::event::EventType;

    fn codes(body: &str) -> (Vec<u64>, Option<&'static str>) {
        let (events, refusal) = parse(body.as_bytes());
        let numbers = events.iter().map(|event| event.n).collect();
        (numbers, refusal.map(|refusal| refusal.code()))
    }

    #[test]
    fn lines_before_a_bad_one_are_kept() {
        let good = r#"{"n":4,"type":"message","fields":{"message":"\u0000"}}"#;
        assert_eq!(codes(&format!("{good}\n\n")), (vec![4], None));
        for bad in [
            r#"{"n":5,"type":"completed","fields":{}}"#,
            r#"{"n":5,"type":"nonsense","fields":{}}"#,
            r#"{"n":5,"type":"message","fields":[]}"#,
            r#"{"n":5,"type":"message","fields":{"seq":1}}"#,
            r#"{"n":5,"type":"message","fields":{"a":1,"a":2}}"#,
            "not json",
        ] {
            let (kept, code) = codes(&format!("{good}\n{bad}"));
            assert_eq!((kept, code), (vec![4], Some("event_refused")), "{bad}");
        }
        let gap = r#"{"n":6,"type":"message","fields":{}}"#;
        let (kept, code) = codes(&format!("{good}\n{gap}"));
        assert_eq!((kept, code), (vec![4], Some("invalid_request")));
    }

    #[test]
    fn every_json_text_passes_as_it_is() {
        let line =
            r#"{"n":1,"type":"agent_text","fields":{"text":"\ud800 \u0000 🦀","delta":true}}"#;
        let (events, refusal) = parse(line.as_bytes());
        assert!(refusal.is_none());
        assert!(events[0].fields.get().contains(r"\ud800 \u0000 🦀"));
        assert_eq!(events[0].kind, EventType::AgentText);
    }
}
