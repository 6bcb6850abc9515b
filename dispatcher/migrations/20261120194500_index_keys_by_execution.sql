-- Deleting a session deletes its executions, and with each the keys that made it: found by an index,
-- not by reading all keys of a day.
create index idempotency_keys_by_execution on idempotency_keys (execution_id);
