-- What one session may cost.

alter table sessions
    -- Millionths of a US dollar, for all its turns; null: what the workspace allows each session.
    add column budget_micros bigint check (budget_micros >= 0);
