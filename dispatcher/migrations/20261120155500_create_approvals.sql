-- What agents ask people, what was answered, and the rules that answer by themselves.

-- How many orders its worker was given; each has a number, and workers ask for those after one.
alter table executions add column orders bigint not null default 0;
-- The number of the order to cancel; null in rows that an older dispatcher cancelled.
alter table executions add column cancel_order bigint;

create table approvals (
    -- Made by the worker.
    id uuid not null,
    execution_id bigint not null references executions on delete cascade,
    workspace_id bigint not null references workspaces on delete cascade,
    session_id uuid not null references sessions on delete cascade,
    -- Which of the execution's workers asked; others never hear the answer.
    attempt integer not null,
    agent text not null,
    kind text not null check (kind in ('tool', 'plan')),
    -- As the agent says it.
    tool text not null,
    -- JSON as text, because jsonb refuses some valid JSON; redacted and bounded by the worker.
    input text not null,
    -- The input is cut or masked.
    is_partial boolean not null,
    -- Only a waiting execution has open ones.
    state text not null check (state in ('open', 'allowed', 'denied', 'expired', 'withdrawn')),
    -- What the agent is told; null while open and when withdrawn.
    decision text check (decision in ('allow', 'allow_for_session', 'deny')),
    -- For the agent to read.
    message text,
    -- Who: 'user:…', 'key:7', 'policy:3', 'session', 'timeout', 'agent', 'end'.
    decided_by text,
    decided_at timestamptz,
    -- Its number among the execution's orders, once it is decided.
    order_number bigint,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    primary key (execution_id, id),
    check ((state = 'open') = (decided_at is null))
);

create index approvals_open on approvals (workspace_id, created_at, id) where state = 'open';
create index approvals_due on approvals (expires_at) where state = 'open';
create index approvals_by_session on approvals (session_id);

-- What a session's agent need not ask again.
create table approval_grants (
    session_id uuid not null references sessions on delete cascade,
    agent text not null,
    tool text not null,
    -- SHA-256 of the very command where the tool runs commands, else empty: the tool alone.
    command bytea not null,
    granted_by text not null,
    granted_at timestamptz not null default now(),
    primary key (session_id, agent, tool, command)
);

create table approval_policies (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    description text not null,
    -- A kind of agent; null: all.
    agent text,
    -- A tool's name; '*' stands for any run of characters.
    tool text not null,
    -- What its command, path or address looks like; null: whatever it is.
    input text,
    decision text not null check (decision in ('ask', 'allow', 'deny')),
    created_by text not null,
    created_at timestamptz not null default now()
);

create index approval_policies_by_workspace on approval_policies (workspace_id, id);

create table approval_settings (
    workspace_id bigint primary key references workspaces on delete cascade,
    -- How long a question waits; null: as the installation is set.
    timeout_seconds integer check (timeout_seconds > 0),
    -- What an unanswered one becomes; null: as the installation is set.
    on_timeout text check (on_timeout in ('allow', 'deny')),
    updated_by text not null,
    updated_at timestamptz not null default now()
);
