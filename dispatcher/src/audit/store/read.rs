//! Reading entries: of one workspace, or those that belong to none.

use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::audit::query::{Filter, Page};

/// An entry as it is shown.
#[derive(Debug)]
pub(in crate::audit) struct Record {
    pub(in crate::audit) id: i64,
    pub(in crate::audit) at: OffsetDateTime,
    pub(in crate::audit) actor: String,
    pub(in crate::audit) address: Option<String>,
    pub(in crate::audit) action: String,
    pub(in crate::audit) resource_type: Option<String>,
    pub(in crate::audit) resource_id: Option<String>,
    pub(in crate::audit) outcome: String,
    /// An object as JSON text.
    pub(in crate::audit) details: String,
    /// Its place in the chain, once it has one.
    pub(in crate::audit) position: Option<i64>,
    pub(in crate::audit) hash: Option<Vec<u8>>,
}

/// Selects entries, newest first; whose they are is a condition on `$1`.
macro_rules! newest {
    ($whose:literal, $db:expr, $workspace:expr, $filter:expr, $page:expr) => {
        sqlx::query_as!(
            Record,
            "select id, at, actor, address, action, resource_type, resource_id, outcome,
                details::text as \"details!\", null::bigint as position, null::bytea as hash
             from audit_entries
             where "
                + $whose
                + "
                and ($2::text[] is null or replace(action, '.', '_') = any($2))
                and ($3::text is null or actor = $3)
                and ($4::text is null or details ->> 'clientSession' = $4 or actor = 'client:' || $4)
                and ($5::text is null or resource_type = $5)
                and ($6::text is null or resource_id = $6)
                and ($7::text is null or outcome = $7)
                and ($8::timestamptz is null or at >= $8)
                and ($9::timestamptz is null or at < $9)
                and ($10::bigint is null or id < $10)
             order by id desc
             offset $11 limit $12",
            $workspace,
            $filter.actions.as_deref(),
            $filter.actor.as_deref(),
            $filter.client.as_deref(),
            $filter.resource_type.as_deref(),
            $filter.resource_id.as_deref(),
            $filter.outcome.map(|outcome| outcome.as_str()),
            $filter.from,
            $filter.to,
            $page.before,
            $page.offset,
            $page.limit,
        )
        .fetch_all($db)
        .await?
    };
}

/// A page of entries, newest first: of a workspace, or those that belong to none.
pub(in crate::audit) async fn newest(
    db: &mut PgConnection,
    workspace: Option<WorkspaceId>,
    filter: &Filter,
    page: &Page,
) -> anyhow::Result<Vec<Record>> {
    let id = workspace.map(|workspace| workspace.0);
    Ok(match workspace {
        Some(_) => newest!("workspace_id = $1", db, id, filter, page),
        // Two conditions, so that either finds the index.
        None => newest!(
            "workspace_id is null and $1::bigint is null",
            db,
            id,
            filter,
            page
        ),
    })
}

/// Entries after an id up to another, oldest first, with their places in the chain.
pub(in crate::audit) async fn oldest(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    filter: &Filter,
    (after, up_to): (i64, i64),
    limit: i64,
) -> anyhow::Result<Vec<Record>> {
    let records = sqlx::query_as!(
        Record,
        "select e.id, e.at, e.actor, e.address, e.action, e.resource_type, e.resource_id, e.outcome,
            e.details::text as \"details!\", c.position as \"position?\", c.hash as \"hash?\"
         from audit_entries e left join audit_chain c on c.entry_id = e.id
         where e.workspace_id = $1
            and ($2::text[] is null or replace(e.action, '.', '_') = any($2))
            and ($3::text is null or e.actor = $3)
            and ($4::text is null or e.details ->> 'clientSession' = $4 or e.actor = 'client:' || $4)
            and ($5::text is null or e.resource_type = $5)
            and ($6::text is null or e.resource_id = $6)
            and ($7::text is null or e.outcome = $7)
            and ($8::timestamptz is null or e.at >= $8)
            and ($9::timestamptz is null or e.at < $9)
            and e.id > $10 and e.id <= $11
         order by e.id
         limit $12",
        workspace.0,
        filter.actions.as_deref(),
        filter.actor.as_deref(),
        filter.client.as_deref(),
        filter.resource_type.as_deref(),
        filter.resource_id.as_deref(),
        filter.outcome.map(|outcome| outcome.as_str()),
        filter.from,
        filter.to,
        after,
        up_to,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(records)
}

/// The id of a workspace's newest entry; 0 if it has none.
pub(in crate::audit) async fn last_id(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<i64> {
    let id = sqlx::query_scalar!(
        "select coalesce(max(id), 0) as \"id!\" from audit_entries where workspace_id = $1",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(id)
}
