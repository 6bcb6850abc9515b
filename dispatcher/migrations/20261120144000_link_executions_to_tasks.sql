-- Executions of tasks: what they are for, and what their clients want to read again.

alter table executions
    -- The task that it works on.
    add column task_id bigint references tasks on delete set null,
    -- The stored agent that was asked for.
    add column agent_id bigint,
    -- Said by clients and echoed to them; nothing here depends on them.
    add column claw_id text,
    add column client_session text,
    add column payload text,
    -- Run by somebody outside, who reports its state; no worker ever holds it.
    add column is_external boolean not null default false;

-- Whose pull request was merged.
create index tasks_by_pull_request on tasks (github_pr_url) where github_pr_url is not null;

create index executions_by_task on executions (task_id, id desc) where task_id is not null;
