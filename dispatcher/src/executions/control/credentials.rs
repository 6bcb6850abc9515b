//! `POST …/credentials`: a login that the agent's program renewed, on its way back into the
//! secret that it came from.

use axum::Extension;
use axum::extract::State;
use clawlink_shared::control::CredentialStored;
use clawlink_shared::id::ExecutionId;
use clawlink_shared::secret::Secret;
use serde_json::Value;

use super::protocol::Protocol;
use super::{lease_lost, not_acknowledged};
use crate::app::App;
use crate::auth::admit::LeaseHash;
use crate::error::{ApiError, ApiResult};
use crate::executions::references;
use crate::executions::store::locked;
use crate::http::extract::{Json, Path};
use crate::secrets;

/// Stores it if it came from a secret that nobody changed meanwhile. The body is read by hand:
/// errors of a deserializer quote what they find.
pub(super) async fn credentials(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Json(body): Json<Value>,
) -> ApiResult<axum::Json<CredentialStored>> {
    let renewed = body.get("agent").and_then(Value::as_str).map(Secret::new);
    let renewed = renewed.ok_or_else(|| ApiError::invalid("agent must be a credential as text"))?;
    let mut tx = app.db.begin().await?;
    let locked = locked::lock(&mut tx, id, Some(&hash), None).await?;
    let locked = locked.as_ref();
    let holder = locked.and_then(references::holder).ok_or_else(lease_lost)?;
    if locked.is_some_and(|locked| locked.acked_at.is_none()) {
        return Err(not_acknowledged());
    }
    let stored = secrets::renew(&mut tx, &app.keys, &holder, &renewed).await?;
    tx.commit().await?;
    Ok(axum::Json(CredentialStored { stored }))
}
