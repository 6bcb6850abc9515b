//! Streams: the log from any point, then what follows, until the terminal event.
//!
//! A stream subscribes, reads the log, and forwards a published batch only if it continues
//! where the stream stands; else it reads the log again. So nothing is shown twice, out of
//! order or not at all, whatever hints are lost. It holds no task and no buffer of its own:
//! while nobody reads, nothing is fetched.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use clawlink_shared::event::EventType;
use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use futures::future::BoxFuture;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::cancel;
use super::store::read::{self, LogPage};
use crate::app::App;
use crate::audit::Actor;
use crate::auth::OfSession;
use crate::bus::{Batch, Follower};

/// Events fetched from the log at one time.
const PAGE_EVENTS: i64 = 500;
/// Bytes of events fetched at one time, exceeded by at most one event.
const PAGE_BYTES: i64 = 128 * 1024;
/// Failed looks at the log in a row, a tick apart, after which a stream is cut.
const MAX_FAILURES: u32 = 30;
/// Within this many bytes an envelope's head ends.
const HEAD_BYTES: usize = 256;
/// What an idle stream says.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `id:` and `data:` lines; no `event:` line, because clients listen with `onmessage`.
    EventStream,
    /// One envelope per line.
    JsonLines,
}

/// Cancels its execution when dropped before the stream's end: `cancelOnDisconnect`.
pub(super) struct CancelOnDrop {
    app: App,
    workspace: WorkspaceId,
    execution: ExecutionId,
    by: Actor,
    armed: bool,
}

impl CancelOnDrop {
    pub(super) fn new(
        app: &App,
        workspace: WorkspaceId,
        execution: ExecutionId,
        by: Actor,
    ) -> Self {
        Self {
            app: app.clone(),
            workspace,
            execution,
            by,
            armed: true,
        }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // A dispatcher that drains ends the stream itself; its client has not gone.
        if !self.armed || self.app.shutdown.soft().is_cancelled() {
            return;
        }
        let (app, workspace, id) = (self.app.clone(), self.workspace, self.execution);
        let by = self.by.clone();
        self.app.shutdown.tracker().spawn(async move {
            let asked = cancel::request(&app, workspace, id, &by, "the client disconnected").await;
            if let Err(error) = asked {
                tracing::warn!(%id, code = error.code(), "cancel on disconnect failed");
            }
        });
    }
}

/// The stream of one execution, of this session, from after `cursor`. `first` are envelopes from
/// `cursor + 1` that the caller knows already.
pub(super) fn of_execution(
    app: &App,
    workspace: WorkspaceId,
    (session, execution): (SessionId, ExecutionId),
    cursor: i64,
    first: Vec<Bytes>,
    guard: Option<CancelOnDrop>,
) -> Response {
    let mut reader = Reader::new(app, workspace, execution, cursor);
    let known = (!first.is_empty()).then(|| reader.forward(&first));
    let mut guard = guard;
    respond_about(
        session,
        Format::EventStream,
        async_stream::stream! {
            if let Some(known) = known {
                yield Ok(frames(Format::EventStream, None, &known));
            }
            while let Some(step) = reader.next().await {
                match step {
                    Step::Events(events) => yield Ok(frames(Format::EventStream, None, &events)),
                    Step::Idle => yield Ok(KEEP_ALIVE),
                }
            }
            if let Some(guard) = &mut guard {
                guard.armed = false;
            }
        },
    )
}

/// The streams of all turns of a session, one after the other, from after `(turn, seq)`.
pub fn of_session(
    app: &App,
    workspace: WorkspaceId,
    session: SessionId,
    (turn, seq): (i32, i64),
    format: Format,
) -> Response {
    let app = app.clone();
    respond_about(
        session,
        format,
        async_stream::stream! {
            let (mut from, mut cursor) = (turn, seq);
            loop {
                let (turn, execution) = match Box::pin(turn_from(&app, workspace, session, from)).await {
                    Ok(Some(next)) => next,
                    Ok(None) => return,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(%session, error, "turn not read");
                        yield Err(cut());
                        return;
                    }
                };
                if turn != from {
                    cursor = 0;
                }
                let mut reader = Reader::new(&app, workspace, execution, cursor);
                while let Some(step) = reader.next().await {
                    match step {
                        Step::Events(events) => yield Ok(frames(format, Some(turn), &events)),
                        Step::Idle if format == Format::EventStream => yield Ok(KEEP_ALIVE),
                        Step::Idle => {}
                    }
                }
                if !reader.ended {
                    // Readers of a stream resume; lines would look complete.
                    if format == Format::JsonLines {
                        yield Err(cut());
                    }
                    return;
                }
                (from, cursor) = (turn + 1, 0);
            }
        },
    )
}

/// Ends a body in a way that clients see as incomplete.
fn cut() -> io::Error {
    io::Error::other("the stream ended before its last event")
}

async fn turn_from(
    app: &App,
    workspace: WorkspaceId,
    session: SessionId,
    turn: i32,
) -> anyhow::Result<Option<(i32, ExecutionId)>> {
    let mut db = app.db.acquire().await?;
    read::turn_from(&mut db, workspace, session, turn).await
}

/// The same as [`respond`], of a session, which a policy may come to hide.
fn respond_about(
    session: SessionId,
    format: Format,
    chunks: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response {
    let mut response = respond(format, chunks);
    response.extensions_mut().insert(OfSession(session));
    response
}

/// An answer of this format with these chunks; open ones are counted.
pub(crate) fn respond(
    format: Format,
    chunks: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response {
    use futures::StreamExt;
    let counted = Counted::new();
    let body = chunks.map(move |chunk| {
        let _counted = &counted;
        chunk
    });
    let mut response = Response::new(Body::from_stream(body));
    let kind = match format {
        Format::EventStream => "text/event-stream",
        Format::JsonLines => "application/x-ndjson",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Counts open streams.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("clawlink_streams").increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("clawlink_streams").decrement(1);
    }
}

/// What a reader has next.
enum Step {
    /// `(seq, envelope)`, consecutive.
    Events(Vec<(i64, Bytes)>),
    /// Nothing happened for the keep-alive time.
    Idle,
}

/// Follows one execution's log.
struct Reader {
    app: App,
    workspace: WorkspaceId,
    execution: ExecutionId,
    follower: Follower,
    /// Seq of the last event that was handed out.
    cursor: i64,
    /// Whether the log may hold more than was handed out.
    look: bool,
    /// A read of the log that has begun; it goes on while keep-alives are sent.
    reading: Option<BoxFuture<'static, anyhow::Result<Option<LogPage>>>>,
    failures: u32,
    /// When something was handed out last.
    quiet_since: Instant,
    opened_at: OffsetDateTime,
    /// Whether the terminal event was handed out, or the execution is gone.
    ended: bool,
}

impl Reader {
    /// Subscribes; the log is read afterwards, so that nothing falls between.
    fn new(app: &App, workspace: WorkspaceId, execution: ExecutionId, cursor: i64) -> Self {
        Self {
            app: app.clone(),
            workspace,
            execution,
            follower: app.bus.follow_events(execution),
            cursor,
            look: true,
            reading: None,
            failures: 0,
            quiet_since: Instant::now(),
            opened_at: OffsetDateTime::now_utc(),
            ended: false,
        }
    }

    /// `None` at the end of the log, when it cannot be read, or when this dispatcher drains.
    async fn next(&mut self) -> Option<Step> {
        let step = self.wait().await?;
        self.quiet_since = Instant::now();
        if let Step::Events(events) = &step {
            record_lag(self.opened_at, events);
        }
        Some(step)
    }

    async fn wait(&mut self) -> Option<Step> {
        loop {
            if self.ended || self.app.shutdown.soft().is_cancelled() {
                return None;
            }
            let mut pause = self.app.tuning.keep_alive;
            if self.look {
                // A database that does not answer must not silence the stream.
                let left = pause.saturating_sub(self.quiet_since.elapsed());
                let Ok(looked) = tokio::time::timeout(left, self.look()).await else {
                    return Some(Step::Idle);
                };
                match looked {
                    Ok(Some(events)) => return Some(Step::Events(events)),
                    Ok(None) => continue,
                    Err(error) => pause = self.after_failure(&error)?.min(pause),
                }
            }
            tokio::select! {
                () = self.follower.changed(), if !self.look => {
                    let batch = self.follower.latest();
                    if let Some(events) = self.continued_by(&batch) {
                        return Some(Step::Events(events));
                    }
                }
                () = tokio::time::sleep(pause) => {
                    // Also while the log cannot be read: what stands between would cut the stream.
                    if self.quiet_since.elapsed() >= self.app.tuning.keep_alive {
                        return Some(Step::Idle);
                    }
                }
                () = self.app.shutdown.soft().cancelled() => return None,
            }
        }
    }

    /// The log's next page; `None` when it holds nothing more for now. Given up in the middle,
    /// it goes on where it was.
    async fn look(&mut self) -> anyhow::Result<Option<Vec<(i64, Bytes)>>> {
        let reading = self.reading.get_or_insert_with(|| {
            let (app, cursor) = (self.app.clone(), self.cursor);
            let (workspace, execution) = (self.workspace, self.execution);
            Box::pin(async move {
                let mut db = app.db.acquire().await?;
                read::log_page(
                    &mut db,
                    workspace,
                    execution,
                    cursor,
                    PAGE_EVENTS,
                    PAGE_BYTES,
                )
                .await
            })
        });
        let read = reading.await;
        self.reading = None;
        let page = read?;
        self.failures = 0;
        let Some(page) = page else {
            self.ended = true;
            return Ok(None);
        };
        let LogPage {
            events,
            has_more,
            is_end,
        } = page;
        self.look = has_more;
        self.ended = is_end;
        if let Some((seq, _)) = events.last() {
            self.cursor = *seq;
        }
        Ok((!events.is_empty()).then_some(events))
    }

    /// How long to wait before the next try; `None` when it is time to give up.
    fn after_failure(&mut self, error: &anyhow::Error) -> Option<Duration> {
        self.failures += 1;
        if self.failures == 1 {
            let error = format!("{error:#}");
            tracing::warn!(execution = %self.execution, error, "log not read");
        }
        (self.failures <= MAX_FAILURES).then_some(self.app.tuning.tick)
    }

    /// What a published batch adds, if it continues where this reader stands; otherwise the
    /// log has to tell.
    fn continued_by(&mut self, batch: &Batch) -> Option<Vec<(i64, Bytes)>> {
        if batch.last_seq() <= self.cursor {
            return None;
        }
        let known = self.cursor + 1 - batch.first_seq;
        match usize::try_from(known) {
            Ok(known) if known < batch.payloads.len() => {
                Some(self.forward(&batch.payloads[known..]))
            }
            _ => {
                self.look = true;
                None
            }
        }
    }

    /// Hands out envelopes from `cursor + 1` on.
    fn forward(&mut self, payloads: &[Bytes]) -> Vec<(i64, Bytes)> {
        let events: Vec<(i64, Bytes)> = (self.cursor + 1..).zip(payloads.iter().cloned()).collect();
        self.cursor += payloads.len() as i64;
        self.ended = payloads.last().is_some_and(|payload| is_terminal(payload));
        events
    }
}

/// Records how long ago the oldest of these events was appended; those from before the stream
/// opened are a replay, which has no lag.
fn record_lag(opened_at: OffsetDateTime, events: &[(i64, Bytes)]) {
    let Some(appended_at) = events.first().and_then(|(_, payload)| appended_at(payload)) else {
        return;
    };
    if appended_at >= opened_at {
        let lag = OffsetDateTime::now_utc() - appended_at;
        metrics::histogram!("clawlink_event_lag_seconds").record(lag.as_seconds_f64().max(0.0));
    }
}

/// An envelope's time: it stands in the head, before the event's own fields.
fn appended_at(payload: &[u8]) -> Option<OffsetDateTime> {
    let head = payload.get(..HEAD_BYTES.min(payload.len()))?;
    let head = String::from_utf8_lossy(head);
    let (_, rest) = head.split_once("\"timestamp\":\"")?;
    OffsetDateTime::parse(rest.split_once('"')?.0, &Rfc3339).ok()
}

/// Whether an envelope ends its stream; envelopes begin with their type.
fn is_terminal(payload: &[u8]) -> bool {
    [EventType::Completed, EventType::Error, EventType::Cancelled]
        .into_iter()
        .any(|kind| {
            payload
                .strip_prefix(b"{\"type\":\"")
                .and_then(|rest| rest.strip_prefix(kind.as_str().as_bytes()))
                .is_some_and(|rest| rest.starts_with(b"\""))
        })
}

/// Events as bytes of the stream; on a session's stream ids are `<turn>.<seq>`.
pub(crate) fn frames(format: Format, turn: Option<i32>, events: &[(i64, Bytes)]) -> Bytes {
    let size = events.iter().map(|(_, payload)| payload.len() + 48).sum();
    let mut bytes = BytesMut::with_capacity(size);
    for (seq, payload) in events {
        if format == Format::EventStream {
            let id = match turn {
                Some(turn) => format!("id: {turn}.{seq}\ndata: "),
                None => format!("id: {seq}\ndata: "),
            };
            bytes.put_slice(id.as_bytes());
        }
        let begin = bytes.len();
        bytes.put_slice(payload);
        // In valid JSON these stand between tokens only; on a stream they would end the line.
        for byte in &mut bytes[begin..] {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        bytes.put_slice(match format {
            Format::EventStream => b"\n\n",
            Format::JsonLines => b"\n",
        });
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_stay_on_one_line() {
        let events = [(7, Bytes::from("{\"a\":\r\n1}"))];
        let expected = "id: 2.7\ndata: {\"a\":  1}\n\n";
        assert_eq!(frames(Format::EventStream, Some(2), &events), expected);
        assert_eq!(frames(Format::JsonLines, None, &events), "{\"a\":  1}\n");
    }

    #[test]
    fn the_time_of_an_envelope_is_read_from_its_head() {
        let payload = br#"{"type":"usage","seq":1,"timestamp":"2026-11-20T10:00:00.250Z","a":"b"}"#;
        let at = appended_at(payload).expect("a time");
        assert_eq!(at.unix_timestamp_nanos() / 1_000_000, 1_795_168_800_250);
        assert_eq!(appended_at(b"{}"), None);
    }

    #[test]
    fn terminal_events_are_known_by_their_beginning() {
        assert!(is_terminal(br#"{"type":"completed","seq":1}"#));
        assert!(is_terminal(br#"{"type":"error"}"#));
        assert!(!is_terminal(br#"{"type":"errors"}"#));
        assert!(!is_terminal(br#"{"type":"message","message":"error"}"#));
    }
}
