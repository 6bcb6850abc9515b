-- Events are written many at a time, always under the row lock of their execution, which the
-- foreign key looked up again for each of them. What the key did when an execution was deleted,
-- one trigger does for all executions of a statement.
create function delete_events_of_deleted() returns trigger language plpgsql as $$
begin
    delete from events where execution_id in (select id from deleted);
    return null;
end
$$;

create trigger executions_take_their_events
    after delete on executions
    referencing old table as deleted
    for each statement execute function delete_events_of_deleted();

alter table events drop constraint events_execution_id_fkey;
