-- The control plane's ground: people, members, the audit log, the feed of a workspace's changes.

create table users (
    id uuid primary key,
    -- Lower case, trimmed.
    email text not null unique,
    username text not null unique,
    display_name text,
    avatar_url text,
    bio text,
    -- Argon2id as a PHC string; null for people who sign in elsewhere only.
    password_hash text,
    is_platform_admin boolean not null default false,
    -- Tokens issued before this moment are refused: changed by a new password and by sign-out everywhere.
    tokens_valid_from timestamptz not null default now(),
    -- Set while the person may not sign in.
    disabled_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

alter table workspaces
    add column status text not null default 'active'
        check (status in ('active', 'suspended', 'archived')),
    add column updated_at timestamptz not null default now();

create table members (
    workspace_id bigint not null references workspaces on delete cascade,
    user_id uuid not null references users on delete cascade,
    role text not null check (role in ('viewer', 'developer', 'manager', 'owner')),
    joined_at timestamptz not null default now(),
    -- Set when the person was removed; such rows are shown as inactive and give no rights.
    removed_at timestamptz,
    primary key (workspace_id, user_id)
);

create index members_of_user on members (user_id) where removed_at is null;

-- Who did what. Rows are only ever inserted; no foreign keys, because they outlive what they name.
create table audit_entries (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    -- Null for what belongs to no workspace, such as signing in.
    workspace_id bigint,
    -- 'user:…', 'key:7', 'client:…', 'operator', 'anonymous'.
    actor text not null,
    address text,
    -- 'task.created': a thing and what happened to it.
    action text not null,
    resource_type text,
    resource_id text,
    outcome text not null check (outcome in ('allowed', 'denied', 'error')),
    details jsonb not null default '{}'
);

create index audit_entries_of_workspace on audit_entries (workspace_id, id desc);

-- The end of each workspace's feed; a row of its own, so that its lock delays nothing else.
create table feeds (
    workspace_id bigint primary key references workspaces on delete cascade,
    last_seq bigint not null
);

create table feed_events (
    workspace_id bigint not null references workspaces on delete cascade,
    -- Without gaps, in the order of commits.
    seq bigint not null,
    -- The whole envelope as clients see it.
    payload bytea not null,
    created_at timestamptz not null default now(),
    primary key (workspace_id, seq)
);

create index feed_events_age on feed_events (created_at);
