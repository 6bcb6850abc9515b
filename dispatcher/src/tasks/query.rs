//! What a list of tasks may be asked for.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink_shared::execution::Priority;
use clawlink_shared::id::{ProjectId, TaskId, UserId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::kinds::Status;
use super::store::Task;
use super::store::list::{Filter, Order};
use crate::error::{ApiError, ApiResult};
use crate::http::body::moment;
use crate::http::page;

/// Tasks on a page where the request says nothing.
const DEFAULT_PAGE: i64 = 200;
/// Most tasks on a page.
const MAX_PAGE: i64 = 500;
/// Longest text to search for, in characters.
const MAX_TEXT: usize = 1000;

#[derive(Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default)]
#[into_params(rename_all = "camelCase")]
pub(super) struct ListQuery {
    /// Only of this project; also `project_id`.
    #[serde(alias = "project_id")]
    project_id: Option<i64>,
    /// Any of these statuses, separated by commas.
    status: Option<String>,
    /// Any of these priorities, separated by commas.
    priority: Option<String>,
    /// Only for this kind of agent.
    #[serde(alias = "assignedAgentType")]
    agent: Option<String>,
    /// Only with this label.
    label: Option<String>,
    /// Only of this member; also `assignee_id`, `assignee`.
    #[serde(alias = "assignee_id", alias = "assignee")]
    #[param(value_type = Option<uuid::Uuid>)]
    assignee_id: Option<UserId>,
    /// Only right below this task; also `parent_id`.
    #[serde(alias = "parent_id")]
    parent_id: Option<i64>,
    /// Only the one with this key.
    key: Option<String>,
    /// Due at this moment or later; also `due_from`.
    #[serde(alias = "due_from")]
    due_from: Option<String>,
    /// Due before this moment; also `due_to`.
    #[serde(alias = "due_to")]
    due_to: Option<String>,
    /// `false` (default), `true` or `any`.
    archived: Option<String>,
    /// Words that occur in key, title, description or labels; also `search`.
    #[serde(alias = "search")]
    q: Option<String>,
    /// `position` (needs a project, and is the default then) or `created`, the newest first.
    sort: Option<String>,
    /// At most so many, up to 500.
    limit: Option<i64>,
    /// Where an earlier answer said that it goes on.
    cursor: Option<String>,
}

/// The same, read.
pub(super) struct Wanted {
    pub(super) filter: Filter,
    pub(super) order: Order,
    pub(super) limit: i64,
}

impl ListQuery {
    /// 400 for what cannot be asked for.
    pub(super) fn read(self) -> ApiResult<Wanted> {
        let limit = page::limit_up_to(self.limit, DEFAULT_PAGE, MAX_PAGE)?;
        let texts = [&self.agent, &self.label, &self.key, &self.q];
        for text in texts.into_iter().flatten() {
            if text.contains('\0') || text.chars().count() > MAX_TEXT {
                let detail = format!("filters have at most {MAX_TEXT} characters and no NUL");
                return Err(ApiError::invalid(detail));
            }
        }
        let archived = match self.archived.as_deref() {
            None | Some("false") => Some(false),
            Some("true") => Some(true),
            Some("any") => None,
            Some(_) => return Err(ApiError::invalid("archived must be true, false or any")),
        };
        let order = match (self.sort.as_deref(), self.project_id) {
            (None | Some("position"), Some(_)) => Order::Board(None),
            (None, None) | (Some("created"), _) => Order::Newest(None),
            (Some("position"), None) => {
                return Err(ApiError::invalid("sort=position needs a projectId"));
            }
            _ => return Err(ApiError::invalid("sort must be position or created")),
        };
        let order = match self.cursor.as_deref() {
            Some(cursor) => order.after(cursor)?,
            None => order,
        };
        let moment = |name: &str, text: Option<String>| {
            text.map(|text| {
                moment(&text).ok_or_else(|| {
                    ApiError::invalid(format!("{name} must be a moment in RFC 3339, or a date"))
                })
            })
            .transpose()
        };
        let filter = Filter {
            project: self.project_id.map(ProjectId),
            statuses: names(self.status.as_deref(), "status", Status::from_name)?,
            priorities: names(self.priority.as_deref(), "priority", priority)?,
            agent: self.agent.filter(|agent| !agent.is_empty()),
            label: self.label.filter(|label| !label.is_empty()),
            assignee: self.assignee_id,
            parent: self.parent_id.map(TaskId),
            key: self.key.filter(|key| !key.is_empty()),
            due_from: moment("dueFrom", self.due_from)?,
            due_to: moment("dueTo", self.due_to)?,
            archived,
            text: self.q.filter(|text| !text.trim().is_empty()),
        };
        Ok(Wanted {
            filter,
            order,
            limit,
        })
    }
}

fn priority(name: &str) -> Option<i16> {
    let name = serde_json::Value::from(name);
    serde_json::from_value(name).ok().map(Priority::as_i16)
}

fn names<T>(
    text: Option<&str>,
    field: &str,
    read: impl Fn(&str) -> Option<T>,
) -> ApiResult<Vec<T>> {
    let names = text.unwrap_or_default().split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let unknown = || ApiError::invalid(format!("{field}: there is no such {field}"));
            read(name).ok_or_else(unknown)
        })
        .collect()
}

impl Order {
    /// Where the list goes on after this task.
    pub(super) fn cursor_at(&self, task: &Task) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(match self {
            Self::Board(_) => format!("p:{}", task.position),
            Self::Newest(_) => format!("n:{}", task.id),
        })
    }

    /// The same order from where a cursor says; 400 if it is of another order.
    fn after(self, cursor: &str) -> ApiResult<Self> {
        let text = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let place = text.as_deref().and_then(|text| match self {
            Self::Board(_) => {
                let position = text.strip_prefix("p:")?;
                let is_rank = position.bytes().all(|byte| byte.is_ascii_alphanumeric());
                is_rank.then(|| Self::Board(Some(position.to_owned())))
            }
            Self::Newest(_) => {
                let id: i64 = text.strip_prefix("n:")?.parse().ok()?;
                (id > 0).then_some(Self::Newest(Some(id)))
            }
        });
        place.ok_or_else(|| ApiError::invalid("cursor is not one that this list gave"))
    }
}
