//! What every answer carries for browsers: headers that forbid what nobody needs, and which
//! other origins may read it.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::CorsLayer;

/// What a page of ours may load: its own files, and styles that stand in it.
pub const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// What any other answer may load if a browser shows it: nothing.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// How long a browser may remember what it asked about an origin, in seconds.
const MAX_AGE: u64 = 600;

/// Adds the headers that are missing.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, DATA_POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Lets pages of these origins call the API; of no others if there are none.
pub fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let own = |name| HeaderName::from_static(name);
    CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            own("idempotency-key"),
            own("last-event-id"),
            own("x-claw-id"),
            own("x-device-id"),
            own("x-device-timestamp"),
            own("x-device-nonce"),
            own("x-device-signature"),
        ])
        .expose_headers([
            header::LINK,
            header::LOCATION,
            header::RETRY_AFTER,
            own("x-execution-id"),
            own("x-session-id"),
            own("x-next-cursor"),
            own("ratelimit-limit"),
            own("ratelimit-remaining"),
            own("ratelimit-reset"),
        ])
        .max_age(std::time::Duration::from_secs(MAX_AGE))
}
