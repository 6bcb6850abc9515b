-- Webhooks of GitHub that were acted upon, so that none is acted upon twice.

create table github_deliveries (
    -- X-GitHub-Delivery.
    id text primary key,
    -- SHA-256 of the body: the id is not signed, the body is.
    body_hash bytea not null unique check (length(body_hash) = 32),
    received_at timestamptz not null default now()
);

create index github_deliveries_age on github_deliveries (received_at);

-- The pull request's number in its repository, beside executions.pr_url.
alter table executions add column pr_number bigint;

-- A pull request's executions, when a webhook says what became of it.
create index executions_by_pull_request on executions (pr_url) where pr_url is not null;
