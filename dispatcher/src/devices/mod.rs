//! Devices: machines that prove with a key of their own that a request comes from them. A
//! device is registered untrusted; a person with the right raises the trust, and policies can
//! demand some. It counts only beside the credential that registered it.
//!
//! A proof is good for one request and for a minute: what was seen is remembered in Redis, and
//! without Redis no proof is taken rather than an old one twice.

mod http;
pub mod proof;
mod store;

use std::time::Duration;

use axum::extract::Request;
use clawlink_shared::id::DeviceId;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::{Principal, Trust};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::http::extract;
use crate::http::routes::Routes;
use crate::{auth, workspaces};
use proof::Proof;

/// How far a proof's time may be from ours.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Devices that one caller may have in a workspace.
const MAX_DEVICES: i64 = 20;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
}

/// The device that a request names, if it names one and proves it. 401 for a proof that does
/// not hold, was seen before, or is of a device that the caller did not register.
pub async fn prove(
    app: &App,
    principal: &Principal,
    request: &mut Request,
) -> ApiResult<Option<(DeviceId, Trust)>> {
    let Some(proof) = Proof::read(request.headers())? else {
        return Ok(None);
    };
    let refused = || ApiError::unauthorized("the device is unknown, or its signature is wrong");
    let mut db = app.db.acquire().await?;
    let found = store::find(
        &mut db,
        principal.workspace,
        proof.device,
        &principal.name(),
    )
    .await?;
    let known = found.ok_or_else(refused)?;
    drop(db);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if now.abs_diff(proof.timestamp) > WINDOW.as_secs() {
        return Err(ApiError::unauthorized(
            "X-Device-Timestamp is more than a minute off; send the seconds since 1970",
        ));
    }
    let body = extract::peek(app, request).await?;
    let target = request.uri().path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    if !proof.holds(&known.public_key, request.method().as_str(), target, &body) {
        return Err(refused());
    }
    if known.is_stale {
        let mut db = app.db.acquire().await?;
        store::seen(&mut db, principal.workspace, proof.device).await?;
    }
    if !first_use(app, &proof).await? {
        return Err(ApiError::unauthorized(
            "this signature was used before; sign every request with a new nonce",
        ));
    }
    Ok(Some((proof.device, known.trust)))
}

/// A device that the caller showed earlier, as it is trusted by now; `None` once it was removed.
pub(crate) async fn trusted(
    app: &App,
    principal: &Principal,
    device: DeviceId,
) -> anyhow::Result<Option<(DeviceId, Trust)>> {
    let mut db = app.db.acquire().await?;
    let owner = principal.name();
    let found = store::find(&mut db, principal.workspace, device, &owner).await?;
    Ok(found.map(|known| (device, known.trust)))
}

/// Whether this proof was not seen before. It is remembered for as long as its time is good.
async fn first_use(app: &App, proof: &Proof) -> ApiResult<bool> {
    let key = app.bus.key(&format!("device:{}", proof.fingerprint()));
    let mut redis = app.bus.redis();
    let set: Result<Option<String>, _> = redis::cmd("SET")
        .arg(key)
        .arg(1)
        .arg("NX")
        .arg("EX")
        .arg(2 * WINDOW.as_secs() + 1)
        .query_async(&mut redis)
        .await;
    set.map(|done| done.is_some())
        .map_err(|error| ApiError::unavailable("device proofs cannot be checked now", error))
}

/// Registers a device of the caller's, untrusted. 409 `device_exists` for a key that the
/// workspace knows.
async fn register(
    app: &App,
    principal: &Principal,
    name: &str,
    public_key: &[u8; 32],
) -> ApiResult<DeviceId> {
    let workspace = principal.workspace;
    let id = DeviceId(Uuid::new_v4());
    let owner = principal.name();
    let mut tx = app.db.begin().await?;
    workspaces::lock_active(&mut tx, workspace).await?;
    if store::count(&mut tx, workspace, &owner).await? >= MAX_DEVICES {
        return Err(ApiError::conflict(
            "too_many_devices",
            format!("you have {MAX_DEVICES} devices here; have one removed first"),
        ));
    }
    if !store::insert(&mut tx, workspace, id, &owner, name, public_key).await? {
        return Err(ApiError::conflict(
            "device_exists",
            "a device with this public key is registered",
        ));
    }
    let actor = Actor::from(principal);
    let thing = ("device", id.to_string());
    let entry =
        Entry::done(workspace, &actor, "device.registered", thing).with(json!({"name": name}));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(id)
}

/// Trusts a device as said. Only a person raises trust: 403 for a key that tries.
async fn trust(app: &App, principal: &Principal, id: DeviceId, to: Trust) -> ApiResult<()> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    let from = store::lock_trust(&mut tx, workspace, id).await?;
    let from = from.ok_or_else(missing)?;
    if to > from && principal.user().is_none() {
        return Err(ApiError::forbidden(
            "only a person raises the trust in a device; sign in",
        ));
    }
    store::set_trust(&mut tx, workspace, id, to).await?;
    let actor = Actor::from(principal);
    let entry = Entry::done(
        workspace,
        &actor,
        "device.trusted",
        ("device", id.to_string()),
    )
    .with(json!({"from": from, "to": to}));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::Workspace(workspace));
    Ok(())
}

/// Forgets a device at once.
async fn remove(app: &App, principal: &Principal, id: DeviceId) -> ApiResult<()> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    if !store::delete(&mut tx, workspace, id).await? {
        return Err(missing());
    }
    let actor = Actor::from(principal);
    let entry = Entry::done(
        workspace,
        &actor,
        "device.removed",
        ("device", id.to_string()),
    );
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    auth::forget(app, RightsOf::Workspace(workspace));
    Ok(())
}

fn missing() -> ApiError {
    ApiError::not_found("device_not_found", "this workspace has no such device")
}
