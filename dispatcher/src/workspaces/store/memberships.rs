//! What a person belongs to, and joining without further ado.

use clawlink_shared::id::{UserId, WorkspaceId};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::workspaces::role::MemberRole;

/// A workspace as one of its members sees it in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Membership {
    /// Which.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Unique in the installation.
    pub slug: String,
    /// The member's role.
    pub role: MemberRole,
}

/// Workspaces of one answer; lists with pages show all.
const MAX_SHOWN: i64 = 1000;

/// The workspaces that a person is a member of, by name.
pub async fn of_user(db: &mut PgConnection, user: UserId) -> anyhow::Result<Vec<Membership>> {
    let rows = sqlx::query!(
        "select w.id, w.name, w.slug, m.role
         from members m join workspaces w on w.id = m.workspace_id
         where m.user_id = $1 and m.removed_at is null
         order by w.name, w.id limit $2",
        user.0,
        MAX_SHOWN,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let role = MemberRole::from_name(&row.role);
            Ok(Membership {
                role: role.ok_or_else(|| anyhow::anyhow!("members.role is {:?}", row.role))?,
                id: WorkspaceId(row.id),
                name: row.name,
                slug: row.slug,
            })
        })
        .collect()
}

/// The workspace with this slug.
pub async fn by_slug(db: &mut PgConnection, slug: &str) -> anyhow::Result<Option<WorkspaceId>> {
    let id = sqlx::query_scalar!("select id from workspaces where slug = $1", slug)
        .fetch_optional(db)
        .await?;
    Ok(id.map(WorkspaceId))
}

/// Makes a person a member, also one who was removed or had another role.
pub async fn join(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    user: UserId,
    role: MemberRole,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into members (workspace_id, user_id, role) values ($1, $2, $3)
         on conflict (workspace_id, user_id) do update
         set role = excluded.role, removed_at = null,
            joined_at = case when members.removed_at is null then members.joined_at else now() end",
        workspace.0,
        user.0,
        role.as_str(),
    )
    .execute(db)
    .await?;
    Ok(())
}
