-- Policies may also be about secrets.

alter table policies drop constraint policies_resource_kind_check,
    -- The rows that are there were checked more strictly: no need to read them again.
    add constraint policies_resource_kind_check
        check (resource_kind in ('agent', 'skill', 'repository', 'session', 'secret')) not valid;
