//! `POST /api/webhooks/github`: what GitHub sends, signed.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::store;
use super::webhook::{Happened, is_signed, parse};
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::feed;
use crate::http::extract;
use crate::tasks;

/// Largest body, in bytes; events of pull requests have some 30 KiB.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// Longest id of a delivery, in bytes; GitHub's are UUIDs.
const MAX_DELIVERY: usize = 64;

/// What GitHub shows to people who look at a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Taken {
    /// `merged`, `closed`, `reopened`, `ignored` or `repeated`.
    result: &'static str,
}

/// Takes a delivery. Without a configured secret this path does not exist.
pub(super) async fn webhook(
    State(app): State<App>,
    request: Request,
) -> ApiResult<axum::Json<Taken>> {
    let Some(secret) = &app.github.webhook_secret else {
        return Err(ApiError::no_such_path());
    };
    extract::require_json(request.headers())?;
    let headers = request.headers().clone();
    let body = extract::read(request, MAX_BODY, app.tuning.request).await?;
    let signature = text(&headers, "x-hub-signature-256").unwrap_or_default();
    if !is_signed(secret, &body, signature) {
        return Err(ApiError::unauthorized(
            "X-Hub-Signature-256 is not this body's; is CLAWLINK_GITHUB_WEBHOOK_SECRET the webhook's secret?",
        ));
    }
    let event = text(&headers, "x-github-event").unwrap_or_default();
    let delivery = text(&headers, "x-github-delivery").unwrap_or_default();
    let is_id = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    if event.is_empty()
        || !(1..=MAX_DELIVERY).contains(&delivery.len())
        || !delivery.bytes().all(is_id)
    {
        return Err(ApiError::invalid(
            "X-GitHub-Event and X-GitHub-Delivery are required",
        ));
    }
    let happened = parse(event, &body)
        .map_err(|error| ApiError::invalid(format!("the event is not as expected: {error}")))?;
    let result = take(&app, &happened, delivery, &body).await?;
    Ok(axum::Json(Taken { result }))
}

async fn take(
    app: &App,
    happened: &Happened,
    delivery: &str,
    body: &[u8],
) -> ApiResult<&'static str> {
    let result = match happened {
        Happened::Other => return Ok("ignored"),
        Happened::Merged(_) => "merged",
        Happened::Closed(_) => "closed",
        Happened::Reopened(_) => "reopened",
    };
    let mut tx = app.db.begin().await?;
    if !store::note(&mut tx, delivery, &Sha256::digest(body).into()).await? {
        return Ok("repeated");
    }
    let mut told = Vec::new();
    if let Happened::Merged(pull) = happened {
        told = tasks::pull_request_merged(&mut tx, &pull.url).await?;
        tracing::info!(
            repository = pull.repository,
            number = pull.number,
            tasks = told.len(),
            "pull request merged"
        );
    }
    tx.commit().await?;
    for workspace in told {
        feed::poke(app, workspace);
    }
    Ok(result)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
