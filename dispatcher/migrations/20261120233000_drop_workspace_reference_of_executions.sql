-- An execution belongs to its session, and with that to the session's workspace, whose deletion
-- takes both. A reference of its own to the workspace locked the workspace's row a second time
-- whenever something was accepted.
alter table executions drop constraint if exists executions_workspace_id_fkey;
