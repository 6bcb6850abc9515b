//! The protocol's version, checked before anything else of a worker's call.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use clawlink_shared::control::{PROTOCOL, PROTOCOL_HEADER};

use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// The oldest version that is served.
const OLDEST: u32 = if PROTOCOL > 1 { PROTOCOL - 1 } else { PROTOCOL };

/// Proof that the worker speaks a version that this dispatcher serves.
pub(super) struct Protocol;

impl FromRequestParts<App> for Protocol {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> ApiResult<Self> {
        let version = parts
            .headers
            .get(PROTOCOL_HEADER)
            .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        match version {
            Some(version) if (OLDEST..=PROTOCOL).contains(&version) => Ok(Self),
            _ => Err(ApiError::upgrade_required(format!(
                "send `{PROTOCOL_HEADER}` with a number from {OLDEST} to {PROTOCOL}; update the worker"
            ))),
        }
    }
}
