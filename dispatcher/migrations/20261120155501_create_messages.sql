-- What people say to agents while they run.

create table messages (
    id uuid primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    execution_id bigint not null references executions on delete cascade,
    text text not null,
    -- Who: 'user:…', 'key:7'.
    sent_by text not null,
    -- open: not taken by the agent; moved: it is in the session's next turn; dropped: the
    -- execution was cancelled before.
    state text not null check (state in ('open', 'taken', 'moved', 'dropped')),
    -- Its number among the execution's orders.
    order_number bigint not null,
    -- The execution that it became.
    moved_to bigint references executions on delete set null,
    created_at timestamptz not null default now()
);

create index messages_by_execution on messages (execution_id, order_number);
create index messages_moved on messages (moved_to) where moved_to is not null;
