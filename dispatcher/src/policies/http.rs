//! The client API of policies.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use clawlink_shared::id::WorkspaceId;
use clawlink_shared::problem::FieldFault;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::decide::{Kind, Policy, is_role};
use super::pattern;
use super::store::{self, New, Row};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::{Principal, Trust};
use crate::bus::RightsOf;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::body::maybe_moment;
use crate::http::doc::Doc;
use crate::http::extract::{Json, Path};
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;
use crate::{auth, workspaces};

/// Policies of one workspace.
const MAX_POLICIES: i64 = 500;
/// Names in one list of a policy.
const MAX_NAMES: usize = 200;
/// Longest pattern and description, in bytes.
const MAX_TEXT: usize = 2048;

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/policies",
            Access::Needs(Permission::PolicyRead),
            list,
            Doc::new("All policies of the workspace").gives::<Policies>(200),
        )
        .post(
            "/api/policies",
            Access::Needs(Permission::PolicyManage),
            create,
            Doc::new("Narrow what roles give on a resource")
                .body::<PolicyBody>()
                .gives::<ShownPolicy>(201),
        )
        .get(
            "/api/policies/{id}",
            Access::Needs(Permission::PolicyRead),
            get,
            Doc::new("A policy").gives::<ShownPolicy>(200),
        )
        .put(
            "/api/policies/{id}",
            Access::Needs(Permission::PolicyManage),
            replace,
            Doc::new("Make a policy say something else")
                .body::<PolicyBody>()
                .gives::<ShownPolicy>(200),
        )
        .delete(
            "/api/policies/{id}",
            Access::Needs(Permission::PolicyManage),
            delete,
            Doc::new("Remove a policy").gives_nothing(204),
        )
}

/// A policy as clients write it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PolicyBody {
    #[serde(default)]
    description: String,
    #[schema(required)]
    resource_kind: Option<Kind>,
    /// A name, number, URL or id; `*` stands for any run of characters.
    #[schema(required)]
    resource: Option<String>,
    /// `viewer` … `owner`, `key:admin`, `key:developer`, `key:readonly`, `key:ci`.
    #[serde(default)]
    allowed_roles: Vec<String>,
    #[serde(default)]
    denied_roles: Vec<String>,
    /// A user's UUID, or `key:7` for an API key.
    #[serde(default)]
    allowed_users: Vec<String>,
    #[serde(default)]
    denied_users: Vec<String>,
    minimum_trust: Option<Trust>,
    #[serde(default, deserialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<OffsetDateTime>,
}

/// A policy as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownPolicy {
    id: i64,
    description: String,
    resource_kind: Kind,
    resource: String,
    allowed_roles: Vec<String>,
    denied_roles: Vec<String>,
    allowed_users: Vec<String>,
    denied_users: Vec<String>,
    minimum_trust: Option<Trust>,
    expires_at: Option<String>,
    created_by: String,
    created_at: String,
}

impl From<Row> for ShownPolicy {
    fn from(row: Row) -> Self {
        let policy = row.policy;
        Self {
            id: policy.id,
            description: row.description,
            resource_kind: policy.kind,
            resource: policy.pattern,
            allowed_roles: policy.allowed_roles,
            denied_roles: policy.denied_roles,
            allowed_users: policy.allowed_users,
            denied_users: policy.denied_users,
            minimum_trust: policy.minimum_trust,
            expires_at: policy.expires_at.map(timestamp),
            created_by: row.created_by,
            created_at: timestamp(row.created_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Policies {
    policies: Vec<ShownPolicy>,
}

impl PolicyBody {
    /// In normal form; all faults at once.
    fn read(self) -> ApiResult<New> {
        let mut faults = Vec::new();
        let mut add = |field: &str, message: &str| {
            faults.push(FieldFault {
                field: field.to_owned(),
                message: message.to_owned(),
            });
        };
        if self.description.len() > MAX_TEXT || self.description.contains('\0') {
            add("description", "is too long or holds a zero byte");
        }
        let text = self.resource.as_deref().unwrap_or_default().trim();
        if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
            add(
                "resource",
                "must be a name, number, URL or id, or a pattern of some",
            );
        }
        if self.resource_kind.is_none() {
            add("resourceKind", "is required");
        }
        for (field, list) in [
            ("allowedRoles", &self.allowed_roles),
            ("deniedRoles", &self.denied_roles),
        ] {
            if list.len() > MAX_NAMES || !list.iter().all(|role| is_role(role)) {
                add(field, "must name roles: viewer … owner, key:admin … key:ci");
            }
        }
        let mut users = |field: &str, list: Vec<String>| {
            let names: Option<Vec<String>> = list.iter().map(|name| caller(name)).collect();
            match names.filter(|names| names.len() <= MAX_NAMES) {
                Some(names) => names,
                None => {
                    add(field, "must name callers: a user's UUID, or key:7");
                    Vec::new()
                }
            }
        };
        let allowed_users = users("allowedUsers", self.allowed_users);
        let denied_users = users("deniedUsers", self.denied_users);
        let Some(kind) = self.resource_kind.filter(|_| faults.is_empty()) else {
            return Err(ApiError::invalid_fields(faults));
        };
        Ok(New {
            policy: Policy {
                id: 0,
                kind,
                pattern: match kind {
                    Kind::Agent => pattern::agent(text),
                    Kind::Repository => pattern::repository(text),
                    Kind::Skill | Kind::Session => text.to_lowercase(),
                    Kind::Secret => text.to_owned(),
                },
                allowed_roles: self.allowed_roles,
                denied_roles: self.denied_roles,
                allowed_users,
                denied_users,
                minimum_trust: self.minimum_trust,
                expires_at: self.expires_at,
            },
            description: self.description,
        })
    }
}

/// `user:…` or `key:…` of what clients write.
fn caller(text: &str) -> Option<String> {
    if let Some(number) = text.strip_prefix("key:") {
        return number.parse::<u32>().ok().map(|id| format!("key:{id}"));
    }
    let uuid: Uuid = text.strip_prefix("user:").unwrap_or(text).parse().ok()?;
    Some(format!("user:{uuid}"))
}

fn missing() -> ApiError {
    ApiError::not_found("policy_not_found", "this workspace has no such policy")
}

async fn find(db: &mut PgConnection, workspace: WorkspaceId, id: i64) -> ApiResult<ShownPolicy> {
    let rows = store::list(db, workspace, Some(id)).await?;
    rows.into_iter().next().map(Into::into).ok_or_else(missing)
}

/// `GET /api/policies`.
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<axum::Json<Policies>> {
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, principal.workspace, None).await?;
    let policies = rows.into_iter().map(Into::into).collect();
    Ok(axum::Json(Policies { policies }))
}

/// `GET /api/policies/{id}`.
async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<axum::Json<ShownPolicy>> {
    let mut db = app.db.acquire().await?;
    Ok(axum::Json(find(&mut db, principal.workspace, id).await?))
}

/// Records a change of a policy; `said` is what it says now.
async fn tell(
    db: &mut PgConnection,
    principal: &Principal,
    deed: &'static str,
    id: i64,
    said: Option<&New>,
) -> ApiResult<()> {
    let actor = Actor::from(principal);
    let details = said.map_or(json!({}), |new| {
        let policy = &new.policy;
        json!({
            "resourceKind": policy.kind, "resource": policy.pattern,
            "allowedRoles": policy.allowed_roles, "deniedRoles": policy.denied_roles,
            "allowedUsers": policy.allowed_users, "deniedUsers": policy.denied_users,
            "minimumTrust": policy.minimum_trust, "expiresAt": policy.expires_at.map(timestamp),
        })
    });
    let thing = ("policy", id.to_string());
    let entry = Entry::done(principal.workspace, &actor, deed, thing).with(details);
    audit::record(db, &entry).await?;
    Ok(())
}

/// `POST /api/policies`.
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<PolicyBody>,
) -> ApiResult<(StatusCode, axum::Json<ShownPolicy>)> {
    let new = body.read()?;
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    workspaces::lock(&mut tx, workspace).await?;
    if store::count(&mut tx, workspace).await? >= MAX_POLICIES {
        return Err(ApiError::conflict(
            "too_many_policies",
            format!("the workspace has {MAX_POLICIES} policies; remove one first"),
        ));
    }
    let id = store::insert(&mut tx, workspace, &new, &principal.name()).await?;
    tell(&mut tx, &principal, "policy.created", id, Some(&new)).await?;
    let shown = find(&mut tx, workspace, id).await?;
    tx.commit().await?;
    auth::forget(&app, RightsOf::Workspace(workspace));
    Ok((StatusCode::CREATED, axum::Json(shown)))
}

/// `PUT /api/policies/{id}`.
async fn replace(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
    Json(body): Json<PolicyBody>,
) -> ApiResult<axum::Json<ShownPolicy>> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    find(&mut tx, workspace, id).await?;
    let new = body.read()?;
    if !store::replace(&mut tx, workspace, id, &new).await? {
        return Err(missing());
    }
    tell(&mut tx, &principal, "policy.updated", id, Some(&new)).await?;
    let shown = find(&mut tx, workspace, id).await?;
    tx.commit().await?;
    auth::forget(&app, RightsOf::Workspace(workspace));
    Ok(axum::Json(shown))
}

/// `DELETE /api/policies/{id}`.
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<StatusCode> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    if !store::delete(&mut tx, workspace, id).await? {
        return Err(missing());
    }
    tell(&mut tx, &principal, "policy.deleted", id, None).await?;
    tx.commit().await?;
    auth::forget(&app, RightsOf::Workspace(workspace));
    Ok(StatusCode::NO_CONTENT)
}
