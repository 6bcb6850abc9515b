-- Who may come into a workspace, on which devices, and what narrows their roles.

create table invitations (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    -- Lower case, trimmed.
    email text not null,
    role text not null check (role in ('viewer', 'developer', 'manager', 'owner')),
    -- SHA-256 of a token with 256 random bits that is shown once.
    token_hash bytea not null unique check (length(token_hash) = 32),
    -- Who invited: 'user:…', 'key:7'.
    invited_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    accepted_at timestamptz,
    accepted_by uuid references users on delete set null,
    revoked_at timestamptz
);

-- An address has one open invitation per workspace; inviting again renews it.
create unique index invitations_one_open on invitations (workspace_id, email)
    where accepted_at is null and revoked_at is null;
create index invitations_open_by_email on invitations (email)
    where accepted_at is null and revoked_at is null;

create table devices (
    id uuid primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    -- Whose credentials it may accompany: 'user:…', 'key:7'.
    owner text not null,
    name text not null,
    -- Ed25519.
    public_key bytea not null check (length(public_key) = 32),
    trust text not null default 'untrusted' check (trust in ('untrusted', 'verified', 'trusted')),
    created_at timestamptz not null default now(),
    -- Written at most once a minute.
    last_seen_at timestamptz,
    unique (workspace_id, public_key)
);

create index devices_by_workspace on devices (workspace_id, created_at desc, id desc);
create index devices_by_owner on devices (workspace_id, owner);

-- Each row narrows what roles give on the resources that it matches; none ever adds a right.
create table policies (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces on delete cascade,
    -- Why it exists, for people.
    description text not null default '',
    resource_kind text not null check (resource_kind in ('agent', 'skill', 'repository', 'session')),
    -- In normal form; '*' stands for any run of characters.
    resource text not null,
    -- 'developer', 'key:ci'. Where roles or users are allowed, all others are not.
    allowed_roles text[] not null default '{}',
    denied_roles text[] not null default '{}',
    -- 'user:…', 'key:7'.
    allowed_users text[] not null default '{}',
    denied_users text[] not null default '{}',
    minimum_trust text check (minimum_trust in ('untrusted', 'verified', 'trusted')),
    -- From then on it narrows nothing.
    expires_at timestamptz,
    created_by text not null,
    created_at timestamptz not null default now()
);

create index policies_by_workspace on policies (workspace_id, id);
