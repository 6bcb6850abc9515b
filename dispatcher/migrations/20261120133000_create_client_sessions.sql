-- Sessions of clients of the older runtime API: who works from where, until it is idle too long.

create table client_sessions (
    id uuid primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    -- Who opened it: 'user:…', 'key:7', 'client:…' for nobody in particular.
    opened_by text not null,
    -- What the client calls its user and device; said by it, believed by nobody.
    user_id text,
    device_id text,
    created_at timestamptz not null default now(),
    -- Written at most once a minute.
    last_activity timestamptz not null default now()
);

create index client_sessions_idle on client_sessions (last_activity);
create index client_sessions_by_workspace on client_sessions (workspace_id);
