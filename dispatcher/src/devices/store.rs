//! Devices in Postgres.

use anyhow::Context;
use clawlink_shared::id::{DeviceId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::principal::Trust;
use crate::http::page::Cursor;

/// What a proof is checked against.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) public_key: Vec<u8>,
    pub(super) trust: Trust,
    /// Whether it was not noted for a minute that it was seen.
    pub(super) is_stale: bool,
}

/// A device as lists show it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) public_key: Vec<u8>,
    pub(super) trust: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) last_seen_at: Option<OffsetDateTime>,
}

/// The device, if this caller registered it.
pub(super) async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: DeviceId,
    owner: &str,
) -> anyhow::Result<Option<Known>> {
    let row = sqlx::query!(
        "select public_key, trust,
            (last_seen_at is null or last_seen_at < now() - interval '1 minute') as \"stale!\"
         from devices where workspace_id = $1 and id = $2 and owner = $3",
        workspace.0,
        id.0,
        owner,
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Known {
            public_key: row.public_key,
            trust: trust(&row.trust)?,
            is_stale: row.stale,
        })
    })
    .transpose()
}

/// Notes that the device was just seen.
pub(super) async fn seen(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: DeviceId,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update devices set last_seen_at = now() where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How many devices a caller has registered.
pub(super) async fn count(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    owner: &str,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from devices where workspace_id = $1 and owner = $2",
        workspace.0,
        owner,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Adds a device; false if the workspace knows the key.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: DeviceId,
    owner: &str,
    name: &str,
    public_key: &[u8; 32],
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "insert into devices (id, workspace_id, owner, name, public_key)
         values ($1, $2, $3, $4, $5)
         on conflict (workspace_id, public_key) do nothing",
        id.0,
        workspace.0,
        owner,
        name,
        &public_key[..],
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Devices after `cursor`, the newest first; with `only`, just that one.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    only: Option<DeviceId>,
    cursor: Option<Cursor>,
    limit: i64,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, owner, name, public_key, trust, created_at, last_seen_at from devices
         where workspace_id = $1 and ($2::uuid is null or id = $2)
            and ($3::timestamptz is null or (created_at, id) < ($3, $4))
         order by created_at desc, id desc limit $5",
        workspace.0,
        only.map(|id| id.0),
        cursor.map(Cursor::time),
        cursor.map(|cursor| cursor.id),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Locks the device and says how far it is trusted.
pub(super) async fn lock_trust(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: DeviceId,
) -> anyhow::Result<Option<Trust>> {
    let name = sqlx::query_scalar!(
        "select trust from devices where workspace_id = $1 and id = $2 for update",
        workspace.0,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    name.as_deref().map(trust).transpose()
}

/// Trusts the device as said. The caller has locked it.
pub(super) async fn set_trust(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: DeviceId,
    to: Trust,
) -> anyhow::Result<()> {
    sqlx::query!(
        "update devices set trust = $3 where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
        to.as_str(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the device; false if there is none.
pub(super) async fn delete(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: DeviceId,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "delete from devices where workspace_id = $1 and id = $2",
        workspace.0,
        id.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn trust(name: &str) -> anyhow::Result<Trust> {
    Trust::from_name(name).with_context(|| format!("devices.trust is {name:?}"))
}
