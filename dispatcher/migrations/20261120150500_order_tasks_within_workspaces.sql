-- Lists of a workspace's tasks, newest first, are ordered by -id: the primary key spans all
-- workspaces, and walking it would visit the rows of others.

create index tasks_newest on tasks (workspace_id, (-id));

drop index tasks_by_status;
create index tasks_by_status on tasks (workspace_id, status, (-id)) where not archived;
drop index tasks_by_priority;
create index tasks_by_priority on tasks (workspace_id, priority, (-id)) where not archived;
drop index tasks_by_agent;
create index tasks_by_agent on tasks (workspace_id, assigned_agent_type, (-id))
    where assigned_agent_type is not null;
drop index tasks_by_assignee;
create index tasks_by_assignee on tasks (workspace_id, assignee_id, (-id))
    where assignee_id is not null;
