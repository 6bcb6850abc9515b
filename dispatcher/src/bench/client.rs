//! The client's side of a bench: submits, follows and cancels executions with an API key.
//!
//! It remembers every session it made, so that none stays behind.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clawlink_shared::id::{ExecutionId, SessionId};
use clawlink_shared::problem::Problem;
use clawlink_shared::secret::Secret;
use futures::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::sse::SseReader;

/// A call that takes longer has failed; streams are bounded by their reader instead.
const CALL: Duration = Duration::from_secs(45);
/// The first byte of a stream comes within this.
const FIRST_BYTE: Duration = Duration::from_secs(30);
/// Calls in flight while cleaning up.
const CLEANERS: usize = 8;
/// How often a session that still runs is tried again, and the pause between.
const DELETE_TRIES: usize = 40;
const DELETE_PAUSE: Duration = Duration::from_millis(250);

/// A stream of events over HTTP.
pub(super) type Events = SseReader<Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>>;

/// The client; clones share connections and memory.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    base: String,
    key: Secret,
    tag: String,
    sessions: Mutex<Vec<SessionId>>,
}

/// An accepted execution.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Accepted {
    /// Its number.
    pub(super) execution_id: ExecutionId,
    /// Its session.
    pub(super) session_id: SessionId,
}

/// What `GET /status` says.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Status {
    /// The pool.
    pub(super) workers: Workers,
    /// What waits.
    pub(super) queue: Queue,
}

/// The pool, in numbers.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Workers {
    /// Waiting for work.
    pub(super) idle: u64,
    /// Holding an execution.
    pub(super) busy: u64,
}

/// The queue, in numbers.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Queue {
    /// Pending executions.
    pub(super) depth: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    user_request: String,
    coding_assistant_provider: &'a str,
    session_name: &'a str,
}

impl Client {
    /// A client of the install at `base`, showing `key`.
    pub(super) fn new(base: &str, key: Secret) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            http: http_client(None)?,
            base: base.trim_end_matches('/').to_owned(),
            key,
            tag: format!("# clawlink bench {:016x}\n", rand::random::<u64>()),
            sessions: Mutex::default(),
        })))
    }

    /// The install's address, without a slash at the end.
    pub(super) fn base(&self) -> &str {
        &self.0.base
    }

    /// The first line of every script of this run; nobody else's begins with it.
    pub(super) fn tag(&self) -> &str {
        &self.0.tag
    }

    /// Submits a `shell` script and does not wait; none when the queue is full.
    pub(super) async fn submit(&self, script: &str) -> anyhow::Result<Option<Accepted>> {
        let request = self.execute(script).header("accept", "application/json");
        let response = request.timeout(CALL).send().await.context("submit")?;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return Ok(None);
        }
        let response = checked("submit", response).await?;
        let accepted: Accepted = response.json().await.context("read what was accepted")?;
        self.remember(accepted.session_id);
        Ok(Some(accepted))
    }

    /// Submits a `shell` script and follows it.
    pub(super) async fn submit_and_follow(
        &self,
        script: &str,
    ) -> anyhow::Result<(Accepted, Events)> {
        let request = self.execute(script).header("accept", "text/event-stream");
        let response = open(request).await.context("submit")?;
        let accepted = Accepted {
            execution_id: header(&response, "x-execution-id")?,
            session_id: header(&response, "x-session-id")?,
        };
        self.remember(accepted.session_id);
        Ok((accepted, events(response)))
    }

    /// Follows an execution from its first event.
    pub(super) async fn follow(&self, execution: ExecutionId) -> anyhow::Result<Events> {
        Ok(events(self.open_stream(&self.0.http, execution).await?))
    }

    /// The same over another client's connections, unread.
    pub(super) async fn open_stream(
        &self,
        http: &reqwest::Client,
        execution: ExecutionId,
    ) -> anyhow::Result<Response> {
        let url = format!("{}/executions/{execution}/events", self.0.base);
        let request = http
            .get(url)
            .bearer_auth(self.0.key.expose())
            .header("accept", "text/event-stream");
        open(request).await.context("follow")
    }

    /// Asks for an end.
    pub(super) async fn cancel(&self, execution: ExecutionId) -> anyhow::Result<()> {
        let path = format!("/executions/{execution}/cancel");
        let request = self.call(Method::POST, &path).timeout(CALL);
        checked("cancel", request.send().await.context("cancel")?).await?;
        Ok(())
    }

    /// The pool and the queue.
    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        let request = self.call(Method::GET, "/status").timeout(CALL);
        let response = request.send().await.context("ask for the status")?;
        // 429 says that no worker is idle, and carries the same body.
        let response = match response.status() {
            StatusCode::TOO_MANY_REQUESTS => response,
            _ => checked("ask for the status", response).await?,
        };
        response.json().await.context("read the status")
    }

    /// One request that the dispatcher answers without doing anything.
    pub(super) async fn ping(&self, http: &reqwest::Client) -> anyhow::Result<()> {
        let url = format!("{}/health/live", self.0.base);
        let response = http.get(url).timeout(CALL).send().await?;
        response.error_for_status()?.bytes().await?;
        Ok(())
    }

    /// Cancels and deletes every session that was made; how many could not be deleted.
    pub(super) async fn clean_up(&self) -> usize {
        let sessions = std::mem::take(&mut *self.sessions());
        futures::stream::iter(sessions)
            .map(async |session| usize::from(self.delete(session).await.is_err()))
            .buffer_unordered(CLEANERS)
            .fold(0, async |sum, failed| sum + failed)
            .await
    }

    async fn delete(&self, session: SessionId) -> anyhow::Result<()> {
        let path = format!("/sessions/{session}?force=true");
        for _ in 0..DELETE_TRIES {
            let request = self.call(Method::DELETE, &path).timeout(CALL);
            let response = request.send().await.context("delete a session")?;
            match response.status() {
                // Cancelled by `force`; its worker has not said so yet.
                StatusCode::CONFLICT => tokio::time::sleep(DELETE_PAUSE).await,
                StatusCode::NOT_FOUND => return Ok(()),
                _ => return checked("delete a session", response).await.map(drop),
            }
        }
        bail!("the session still runs")
    }

    fn execute(&self, script: &str) -> RequestBuilder {
        self.call(Method::POST, "/execute").json(&Request {
            user_request: format!("{}{script}", self.0.tag),
            coding_assistant_provider: "shell",
            session_name: "clawlink bench",
        })
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.0.base);
        let request = self.0.http.request(method, url);
        request.bearer_auth(self.0.key.expose())
    }

    fn remember(&self, session: SessionId) {
        self.sessions().push(session);
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<SessionId>> {
        let sessions = self.0.sessions.lock();
        sessions.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that are kept open, from one address if it is given.
pub(super) fn http_client(from: Option<std::net::IpAddr>) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .local_address(from)
        .pool_max_idle_per_host(256)
        .build()
        .context("make an HTTP client")
}

/// The answer, or an error with what the install said.
pub(super) async fn checked(what: &str, response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => bail!("{what}: {status} {}: {}", problem.error, problem.detail),
        Err(_) => bail!("{what}: {status}"),
    }
}

async fn open(request: RequestBuilder) -> anyhow::Result<Response> {
    let response = tokio::time::timeout(FIRST_BYTE, request.send())
        .await
        .context("no answer came in time")??;
    let response = checked("open a stream", response).await?;
    let kind = response.headers().get("content-type");
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    ensure!(is_stream, "the answer is not an event stream");
    Ok(response)
}

fn events(response: Response) -> Events {
    SseReader::new(Box::pin(response.bytes_stream()))
}

fn header<T: std::str::FromStr>(response: &Response, name: &str) -> anyhow::Result<T> {
    let value = response.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("read header {name}"))
}
