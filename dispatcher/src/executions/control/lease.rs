//! Holding a lease: acknowledge, renew, change state, hear orders.

use std::time::Duration;

use anyhow::Context;
use axum::Extension;
use axum::extract::State as AppState;
use clawlink_shared::control::{
    ControlItem, ControlItems, LeaseRenewed, MAX_WAIT_SECONDS, Order, StateChange,
};
use clawlink_shared::execution::{ErrorCode, State};
use clawlink_shared::id::ExecutionId;
use serde::Deserialize;
use tokio::time::Instant;

use super::protocol::Protocol;
use super::recent::Looks;
use super::{lease_lost, not_acknowledged, told};
use crate::app::App;
use crate::auth::admit::LeaseHash;
use crate::error::{ApiError, ApiResult};
use crate::executions::store::locked::{self, Locked};
use crate::executions::store::{lease, orders};
use crate::executions::{presence, publish};
use crate::http::extract::{Json, Path, Query};
use crate::{approvals, messages};

/// `POST …/ack`: the assignment has arrived.
pub(super) async fn ack(
    _: Protocol,
    AppState(app): AppState<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
) -> ApiResult<axum::Json<LeaseRenewed>> {
    let mut db = app.db.acquire().await?;
    let held = locked::acknowledge(&mut db, id, &hash, app.tuning.lease).await?;
    app.recent.put(&hash, held.ok_or_else(lease_lost)?);
    Ok(axum::Json(renewed(&app)))
}

/// `POST …/heartbeat`: the worker lives.
pub(super) async fn heartbeat(
    _: Protocol,
    AppState(app): AppState<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
) -> ApiResult<axum::Json<LeaseRenewed>> {
    let mut db = app.db.acquire().await?;
    let worker = lease::renew(&mut db, id, &hash, app.tuning.lease).await?;
    drop(db);
    let worker = worker.ok_or_else(lease_lost)?;
    let bus = app.bus.clone();
    let tracker = app.shutdown.tracker();
    tracker.spawn(async move { presence::busy(&bus, &worker).await });
    Ok(axum::Json(renewed(&app)))
}

/// `POST …/state`: 200 means that the change is committed; repeating it changes nothing.
pub(super) async fn state(
    _: Protocol,
    AppState(app): AppState<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Json(change): Json<StateChange>,
) -> ApiResult<axum::Json<LeaseRenewed>> {
    if !matches!(change.to, State::Running | State::Waiting) {
        return Err(ApiError::invalid("`to` must be running or waiting"));
    }
    let mut looks = Looks::of(&app, id, &hash);
    let mut db = app.db.acquire().await?;
    loop {
        let is_start = |held: &Locked| {
            held.state == State::Planning && change.to == State::Running && held.acked_at.is_some()
        };
        let mut held = looks.next(&mut db, is_start).await?;
        if !held.state.is_active() {
            return Err(lease_lost());
        }
        if held.acked_at.is_none() {
            return Err(not_acknowledged());
        }
        if held.state == change.to {
            let worker = lease::renew(&mut db, id, &hash, app.tuning.lease).await?;
            worker.ok_or_else(lease_lost)?;
            return Ok(axum::Json(renewed(&app)));
        }
        if !held.state.can_become(change.to) {
            return Err(ApiError::conflict(
                "state_conflict",
                format!(
                    "{} cannot become {}",
                    held.state.as_str(),
                    change.to.as_str()
                ),
            ));
        }
        if held.state == State::Waiting {
            drop(db);
            told::stop_waiting(&app, id, &hash).await?;
            db = app.db.acquire().await?;
            continue;
        }
        let shown = lease::Shown {
            hash: &hash,
            length: app.tuning.lease,
        };
        let changed = lease::change(&mut db, &held, Some(shown), change.to).await?;
        if let Some(appended) = changed {
            publish(&app, id, appended);
            held.state = change.to;
            held.log.last_seq += 1;
            looks.keep(held);
            return Ok(axum::Json(renewed(&app)));
        }
    }
}

/// Query of the control long-poll.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ControlQuery {
    /// The last order that the worker knows.
    after: u64,
    /// How long to wait for one.
    wait_seconds: u64,
}

impl Default for ControlQuery {
    fn default() -> Self {
        Self {
            after: 0,
            wait_seconds: MAX_WAIT_SECONDS,
        }
    }
}

/// `GET …/control`: answers at once when there is something to hear, else when the wait or
/// this dispatcher ends. Orders stand in Postgres until they are of no use: whoever asks again,
/// at whichever replica, hears them again.
pub(super) async fn control(
    _: Protocol,
    AppState(app): AppState<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Query(query): Query<ControlQuery>,
) -> ApiResult<axum::Json<ControlItems>> {
    let after = i64::try_from(query.after).unwrap_or(i64::MAX);
    let wait = Duration::from_secs(query.wait_seconds.min(MAX_WAIT_SECONDS));
    let deadline = Instant::now() + wait;
    // Followed before looking, so that nothing falls between.
    let mut follower = app.bus.follow_control(id);
    loop {
        let items = said(&app, id, &hash, after).await?;
        if !items.is_empty() {
            return Ok(axum::Json(ControlItems { items }));
        }
        tokio::select! {
            () = follower.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(axum::Json(ControlItems::default())),
            () = app.shutdown.soft().cancelled() => return Ok(axum::Json(ControlItems::default())),
        }
    }
}

/// What there is to say after this number, in order.
async fn said(
    app: &App,
    id: ExecutionId,
    hash: &[u8; 32],
    after: i64,
) -> ApiResult<Vec<ControlItem>> {
    let mut db = app.db.acquire().await?;
    let orders = orders::read(&mut db, id, hash).await?;
    let orders = orders.ok_or_else(lease_lost)?;
    let mut items = Vec::new();
    if let Some((number, reason)) = orders.cancel {
        items.push((number, Order::Cancel { reason }));
    }
    if let Some((number, code, reason)) = orders.stop {
        let code = ErrorCode::deserialize(serde_json::Value::String(code));
        let code = code.context("read executions.stop_code")?;
        items.push((number, Order::Stop { code, reason }));
    }
    if orders.last > after {
        items.extend(approvals::orders(&mut db, id, orders.attempt, after).await?);
        items.extend(messages::orders(&mut db, id, after).await?);
    }
    items.retain(|(number, _)| *number > after);
    items.sort_unstable_by_key(|(number, _)| *number);
    let items = items.into_iter();
    Ok(items
        .map(|(number, order)| ControlItem {
            k: number.unsigned_abs(),
            order,
        })
        .collect())
}

fn renewed(app: &App) -> LeaseRenewed {
    LeaseRenewed {
        lease_expires_in_ms: app.tuning.lease.as_millis() as u64,
    }
}
