//! A login that an agent's program renewed goes back into the secret that it came from.

use clawlink_shared::secret::Secret;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::hand_out::Holder;
use super::reference::Place;
use super::store::uses;
use super::{Keys, MAX_VALUE, owner};
use crate::audit::{self, Actor, Entry};

/// Stores what the holder of a lease says its agent made of its login, by compare-and-swap:
/// false, and nothing changes, if the credential did not come from a secret, if that has another
/// value by now, or if either is not a login. Keys are not renewed, so a worker can only ever
/// replace JSON by JSON.
pub(crate) async fn renew(
    db: &mut PgConnection,
    keys: &Keys,
    holder: &Holder<'_>,
    value: &Secret,
) -> anyhow::Result<bool> {
    let text = value.expose();
    if text.len() > MAX_VALUE || text.contains('\0') || !is_login(text.as_bytes()) {
        return Ok(false);
    }
    let place = Place::Agent.name();
    let given = uses::given(db, holder.execution, holder.claim, &place).await?;
    let Some((given, sealed)) = given else {
        return Ok(false);
    };
    let owner = owner(given.workspace, given.agent.as_deref(), &given.name);
    match keys.open(&owner, &sealed) {
        // The call is repeated, or its end was.
        Ok(old) if old == text.as_bytes() => return Ok(true),
        Ok(old) if is_login(&old) => {}
        _ => return Ok(false),
    }
    let sealed = keys.seal(&owner, text.as_bytes());
    let size = i32::try_from(text.len())?;
    if !uses::replace(db, holder.execution, &place, &given, &sealed, size).await? {
        return Ok(false);
    }
    let actor = Actor {
        name: format!("execution:{}", holder.execution),
        address: None,
    };
    let resource = ("secret", given.name);
    let entry = Entry::done(given.workspace, &actor, "secret.renewed", resource);
    let details = json!({
        "scope": given.agent, "attempt": holder.attempt, "worker": holder.worker,
        "version": given.version + 1,
    });
    audit::record(db, &entry.with(details)).await?;
    Ok(true)
}

/// Whether this is JSON with something in it.
fn is_login(text: &[u8]) -> bool {
    serde_json::from_slice::<Map<String, Value>>(text).is_ok_and(|map| !map.is_empty())
}
