-- Signing in: what ends when somebody signs out, and the tokens that prolong it.

-- One sign-in of a person on one device; its web and workspace tokens name it and end with it.
create table sign_ins (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    -- 'password', 'reset', or the name of an identity provider.
    method text not null,
    address text,
    -- One before users.tokens_valid_from gives no rights.
    created_at timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    -- Signing out, a new password, or a refresh token that was shown twice.
    revoked_at timestamptz
);

create index sign_ins_of_user on sign_ins (user_id) where revoked_at is null;

-- Each refresh token serves once; the chain of them is the sign-in.
create table refresh_tokens (
    -- SHA-256 of the token; tokens have 256 random bits, so no slow hash is needed.
    hash bytea primary key check (length(hash) = 32),
    sign_in_id uuid not null references sign_ins on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    -- Set when it was exchanged; showing it again later ends the sign-in.
    replaced_at timestamptz
);

create index refresh_tokens_of_sign_in on refresh_tokens (sign_in_id);
create index refresh_tokens_age on refresh_tokens (expires_at);

-- One-time tokens that set a new password, made by the operator.
create table password_resets (
    hash bytea primary key check (length(hash) = 32),
    user_id uuid not null references users on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz
);

create index password_resets_of_user on password_resets (user_id);

-- Accounts elsewhere that a person may sign in with.
create table identities (
    -- Name of the provider in the settings.
    provider text not null,
    -- The provider's own id of the account; never an e-mail address, which may change hands.
    subject text not null,
    user_id uuid not null references users on delete cascade,
    created_at timestamptz not null default now(),
    primary key (provider, subject)
);

create index identities_of_user on identities (user_id);
