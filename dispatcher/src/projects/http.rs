//! The client API of projects.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink_shared::id::{ProjectId, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::change::{self, Key};
use super::store::{self, Fields, Filter, Project};
use super::{key, no_such_project, repository};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::feed;
use crate::http::body::{Faults, Patched, patched, read};
use crate::http::extract::{Json as Body, Path, Query};
use crate::http::page;
use crate::idempotency::{self, Once};

/// Longest name and names of branches and agents, in characters.
const MAX_NAME: usize = 200;
/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 50_000;
/// Projects on a page where the request says nothing, and the most.
const MAX_PAGE: i64 = 500;

/// What can become of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProjectStatus)]
pub(super) enum Status {
    Active,
    Completed,
    Archived,
    OnHold,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Archived => "archived",
            Self::OnHold => "on_hold",
        }
    }
}

/// A project as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Project)]
pub(super) struct Shown {
    id: ProjectId,
    /// Its workspace.
    tenant_id: WorkspaceId,
    key: String,
    name: String,
    description: Option<String>,
    /// `active`, `completed`, `archived` or `on_hold`.
    status: String,
    github_repo_url: Option<String>,
    github_repo_owner: Option<String>,
    github_repo_name: Option<String>,
    default_branch: Option<String>,
    default_agent: Option<String>,
    tasks_follow_executions: bool,
    created_at: String,
    updated_at: String,
}

impl Shown {
    pub(super) fn of(workspace: WorkspaceId, project: Project) -> Self {
        Self {
            id: ProjectId(project.id),
            tenant_id: workspace,
            key: project.key,
            name: project.name,
            description: project.description,
            status: project.status,
            github_repo_url: project.repo_url,
            github_repo_owner: project.repo_owner,
            github_repo_name: project.repo_name,
            default_branch: project.default_branch,
            default_agent: project.default_agent,
            tasks_follow_executions: project.tasks_follow_executions,
            created_at: timestamp(project.created_at),
            updated_at: timestamp(project.updated_at),
        }
    }
}

#[derive(Deserialize, IntoParams)]
pub(super) struct ListQuery {
    /// Only projects with this status.
    #[param(inline)]
    status: Option<Status>,
    /// `false` (default), `true` or `any`.
    archived: Option<String>,
    /// At most so many, up to 500.
    limit: Option<i64>,
    /// Where an earlier answer said that it goes on.
    cursor: Option<String>,
}

/// A page of projects.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProjectList)]
pub(super) struct List {
    projects: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET /api/projects`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<List>> {
    let limit = page::limit_up_to(query.limit, MAX_PAGE, MAX_PAGE)?;
    let archived = match (query.archived.as_deref(), query.status) {
        (Some("true"), _) => Some(true),
        (Some("any"), _) | (None, Some(_)) => None,
        (Some("false") | None, _) => Some(false),
        _ => return Err(ApiError::invalid("archived must be true, false or any")),
    };
    let filter = Filter {
        status: query.status.map(|status| status.as_str().to_owned()),
        archived,
        after: query.cursor.as_deref().map(read_cursor).transpose()?,
    };
    let mut db = app.db.acquire().await?;
    let mut projects = store::list(&mut db, principal.workspace, &filter, limit + 1).await?;
    let last = page::cut(&mut projects, limit);
    let next_cursor = last.map(|project| BASE64_URL_SAFE_NO_PAD.encode(&project.key));
    let shown = |project| Shown::of(principal.workspace, project);
    Ok(Json(List {
        projects: projects.into_iter().map(shown).collect(),
        next_cursor,
    }))
}

fn read_cursor(text: &str) -> ApiResult<String> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|key| !key.is_empty() && !key.contains('\0'))
        .ok_or_else(|| ApiError::invalid("cursor is not one that this API gave"))
}

/// `GET /api/projects/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ProjectId>,
) -> ApiResult<Json<Shown>> {
    let mut db = app.db.acquire().await?;
    let project = store::find(&mut db, principal.workspace, id).await?;
    let project = project.ok_or_else(no_such_project)?;
    Ok(Json(Shown::of(principal.workspace, project)))
}

/// A project that is to be made. Names in snake case are taken too.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewProject)]
pub(super) struct NewProject {
    name: String,
    key: Option<String>,
    description: Option<String>,
    status: Option<Status>,
    #[serde(alias = "github_repo_url")]
    github_repo_url: Option<String>,
    #[serde(alias = "default_branch")]
    default_branch: Option<String>,
    #[serde(alias = "default_agent")]
    default_agent: Option<String>,
    #[serde(alias = "tasks_follow_executions")]
    tasks_follow_executions: Option<bool>,
}

impl NewProject {
    /// As a change of nothing: what it says, checked.
    fn change(self) -> Change {
        Change {
            name: Some(self.name),
            key: self.key.filter(|key| !key.trim().is_empty()),
            description: self.description.map(Some),
            status: self.status,
            github_repo_url: self.github_repo_url.map(Some),
            default_branch: self.default_branch.map(Some),
            default_agent: self.default_agent.map(Some),
            tasks_follow_executions: self.tasks_follow_executions,
        }
    }

    /// The fields of a new project, and how it gets its key.
    fn fields(self) -> ApiResult<(Fields, Key)> {
        let edit = self.change().checked()?;
        let name = edit.name.clone().unwrap_or_default();
        let how = match edit.key {
            Some(_) => Key::Given,
            None => Key::Derived,
        };
        let mut fields = Fields {
            key: change::key_for(&name),
            name,
            description: None,
            status: Status::Active.as_str().to_owned(),
            repo_url: None,
            repo_owner: None,
            repo_name: None,
            default_branch: None,
            default_agent: None,
            tasks_follow_executions: true,
        };
        edit.apply(&mut fields);
        Ok((fields, how))
    }
}

/// `POST /api/projects`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    once: Once,
    Body(body): Body<Value>,
) -> ApiResult<Response> {
    let once = once.of(&app, &body);
    let (fields, how) = read::<NewProject>(body)?.fields()?;
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    let earlier = idempotency::earlier(&mut transaction, &principal, once.as_ref()).await?;
    let project = match earlier.and_then(|id| id.parse().ok()) {
        Some(id) => {
            let project = store::find(&mut transaction, workspace, id).await?;
            project.ok_or_else(no_such_project)?
        }
        None => {
            let project = change::create(&mut transaction, &principal, fields, how).await?;
            let id = project.id.to_string();
            idempotency::remember(&mut transaction, &principal, once, "project", &id).await?;
            project
        }
    };
    transaction.commit().await?;
    feed::poke(&app, workspace);
    Ok((StatusCode::CREATED, Json(Shown::of(workspace, project))).into_response())
}

/// What an upsert did.
#[derive(Serialize, ToSchema)]
#[schema(as = UpsertedProject)]
pub(super) struct Upserted {
    /// `created` or `updated`.
    action: &'static str,
    project: Shown,
}

/// `POST /api/projects/upsert`: the project with this key, or without one with this name.
pub(super) async fn upsert(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(body): Body<NewProject>,
) -> ApiResult<Json<Upserted>> {
    let name = body.name.trim().to_owned();
    let key = body.key.as_deref().and_then(key::given);
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    let lock = key.as_deref().unwrap_or(&name).replace('\0', "");
    store::lock_name(&mut transaction, workspace, &lock).await?;
    let found = match name.contains('\0') {
        true => None,
        false => store::find_named(&mut transaction, workspace, key.as_deref(), &name).await?,
    };
    let (action, project) = match found {
        Some(id) => {
            let edit = body.change().checked()?;
            let edit = |fields: &mut Fields| edit.apply(fields);
            let project = change::change(&mut transaction, &principal, id, edit).await?;
            ("updated", project)
        }
        None => {
            let (fields, how) = body.fields()?;
            let project = change::create(&mut transaction, &principal, fields, how).await?;
            ("created", project)
        }
    };
    transaction.commit().await?;
    feed::poke(&app, workspace);
    Ok(Json(Upserted {
        action,
        project: Shown::of(workspace, project),
    }))
}

/// A partial update: absent leaves a field, null clears it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProjectChange)]
pub(super) struct Change {
    name: Option<String>,
    key: Option<String>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<String>)]
    description: Patched<String>,
    status: Option<Status>,
    #[serde(default, deserialize_with = "patched", alias = "github_repo_url")]
    #[schema(value_type = Option<String>)]
    github_repo_url: Patched<String>,
    #[serde(default, deserialize_with = "patched", alias = "default_branch")]
    #[schema(value_type = Option<String>)]
    default_branch: Patched<String>,
    #[serde(default, deserialize_with = "patched", alias = "default_agent")]
    #[schema(value_type = Option<String>)]
    default_agent: Patched<String>,
    #[serde(alias = "tasks_follow_executions")]
    tasks_follow_executions: Option<bool>,
}

impl Change {
    /// The same with all that can be wrong with it refused.
    fn checked(mut self) -> ApiResult<Self> {
        let mut faults = Faults::default();
        if let Some(name) = &mut self.name {
            *name = name.trim().to_owned();
            faults.name("name", name, MAX_NAME);
        }
        if let Some(text) = &mut self.key {
            match key::given(text) {
                Some(key) => *text = key,
                None => faults.add("key", "must have 1 to 50 characters, no control characters"),
            }
        }
        let text = |field: &Patched<String>| field.as_ref().and_then(Clone::clone);
        faults.text(
            "description",
            text(&self.description).as_deref(),
            MAX_DESCRIPTION,
        );
        faults.text(
            "defaultBranch",
            text(&self.default_branch).as_deref(),
            MAX_NAME,
        );
        faults.text(
            "defaultAgent",
            text(&self.default_agent).as_deref(),
            MAX_NAME,
        );
        // Forms send an empty address for none.
        if text(&self.github_repo_url).is_some_and(|url| url.trim().is_empty()) {
            self.github_repo_url = Some(None);
        }
        if let Some(Some(url)) = &mut self.github_repo_url {
            *url = url.trim().to_owned();
            if repository::parse(url).is_none() {
                faults.add(
                    "githubRepoUrl",
                    "must be like https://github.com/owner/name or git@github.com:owner/name, without a credential",
                );
            }
        }
        faults.refuse()?;
        Ok(self)
    }

    fn apply(self, fields: &mut Fields) {
        if let Some(name) = self.name {
            fields.name = name;
        }
        if let Some(key) = self.key {
            fields.key = key;
        }
        if let Some(description) = self.description {
            fields.description = description;
        }
        if let Some(status) = self.status {
            fields.status = status.as_str().to_owned();
        }
        if let Some(url) = self.github_repo_url {
            let repository = url.as_deref().and_then(repository::parse);
            (fields.repo_owner, fields.repo_name) = match repository {
                Some(repository) => (Some(repository.owner), Some(repository.name)),
                None => (None, None),
            };
            fields.repo_url = url;
        }
        if let Some(branch) = self.default_branch {
            fields.default_branch = branch;
        }
        if let Some(agent) = self.default_agent {
            fields.default_agent = agent;
        }
        if let Some(follow) = self.tasks_follow_executions {
            fields.tasks_follow_executions = follow;
        }
    }
}

/// `PATCH` and `PUT /api/projects/{id}`.
pub(super) async fn change(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ProjectId>,
    Body(body): Body<Change>,
) -> ApiResult<Json<Shown>> {
    let body = body.checked()?;
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    let edit = |fields: &mut Fields| body.apply(fields);
    let project = change::change(&mut transaction, &principal, id, edit).await?;
    transaction.commit().await?;
    feed::poke(&app, workspace);
    Ok(Json(Shown::of(workspace, project)))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct DeleteQuery {
    /// Delete it with all its tasks instead of archiving it.
    #[serde(default)]
    force: bool,
}

/// `DELETE /api/projects/{id}`.
pub(super) async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<ProjectId>,
    Query(query): Query<DeleteQuery>,
) -> ApiResult<StatusCode> {
    change::delete(&app, &principal, id, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}
