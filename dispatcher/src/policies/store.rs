//! Policies in Postgres.

use anyhow::Context;
use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::decide::{Kind, Policy};
use crate::auth::principal::Trust;

/// A policy with what people want to know of it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) policy: Policy,
    pub(super) description: String,
    pub(super) created_by: String,
    pub(super) created_at: OffsetDateTime,
}

/// What a policy is to say; its `id` is not looked at.
#[derive(Debug)]
pub(super) struct New {
    pub(super) policy: Policy,
    pub(super) description: String,
}

struct Raw {
    id: i64,
    description: String,
    resource_kind: String,
    resource: String,
    allowed_roles: Vec<String>,
    denied_roles: Vec<String>,
    allowed_users: Vec<String>,
    denied_users: Vec<String>,
    minimum_trust: Option<String>,
    expires_at: Option<OffsetDateTime>,
    created_by: String,
    created_at: OffsetDateTime,
}

impl Raw {
    fn read(self) -> anyhow::Result<Row> {
        let id = self.id;
        let kind = Kind::from_name(&self.resource_kind)
            .with_context(|| format!("policies.resource_kind of {id}"))?;
        let minimum_trust = match self.minimum_trust {
            Some(name) => Some(
                Trust::from_name(&name)
                    .with_context(|| format!("policies.minimum_trust of {id}"))?,
            ),
            None => None,
        };
        let policy = Policy {
            id,
            kind,
            pattern: self.resource,
            allowed_roles: self.allowed_roles,
            denied_roles: self.denied_roles,
            allowed_users: self.allowed_users,
            denied_users: self.denied_users,
            minimum_trust,
            expires_at: self.expires_at,
        };
        Ok(Row {
            policy,
            description: self.description,
            created_by: self.created_by,
            created_at: self.created_at,
        })
    }
}

/// Policies of the workspace in order of their numbers; with `only`, just that one.
pub(super) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    only: Option<i64>,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Raw,
        "select id, description, resource_kind, resource, allowed_roles, denied_roles,
            allowed_users, denied_users, minimum_trust, expires_at, created_by, created_at
         from policies
         where workspace_id = $1 and ($2::bigint is null or id = $2)
         order by id",
        workspace.0,
        only,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Raw::read).collect()
}

/// How many policies the workspace has.
pub(super) async fn count(db: &mut PgConnection, workspace: WorkspaceId) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from policies where workspace_id = $1",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Adds a policy; its number.
pub(super) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    new: &New,
    created_by: &str,
) -> anyhow::Result<i64> {
    let policy = &new.policy;
    let id = sqlx::query_scalar!(
        "insert into policies (workspace_id, description, resource_kind, resource, allowed_roles,
            denied_roles, allowed_users, denied_users, minimum_trust, expires_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) returning id",
        workspace.0,
        new.description,
        policy.kind.as_str(),
        policy.pattern,
        &policy.allowed_roles,
        &policy.denied_roles,
        &policy.allowed_users,
        &policy.denied_users,
        policy.minimum_trust.map(Trust::as_str),
        policy.expires_at,
        created_by,
    )
    .fetch_one(db)
    .await?;
    Ok(id)
}

/// Makes a policy say something else; false if there is none.
pub(super) async fn replace(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: i64,
    new: &New,
) -> anyhow::Result<bool> {
    let policy = &new.policy;
    let done = sqlx::query!(
        "update policies set description = $3, resource_kind = $4, resource = $5,
            allowed_roles = $6, denied_roles = $7, allowed_users = $8, denied_users = $9,
            minimum_trust = $10, expires_at = $11
         where workspace_id = $1 and id = $2",
        workspace.0,
        id,
        new.description,
        policy.kind.as_str(),
        policy.pattern,
        &policy.allowed_roles,
        &policy.denied_roles,
        &policy.allowed_users,
        &policy.denied_users,
        policy.minimum_trust.map(Trust::as_str),
        policy.expires_at,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a policy; false if there is none.
pub(super) async fn delete(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: i64,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "delete from policies where workspace_id = $1 and id = $2",
        workspace.0,
        id,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
