//! What clients may say about a task, checked: a new one, or a change of one.

use clawlink_shared::execution::Priority;
use clawlink_shared::id::{ProjectId, TaskId, UserId};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::kinds::Status;
use super::place::Place;
use super::store::Fields;
use crate::error::{ApiError, ApiResult};
use crate::http::body::{Faults, LooseId, Patched, patched};

/// Longest title, in characters.
const MAX_TITLE: usize = 500;
/// Longest description, in characters; its words have to fit into the index.
const MAX_DESCRIPTION: usize = 50_000;
/// Longest reason and persona, in characters.
const MAX_NOTE: usize = 10_000;
/// Longest agent type and label, in characters.
const MAX_WORD: usize = 100;
/// Labels of one task.
const MAX_LABELS: usize = 50;
/// Longest address, in characters.
const MAX_URL: usize = 2000;

/// A task's fields. Of a new task `projectId` and `title` are required; of a change, absent
/// leaves a field and null clears it. Names in snake case are taken too.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TaskFields)]
pub(super) struct Body {
    #[serde(alias = "project_id")]
    #[schema(value_type = Option<i64>)]
    project_id: Option<LooseId>,
    title: Option<String>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<String>)]
    description: Patched<String>,
    status: Option<Status>,
    /// Kept while the status is `blocked`.
    #[serde(default, deserialize_with = "patched", alias = "blocked_reason")]
    #[schema(value_type = Option<String>)]
    blocked_reason: Patched<String>,
    /// `low`, `medium`, `high` or `critical`.
    #[schema(value_type = Option<String>)]
    priority: Option<Priority>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Vec<String>>)]
    labels: Patched<Vec<String>>,
    #[serde(default, deserialize_with = "patched", alias = "assigned_agent_type")]
    #[schema(value_type = Option<String>)]
    assigned_agent_type: Patched<String>,
    /// A member.
    #[serde(default, deserialize_with = "patched", alias = "assignee_id")]
    #[schema(value_type = Option<uuid::Uuid>)]
    assignee_id: Patched<UserId>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<String>)]
    persona: Patched<String>,
    /// RFC 3339, or a date.
    #[serde(default, deserialize_with = "patched", alias = "start_date")]
    #[schema(value_type = Option<String>)]
    start_date: Patched<String>,
    /// RFC 3339, or a date.
    #[serde(default, deserialize_with = "patched", alias = "due_date")]
    #[schema(value_type = Option<String>)]
    due_date: Patched<String>,
    #[serde(default, deserialize_with = "patched", alias = "github_pr_url")]
    #[schema(value_type = Option<String>)]
    github_pr_url: Patched<String>,
    #[serde(default, deserialize_with = "patched", alias = "github_pr_number")]
    #[schema(value_type = Option<i32>)]
    github_pr_number: Patched<i32>,
    /// The task above it.
    #[serde(default, deserialize_with = "patched", alias = "parent_id")]
    #[schema(value_type = Option<i64>)]
    parent_id: Patched<LooseId>,
    archived: Option<bool>,
    /// Put it right before this task on the board.
    #[serde(alias = "before_id")]
    #[schema(value_type = Option<i64>)]
    before_id: Option<LooseId>,
    /// Put it right behind this task on the board.
    #[serde(alias = "after_id")]
    #[schema(value_type = Option<i64>)]
    after_id: Option<LooseId>,
}

/// A checked change.
#[derive(Debug, Default)]
pub(super) struct Edit {
    pub(super) project: Option<ProjectId>,
    title: Option<String>,
    description: Patched<String>,
    status: Option<Status>,
    blocked_reason: Patched<String>,
    priority: Option<Priority>,
    labels: Option<Vec<String>>,
    assigned_agent_type: Patched<String>,
    pub(super) assignee: Patched<UserId>,
    persona: Patched<String>,
    start_date: Patched<OffsetDateTime>,
    due_date: Patched<OffsetDateTime>,
    github_pr_url: Patched<String>,
    github_pr_number: Patched<i32>,
    pub(super) parent: Patched<TaskId>,
    archived: Option<bool>,
    pub(super) place: Option<Place>,
}

/// A checked new task; its position is not known yet.
#[derive(Debug)]
pub(super) struct New {
    pub(super) project: ProjectId,
    pub(super) fields: Fields,
    pub(super) place: Place,
}

impl Body {
    /// As a change; every fault is named.
    pub(super) fn edit(self) -> ApiResult<Edit> {
        let mut faults = Faults::default();
        if let Some(title) = &self.title {
            faults.name("title", title, MAX_TITLE);
        }
        let mut text = |field, value: &Patched<String>, max| {
            faults.text(
                field,
                value.as_ref().and_then(|value| value.as_deref()),
                max,
            );
        };
        text("description", &self.description, MAX_DESCRIPTION);
        text("blockedReason", &self.blocked_reason, MAX_NOTE);
        text("persona", &self.persona, MAX_NOTE);
        text("assignedAgentType", &self.assigned_agent_type, MAX_WORD);
        text("githubPrUrl", &self.github_pr_url, MAX_URL);
        if let Some(Some(url)) = &self.github_pr_url
            && !["https://", "http://"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
        {
            faults.add("githubPrUrl", "must begin with https:// or http://");
        }
        if matches!(self.github_pr_number, Some(Some(..=0))) {
            faults.add("githubPrNumber", "must be positive");
        }
        let labels = self
            .labels
            .map(|labels| checked(labels.unwrap_or_default(), &mut faults));
        let mut moment = |field, value: Patched<String>| -> Patched<OffsetDateTime> {
            value.map(|value| faults.moment(field, value.as_deref().filter(|v| !v.is_empty())?))
        };
        let start_date = moment("startDate", self.start_date);
        let due_date = moment("dueDate", self.due_date);
        let place = match (self.before_id, self.after_id) {
            (Some(_), Some(_)) => {
                faults.add("beforeId", "give either beforeId or afterId");
                None
            }
            (Some(id), None) => Some(Place::Before(TaskId(id.0))),
            (None, Some(id)) => Some(Place::After(TaskId(id.0))),
            (None, None) => None,
        };
        faults.refuse()?;
        Ok(Edit {
            project: self.project_id.map(|id| ProjectId(id.0)),
            title: self.title.map(|title| title.trim().to_owned()),
            description: self.description,
            status: self.status,
            blocked_reason: self.blocked_reason,
            priority: self.priority,
            labels,
            assigned_agent_type: self.assigned_agent_type,
            assignee: self.assignee_id,
            persona: self.persona,
            start_date,
            due_date,
            github_pr_url: self.github_pr_url,
            github_pr_number: self.github_pr_number,
            parent: self.parent_id.map(|id| id.map(|id| TaskId(id.0))),
            archived: self.archived,
            place,
        })
    }

    /// As a new task.
    pub(super) fn new_task(self) -> ApiResult<New> {
        let (has_project, has_title) = (self.project_id.is_some(), self.title.is_some());
        let edit = self.edit()?;
        let mut faults = Faults::default();
        if !has_title {
            faults.add("title", "is required");
        }
        if !has_project {
            faults.add("projectId", "is required");
        }
        faults.refuse()?;
        let project = edit
            .project
            .ok_or_else(|| ApiError::invalid("projectId: is required"))?;
        let place = edit.place.unwrap_or(Place::Last);
        let mut fields = Fields {
            title: String::new(),
            description: None,
            status: Status::Todo,
            blocked_reason: None,
            priority: Priority::default().as_i16(),
            labels: Vec::new(),
            assigned_agent_type: None,
            assignee: None,
            persona: None,
            start_date: None,
            due_date: None,
            github_pr_url: None,
            github_pr_number: None,
            parent: None,
            position: String::new(),
            archived: false,
        };
        edit.apply(&mut fields);
        Ok(New {
            project,
            fields,
            place,
        })
    }
}

/// Labels, trimmed and each once.
fn checked(labels: Vec<String>, faults: &mut Faults) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(labels.len().min(MAX_LABELS));
    if labels.len() > MAX_LABELS {
        faults.add("labels", format!("must be at most {MAX_LABELS}"));
        return kept;
    }
    for label in labels {
        let label = label.trim();
        faults.name("labels", label, MAX_WORD);
        if !kept.iter().any(|known| known == label) {
            kept.push(label.to_owned());
        }
    }
    kept
}

impl Edit {
    /// Nothing but putting it away.
    pub(super) fn archive() -> Self {
        Self {
            archived: Some(true),
            ..Self::default()
        }
    }

    /// Nothing but another parent, or none.
    pub(super) fn under(parent: Option<TaskId>) -> Self {
        Self {
            parent: Some(parent),
            ..Self::default()
        }
    }

    /// Writes what is said into the fields; place and project are the caller's.
    pub(super) fn apply(self, fields: &mut Fields) {
        fn set<T>(field: &mut T, said: Option<T>) {
            if let Some(said) = said {
                *field = said;
            }
        }
        set(&mut fields.title, self.title);
        set(&mut fields.description, self.description);
        set(&mut fields.status, self.status);
        set(&mut fields.blocked_reason, self.blocked_reason);
        set(&mut fields.priority, self.priority.map(Priority::as_i16));
        set(&mut fields.labels, self.labels);
        set(&mut fields.assigned_agent_type, self.assigned_agent_type);
        set(&mut fields.assignee, self.assignee);
        set(&mut fields.persona, self.persona);
        set(&mut fields.start_date, self.start_date);
        set(&mut fields.due_date, self.due_date);
        set(&mut fields.github_pr_url, self.github_pr_url);
        set(&mut fields.github_pr_number, self.github_pr_number);
        set(&mut fields.parent, self.parent);
        set(&mut fields.archived, self.archived);
        if fields.status != Status::Blocked {
            fields.blocked_reason = None;
        }
    }
}
