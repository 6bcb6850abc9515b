-- Projects and tasks: what is wanted, how it hangs together, and in which order a board shows it.

create table projects (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    -- Upper case, trimmed: the beginning of its tasks' keys.
    key text not null,
    name text not null,
    description text,
    status text not null default 'active'
        check (status in ('active', 'completed', 'archived', 'on_hold')),
    -- The repository as it was given, and what it says; never with credentials.
    repo_url text,
    repo_owner text,
    repo_name text,
    -- Where work begins; null means the repository's own default.
    default_branch text,
    -- What runs tasks that name no agent.
    default_agent text,
    -- Whether tasks move when their executions start, push or fail.
    tasks_follow_executions boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint projects_key unique (workspace_id, key),
    -- What tasks refer to, so that they cannot leave their workspace.
    constraint projects_in_workspace unique (workspace_id, id)
);

-- The last number given to a task with this prefix. A row outlives its project: numbers are
-- never given twice, also when a later project takes the key.
create table task_numbers (
    workspace_id bigint not null references workspaces on delete cascade,
    prefix text not null,
    last_number bigint not null,
    primary key (workspace_id, prefix)
);

create table tasks (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    project_id bigint not null,
    -- 'APP-001': stays when the project's key changes.
    key text not null,
    title text not null,
    description text,
    status text not null default 'todo'
        check (status in ('todo', 'in_progress', 'in_review', 'done', 'blocked')),
    -- Why it is blocked; null in other statuses.
    blocked_reason text,
    -- 0 is the lowest.
    priority smallint not null default 1 check (priority between 0 and 3),
    labels text[] not null default '{}',
    -- Which kind of agent is to work on it.
    assigned_agent_type text,
    -- Which member is.
    assignee_id uuid,
    persona text,
    start_date timestamptz,
    due_date timestamptz,
    github_pr_url text,
    github_pr_number integer,
    parent_id bigint,
    -- Its place on the project's board: compared byte by byte, a new one fits between any two.
    position text collate "C" not null,
    archived boolean not null default false,
    -- Who made it: 'user:…', 'key:7'.
    created_by text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- Words for the full-text search, the labels as they are, and the workspace as 'ws:7', so
    -- that an index scan never visits the rows of others.
    search tsvector not null generated always as (
        to_tsvector('simple', lower(
            (key || ' ' || title || ' ' || coalesce(description, '')) collate "und-x-icu"))
        || array_to_tsvector(labels)
        || array_to_tsvector(array['ws:' || workspace_id])
    ) stored,
    constraint tasks_key unique (workspace_id, key),
    constraint tasks_in_workspace unique (workspace_id, id),
    -- Checked at the end of a statement, so that neighbours can be spread anew.
    constraint tasks_position unique (project_id, position) deferrable initially immediate,
    constraint tasks_project foreign key (workspace_id, project_id)
        references projects (workspace_id, id) on delete cascade,
    constraint tasks_parent foreign key (workspace_id, parent_id)
        references tasks (workspace_id, id) on delete set null (parent_id),
    constraint tasks_assignee foreign key (workspace_id, assignee_id)
        references members (workspace_id, user_id) on delete set null (assignee_id)
);

-- Columns of a board.
create index tasks_board on tasks (project_id, status, position) where not archived;
-- Filters over the whole workspace, newest first.
create index tasks_by_status on tasks (workspace_id, status, id desc) where not archived;
create index tasks_by_priority on tasks (workspace_id, priority, id desc) where not archived;
-- What is to be begun next.
create index tasks_next on tasks (workspace_id, priority desc, id)
    where status = 'todo' and not archived;
create index tasks_by_agent on tasks (workspace_id, assigned_agent_type, id desc)
    where assigned_agent_type is not null;
create index tasks_by_assignee on tasks (workspace_id, assignee_id, id desc)
    where assignee_id is not null;
create index tasks_by_due_date on tasks (workspace_id, due_date) where due_date is not null;
create index tasks_by_parent on tasks (workspace_id, parent_id, id) where parent_id is not null;
create index tasks_by_search on tasks using gin (search);

-- How tasks hang together beside parent and child.
create table task_links (
    workspace_id bigint not null references workspaces on delete cascade,
    -- Of 'relates', which has no direction, the lower id.
    from_id bigint not null,
    to_id bigint not null,
    -- 'blocks': from must be done before to.
    kind text not null check (kind in ('blocks', 'relates')),
    created_at timestamptz not null default now(),
    primary key (from_id, to_id, kind),
    check (from_id <> to_id),
    foreign key (workspace_id, from_id) references tasks (workspace_id, id) on delete cascade,
    foreign key (workspace_id, to_id) references tasks (workspace_id, id) on delete cascade
);

create index task_links_to on task_links (to_id, kind);

-- Creations that are not to happen twice: what an earlier request with the same key made.
create table idempotent_creates (
    workspace_id bigint not null references workspaces on delete cascade,
    -- Who sent it: 'key:7'.
    principal text not null,
    key text not null,
    -- What was made: 'task', and its id.
    resource text not null,
    resource_id text not null,
    -- HMAC of the canonical body.
    body_mac bytea not null,
    created_at timestamptz not null default now(),
    primary key (workspace_id, principal, key)
);

create index idempotent_creates_age on idempotent_creates (created_at);
