-- Rows as the first release left them: two workspaces, sessions with archives, executions in all
-- kinds of states, one of which still waits for a worker.

insert into workspaces (slug, name, running_cap, pending_cap, created_at)
values ('default', 'First', 4, 100, '2026-10-01 10:00:00+00'), ('other', 'Second', 2, 10, now());

insert into api_keys (workspace_id, name, prefix, hash, role, last_used_at)
values (1, 'of old', 'clawlink_upg', sha256('clawlink_upgraded'), 'admin', now()),
    (2, 'revoked', 'clawlink_rev', sha256('clawlink_revoked'), 'developer', null);
update api_keys set revoked_at = now() where id = 2;

insert into sessions (id, workspace_id, name, agent, repo_url, repo_branch, working_branch,
    auto_commit, provider_session_id, archive_key, archive_size, archive_sha256, archive_root, turns)
values ('00000000-0000-4000-8000-000000000001', 1, 'Mend the fence', 'claude',
        'https://github.com/acme/app', 'main', 'clawlink/mend-the-fence', true, 'conversation-1',
        'session-00000000-0000-4000-8000-000000000001/1.tar.zst', 7, repeat('0', 64), '/workspace', 2),
    ('00000000-0000-4000-8000-000000000002', 1, 'Say it', 'shell',
        null, null, null, false, null, null, null, null, null, 1),
    ('00000000-0000-4000-8000-000000000003', 2, 'Elsewhere', 'shell',
        null, null, null, false, null, null, null, null, null, 1);

insert into archives (key, session_id, turn)
values ('session-00000000-0000-4000-8000-000000000001/1.tar.zst',
    '00000000-0000-4000-8000-000000000001', 1);

insert into executions (uuid, workspace_id, session_id, turn, agent, priority, state, spec, resuming,
    on_worker_lost, submitted_by, wait_reason, place, attempt, last_seq, created_at, started_at,
    ended_at, result, usage, error_code, error_message, branch, commit_hash, pr_url)
select uuid::uuid, workspace_id, session_id::uuid, turn, agent, 1, state,
    jsonb_build_object('prompt', jsonb_build_array(jsonb_build_object('type', 'text', 'text', 'true')),
        'agent', agent, 'repository', null, 'autoCommit', false, 'sessionName', 'of old',
        'workingBranch', null, 'options', jsonb_build_object('permissionMode', 'bypassPermissions')),
    turn > 1, 'fail', 'key:1', wait_reason, place, attempt, last_seq, '2026-10-01 11:00:00+00',
    started_at, ended_at, result, usage, error_code, error_message, branch, commit_hash, pr_url
from (values
    ('00000000-0000-4000-9000-000000000001', 1, '00000000-0000-4000-8000-000000000001', 1, 'claude',
        'completed', null, 0, 1, 2, now(), now(), 'It is mended.', '{"inputTokens": 5}'::jsonb, null,
        null, 'clawlink/mend-the-fence', repeat('a', 40), 'https://github.com/acme/app/pull/1'),
    ('00000000-0000-4000-9000-000000000002', 1, '00000000-0000-4000-8000-000000000001', 2, 'claude',
        'failed', null, 0, 2, 2, now(), now(), null, null, 'agent_error', 'it broke', null, null, null),
    ('00000000-0000-4000-9000-000000000003', 1, '00000000-0000-4000-8000-000000000002', 1, 'shell',
        'pending', 'no_idle_worker', null, 0, 1, null, null, null, null, null, null, null, null, null),
    ('00000000-0000-4000-9000-000000000004', 2, '00000000-0000-4000-8000-000000000003', 1, 'shell',
        'cancelled', null, null, 0, 2, null, now(), null, null, null, null, null, null, null)
) as old (uuid, workspace_id, session_id, turn, agent, state, wait_reason, place, attempt, last_seq,
    started_at, ended_at, result, usage, error_code, error_message, branch, commit_hash, pr_url);

insert into events (execution_id, seq, attempt, n, payload)
select e.id, seq, null, null, convert_to(json_build_object('type', type, 'seq', seq,
    'executionId', e.id, 'sessionId', e.session_id, 'timestamp', '2026-10-01T11:00:00.000Z')::text, 'utf8')
from executions e, lateral (values (1, 'connected'),
    (2, case e.state when 'completed' then 'completed' when 'failed' then 'error' else 'cancelled' end)
) as log (seq, type)
where seq <= e.last_seq;

-- The tests seal it.
insert into credentials (execution_id, sealed) values (3, '\x00');

insert into idempotency_keys (principal, key, body_mac, execution_id)
values ('key:1', 'once', sha256('body'), 1);

insert into outbox (effect) values ('{"do": "enqueue", "execution": 3}');

insert into uploads (key, execution_id, session_id, upload_id)
values ('session-00000000-0000-4000-8000-000000000001/2.tar.zst', 2,
    '00000000-0000-4000-8000-000000000001', null);
