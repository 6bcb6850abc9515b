-- What a workspace becomes again when its suspension ends.

alter table workspaces
    -- Null unless it is suspended.
    add column status_before_suspension text
        check (status_before_suspension in ('active', 'archived'));
