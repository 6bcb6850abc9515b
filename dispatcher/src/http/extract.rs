//! Extractors that answer with our errors.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use clawlink_shared::problem::FieldFault;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// A body of at most the configured size.
pub struct Body(pub Bytes);

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> ApiResult<Self> {
        read(request, app.tuning.max_body_bytes, app.tuning.request)
            .await
            .map(Self)
    }
}

/// A JSON body. An empty one counts as `{}`: old clients send JSON's content type without a body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> ApiResult<Self> {
        require_json(request.headers())?;
        let body = read(request, app.tuning.max_body_bytes, app.tuning.request).await?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|error| ApiError::invalid(format!("the body is not as expected: {error}")))
    }
}

/// Path parameters; one that does not parse is malformed, so it is 400.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        axum::extract::Path::from_request_parts(parts, app)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|error| ApiError::invalid(error.body_text()))
    }
}

/// Query parameters.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        axum::extract::Query::from_request_parts(parts, app)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| ApiError::invalid(error.body_text()))
    }
}

/// 415 unless the content type is JSON; an absent one is taken as JSON.
pub fn require_json(headers: &HeaderMap) -> ApiResult<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let is_json = essence.eq_ignore_ascii_case("application/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(ApiError::unsupported_media_type())
    }
}

/// 400 unless the text has this many characters, none of them a control character other than
/// tabs and line ends.
pub fn check_text(field: &str, text: &str, length: RangeInclusive<usize>) -> ApiResult<()> {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let fault = if !length.contains(&text.chars().count()) {
        format!(
            "must have {} to {} characters",
            length.start(),
            length.end()
        )
    } else if text.contains(is_odd) {
        "must not contain control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::invalid_fields(vec![FieldFault {
        field: field.to_owned(),
        message: fault,
    }]))
}

/// Largest free JSON value of a field, in bytes.
const MAX_JSON_FIELD: usize = 64 * 1024;

/// 400 unless a free JSON value can be stored: not too large, and without NUL, which `jsonb`
/// does not take.
pub fn check_json(field: &str, value: Option<&Value>) -> ApiResult<()> {
    let text = value.map(Value::to_string).unwrap_or_default();
    let fault = if text.len() > MAX_JSON_FIELD {
        format!("must have at most {MAX_JSON_FIELD} bytes")
    } else if text.contains("\\u0000") {
        "must not contain NUL".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::invalid_fields(vec![FieldFault {
        field: field.to_owned(),
        message: fault,
    }]))
}

/// Reads a request's body: 413 beyond `limit` bytes, 408 when it has not arrived `within` that
/// time.
pub async fn read(request: Request, limit: usize, within: Duration) -> ApiResult<Bytes> {
    read_body(request.into_body(), limit, within).await
}

/// The same for a body alone.
pub async fn read_body(body: axum::body::Body, limit: usize, within: Duration) -> ApiResult<Bytes> {
    let body = Limited::new(body, limit).collect();
    match tokio::time::timeout(within, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Ok(Err(error)) => Err(ApiError::invalid(format!(
            "the body could not be read: {error}"
        ))),
        Err(_) => Err(ApiError::too_slow(within)),
    }
}

/// A request's body, for who must know it before its handler does; it stays where it is.
pub async fn peek(app: &App, request: &mut Request) -> ApiResult<Bytes> {
    let taken = std::mem::take(request.body_mut());
    let bytes = read_body(taken, app.tuning.max_body_bytes, app.tuning.request).await?;
    *request.body_mut() = bytes.clone().into();
    Ok(bytes)
}

/// Whether the client wants this media type and would take neither an event stream nor
/// anything: HTTP libraries of older clients send `application/json, */*` and read a stream.
pub fn wants(headers: &HeaderMap, media_type: &str) -> bool {
    let names = |wanted: &str| {
        headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|range| range.split(';').next())
            .any(|range| range.trim().eq_ignore_ascii_case(wanted))
    };
    names(media_type) && !names("text/event-stream") && !names("*/*")
}

/// Where a stream is to be resumed: `Last-Event-ID`, else the given `?after=`. 400 unless it
/// is a number that a stream has sent.
pub fn last_event_id(headers: &HeaderMap, after: Option<i64>) -> ApiResult<Option<i64>> {
    let seq = match headers.get("last-event-id") {
        None => after,
        Some(value) => {
            let seq = value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok());
            Some(seq.ok_or_else(|| ApiError::invalid("Last-Event-ID must be a number"))?)
        }
    };
    match seq {
        Some(..0) => Err(ApiError::invalid("streams begin after 0")),
        seq => Ok(seq),
    }
}
