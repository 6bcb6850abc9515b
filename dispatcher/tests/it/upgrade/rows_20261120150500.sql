-- What the second release added: people, members, policies, tasks, agents, secrets, audit, feeds.
-- The rows of the first release are there already.

insert into users (id, email, username, display_name, password_hash, is_platform_admin)
values ('00000000-0000-4000-a000-000000000001', 'one@example.org', 'one', 'The first', null, true),
    ('00000000-0000-4000-a000-000000000002', 'two@example.org', 'two', null, null, false);

update workspaces set status = 'archived' where id = 2;

insert into members (workspace_id, user_id, role, removed_at)
values (1, '00000000-0000-4000-a000-000000000001', 'owner', null),
    (1, '00000000-0000-4000-a000-000000000002', 'viewer', now());

insert into sign_ins (id, user_id, method, address)
values ('00000000-0000-4000-a000-00000000000a', '00000000-0000-4000-a000-000000000001', 'password', '192.0.2.1');

insert into refresh_tokens (hash, sign_in_id, expires_at)
values (sha256('refresh-of-old'), '00000000-0000-4000-a000-00000000000a', now() + interval '10 days');

insert into password_resets (hash, user_id, expires_at)
values (sha256('reset-of-old'), '00000000-0000-4000-a000-000000000002', now() + interval '1 day');

insert into identities (provider, subject, user_id)
values ('google', '12345', '00000000-0000-4000-a000-000000000001');

insert into invitations (workspace_id, email, role, token_hash, invited_by, expires_at)
values (1, 'three@example.org', 'developer', sha256('invitation-of-old'), 'key:1', now() + interval '9 days');

insert into devices (id, workspace_id, owner, name, public_key, trust)
values ('00000000-0000-4000-b000-000000000001', 1, 'key:1', 'laptop', sha256('device'), 'trusted');

insert into policies (workspace_id, description, resource_kind, resource, denied_roles, created_by)
values (1, 'of old', 'agent', 'claude', '{key:admin}', 'key:1');

insert into projects (workspace_id, key, name, repo_url, repo_owner, repo_name, default_agent)
values (1, 'APP', 'The app', 'https://github.com/acme/app', 'acme', 'app', 'shell');
insert into task_numbers (workspace_id, prefix, last_number) values (1, 'APP', 2);

insert into tasks (workspace_id, project_id, key, title, description, status, labels, assignee_id,
    parent_id, position, created_by)
values (1, 1, 'APP-001', 'Mend the fence', 'All of it', 'in_review', '{wood}',
        '00000000-0000-4000-a000-000000000001', null, 'V', 'key:1'),
    (1, 1, 'APP-002', 'Paint it', null, 'todo', '{}', null, 1, 'k', 'key:1');
insert into task_links (workspace_id, from_id, to_id, kind) values (1, 1, 2, 'blocks');
insert into idempotent_creates (workspace_id, principal, key, resource, resource_id, body_mac)
values (1, 'key:1', 'once', 'task', '1', sha256('body'));

update executions set task_id = 1, payload = 'mend it', claw_id = '7', client_session = 'theirs'
where id = 1;

insert into agents (workspace_id, name, type, endpoint, sealed_api_key, config)
values (1, 'reviewer', 'claude', 'https://agent.example', '\x00', '{"model": "opus"}');
insert into skills (workspace_id, agent_id, name, input_schema) values (1, 1, 'review', '{"a": 1}');
insert into skill_assignments (workspace_id, skill_slug, assigned_by) values (1, 'lint', 'key:1');

insert into client_sessions (id, workspace_id, opened_by, user_id)
values ('00000000-0000-4000-c000-000000000001', 1, 'key:1', 'u');

-- The tests seal it.
insert into secrets (workspace_id, name, sealed, size, created_by, updated_by)
values (1, 'TOKEN', '\x00', 6, 'key:1', 'key:1');
insert into secret_uses (execution_id, place, secret_id, version, claim_id)
values (3, 'env:TOKEN', 1, 1, '00000000-0000-4000-d000-000000000001');

insert into audit_entries (workspace_id, actor, address, action, resource_type, resource_id, outcome, details)
values (1, 'key:1', '192.0.2.1', 'task.created', 'task', '1', 'allowed', '{"title": "Mend the fence"}'),
    (null, 'user:00000000-0000-4000-a000-000000000001', null, 'user.signed_in', 'user', '1', 'allowed', '{}');
insert into audit_denials (minute, address, count) values (date_trunc('minute', now()), '192.0.2.9', 3);

insert into feeds (workspace_id, last_seq) values (1, 1);
insert into feed_events (workspace_id, seq, payload)
values (1, 1, convert_to('{"type":"task.created","seq":1,"data":{}}', 'utf8'));

insert into github_deliveries (id, body_hash) values ('delivery-of-old', sha256('delivery'));
