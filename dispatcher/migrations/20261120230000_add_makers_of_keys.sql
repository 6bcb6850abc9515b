-- Who made a key, so that it can go with its maker. An earlier release leaves it null.

alter table api_keys
    -- The person who made the key, or who made the key with which it was made; null for the
    -- operator's, and for those that are older than this column.
    add column created_by uuid references users on delete set null;

create index api_keys_by_maker on api_keys (created_by) where created_by is not null;

-- What somebody left open, who is found out to be another.
create index invitations_open_by_inviter on invitations (invited_by)
    where accepted_at is null and revoked_at is null;
