-- Skills get the instructions that agents are given.

alter table skills
    -- Markdown; null: the skill only says what its agent can do.
    add column instructions text;
