//! Every route of the table with every kind of credential. A route that is new fails here
//! until its expectation is written down.

use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink::http;
use clawlink::http::routes::Access::{self, Needs};
use clawlink::http::routes::Route;
use clawlink::workspaces::role::Permission::*;
use clawlink::workspaces::role::Role;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::app::{POOL_TOKEN, TestApp};
use super::client::{Submitted, script};

/// What the table must say, and what a caller who may get in is answered. Requests carry no
/// body, so the answer is that of an empty request.
const EXPECTED: &[(&str, Access, u16)] = &[
    ("GET /health", Access::Public, 200),
    ("GET /health/live", Access::Public, 200),
    ("GET /status", Access::Public, 429),
    ("GET /metrics", Access::Public, 200),
    ("GET /openapi.json", Access::Public, 200),
    ("GET /docs", Access::Public, 200),
    ("GET /docs/", Access::Public, 200),
    ("GET /docs/{file}", Access::Public, 404),
    ("POST /api/auth/web/register", Access::Public, 400),
    ("POST /api/auth/web/login", Access::Public, 400),
    ("POST /api/auth/refresh", Access::Public, 401),
    ("POST /api/auth/token", Access::Public, 400),
    ("POST /api/auth/register", Needs(KeyManage), 400),
    ("GET /api/auth/me", Access::Person, 200),
    ("GET /api/auth/my-tenants", Access::Person, 200),
    ("POST /api/auth/tenant-token", Access::Person, 400),
    ("POST /api/auth/password", Access::Person, 400),
    ("POST /api/auth/reset", Access::Public, 400),
    ("GET /api/auth/providers", Access::Public, 200),
    ("GET /api/auth/oidc/{provider}/login", Access::Public, 404),
    (
        "GET /api/auth/oidc/{provider}/callback",
        Access::Public,
        404,
    ),
    ("POST /api/auth/logout", Access::Person, 204),
    ("POST /api/auth/logout/everywhere", Access::Person, 204),
    ("POST /execute", Needs(ExecutionSubmit), 400),
    ("GET /executions/{id}", Needs(ExecutionRead), 200),
    ("GET /executions/{id}/events", Needs(ExecutionRead), 200),
    ("POST /executions/{id}/cancel", Needs(ExecutionCancel), 202),
    ("GET /executions/{id}/approvals", Needs(ExecutionRead), 200),
    (
        "POST /executions/{id}/approvals/{approvalId}",
        Needs(ExecutionApprove),
        400,
    ),
    (
        "POST /executions/{id}/messages",
        Needs(ExecutionSubmit),
        400,
    ),
    ("GET /api/approvals", Needs(ExecutionRead), 200),
    ("GET /api/approval-policies", Needs(PolicyRead), 200),
    ("POST /api/approval-policies", Needs(PolicyManage), 400),
    ("GET /api/approval-policies/{id}", Needs(PolicyRead), 404),
    ("PUT /api/approval-policies/{id}", Needs(PolicyManage), 404),
    (
        "DELETE /api/approval-policies/{id}",
        Needs(PolicyManage),
        404,
    ),
    ("GET /api/approval-settings", Needs(PolicyRead), 200),
    ("PUT /api/approval-settings", Needs(PolicyManage), 200),
    ("GET /sessions", Needs(SessionRead), 200),
    ("GET /sessions/{id}", Needs(SessionRead), 200),
    ("GET /sessions/{id}/stream", Needs(SessionRead), 200),
    ("PATCH /sessions/{id}", Needs(LimitManage), 400),
    ("DELETE /sessions/{id}", Needs(SessionDelete), 409),
    ("POST /api/runtime/executions", Needs(ExecutionSubmit), 400),
    ("GET /api/runtime/executions", Needs(ExecutionRead), 200),
    (
        "GET /api/runtime/executions/{id}",
        Needs(ExecutionRead),
        200,
    ),
    (
        "PATCH /api/runtime/executions/{id}/state",
        Needs(ExecutionSubmit),
        400,
    ),
    (
        "POST /api/runtime/executions/{id}/cancel",
        Needs(ExecutionCancel),
        200,
    ),
    (
        "GET /api/runtime/tasks/{id}/executions",
        Needs(ExecutionRead),
        404,
    ),
    ("GET /api/tasks/{id}/executions", Needs(ExecutionRead), 200),
    ("POST /api/tasks/execute", Needs(ExecutionSubmit), 400),
    (
        "POST /api/tasks/{id}/create_pr",
        Needs(ExecutionSubmit),
        409,
    ),
    ("POST /api/runtime/sessions", Needs(ExecutionRead), 200),
    ("GET /api/runtime/sessions/{id}", Needs(ExecutionRead), 400),
    (
        "POST /api/runtime/tasks/submit",
        Needs(ExecutionSubmit),
        400,
    ),
    (
        "GET /api/runtime/tasks/{id}/state",
        Needs(ExecutionRead),
        400,
    ),
    (
        "POST /api/runtime/tasks/{id}/cancel",
        Needs(ExecutionCancel),
        400,
    ),
    ("GET /api/runtime/agents", Needs(AgentRead), 200),
    ("GET /api/runtime/skills", Needs(AgentRead), 200),
    ("GET /api/agents", Needs(AgentRead), 200),
    ("POST /api/agents", Needs(AgentManage), 400),
    ("GET /api/agents/available", Needs(AgentRead), 200),
    ("GET /api/agents/{id}", Needs(AgentRead), 404),
    ("PATCH /api/agents/{id}", Needs(AgentManage), 404),
    ("DELETE /api/agents/{id}", Needs(AgentManage), 404),
    ("GET /api/agents/{id}/skills", Needs(AgentRead), 404),
    ("POST /api/agents/{id}/skills", Needs(AgentManage), 400),
    ("GET /api/skills", Needs(AgentRead), 200),
    ("GET /api/skill-assignments/tenant", Needs(AgentRead), 200),
    (
        "POST /api/skill-assignments/tenant",
        Needs(AgentManage),
        400,
    ),
    (
        "DELETE /api/skill-assignments/tenant/{slug}",
        Needs(AgentManage),
        404,
    ),
    ("GET /api/secrets", Needs(SecretRead), 200),
    ("PUT /api/secrets/{name}", Needs(SecretManage), 400),
    ("DELETE /api/secrets/{name}", Needs(SecretManage), 404),
    ("GET /api/audit/events", Needs(AuditRead), 200),
    (
        "GET /api/audit/users/{user}/activity",
        Needs(AuditRead),
        200,
    ),
    (
        "GET /api/audit/sessions/{session}/activity",
        Needs(AuditRead),
        200,
    ),
    ("GET /api/audit/export", Needs(AuditRead), 200),
    ("GET /api/projects", Needs(ProjectRead), 200),
    ("POST /api/projects", Needs(ProjectWrite), 400),
    ("POST /api/projects/upsert", Needs(ProjectWrite), 400),
    ("GET /api/projects/{id}", Needs(ProjectRead), 200),
    ("PATCH /api/projects/{id}", Needs(ProjectWrite), 200),
    ("PUT /api/projects/{id}", Needs(ProjectWrite), 200),
    ("DELETE /api/projects/{id}", Needs(ProjectDelete), 204),
    ("GET /api/tasks", Needs(TaskRead), 200),
    ("POST /api/tasks", Needs(TaskWrite), 400),
    ("GET /api/events", Needs(TaskRead), 200),
    ("POST /api/tasks/next", Needs(TaskWrite), 200),
    ("GET /api/tasks/{id}", Needs(TaskRead), 200),
    ("PATCH /api/tasks/{id}", Needs(TaskWrite), 200),
    ("PUT /api/tasks/{id}", Needs(TaskWrite), 200),
    ("DELETE /api/tasks/{id}", Needs(TaskDelete), 204),
    ("GET /api/tasks/{id}/relations", Needs(TaskRead), 200),
    ("POST /api/tasks/{id}/relations", Needs(TaskWrite), 400),
    (
        "DELETE /api/tasks/{id}/relations/{kind}/{other}",
        Needs(TaskWrite),
        404,
    ),
    ("GET /api/tenants", Access::Person, 200),
    ("GET /api/tenants/mine", Access::Person, 200),
    ("POST /api/tenants", Access::Person, 400),
    ("POST /api/tenants/create", Access::Person, 400),
    ("POST /api/tenants/{id}/switch", Access::Person, 200),
    ("GET /api/tenants/{id}", Needs(WorkspaceRead), 200),
    ("PATCH /api/tenants/{id}", Needs(WorkspaceUpdate), 200),
    ("DELETE /api/tenants/{id}", Needs(WorkspaceDelete), 400),
    ("GET /api/tenants/{id}/members", Needs(MemberRead), 200),
    ("POST /api/tenants/{id}/members", Needs(MemberManage), 400),
    (
        "PATCH /api/tenants/{id}/members/{userId}",
        Needs(MemberManage),
        400,
    ),
    (
        "DELETE /api/tenants/{id}/members/{userId}",
        Needs(MemberManage),
        404,
    ),
    (
        "GET /api/tenants/{id}/invitations",
        Needs(MemberManage),
        200,
    ),
    (
        "DELETE /api/tenants/{id}/invitations/{invitationId}",
        Needs(MemberManage),
        404,
    ),
    ("POST /api/invitations/accept", Access::Person, 400),
    ("GET /api/tenants/{id}/keys", Needs(KeyRead), 200),
    ("POST /api/tenants/{id}/keys", Needs(KeyManage), 400),
    (
        "DELETE /api/tenants/{id}/keys/{keyId}",
        Needs(KeyManage),
        404,
    ),
    ("GET /api/devices", Needs(DeviceRead), 200),
    ("POST /api/devices", Needs(WorkspaceRead), 400),
    ("PATCH /api/devices/{id}", Needs(DeviceTrust), 404),
    ("DELETE /api/devices/{id}", Needs(DeviceTrust), 404),
    ("GET /api/policies", Needs(PolicyRead), 200),
    ("POST /api/policies", Needs(PolicyManage), 400),
    ("GET /api/policies/{id}", Needs(PolicyRead), 404),
    ("PUT /api/policies/{id}", Needs(PolicyManage), 404),
    ("DELETE /api/policies/{id}", Needs(PolicyManage), 404),
    ("GET /api/admin/tenants", Access::PlatformAdmin, 200),
    (
        "POST /api/admin/tenants/{id}/suspend",
        Access::PlatformAdmin,
        404,
    ),
    (
        "POST /api/admin/tenants/{id}/resume",
        Access::PlatformAdmin,
        404,
    ),
    ("GET /api/admin/audit/events", Access::PlatformAdmin, 200),
    ("GET /api/usage", Needs(ExecutionRead), 200),
    ("GET /api/limits", Needs(ExecutionRead), 200),
    ("PUT /api/limits", Needs(LimitManage), 400),
    ("POST /worker/claim", Access::Pool, 400),
    ("POST /worker/executions/{id}/ack", Access::Lease, 0),
    ("POST /worker/executions/{id}/state", Access::Lease, 0),
    ("POST /worker/executions/{id}/events", Access::Lease, 0),
    ("POST /worker/executions/{id}/heartbeat", Access::Lease, 0),
    ("GET /worker/executions/{id}/control", Access::Lease, 0),
    ("POST /worker/executions/{id}/archive", Access::Lease, 0),
    (
        "POST /worker/executions/{id}/archive/parts",
        Access::Lease,
        0,
    ),
    (
        "POST /worker/executions/{id}/archive/finish",
        Access::Lease,
        0,
    ),
    (
        "POST /worker/executions/{id}/archive/source",
        Access::Lease,
        0,
    ),
    (
        "POST /worker/executions/{id}/pull-request",
        Access::Lease,
        0,
    ),
    ("POST /worker/executions/{id}/credentials", Access::Lease, 0),
    ("POST /worker/executions/{id}/complete", Access::Lease, 0),
    // No secret is configured here.
    ("POST /api/webhooks/github", Access::Public, 404),
];

/// Who knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Nobody,
    WrongKey,
    ExpiredKey,
    RevokedKey,
    ForeignAdmin,
    ForeignOwner,
    Own(KeyRole),
    Member(MemberRole),
    RemovedOwner,
    SignedOut,
    /// Somebody who signed in and chose no workspace.
    Web,
    PlatformAdmin,
    Pool,
}

const CALLERS: [Caller; 19] = [
    Caller::Nobody,
    Caller::WrongKey,
    Caller::ExpiredKey,
    Caller::RevokedKey,
    Caller::ForeignAdmin,
    Caller::Own(KeyRole::Admin),
    Caller::Own(KeyRole::Developer),
    Caller::Own(KeyRole::Readonly),
    Caller::Own(KeyRole::Ci),
    Caller::ForeignOwner,
    Caller::Member(MemberRole::Viewer),
    Caller::Member(MemberRole::Developer),
    Caller::Member(MemberRole::Manager),
    Caller::Member(MemberRole::Owner),
    Caller::RemovedOwner,
    Caller::SignedOut,
    Caller::Web,
    Caller::PlatformAdmin,
    Caller::Pool,
];

/// The status that `caller` must get; `None` where any refusal will do.
fn expected(route: &Route, access: Access, open: u16, caller: Caller) -> Option<u16> {
    use Caller::{ForeignAdmin, ForeignOwner, Member, Own, PlatformAdmin, Pool, RemovedOwner, Web};
    let is_own_thing = route.path.contains("{id}");
    let is_workspace = route.path.starts_with("/api/tenants/{id}");
    match (access, caller) {
        (Access::Public, _) | (Access::Pool, Pool) => Some(open),
        (Access::Pool, _) => Some(401),
        (Access::Lease, Caller::Nobody) => Some(401),
        (Access::Lease, _) => None,
        (Needs(permission), Own(role)) if !Role::Key(role).may(permission) => Some(403),
        (Needs(permission), Member(role)) if !Role::Member(role).may(permission) => Some(403),
        (Needs(_), Own(_) | Member(_)) => Some(open),
        (Needs(WorkspaceDelete), ForeignAdmin) => Some(403),
        (Needs(_), ForeignAdmin | ForeignOwner) if is_workspace => Some(404),
        (Access::Person, PlatformAdmin | ForeignOwner | RemovedOwner) if is_workspace => Some(404),
        (Needs(_), ForeignAdmin | ForeignOwner) if is_own_thing && open != 400 => {
            // A body that is refused is refused before anything is looked for.
            Some(404)
        }
        (Needs(permission), ForeignAdmin) if !Role::Key(KeyRole::Admin).may(permission) => {
            Some(403)
        }
        (Needs(_), ForeignAdmin | ForeignOwner) => Some(open),
        // A removed member is still a person.
        (Access::Person, Web | PlatformAdmin | Member(_) | ForeignOwner | RemovedOwner) => {
            Some(open)
        }
        (Access::PlatformAdmin, PlatformAdmin) => Some(open),
        (Access::PlatformAdmin, Web | Member(_) | ForeignOwner | RemovedOwner) => Some(403),
        _ => Some(401),
    }
}

struct Keys(Vec<(Caller, String)>);

impl Keys {
    async fn make(test: &TestApp) -> Self {
        let mut keys = vec![
            (Caller::WrongKey, "clawlink_wrong".to_owned()),
            (Caller::Pool, POOL_TOKEN.to_owned()),
        ];
        for (caller, workspace, role) in [
            (Caller::ExpiredKey, "default", KeyRole::Admin),
            (Caller::RevokedKey, "default", KeyRole::Admin),
            (Caller::ForeignAdmin, "other", KeyRole::Admin),
            (Caller::Own(KeyRole::Admin), "default", KeyRole::Admin),
            (
                Caller::Own(KeyRole::Developer),
                "default",
                KeyRole::Developer,
            ),
            (Caller::Own(KeyRole::Readonly), "default", KeyRole::Readonly),
            (Caller::Own(KeyRole::Ci), "default", KeyRole::Ci),
        ] {
            let (_, key) = test.key_for(workspace, role).await;
            keys.push((caller, key.expose().to_owned()));
        }
        for (caller, column) in [
            (Caller::ExpiredKey, "expires_at"),
            (Caller::RevokedKey, "revoked_at"),
        ] {
            let keys = Self(keys.clone());
            let hash = clawlink::secrets::hash_token(keys.of(caller).unwrap());
            let update = format!("update api_keys set {column} = now() where hash = $1");
            sqlx::query(sqlx::AssertSqlSafe(update))
                .bind(&hash[..])
                .execute(test.db())
                .await
                .unwrap();
        }
        for role in MemberRole::ALL {
            let member = test.member("default", role).await;
            keys.push((Caller::Member(role), member.token));
        }
        let foreign = test.member("other", MemberRole::Owner).await;
        keys.push((Caller::ForeignOwner, foreign.token));
        let removed = test.member("default", MemberRole::Owner).await;
        sqlx::query("update members set removed_at = now() where user_id = $1")
            .bind(removed.person.user.0)
            .execute(test.db())
            .await
            .unwrap();
        keys.push((Caller::RemovedOwner, removed.token));
        let out = test.member("default", MemberRole::Owner).await;
        sqlx::query("update sign_ins set revoked_at = now() where user_id = $1")
            .bind(out.person.user.0)
            .execute(test.db())
            .await
            .unwrap();
        keys.push((Caller::SignedOut, out.token));
        let web = test.member("default", MemberRole::Owner).await;
        keys.push((Caller::Web, web.person.token));
        keys.push((Caller::PlatformAdmin, test.platform_admin().await.token));
        Self(keys)
    }

    fn of(&self, caller: Caller) -> Option<&str> {
        let found = self.0.iter().find(|(owner, _)| *owner == caller);
        found.map(|(_, key)| key.as_str())
    }
}

#[tokio::test]
async fn every_route_answers_every_caller_as_declared() {
    let test = TestApp::start_with(|settings| {
        // Each caller gets an execution of its own for each route.
        settings.tuning.pending_cap = 100_000;
        settings.tuning.queue_cap = 100_000;
    })
    .await;
    let mut keys = Keys::make(&test).await;
    super::tasks::task(&test, json!({})).await;
    let (_, routes) = http::service(test.app());
    let mut faults = Vec::new();
    for route in &routes {
        let name = format!("{} {}", route.method, route.path);
        let Some((_, access, open)) = EXPECTED.iter().find(|(known, _, _)| *known == name) else {
            faults.push(format!("{name}: no expectation is written down"));
            continue;
        };
        if route.access != *access {
            faults.push(format!(
                "{name}: declared {:?}, expected {access:?}",
                route.access
            ));
        }
        for caller in CALLERS {
            let made = test.accepted(&script("true")).await;
            let status = knock(&test, route, made, keys.of(caller)).await;
            let good = match expected(route, *access, *open, caller) {
                Some(expected) => status == expected,
                None => (400..500).contains(&status),
            };
            if !good {
                faults.push(format!("{name} as {caller:?}: {status}"));
            }
        }
        if route.path.starts_with("/api/auth/logout") {
            keys = Keys::make(&test).await;
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

async fn knock(test: &TestApp, route: &Route, made: Submitted, key: Option<&str>) -> u16 {
    // A test's first project and task have the number 1.
    let id = match route.path {
        path if path.starts_with("/sessions") => made.session_id.to_string(),
        path if path.starts_with("/api/projects") || path.starts_with("/api/tasks") => "1".into(),
        path if path.starts_with("/api/tenants") => workspace(test).await.to_string(),
        path if path.starts_with("/api/devices") => Uuid::nil().to_string(),
        _ => made.execution_id.to_string(),
    };
    let session = made.session_id.to_string();
    let path = [
        ("{id}", id.as_str()),
        ("{slug}", "none"),
        ("{file}", "none"),
        ("{provider}", "none"),
        ("{kind}", "relates"),
        ("{other}", "2"),
        ("{user}", &session),
        ("{session}", &session),
        ("{approvalId}", &session),
        ("{userId}", &session),
        ("{invitationId}", "0"),
        ("{keyId}", "0"),
    ]
    .iter()
    .fold(route.path.to_owned(), |path, (name, value)| {
        path.replace(name, value)
    });
    let mut request = test.http.request(route.method.clone(), test.url(&path));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if route.method == Method::POST {
        request = request.header("content-type", "application/json");
    }
    let request = request.header("x-clawlink-protocol", "1");
    request.send().await.unwrap().status().as_u16()
}

/// The first workspace.
async fn workspace(test: &TestApp) -> i64 {
    sqlx::query_scalar("select id from workspaces where slug = 'default'")
        .fetch_one(test.db())
        .await
        .unwrap()
}

#[tokio::test]
async fn wrong_methods_and_paths_have_our_own_answers() {
    let test = TestApp::start().await;
    let (status, problem) = super::client::refusal(test.get("/execute")).await;
    assert_eq!(
        (status, problem["error"].as_str()),
        (405, Some("method_not_allowed"))
    );
    let (status, problem) = super::client::refusal(test.get("/nowhere")).await;
    assert_eq!(
        (status, problem["error"].as_str()),
        (404, Some("not_found"))
    );
}
