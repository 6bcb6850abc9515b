-- The core: workspaces and keys, sessions and executions, the event log, the outbox.
-- Postgres is the truth; everything in Redis can be rebuilt from these tables.

create table workspaces (
    id bigint generated always as identity primary key,
    slug text not null unique,
    name text not null,
    -- Executions that may be planning, running or waiting at one time.
    running_cap integer not null check (running_cap > 0),
    -- Executions that may be pending at one time; beyond it submissions answer 429.
    pending_cap integer not null check (pending_cap > 0),
    created_at timestamptz not null default now()
);

create table api_keys (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    name text not null,
    -- The first characters, shown in lists so that people recognize a key.
    prefix text not null,
    -- SHA-256 of the whole key; keys have 256 random bits, so no slow hash is needed.
    hash bytea not null unique check (length(hash) = 32),
    role text not null check (role in ('admin', 'developer', 'readonly', 'ci')),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- Written at most once a minute.
    last_used_at timestamptz
);

create index api_keys_workspace on api_keys (workspace_id);

create table sessions (
    id uuid primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    name text not null,
    agent text not null,
    -- What later turns inherit; credentials are never inherited.
    repo_url text,
    repo_branch text,
    repo_directory text,
    repo_depth integer,
    -- The branch that this session's work is committed to.
    working_branch text,
    auto_commit boolean not null default false,
    -- The agent's own name for the conversation.
    provider_session_id text,
    -- The current archive: changed only by the transaction that ends a turn.
    archive_key text,
    archive_size bigint,
    archive_sha256 text,
    -- The worker's session directory when that archive was made; agents key state by path.
    archive_root text,
    -- Turns begun so far; the next execution gets turns + 1.
    turns integer not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create index sessions_by_workspace on sessions (workspace_id, created_at desc, id desc);

-- The archives that are kept of a session: the current one and those before it.
create table archives (
    key text primary key,
    session_id uuid not null references sessions on delete cascade,
    -- The turn at whose end it was made.
    turn integer not null
);

create index archives_by_session on archives (session_id, turn);

create table executions (
    id bigint generated always as identity primary key,
    uuid uuid not null unique,
    workspace_id bigint not null references workspaces on delete cascade,
    session_id uuid not null references sessions on delete cascade,
    -- Its place in the session, from 1.
    turn integer not null,
    agent text not null,
    priority smallint not null check (priority between 0 and 3),
    state text not null check (state in
        ('pending', 'planning', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    -- The validated request as workers get it (shared Spec), without credentials.
    spec jsonb not null,
    resuming boolean not null,
    on_worker_lost text not null check (on_worker_lost in ('fail', 'resume')),
    -- Who asked: 'key:7'.
    submitted_by text not null,

    -- Why it is not running yet; null once claimed.
    wait_reason text,

    -- Which of its workspace's places (0 to running_cap - 1) it was given when it was last claimed.
    place integer,

    -- The lease. attempt counts workers that acknowledged; the token is stored hashed.
    attempt integer not null default 0,
    lease_hash bytea,
    lease_expires_at timestamptz,
    claim_id uuid,
    claimed_at timestamptz,
    acked_at timestamptz,
    -- Hand-outs that no worker acknowledged; attempt does not count them.
    unacknowledged integer not null default 0,
    worker_id text,
    worker_root text,
    -- Whether its one resume after a lost worker was used.
    resumed_after_loss boolean not null default false,

    -- The log: last seq of the execution, last contiguous n of the current attempt.
    last_seq bigint not null default 0,
    last_n bigint not null default 0,

    cancel_requested_at timestamptz,
    cancel_reason text,
    cancelled_by text,

    created_at timestamptz not null default now(),
    -- When it last became pending: the queue's first-come order.
    queued_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz,

    result text,
    usage jsonb,
    error_code text,
    error_message text,
    branch text,
    commit_hash text,
    pr_url text,

    unique (session_id, turn)
);

-- One running execution per session, whatever Redis believes.
create unique index executions_one_active_per_session on executions (session_id)
    where state in ('planning', 'running', 'waiting');
-- A workspace runs at most as many executions as it has places.
create unique index executions_one_per_place on executions (workspace_id, place)
    where state in ('planning', 'running', 'waiting');
create index executions_pending on executions (workspace_id, queued_at, id)
    where state = 'pending';
create index executions_active on executions (workspace_id, lease_expires_at)
    where state in ('planning', 'running', 'waiting');
-- A claim holds at most one execution, so repeating it finds the same one.
create unique index executions_one_per_claim on executions (claim_id) where claim_id is not null;
create index executions_by_workspace on executions (workspace_id, id desc);

create table events (
    execution_id bigint not null references executions on delete cascade,
    seq bigint not null,
    -- (attempt, n) of the worker; null for events that the dispatcher writes.
    attempt integer,
    n bigint,
    -- The whole envelope as clients see it; bytes, because jsonb refuses some valid JSON.
    payload bytea not null,
    created_at timestamptz not null default now(),
    primary key (execution_id, seq)
);

create unique index events_once on events (execution_id, attempt, n) where n is not null;

-- Sealed credentials of requests; deleted when the execution has ended.
create table credentials (
    execution_id bigint primary key references executions on delete cascade,
    -- nonce || ciphertext of XChaCha20-Poly1305, the execution's UUID as associated data.
    sealed bytea not null,
    created_at timestamptz not null default now()
);

create table idempotency_keys (
    -- Who sent it: 'key:7'.
    principal text not null,
    key text not null,
    -- HMAC of the canonical body.
    body_mac bytea not null,
    execution_id bigint not null references executions on delete cascade,
    created_at timestamptz not null default now(),
    primary key (principal, key)
);

create index idempotency_keys_age on idempotency_keys (created_at);

-- Side effects that follow a commit; any replica may perform any row, more than once.
create table outbox (
    id bigint generated always as identity primary key,
    -- What to do; see dispatcher/src/outbox.
    effect jsonb not null,
    created_at timestamptz not null default now(),
    -- Whether it talks to S3 at length; such effects never delay the queue's.
    is_slow boolean not null default false,
    -- Not before; pushed forward while a replica works on it and after a failure.
    due_at timestamptz not null default now(),
    attempts integer not null default 0
);

create index outbox_due on outbox (is_slow, due_at, id);

-- Archives that a lease holder may be uploading. A row goes when `complete` accepts its
-- archive; what is left of stale ones is aborted and deleted. No foreign keys: the rows must
-- outlive a deleted session until their objects are gone.
create table uploads (
    key text primary key,
    execution_id bigint not null,
    session_id uuid not null,
    -- Absent for single uploads.
    upload_id text,
    -- When URLs were last granted.
    granted_at timestamptz not null default now(),
    -- Its objects are being deleted: `complete` must refuse it.
    is_abandoned boolean not null default false
);

create index uploads_age on uploads (granted_at);
