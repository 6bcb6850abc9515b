-- Secrets of workspaces: written through the API, never read back through it.

create table secrets (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    name text not null check (length(name) between 1 and 128),
    -- The agent that alone gets it, before the workspace's own secret of that name; null: all.
    agent text,
    -- key id || nonce || ciphertext of XChaCha20-Poly1305; workspace, agent and name as
    -- associated data, so that a row that was moved does not open.
    sealed bytea not null,
    -- Names the key that sealed it.
    key_id bytea not null generated always as (substring(sealed from 1 for 8)) stored,
    -- Bytes of the value.
    size integer not null check (size between 1 and 65536),
    -- Counts values. A refreshed one is stored only over the version that was handed out.
    version bigint not null default 1,
    -- Roles that may use it; null: all that may use secrets.
    allowed_roles text[],
    -- Agents that may use it; null: all.
    allowed_agents text[],
    created_at timestamptz not null default now(),
    -- 'user:…', 'key:7'.
    created_by text not null,
    updated_at timestamptz not null default now(),
    updated_by text not null,
    -- When it was handed out last; written at most once a minute.
    last_used_at timestamptz
);

create unique index secrets_one_per_name on secrets (workspace_id, name, coalesce(agent, ''));

-- Which value of which secret the worker that holds an execution was given, and under which
-- claim. Rows go when the execution has ended.
create table secret_uses (
    execution_id bigint not null references executions on delete cascade,
    -- 'agent', 'git' or 'env:NAME'.
    place text not null,
    secret_id bigint not null references secrets on delete cascade,
    version bigint not null,
    claim_id uuid not null,
    primary key (execution_id, place)
);

create index secret_uses_of_secret on secret_uses (secret_id);
