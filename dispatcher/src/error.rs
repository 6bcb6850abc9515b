//! Every error answer: one type, one body shape, stable codes.
//!
//! Which error belongs where: what a client can cause has a constructor here with its code
//! and says what to do; everything else arrives through `From<anyhow::Error>` and leaves as a
//! bare `internal_error`, logged once. Existence does not leak: unseen is 404, refused 403.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawlink_shared::problem::{FieldFault, MEDIA_TYPE, Problem};

use crate::db;

/// What handlers return instead of an answer. One pointer: results stay small on the way.
#[derive(Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    faults: Vec<FieldFault>,
    retry_after: Option<u64>,
    acked_n: Option<u64>,
    n: Option<u64>,
    /// For the log only.
    cause: Option<anyhow::Error>,
}

/// What handlers return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            faults: Vec::new(),
            retry_after: None,
            acked_n: None,
            n: None,
            cause: None,
        }))
    }

    fn with(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        set(&mut self.0);
        self
    }

    /// 400 with one sentence.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// 400 naming every faulty field of the body at once.
    pub fn invalid_fields(faults: Vec<FieldFault>) -> Self {
        let detail = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.field, fault.message))
            .collect::<Vec<_>>()
            .join("; ");
        Self::invalid(detail).with(|inner| inner.faults = faults)
    }

    /// 401.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 403 `budget_exceeded`: a limit on money is reached.
    pub fn budget_exceeded(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "budget_exceeded", detail)
    }

    /// 404 with the code of what is missing: `session_not_found`, `execution_not_found`, …
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 404 for a path that does not exist, or not in this installation.
    pub fn no_such_path() -> Self {
        Self::not_found("not_found", "no such path; API.md lists them")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path exists, but not with this method",
        )
    }

    /// 409 with its own code: `idempotency_conflict`, `lease_lost`, `already_ended`, …
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 409 with `code` if this constraint was broken; what else went wrong is unexpected.
    pub fn on_constraint(
        error: sqlx::Error,
        constraint: &str,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let broken = error
            .as_database_error()
            .and_then(|error| error.constraint());
        if broken == Some(constraint) {
            return Self::conflict(code, detail);
        }
        error.into()
    }

    /// 409 `events_missing`, with the number up to which events are committed.
    pub fn events_missing(acked_n: u64) -> Self {
        let detail = format!("events after n={acked_n} are missing; send them, then repeat");
        Self::conflict("events_missing", detail).with(|inner| inner.acked_n = Some(acked_n))
    }

    /// 400 `event_refused`: the event with this number can never be stored.
    pub fn event_refused(n: u64, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "event_refused", detail).with(|inner| inner.n = Some(n))
    }

    /// 408.
    pub fn too_slow(bound: Duration) -> Self {
        let detail = format!("the body did not arrive within {} seconds", bound.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
    }

    /// 415.
    pub fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the body as JSON with `Content-Type: application/json`",
        )
    }

    /// 426: the worker speaks a protocol that this dispatcher does not.
    pub fn upgrade_required(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, "protocol_unsupported", detail)
    }

    /// 429 `busy`; `retry_after` in seconds.
    pub fn busy(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
            .with(|inner| inner.retry_after = Some(retry_after))
    }

    /// 429 `rate_limited`: this caller made more than `per_minute` requests; `retry_after` in
    /// seconds.
    pub fn rate_limited(per_minute: u32, retry_after: u64) -> Self {
        let detail = format!("more than {per_minute} requests a minute; wait and try again");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
            .with(|inner| inner.retry_after = Some(retry_after))
    }

    /// 503; the cause is logged.
    pub fn unavailable(detail: impl Into<String>, cause: impl Into<anyhow::Error>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).with(|inner| {
            inner.cause = Some(cause.into());
            inner.retry_after = Some(2);
        })
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }
}

impl fmt::Display for ApiError {
    /// What the client is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

/// What Postgres says of text, and of text in JSON, that it cannot hold.
const NO_TEXT: [&str; 2] = ["22021", "22P05"];

/// An unexpected error; what it says stays in the log. Postgres being away is 503, text that it
/// cannot hold 400.
impl From<anyhow::Error> for ApiError {
    fn from(cause: anyhow::Error) -> Self {
        if db::is_away(&cause) {
            return Self::unavailable("the database cannot be reached; try again", cause);
        }
        if cause.chain().any(|link| {
            let error = link.downcast_ref::<sqlx::Error>();
            let code = error.and_then(|error| error.as_database_error()?.code());
            code.is_some_and(|code| NO_TEXT.contains(&code.as_ref()))
        }) {
            return Self::invalid("text must not contain a NUL character");
        }
        if cause.chain().any(|link| {
            let error = link.downcast_ref::<sqlx::Error>();
            let constraint = error.and_then(|error| error.as_database_error()?.constraint());
            constraint.is_some_and(|name| name.ends_with("_workspace_id_fkey"))
        }) {
            return Self::not_found("workspace_not_found", "the workspace was deleted just now");
        }
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "something went wrong on our side; the log says what",
        )
        .with(|inner| inner.cause = Some(cause))
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(cause: sqlx::Error) -> Self {
        anyhow::Error::from(cause).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let inner = *self.0;
        if let Some(cause) = &inner.cause {
            tracing::error!(
                code = inner.code,
                cause = format!("{cause:#}"),
                "request failed"
            );
        }
        let problem = Problem {
            kind: format!("urn:clawlink:error:{}", inner.code),
            title: inner
                .status
                .canonical_reason()
                .unwrap_or("Error")
                .to_owned(),
            status: inner.status.as_u16(),
            detail: inner.detail.clone(),
            error: inner.code.to_owned(),
            message: inner.detail,
            field: inner.faults.first().map(|fault| fault.field.clone()),
            errors: inner.faults,
            retry_after: inner.retry_after,
            acked_n: inner.acked_n,
            n: inner.n,
        };
        let body = serde_json::to_vec(&problem).expect("a problem serializes");
        let mut response = (inner.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = inner.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if inner.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
