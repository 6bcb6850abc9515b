//! The client API of rules and settings.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::WorkspaceId;
use clawlink_shared::problem::FieldFault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::rules::{Rule, Verdict};
use super::store::rules::{self as store, New, Row, Settings};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::config::{Fallback, Tuning};
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::doc::Doc;
use crate::http::extract::{Json, Path};
use crate::http::routes::{Access, Routes};
use crate::workspaces;
use crate::workspaces::role::Permission;

/// Rules of one workspace.
const MAX_RULES: i64 = 200;
/// Longest pattern and description, in bytes.
const MAX_TEXT: usize = 1024;
/// Longest time that a question may wait, in seconds: a week.
const MAX_TIMEOUT: i32 = 7 * 24 * 60 * 60;

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    let (read, manage) = (
        Access::Needs(Permission::PolicyRead),
        Access::Needs(Permission::PolicyManage),
    );
    Routes::new(app)
        .get(
            "/api/approval-policies",
            read,
            list,
            Doc::new("Rules that answer agents' questions").gives::<Rules>(200),
        )
        .post(
            "/api/approval-policies",
            manage,
            create,
            Doc::new("Ask, allow or deny what agents want to do")
                .body::<RuleBody>()
                .gives::<ShownRule>(201),
        )
        .get(
            "/api/approval-policies/{id}",
            read,
            get,
            Doc::new("A rule").gives::<ShownRule>(200),
        )
        .put(
            "/api/approval-policies/{id}",
            manage,
            replace,
            Doc::new("Make a rule say something else")
                .body::<RuleBody>()
                .gives::<ShownRule>(200),
        )
        .delete(
            "/api/approval-policies/{id}",
            manage,
            delete,
            Doc::new("Remove a rule").gives_nothing(204),
        )
        .get(
            "/api/approval-settings",
            read,
            settings,
            Doc::new("How long questions wait, and what becomes of them then")
                .gives::<ShownSettings>(200),
        )
        .put(
            "/api/approval-settings",
            manage,
            change_settings,
            Doc::new(
                "Change how long questions wait; what is absent is as the installation is set",
            )
            .body::<SettingsBody>()
            .gives::<ShownSettings>(200),
        )
}

/// A rule as clients write it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApprovalPolicyBody)]
struct RuleBody {
    #[serde(default)]
    description: String,
    /// A kind of agent; absent: all.
    agent: Option<String>,
    /// A tool's name as the agent says it; `*` stands for any run of characters.
    #[schema(required)]
    tool: Option<String>,
    /// What the command, path or address looks like; absent: whatever it is.
    input: Option<String>,
    #[schema(required)]
    decision: Option<Verdict>,
}

/// A rule as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApprovalPolicy)]
struct ShownRule {
    id: i64,
    description: String,
    agent: Option<&'static str>,
    tool: String,
    input: Option<String>,
    decision: Verdict,
    created_by: String,
    created_at: String,
}

impl From<Row> for ShownRule {
    fn from(row: Row) -> Self {
        Self {
            id: row.rule.id,
            description: row.description,
            agent: row.rule.agent.map(AgentKind::as_str),
            tool: row.rule.tool,
            input: row.rule.input,
            decision: row.rule.verdict,
            created_by: row.created_by,
            created_at: timestamp(row.created_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApprovalPolicies)]
struct Rules {
    policies: Vec<ShownRule>,
}

impl RuleBody {
    /// All faults at once.
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
        let is_line = |text: &str| {
            !text.is_empty() && text.len() <= MAX_TEXT && !text.contains(char::is_control)
        };
        let tool = self.tool.unwrap_or_default().trim().to_owned();
        if !is_line(&tool) {
            add("tool", "must be a tool's name, or a pattern of some");
        }
        let input = self.input.map(|text| text.trim().to_owned());
        if input.as_deref().is_some_and(|text| !is_line(text)) {
            add("input", "must be one line of visible text");
        }
        let agent = self.agent.map(|name| AgentKind::from_spelling(&name));
        if agent == Some(None) {
            add("agent", "must be a kind of agent, such as claude");
        }
        if self.decision.is_none() {
            add("decision", "is required: ask, allow or deny");
        }
        let Some(verdict) = self.decision.filter(|_| faults.is_empty()) else {
            return Err(ApiError::invalid_fields(faults));
        };
        Ok(New {
            rule: Rule {
                id: 0,
                agent: agent.flatten(),
                tool,
                input,
                verdict,
            },
            description: self.description,
        })
    }
}

/// Settings as clients write them; what is absent or null is as the installation is set.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApprovalSettingsBody)]
struct SettingsBody {
    /// From 1 to 604800.
    timeout_seconds: Option<i32>,
    on_timeout: Option<Fallback>,
}

/// What holds now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApprovalSettings)]
struct ShownSettings {
    timeout_seconds: u64,
    on_timeout: Fallback,
}

impl ShownSettings {
    fn of(settings: &Settings, tuning: &Tuning) -> Self {
        Self {
            timeout_seconds: settings.timeout(tuning).as_secs(),
            on_timeout: settings.on_timeout.unwrap_or(tuning.approval_default),
        }
    }
}

fn missing() -> ApiError {
    ApiError::not_found(
        "approval_policy_not_found",
        "this workspace has no such rule",
    )
}

async fn find(db: &mut PgConnection, workspace: WorkspaceId, id: i64) -> ApiResult<ShownRule> {
    let rows = store::list(db, workspace, Some(id)).await?;
    rows.into_iter().next().map(Into::into).ok_or_else(missing)
}

/// Records a change of a rule; `said` is what it says now.
async fn tell(
    db: &mut PgConnection,
    principal: &Principal,
    deed: &'static str,
    id: i64,
    said: Option<&New>,
) -> anyhow::Result<()> {
    let details = said.map_or(json!({}), |new| {
        let rule = &new.rule;
        json!({
            "agent": rule.agent, "tool": rule.tool, "input": rule.input,
            "decision": rule.verdict,
        })
    });
    record(
        db,
        principal,
        deed,
        ("approval_policy", id.to_string()),
        details,
    )
    .await
}

async fn record(
    db: &mut PgConnection,
    principal: &Principal,
    deed: &'static str,
    thing: (&'static str, String),
    details: Value,
) -> anyhow::Result<()> {
    let actor = Actor::from(principal);
    let entry = Entry::done(principal.workspace, &actor, deed, thing).with(details);
    audit::record(db, &entry).await
}

/// `GET /api/approval-policies`.
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<axum::Json<Rules>> {
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, principal.workspace, None).await?;
    let policies = rows.into_iter().map(Into::into).collect();
    Ok(axum::Json(Rules { policies }))
}

/// `GET /api/approval-policies/{id}`.
async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<axum::Json<ShownRule>> {
    let mut db = app.db.acquire().await?;
    Ok(axum::Json(find(&mut db, principal.workspace, id).await?))
}

/// `POST /api/approval-policies`.
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<RuleBody>,
) -> ApiResult<(StatusCode, axum::Json<ShownRule>)> {
    let new = body.read()?;
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    workspaces::lock(&mut tx, workspace).await?;
    if store::count(&mut tx, workspace).await? >= MAX_RULES {
        return Err(ApiError::conflict(
            "too_many_approval_policies",
            format!("the workspace has {MAX_RULES} rules; remove one first"),
        ));
    }
    let id = store::insert(&mut tx, workspace, &new, &principal.name()).await?;
    tell(
        &mut tx,
        &principal,
        "approval_policy.created",
        id,
        Some(&new),
    )
    .await?;
    let shown = find(&mut tx, workspace, id).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(shown)))
}

/// `PUT /api/approval-policies/{id}`.
async fn replace(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
    Json(body): Json<RuleBody>,
) -> ApiResult<axum::Json<ShownRule>> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    find(&mut tx, workspace, id).await?;
    let new = body.read()?;
    if !store::replace(&mut tx, workspace, id, &new).await? {
        return Err(missing());
    }
    tell(
        &mut tx,
        &principal,
        "approval_policy.updated",
        id,
        Some(&new),
    )
    .await?;
    let shown = find(&mut tx, workspace, id).await?;
    tx.commit().await?;
    Ok(axum::Json(shown))
}

/// `DELETE /api/approval-policies/{id}`.
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<i64>,
) -> ApiResult<StatusCode> {
    let mut tx = app.db.begin().await?;
    if !store::delete(&mut tx, principal.workspace, id).await? {
        return Err(missing());
    }
    tell(&mut tx, &principal, "approval_policy.deleted", id, None).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/approval-settings`.
async fn settings(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<axum::Json<ShownSettings>> {
    let mut db = app.db.acquire().await?;
    let settings = store::settings(&mut db, principal.workspace).await?;
    Ok(axum::Json(ShownSettings::of(&settings, &app.tuning)))
}

/// `PUT /api/approval-settings`.
async fn change_settings(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<SettingsBody>,
) -> ApiResult<axum::Json<ShownSettings>> {
    if body
        .timeout_seconds
        .is_some_and(|seconds| !(1..=MAX_TIMEOUT).contains(&seconds))
    {
        return Err(ApiError::invalid_fields(vec![FieldFault {
            field: "timeoutSeconds".to_owned(),
            message: format!("must be from 1 to {MAX_TIMEOUT}"),
        }]));
    }
    let settings = Settings {
        timeout_seconds: body.timeout_seconds,
        on_timeout: body.on_timeout,
    };
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    store::set(&mut tx, workspace, &settings, &principal.name()).await?;
    let thing = ("workspace", workspace.to_string());
    let details = json!({
        "timeoutSeconds": settings.timeout_seconds, "onTimeout": settings.on_timeout,
    });
    record(
        &mut tx,
        &principal,
        "approval_settings.updated",
        thing,
        details,
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(ShownSettings::of(&settings, &app.tuning)))
}
