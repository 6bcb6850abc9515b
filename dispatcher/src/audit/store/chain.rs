//! The chain in Postgres: its end, what is to be chained, its links from the start.

use anyhow::Context;
use sqlx::PgConnection;

use crate::audit::link::{Hash, Stored};

/// Whoever holds this lock extends the chain; any number that nothing else uses.
const CHAIN_LOCK: i64 = 0x636c_6177_6368_6169;

/// One link and what it stands for.
#[derive(Debug)]
pub(in crate::audit) struct Link {
    pub(in crate::audit) position: i64,
    pub(in crate::audit) entry_id: i64,
    pub(in crate::audit) hash: Hash,
    pub(in crate::audit) key_id: Vec<u8>,
    /// `None` if the entry does not exist.
    pub(in crate::audit) entry: Option<Stored>,
}

/// An entry that stands before the chain's end without being in the chain.
#[derive(Debug)]
pub(in crate::audit) struct Outsider {
    pub(in crate::audit) entry_id: i64,
    /// The position before which it claims to have been written.
    pub(in crate::audit) position: i64,
}

/// Takes the right to extend the chain until the transaction ends; false if another has it.
pub(in crate::audit) async fn try_lock(db: &mut PgConnection) -> anyhow::Result<bool> {
    let taken = sqlx::query_scalar!(
        "select pg_try_advisory_xact_lock($1) as \"taken!\"",
        CHAIN_LOCK
    )
    .fetch_one(db)
    .await?;
    Ok(taken)
}

/// Position and hash of the last link, if there is one.
pub(in crate::audit) async fn head(db: &mut PgConnection) -> anyhow::Result<Option<(i64, Hash)>> {
    let head =
        sqlx::query!("select position, hash from audit_chain order by position desc limit 1")
            .fetch_optional(db)
            .await?;
    head.map(|head| Ok((head.position, hash(&head.hash, head.position)?)))
        .transpose()
}

/// Entries that are to be chained next, in their order.
///
/// Only those of transactions below the oldest one that still runs: none with a lower
/// `(xact, id)` can appear any more, so the search begins at the last link's transaction. After
/// a restore into another server transaction numbers begin anew: a number that this server has
/// not reached is one of the earlier server, long over; while the chain's end has such a number,
/// all entries are searched.
pub(in crate::audit) async fn waiting(
    db: &mut PgConnection,
    limit: i64,
) -> anyhow::Result<Vec<Stored>> {
    let entries = sqlx::query_as!(
        Stored,
        "with last as (
            select coalesce(
                (select e.xact from audit_chain c join audit_entries e on e.id = c.entry_id
                 order by c.position desc limit 1), '0') as xact
         ),
         start as (
            select case when xact >= pg_snapshot_xmax(pg_current_snapshot()) then '0' else xact end as xact
            from last
         )
         select e.id, (extract(epoch from e.at) * 1000000)::bigint as \"at_micros!\",
            e.workspace_id, e.actor, e.address, e.action, e.resource_type, e.resource_id,
            e.outcome, e.details::text as \"details!\"
         from audit_entries e
         where e.xact >= (select xact from start)
            and (e.xact < pg_snapshot_xmin(pg_current_snapshot())
                or e.xact >= pg_snapshot_xmax(pg_current_snapshot()))
            and not exists (select from audit_chain c where c.entry_id = e.id)
         order by e.xact, e.id
         limit $1",
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(entries)
}

/// Adds links from `first` on.
pub(in crate::audit) async fn append(
    db: &mut PgConnection,
    first: i64,
    entries: &[i64],
    hashes: &[Vec<u8>],
    key_id: &[u8],
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into audit_chain (position, entry_id, hash, key_id)
         select $1 + n - 1, entry_id, hash, $4
         from unnest($2::bigint[], $3::bytea[]) with ordinality as link (entry_id, hash, n)",
        first,
        entries,
        hashes,
        key_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// From here on all statements of the transaction see one moment.
pub(in crate::audit) async fn freeze(db: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(db)
        .await?;
    Ok(())
}

/// Links after a position with their entries.
pub(in crate::audit) async fn links(
    db: &mut PgConnection,
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Link>> {
    let rows = sqlx::query!(
        "select c.position, c.entry_id, c.hash, c.key_id,
            e.id as \"id?\", (extract(epoch from e.at) * 1000000)::bigint as at_micros,
            e.workspace_id as \"workspace_id?\", e.actor as \"actor?\", e.address, e.action as \"action?\",
            e.resource_type, e.resource_id, e.outcome as \"outcome?\", e.details::text as details
         from audit_chain c left join audit_entries e on e.id = c.entry_id
         where c.position > $1
         order by c.position
         limit $2",
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let entry = (|| {
                Some(Stored {
                    id: row.id?,
                    at_micros: row.at_micros?,
                    workspace_id: row.workspace_id,
                    actor: row.actor?,
                    address: row.address,
                    action: row.action?,
                    resource_type: row.resource_type,
                    resource_id: row.resource_id,
                    outcome: row.outcome?,
                    details: row.details?,
                })
            })();
            Ok(Link {
                position: row.position,
                entry_id: row.entry_id,
                hash: hash(&row.hash, row.position)?,
                key_id: row.key_id,
                entry,
            })
        })
        .collect()
}

/// The first entry that is not in the chain although the chain has passed its place.
pub(in crate::audit) async fn outsider(db: &mut PgConnection) -> anyhow::Result<Option<Outsider>> {
    let found = sqlx::query_as!(
        Outsider,
        "with last as (
            select e.xact, e.id from audit_chain c join audit_entries e on e.id = c.entry_id
            order by c.position desc limit 1
         ),
         outside as (
            select e.xact, e.id from audit_entries e, last
            where (e.xact, e.id) < (last.xact, last.id)
                and last.xact < pg_snapshot_xmax(pg_current_snapshot())
                and not exists (select from audit_chain c where c.entry_id = e.id)
            order by e.xact, e.id
            limit 1
         )
         select o.id as \"entry_id!\", min(c.position) as \"position!\"
         from outside o
            join audit_entries e on (e.xact, e.id) > (o.xact, o.id)
            join audit_chain c on c.entry_id = e.id
         group by o.id",
    )
    .fetch_optional(db)
    .await?;
    Ok(found)
}

/// How many entries are not in the chain yet.
pub(in crate::audit) async fn unchained(db: &mut PgConnection) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from audit_entries e
         where not exists (select from audit_chain c where c.entry_id = e.id)",
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

fn hash(bytes: &[u8], position: i64) -> anyhow::Result<Hash> {
    bytes
        .try_into()
        .with_context(|| format!("audit_chain.hash at position {position} is not 32 bytes"))
}
