-- What executions consumed, and how much they may cost.

-- What one attempt of an execution consumed on one day (UTC). An attempt reports what it consumed
-- so far; the row of the day holds what the rows of other days do not, so their sum is the last
-- report. No foreign key to executions: what was spent stays known when a session is deleted.
create table usage (
    workspace_id bigint not null references workspaces on delete cascade,
    execution_id bigint not null,
    attempt integer not null,
    day date not null,
    session_id uuid not null,
    task_id bigint,
    project_id bigint,
    agent text not null,
    -- As the agent or the request says; null: nobody said.
    model text,
    -- Who asked: 'key:7'.
    submitted_by text not null,
    -- All tokens that the model read, those of its cache included.
    input_tokens bigint not null,
    output_tokens bigint not null,
    cache_read_tokens bigint not null,
    cache_write_tokens bigint not null,
    -- Millionths of a US dollar; null: neither the agent nor the price table says. May be negative
    -- where an estimate of the day before was too high.
    cost_micros bigint,
    -- Whether the cost comes from the price table, and not from the agent.
    is_estimate boolean not null,
    updated_at timestamptz not null default now(),
    primary key (execution_id, attempt, day)
);

create index usage_by_day on usage (workspace_id, day) include (cost_micros);
create index usage_by_session on usage (session_id) include (cost_micros);

-- What a workspace may spend; null: any amount. A workspace without a row has no limit.
create table limits (
    workspace_id bigint primary key references workspaces on delete cascade,
    -- Millionths of a US dollar: all executions of a day (UTC), all turns of a session, and one
    -- execution whose request says nothing.
    day_micros bigint check (day_micros >= 0),
    session_micros bigint check (session_micros >= 0),
    execution_micros bigint check (execution_micros >= 0),
    updated_by text not null,
    updated_at timestamptz not null default now()
);

alter table executions
    -- A stop that the dispatcher ordered, as the code that the execution then fails with, and words for people.
    add column stop_code text,
    add column stop_reason text,
    -- Its number among the orders to the worker.
    add column stop_order bigint;
