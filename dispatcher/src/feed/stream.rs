//! The feed as a stream: from any point, then what follows.
//!
//! A stream subscribes, then reads the log after its cursor; hints only say "look", a tick covers
//! lost ones. So nothing is shown twice, out of order or not at all, on any dispatcher. It holds
//! no buffer: while nobody reads, nothing is fetched.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use clawlink_shared::id::WorkspaceId;
use serde_json::json;
use tokio::time::Instant;

use super::Envelope;
use super::store::{self, Page};
use crate::app::App;
use crate::bus::Follower;
use crate::executions::sse::{self, Format};

/// Events fetched at one time.
const PAGE_EVENTS: i64 = 200;
/// Bytes of events fetched at one time, exceeded by at most one event.
const PAGE_BYTES: i64 = 256 * 1024;
/// Failed looks at the log in a row, a tick apart, after which a stream is cut.
const MAX_FAILURES: u32 = 30;
/// How long a stream lives: whoever resumes it is asked for a credential that still holds.
const MAX_LIFE: Duration = Duration::from_secs(300);
/// What an idle stream says.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The workspace's changes after `cursor`; without one from now on.
pub(super) fn of_workspace(app: &App, workspace: WorkspaceId, cursor: Option<i64>) -> Response {
    let mut reader = Reader {
        app: app.clone(),
        workspace,
        follower: app.bus.follow_feed(workspace),
        cursor,
        look: true,
        failures: 0,
        quiet_since: Instant::now(),
        ends_at: Instant::now() + MAX_LIFE,
    };
    sse::respond(
        Format::EventStream,
        async_stream::stream! {
            while let Some(step) = reader.next().await {
                match step {
                    Step::Events(events) => yield Ok(sse::frames(Format::EventStream, None, &events)),
                    Step::Idle => yield Ok(KEEP_ALIVE),
                }
            }
        },
    )
}

/// What a reader has next.
enum Step {
    /// `(seq, envelope)` in order.
    Events(Vec<(i64, Bytes)>),
    /// Nothing happened for the keep-alive time.
    Idle,
}

/// Follows one workspace's log.
struct Reader {
    app: App,
    workspace: WorkspaceId,
    /// Subscribed before the log is read, so that nothing falls between.
    follower: Follower,
    /// Seq of the last event that was handed out; `None` before the first look of a stream that
    /// begins now.
    cursor: Option<i64>,
    /// Whether the log may hold more than was handed out.
    look: bool,
    failures: u32,
    /// When something was handed out last.
    quiet_since: Instant,
    ends_at: Instant,
}

impl Reader {
    /// `None` when it has lived long enough, when the log cannot be read, or when this
    /// dispatcher drains.
    async fn next(&mut self) -> Option<Step> {
        let step = self.wait().await?;
        self.quiet_since = Instant::now();
        Some(step)
    }

    async fn wait(&mut self) -> Option<Step> {
        loop {
            if self.app.shutdown.soft().is_cancelled() || Instant::now() >= self.ends_at {
                return None;
            }
            let mut pause = self.app.tuning.keep_alive;
            if self.look {
                match Box::pin(self.look()).await {
                    Ok(Some(events)) => return Some(Step::Events(events)),
                    Ok(None) => continue,
                    Err(error) => pause = self.after_failure(&error)?.min(pause),
                }
            }
            tokio::select! {
                () = self.follower.changed(), if !self.look => self.look = true,
                () = tokio::time::sleep(pause) => {
                    if self.quiet_since.elapsed() >= self.app.tuning.keep_alive {
                        return Some(Step::Idle);
                    }
                }
                () = tokio::time::sleep_until(self.ends_at) => return None,
                () = self.app.shutdown.soft().cancelled() => return None,
            }
        }
    }

    /// The log's next page; `None` when it holds nothing more for now.
    async fn look(&mut self) -> anyhow::Result<Option<Vec<(i64, Bytes)>>> {
        // Hints from here on are about what this look may not see.
        self.follower.mark_seen();
        let mut db = self.app.db.acquire().await?;
        let after = self.cursor.unwrap_or(i64::MAX);
        let page = store::page(&mut db, self.workspace, after, PAGE_EVENTS, PAGE_BYTES).await?;
        self.failures = 0;
        let Page { last_seq, events } = page;
        let Some(cursor) = self.cursor else {
            return Ok(Some(self.jump("feed.ready", last_seq)?));
        };
        let is_continued = match events.first() {
            Some((first, _)) => *first == cursor + 1,
            None => cursor == last_seq,
        };
        if !is_continued {
            return Ok(Some(self.jump("feed.reset", last_seq)?));
        }
        let Some((seq, _)) = events.last() else {
            self.look = false;
            return Ok(None);
        };
        self.cursor = Some(*seq);
        self.look = *seq < last_seq;
        Ok(Some(events))
    }

    /// Goes to the log's end and says so.
    fn jump(&mut self, kind: &'static str, seq: i64) -> anyhow::Result<Vec<(i64, Bytes)>> {
        self.cursor = Some(seq);
        self.look = false;
        let data = &json!({});
        let payload = serde_json::to_vec(&Envelope { kind, seq, data })?;
        Ok(vec![(seq, payload.into())])
    }

    /// How long to wait before the next try; `None` when it is time to give up.
    fn after_failure(&mut self, error: &anyhow::Error) -> Option<Duration> {
        self.failures += 1;
        if self.failures == 1 {
            let (workspace, error) = (self.workspace, format!("{error:#}"));
            tracing::warn!(%workspace, error, "feed not read");
        }
        (self.failures <= MAX_FAILURES).then_some(self.app.tuning.tick)
    }
}
