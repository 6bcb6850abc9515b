//! The audit log in Postgres. The application's role may insert and select here, nothing else.

pub(super) mod chain;
pub(super) mod denials;
pub(super) mod read;

use sqlx::PgConnection;

use super::Entry;

/// Adds an entry.
pub(super) async fn insert(db: &mut PgConnection, entry: &Entry<'_>) -> anyhow::Result<()> {
    let (resource_type, resource_id) = match &entry.resource {
        Some((kind, id)) => (Some(*kind), Some(id.as_str())),
        None => (None, None),
    };
    sqlx::query!(
        "insert into audit_entries
            (workspace_id, actor, address, action, resource_type, resource_id, outcome, details)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        entry.workspace.map(|workspace| workspace.0),
        entry.actor.name,
        entry.actor.address.map(|address| address.to_string()),
        entry.action,
        resource_type,
        resource_id,
        entry.outcome.as_str(),
        entry.details,
    )
    .execute(db)
    .await?;
    Ok(())
}
