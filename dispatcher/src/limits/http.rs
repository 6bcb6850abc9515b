//! The client API of limits.

use axum::Extension;
use axum::extract::State;
use clawlink_shared::id::WorkspaceId;
use clawlink_shared::problem::FieldFault;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{Amount, Limits, Reached, store};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::doc::Doc;
use crate::http::extract::Json;
use crate::http::routes::{Access, Routes};
use crate::usage;
use crate::usage::money::Micros;
use crate::workspaces::role::Permission;

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/limits",
            Access::Needs(Permission::ExecutionRead),
            get,
            Doc::new("What the workspace may spend, and what it has spent today")
                .gives::<ShownLimits>(200),
        )
        .put(
            "/api/limits",
            Access::Needs(Permission::LimitManage),
            put,
            Doc::new("Set what the workspace may spend")
                .body::<LimitsBody>()
                .gives::<ShownLimits>(200),
        )
}

/// US dollars; null: any amount. All must be said, so that nothing is taken away by mistake.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitsBody {
    /// Of all executions of a day (UTC).
    #[serde(default)]
    #[schema(value_type = Option<f64>, required)]
    daily_budget_usd: Amount,
    /// Of all turns of a session; one session may have less.
    #[serde(default)]
    #[schema(value_type = Option<f64>, required)]
    session_budget_usd: Amount,
    /// Of an execution whose request has no `maxBudgetUsd`.
    #[serde(default)]
    #[schema(value_type = Option<f64>, required)]
    execution_budget_usd: Amount,
}

/// Limits in US dollars; null: any amount.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownLimits {
    #[schema(value_type = Option<f64>)]
    daily_budget_usd: Option<Micros>,
    #[schema(value_type = Option<f64>)]
    session_budget_usd: Option<Micros>,
    #[schema(value_type = Option<f64>)]
    execution_budget_usd: Option<Micros>,
    /// Today (UTC), as far as it is known.
    #[schema(value_type = f64)]
    spent_today_usd: Micros,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

impl LimitsBody {
    fn read(&self) -> ApiResult<Limits> {
        let mut faults = Vec::new();
        let mut amount = |field: &str, said: Amount| said.read(field, &mut faults);
        let limits = Limits {
            day: amount("dailyBudgetUsd", self.daily_budget_usd),
            session: amount("sessionBudgetUsd", self.session_budget_usd),
            execution: amount("executionBudgetUsd", self.execution_budget_usd),
        };
        match faults.is_empty() {
            true => Ok(limits),
            false => Err(ApiError::invalid_fields(faults)),
        }
    }
}

/// The refusal of a session's budget beyond what the workspace allows each session.
pub(super) fn too_much(most: Micros) -> ApiError {
    ApiError::invalid_fields(vec![FieldFault {
        field: "sessionBudgetUsd".to_owned(),
        message: format!("must not be more than the workspace's limit of sessions, {most}"),
    }])
}

/// The refusal of work for which there is no money.
pub(super) fn refused(reached: &Reached) -> ApiError {
    ApiError::budget_exceeded(reached.message())
}

async fn shown(db: &mut PgConnection, workspace: WorkspaceId) -> ApiResult<ShownLimits> {
    let set = store::read(db, workspace).await?;
    let limits = set.as_ref().map_or_else(Limits::default, |set| set.limits);
    let spent = usage::spent(db, workspace, None, None).await?;
    Ok(ShownLimits {
        daily_budget_usd: limits.day,
        session_budget_usd: limits.session,
        execution_budget_usd: limits.execution,
        spent_today_usd: spent.day,
        updated_at: set.as_ref().map(|set| timestamp(set.at)),
        updated_by: set.map(|set| set.by),
    })
}

/// `GET /api/limits`.
async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<axum::Json<ShownLimits>> {
    let mut db = app.db.acquire().await?;
    Ok(axum::Json(shown(&mut db, principal.workspace).await?))
}

/// `PUT /api/limits`.
async fn put(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<LimitsBody>,
) -> ApiResult<axum::Json<ShownLimits>> {
    let limits = body.read()?;
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    store::put(&mut tx, workspace, &limits, &principal.name()).await?;
    let actor = Actor::from(&principal);
    let thing = ("workspace", workspace.0.to_string());
    let details = json!({
        "dailyBudgetUsd": limits.day, "sessionBudgetUsd": limits.session,
        "executionBudgetUsd": limits.execution,
    });
    let entry = Entry::done(workspace, &actor, "limits.updated", thing).with(details);
    audit::record(&mut tx, &entry).await?;
    let shown = shown(&mut tx, workspace).await?;
    tx.commit().await?;
    Ok(axum::Json(shown))
}
