-- Stored definitions of agents, their skills, and which skills a workspace has taken.

create table agents (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    name text not null,
    -- What runs it: a spelling of a runnable kind, or a kind of an earlier system.
    type text not null,
    -- Where it is reached, for kinds that are reached over the network.
    endpoint text,
    description text,
    -- nonce || ciphertext; the agent's own credential, never shown again.
    sealed_api_key bytea,
    config jsonb,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create index agents_by_workspace on agents (workspace_id, id);

create table skills (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    agent_id bigint not null references agents on delete cascade,
    name text not null,
    description text,
    input_schema jsonb,
    output_schema jsonb,
    created_at timestamptz not null default now(),
    unique (agent_id, name)
);

create index skills_by_workspace on skills (workspace_id, id);

create table skill_assignments (
    workspace_id bigint not null references workspaces on delete cascade,
    skill_slug text not null,
    -- Who took it: 'user:…', 'key:7'.
    assigned_by text not null,
    assigned_at timestamptz not null default now(),
    primary key (workspace_id, skill_slug)
);
