//! The client API of usage.

use axum::Extension;
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink_shared::id::SessionId;
use serde::{Deserialize, Serialize};
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, UtcOffset};
use utoipa::{IntoParams, ToSchema};

use super::money::Micros;
use super::store::{self, Group, Wanted};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::body::moment;
use crate::http::doc::Doc;
use crate::http::extract::Query;
use crate::http::page;
use crate::http::routes::{Access, Routes};
use crate::policies;
use crate::workspaces::role::Permission;

/// Days of a question that names no first one.
const DEFAULT_DAYS: i64 = 30;
/// Longest time that is added up, in days.
const MAX_DAYS: i64 = 400;
/// What usage can be grouped by.
const GROUPS: [&str; 8] = [
    "day",
    "execution",
    "session",
    "task",
    "project",
    "agent",
    "model",
    "user",
];

/// What clients call.
pub(super) fn routes(app: &App) -> Routes {
    Routes::new(app).get(
        "/api/usage",
        Access::Needs(Permission::ExecutionRead),
        list,
        Doc::new("Tokens and cost, added up by day, session, model, …")
            .query::<UsageQuery>()
            .gives::<UsageList>(200),
    )
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
struct UsageQuery {
    /// First day (UTC), as `YYYY-MM-DD` or a moment in it; 30 days ago where nothing is said.
    from: Option<String>,
    /// Last day; today where nothing is said.
    to: Option<String>,
    /// `day` (default), `execution`, `session`, `task`, `project`, `agent`, `model` or `user`.
    group_by: Option<String>,
    /// Groups on a page.
    limit: Option<i64>,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// Usage by groups.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsageList {
    from: String,
    to: String,
    group_by: String,
    groups: Vec<UsageGroup>,
    /// All groups, those of other pages included.
    total: UsageSum,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsageGroup {
    /// A day, an id, a name; null for what belongs to none.
    key: Option<String>,
    #[serde(flatten)]
    sum: UsageSum,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsageSum {
    executions: i64,
    input_tokens: i64,
    output_tokens: i64,
    cache_read_tokens: i64,
    cache_write_tokens: i64,
    /// US dollars, as far as they are known; null if nothing is.
    #[schema(value_type = Option<f64>)]
    cost_usd: Option<Micros>,
    /// Executions of which some cost is not known, and not in `costUsd`.
    unpriced_executions: i64,
}

impl From<Group> for UsageSum {
    fn from(group: Group) -> Self {
        Self {
            executions: group.executions,
            input_tokens: group.input,
            output_tokens: group.output,
            cache_read_tokens: group.cache_read,
            cache_write_tokens: group.cache_write,
            cost_usd: group.cost.map(Micros),
            unpriced_executions: group.unpriced,
        }
    }
}

/// `GET /api/usage`.
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<UsageQuery>,
) -> ApiResult<axum::Json<UsageList>> {
    let (from, to) = days(&query)?;
    let group_by = query.group_by.as_deref().unwrap_or("day");
    if !GROUPS.contains(&group_by) {
        let detail = format!("groupBy must be one of {}", GROUPS.join(", "));
        return Err(ApiError::invalid(detail));
    }
    let limit = page::limit(query.limit)?;
    let after = query.cursor.as_deref().map(key_of).transpose()?;
    let rules = policies::rules(&app, &principal).await?;
    let mut wanted = Wanted {
        from,
        to,
        group_by,
        after: after.as_deref(),
        limit: limit + 1,
    };
    let mut db = app.db.acquire().await?;
    let mut groups = store::groups(&mut db, principal.workspace, &wanted).await?;
    (wanted.group_by, wanted.after, wanted.limit) = ("", None, 1);
    let total = store::groups(&mut db, principal.workspace, &wanted).await?;
    drop(db);
    let has_more = groups.len() as i64 > limit;
    groups.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let last = groups.last().filter(|_| has_more);
    let next_cursor = last.map(|group| BASE64_URL_SAFE_NO_PAD.encode(&group.key));
    if matches!(group_by, "session" | "execution") {
        groups.retain(|group| {
            let session = group.session.map(SessionId);
            session.is_none_or(|session| rules.shows(&principal, session))
        });
    }
    let is_number = matches!(group_by, "execution" | "task" | "project");
    let groups = groups.into_iter().map(|group| UsageGroup {
        key: shown(&group.key, is_number),
        sum: group.into(),
    });
    Ok(axum::Json(UsageList {
        from: day(from),
        to: day(to),
        group_by: group_by.to_owned(),
        groups: groups.collect(),
        total: total.into_iter().next().map_or_else(nothing, Into::into),
        next_cursor,
    }))
}

fn nothing() -> UsageSum {
    UsageSum {
        executions: 0,
        input_tokens: 0,
        output_tokens: 0,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        cost_usd: None,
        unpriced_executions: 0,
    }
}

/// First and last day.
fn days(query: &UsageQuery) -> ApiResult<(Date, Date)> {
    let read = |text: &Option<String>, field: &str| -> ApiResult<Option<Date>> {
        let Some(text) = text else { return Ok(None) };
        let read = moment(text).map(|at| at.to_offset(UtcOffset::UTC).date());
        let fault = || ApiError::invalid(format!("{field} must be a day, as 2026-11-20"));
        read.ok_or_else(fault).map(Some)
    };
    let to = read(&query.to, "to")?.unwrap_or_else(|| OffsetDateTime::now_utc().date());
    let from = read(&query.from, "from")?;
    let from = from.unwrap_or_else(|| to.saturating_sub(Duration::days(DEFAULT_DAYS)));
    let length = (to - from).whole_days();
    if !(0..MAX_DAYS).contains(&length) {
        let detail = format!("to must be from or later, and not {MAX_DAYS} days later");
        return Err(ApiError::invalid(detail));
    }
    Ok((from, to))
}

fn day(date: Date) -> String {
    date.format(format_description!("[year]-[month]-[day]"))
        .expect("every date has this form")
}

fn key_of(cursor: &str) -> ApiResult<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.filter(|key| !key.contains('\0'))
        .ok_or_else(|| ApiError::invalid("cursor is not one that this list gave"))
}

/// A key as clients know it.
fn shown(key: &str, is_number: bool) -> Option<String> {
    let key = match is_number {
        true => key.trim_start_matches('0'),
        false => key,
    };
    (!key.is_empty()).then(|| key.to_owned())
}
