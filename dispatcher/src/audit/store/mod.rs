//! The audit log in Postgres. The application's role may insert and select here, nothing else.

pub(super) mod chain;
pub(super) mod denials;
pub(super) mod read;

use sqlx::PgConnection;

use super::{Columns, Entry};

/// Adds an entry.
pub(super) async fn insert(db: &mut PgConnection, entry: &Entry<'_>) -> anyhow::Result<()> {
    let row = Columns::from(entry);
    sqlx::query!(
        "insert into audit_entries
            (workspace_id, actor, address, action, resource_type, resource_id, outcome, details)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        row.workspace,
        row.actor,
        row.address,
        row.action,
        row.resource_type,
        row.resource_id,
        row.outcome,
        row.details,
    )
    .execute(db)
    .await?;
    Ok(())
}
