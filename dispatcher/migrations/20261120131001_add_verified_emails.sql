-- Joining accounts elsewhere by e-mail address: whether somebody has proven that it is theirs.

alter table users
    -- Null until a provider, or the operator, vouched for the address.
    add column email_verified_at timestamptz;
