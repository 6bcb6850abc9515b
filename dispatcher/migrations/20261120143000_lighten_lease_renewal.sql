-- Renewing a lease is the most frequent write. With its expiry in an index each renewal wrote to
-- all indexes of the table; without it a renewal changes the row in place. The active executions
-- of a workspace are found by executions_one_per_place.
drop index if exists executions_active;

-- Room for new versions of a row beside the old one.
alter table executions set (fillfactor = 60);
