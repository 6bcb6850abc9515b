-- The audit log's chain, the counters of refused strangers, and what finding entries needs.

-- Which transaction wrote the entry. Entries are chained in the order (xact, id) and only below
-- the oldest transaction that still runs, so that none can appear behind the end of the chain.
alter table audit_entries
    add column xact xid8 not null default pg_current_xact_id();

create index audit_entries_in_order on audit_entries (xact, id);
create index audit_entries_of_actor on audit_entries (workspace_id, actor, id desc);
create index audit_entries_of_resource on audit_entries (workspace_id, resource_type, resource_id, id desc);
-- Entries of a client session of the older runtime API.
create index audit_entries_of_client on audit_entries (workspace_id, (details ->> 'clientSession'), id desc)
    where details ->> 'clientSession' is not null;

-- Rows are only ever inserted, by whichever dispatcher holds the chain's lock.
create table audit_chain (
    -- From 1, without gaps.
    position bigint primary key,
    entry_id bigint not null unique,
    -- Keyed hash over the hash before it, the position and the entry.
    hash bytea not null check (octet_length(hash) = 32),
    -- Tells the key of the hash from those of other installations and times; not secret.
    key_id bytea not null
);

-- Requests without a valid credential: counted, not stored one by one.
create table audit_denials (
    minute timestamptz not null,
    -- An IPv4 address, the /64 network of an IPv6 address, 'unknown', or 'others' beyond the bound.
    address text not null,
    count bigint not null,
    primary key (minute, address)
);
