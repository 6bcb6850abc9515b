//! One try of one call, and what its answer means.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clawlink_shared::control::{
    ARCHIVE_MISSING, EVENT_REFUSED, EVENTS_MISSING, LEASE_LOST, PROTOCOL, PROTOCOL_HEADER,
};
use clawlink_shared::problem::Problem;
use clawlink_shared::secret::Secret;
use clawlink_shared::telemetry::traces;
use reqwest::{Response, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use crate::lease::Gone;
use crate::proxy::Proxies;

/// Bound of reaching a dispatcher at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer that is read; a claim carries the request, which is at most 10 MiB.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// First pause between tries.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Dispatchers, and the right to ask them for work.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Without a slash at the end; never empty.
    urls: Vec<String>,
    /// Which one is asked now.
    current: AtomicUsize,
    pool_token: Secret,
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// 409: another worker, or nobody, holds this execution now.
    #[error("the lease is lost")]
    LeaseLost,
    /// No dispatcher answered within the outage grace.
    #[error("no dispatcher answered for too long")]
    Unreachable,
    /// 409 to `complete`: events after this number are not committed.
    #[error("events after {acked_n} are missing")]
    EventsMissing {
        /// The highest committed number.
        acked_n: u64,
    },
    /// 409 to `complete`: the storage does not have the archive.
    #[error("the archive is not in the storage")]
    ArchiveMissing,
    /// 400 to `events`: this one can never be stored.
    #[error("event {n:?} was refused: {reason}")]
    EventRefused {
        /// Which one, if the answer says.
        n: Option<u64>,
        /// What the dispatcher says about it.
        reason: String,
    },
    /// 426: no dispatcher serves this version of the worker.
    #[error("the dispatcher serves other protocol versions: {0}")]
    Protocol(String),
    /// Any other refusal.
    #[error("{status} {code}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's stable code.
        code: String,
        /// For people.
        detail: String,
    },
    /// The answer is not what this version understands.
    #[error("the answer is not understood: {0}")]
    Garbled(String),
}

impl From<Gone> for CallError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Lost => Self::LeaseLost,
            Gone::Unreachable => Self::Unreachable,
        }
    }
}

/// One call, to be tried until it is answered.
pub(super) struct Call<'a> {
    pub(super) path: &'a str,
    pub(super) token: &'a Secret,
    pub(super) body: Body,
    pub(super) timeout: Duration,
}

/// What is sent along; without a body the call is a GET.
pub(super) enum Body {
    None,
    Json(Bytes),
    Lines(Bytes),
}

impl Body {
    pub(super) fn json(value: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("API messages always serialize");
        Self::Json(bytes.into())
    }
}

/// How one try ended.
pub(super) enum Tried {
    /// 2xx; empty for 204.
    Answer(Vec<u8>),
    /// Another try would be answered alike.
    Refusal(CallError),
    /// Another try may succeed.
    Failure {
        reason: String,
        wait: Option<Duration>,
    },
}

impl Client {
    /// A client of these dispatchers, which are replicas of one another, reached through `proxies`.
    ///
    /// # Errors
    ///
    /// When no TLS can be set up, or there is no URL.
    pub fn new(urls: &[String], pool_token: Secret, proxies: &Proxies) -> anyhow::Result<Self> {
        anyhow::ensure!(!urls.is_empty(), "at least one dispatcher URL is needed");
        let mut builder = proxies
            .apply(reqwest::Client::builder())
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(4);
        if proxies.is_empty() && urls.iter().all(|url| url.starts_with("http://")) {
            // Reading the system's certificates costs more than all else at the start.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            http: builder.build()?,
            urls: urls
                .iter()
                .map(|url| url.trim_end_matches('/').to_owned())
                .collect(),
            current: AtomicUsize::new(0),
            pool_token,
        })
    }

    /// For the redactor.
    pub(crate) fn pool_token(&self) -> &Secret {
        &self.pool_token
    }

    /// One try, at the current dispatcher; the next one is current after a failure.
    pub(super) async fn attempt(&self, call: &Call<'_>) -> Tried {
        let current = self.current.load(Ordering::Relaxed);
        let url = format!("{}{}", self.urls[current % self.urls.len()], call.path);
        let request = match &call.body {
            Body::None => self.http.get(url),
            Body::Json(bytes) => self
                .http
                .post(url)
                .header(header::CONTENT_TYPE, "application/json")
                .body(bytes.clone()),
            Body::Lines(bytes) => self
                .http
                .post(url)
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .body(bytes.clone()),
        };
        let request = request
            .header(PROTOCOL_HEADER, PROTOCOL)
            .bearer_auth(call.token.expose())
            .timeout(call.timeout);
        let request = match traces::traceparent(&tracing::Span::current()) {
            Some(parent) => request.header(traces::TRACEPARENT, parent),
            None => request,
        };
        let tried = match request.send().await {
            Ok(response) => judge(response).await,
            Err(error) => failure(&error),
        };
        if matches!(tried, Tried::Failure { .. }) {
            let next = current.wrapping_add(1);
            // Whoever failed at the same dispatcher has moved on already.
            let _moved =
                self.current
                    .compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        tried
    }
}

async fn judge(mut response: Response) -> Tried {
    let status = response.status();
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER_BYTES => {
                return Tried::Refusal(CallError::Garbled("it is too long".into()));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return failure(&error),
        }
    }
    if status.is_success() {
        return Tried::Answer(body);
    }
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    let is_transient = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    match problem {
        Some(problem) if is_transient => Tried::Failure {
            reason: problem.detail,
            wait,
        },
        Some(problem) => Tried::Refusal(refusal(status, problem)),
        // Whoever stands between says so too, and the call can be made smaller.
        None if status == StatusCode::PAYLOAD_TOO_LARGE => Tried::Refusal(CallError::Refused {
            status: status.as_u16(),
            code: String::new(),
            detail: "the body is too large for what stands before the dispatcher".into(),
        }),
        // Dispatchers refuse with a problem. A proxy that has lost sight of them answers 404 and
        // the like by itself, which says nothing about the lease.
        None => Tried::Failure {
            reason: format!("{status}, not said by a dispatcher; check its URL"),
            wait,
        },
    }
}

fn refusal(status: StatusCode, problem: Problem) -> CallError {
    match (status, problem.error.as_str()) {
        (StatusCode::UPGRADE_REQUIRED, _) => CallError::Protocol(problem.detail),
        (_, LEASE_LOST) => CallError::LeaseLost,
        (_, ARCHIVE_MISSING) => CallError::ArchiveMissing,
        (_, EVENTS_MISSING) => CallError::EventsMissing {
            acked_n: problem.acked_n.unwrap_or(0),
        },
        (_, EVENT_REFUSED) => CallError::EventRefused {
            n: problem.n,
            reason: problem.detail,
        },
        _ => CallError::Refused {
            status: status.as_u16(),
            code: problem.error,
            detail: problem.detail,
        },
    }
}

/// Sources are told too: reqwest's own text stops at "error sending request".
fn failure(error: &reqwest::Error) -> Tried {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason.push_str(": ");
        reason.push_str(&cause.to_string());
        source = cause.source();
    }
    Tried::Failure { reason, wait: None }
}

/// Growing pauses with jitter, so that workers do not knock in step.
pub(super) struct Backoff {
    next: Duration,
    cap: Duration,
}

impl Backoff {
    pub(super) fn new(cap: Duration) -> Self {
        Self {
            next: RETRY_FIRST,
            cap,
        }
    }

    /// Waits; `wanted` is what the dispatcher asked for, obeyed up to the cap.
    pub(super) async fn pause(&mut self, wanted: Option<Duration>) {
        let whole = wanted.unwrap_or(self.next).min(self.cap);
        self.next = (self.next * 2).min(self.cap);
        let random = f64::from(Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX);
        tokio::time::sleep(whole.mul_f64(0.5 + random / 2.0)).await;
    }
}
