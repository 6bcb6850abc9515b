//! What is written down: every route, and what callers who may get in are answered.

use clawlink::auth::principal::KeyRole;
use clawlink::http::routes::Access::{self, Needs};
use clawlink::http::routes::Route;
use clawlink::workspaces::role::Permission::*;
use clawlink::workspaces::role::Role;

use super::callers::Caller;

/// What the table must say, and what a caller who may get in is answered. Requests carry no
/// body, so the answer is that of an empty request.
pub(super) const EXPECTED: &[(&str, Access, u16)] = &[
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

/// The status that `caller` must get; `None` where any refusal will do.
pub(super) fn expected(route: &Route, access: Access, open: u16, caller: Caller) -> Option<u16> {
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
