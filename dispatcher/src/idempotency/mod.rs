//! `Idempotency-Key` of creations: the same request twice makes one thing.
//!
//! A key belongs to its caller in its workspace and is written in the transaction that makes the
//! thing; refusals are not remembered. Executions have keys of their own.

mod store;

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::Value;
use sqlx::PgConnection;

use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::request;

/// Longest `Idempotency-Key`, in bytes.
const MAX_KEY: usize = 255;
/// Keys that are forgotten in one statement.
const BATCH: i64 = 5000;
/// Between two rounds of forgetting.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// The request's `Idempotency-Key`, if it has one. Taken as an extractor.
#[derive(Debug)]
pub struct Once(Option<String>);

/// A key with the fingerprints of the body it came with, by each accepted secret key; the first
/// is the one to store.
#[derive(Debug)]
pub struct Keyed {
    key: String,
    body_macs: Vec<[u8; 32]>,
}

impl FromRequestParts<App> for Once {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> ApiResult<Self> {
        let Some(key) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        key.to_str()
            .ok()
            .filter(|key| !key.is_empty() && key.len() <= MAX_KEY)
            .map(|key| Self(Some(key.to_owned())))
            .ok_or_else(|| {
                ApiError::invalid(format!(
                    "Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters"
                ))
            })
    }
}

impl Once {
    /// The key for this body.
    pub fn of(self, app: &App, body: &Value) -> Option<Keyed> {
        self.0.map(|key| Keyed {
            key,
            body_macs: app.keys.body_macs(&request::canonical(body)),
        })
    }
}

/// What an earlier request with this key made, as the id given to [`remember`]; requests with
/// the same key wait here for each other. 409 if the earlier body was another one.
pub async fn earlier(
    db: &mut PgConnection,
    principal: &Principal,
    once: Option<&Keyed>,
) -> ApiResult<Option<String>> {
    let Some(once) = once else { return Ok(None) };
    let (workspace, name) = (principal.workspace, principal.name());
    store::lock(db, workspace, &name, &once.key).await?;
    match store::find(db, workspace, &name, &once.key).await? {
        Some((_, known)) if !once.body_macs.iter().any(|mac| known == mac) => {
            Err(ApiError::conflict(
                "idempotency_conflict",
                "this Idempotency-Key came with another body before; use a new key for a new request",
            ))
        }
        found => Ok(found.map(|(id, _)| id)),
    }
}

/// Writes down what this request made: a `resource` such as `task`, and its id.
pub async fn remember(
    db: &mut PgConnection,
    principal: &Principal,
    once: Option<Keyed>,
    resource: &'static str,
    id: &str,
) -> anyhow::Result<()> {
    let Some(once) = once else { return Ok(()) };
    let (workspace, name) = (principal.workspace, principal.name());
    store::insert(
        db,
        workspace,
        &name,
        &once.key,
        (resource, id),
        &once.body_macs[0],
    )
    .await
}

/// Forgets old keys from time to time; any replica may do so at any time.
pub async fn clean_loop(app: App) {
    loop {
        if let Err(error) = clean(&app).await {
            let error = format!("{error:#}");
            tracing::warn!(error, "idempotency keys not forgotten");
        }
        tokio::select! {
            () = tokio::time::sleep(CLEAN_EVERY) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

async fn clean(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    while store::forget(&mut db, BATCH).await? == BATCH as u64 {}
    Ok(())
}
