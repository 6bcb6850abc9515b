//! One span per request; a panic becomes an answer instead of a cut connection.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use clawlink_shared::telemetry::traces;
use tracing::Instrument;

use crate::error::ApiError;

/// Opens the request's span and counts the answer by route and status.
pub async fn request_span(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("(none)", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!(
        "request",
        id = %uuid::Uuid::now_v7(),
        %method,
        route = route.as_str(),
        workspace = tracing::field::Empty,
        execution = tracing::field::Empty,
        status = tracing::field::Empty,
        otel.name = tracing::field::Empty,
        otel.kind = tracing::field::Empty,
    );
    if traces::are_on() {
        let parent = request.headers().get(traces::TRACEPARENT);
        if let Some(parent) = parent.and_then(|parent| parent.to_str().ok()) {
            traces::go_on(&span, parent);
        }
        span.record("otel.name", format!("{method} {}", &route));
        span.record("otel.kind", "server");
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("status", status);
    let elapsed = begun.elapsed();
    span.in_scope(|| tracing::debug!(ms = elapsed.as_millis(), "answered"));
    metrics::histogram!(
        "clawlink_http_request_seconds",
        "method" => label(&method),
        "route" => route,
        "status" => status.to_string(),
    )
    .record(elapsed.as_secs_f64());
    response
}

/// A method as a label: clients may invent others without end.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The answer to a request whose handler panicked.
pub fn panicked(reason: Box<dyn Any + Send>) -> Response {
    let text = reason
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| reason.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::from(anyhow::anyhow!("handler panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_share_one_label() {
        let invented = Method::from_bytes(b"BREW").expect("a method");
        assert_eq!([label(&Method::GET), label(&invented)], ["GET", "other"]);
    }
}
