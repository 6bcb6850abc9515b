//! The client API of tasks.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use clawlink_shared::id::{ProjectId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::edit::Body as TaskBody;
use super::kinds::Relation;
use super::query::ListQuery;
use super::relations::{self, MAX_LISTED};
use super::shown::Shown;
use super::store::{self, list, relations as rows};
use super::{change, no_such_task};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::body::{LooseId, read};
use crate::http::extract::{Json as Body, Path, Query};
use crate::http::page;
use crate::idempotency::{self, Once};
use crate::{feed, projects};

/// A page of tasks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TaskList)]
pub(super) struct List {
    tasks: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET /api/tasks`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Response> {
    let wanted = query.read()?;
    let workspace = principal.workspace;
    let mut db = app.db.acquire().await?;
    let (filter, order) = (&wanted.filter, &wanted.order);
    let mut tasks = list::page(&mut db, workspace, filter, order, wanted.limit + 1).await?;
    if let Some(project) = filter.project
        && tasks.is_empty()
        && projects::find(&mut db, workspace, project).await?.is_none()
    {
        return Err(projects::no_such_project());
    }
    drop(db);
    let last = page::cut(&mut tasks, wanted.limit);
    let next_cursor = last.map(|task| wanted.order.cursor_at(task));
    let mut headers = HeaderMap::new();
    if let Some(cursor) = &next_cursor {
        let cursor = HeaderValue::from_str(cursor).expect("a cursor is ASCII");
        headers.insert("x-next-cursor", cursor);
    }
    let list = List {
        tasks: tasks
            .into_iter()
            .map(|task| Shown::of(workspace, task))
            .collect(),
        next_cursor,
    };
    Ok((headers, Json(list)).into_response())
}

/// `GET /api/tasks/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
) -> ApiResult<Json<Shown>> {
    let mut db = app.db.acquire().await?;
    let task = store::find(&mut db, principal.workspace, id).await?;
    let task = task.ok_or_else(no_such_task)?;
    Ok(Json(Shown::of(principal.workspace, task)))
}

/// `POST /api/tasks`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    once: Once,
    Body(body): Body<Value>,
) -> ApiResult<Response> {
    let once = once.of(&app, &body);
    let new = read::<TaskBody>(body)?.new_task()?;
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    let earlier = idempotency::earlier(&mut transaction, &principal, once.as_ref()).await?;
    let task = match earlier.and_then(|id| id.parse().ok()) {
        Some(id) => {
            let task = store::find(&mut transaction, workspace, id).await?;
            task.ok_or_else(no_such_task)?
        }
        None => {
            let task = change::create(&mut transaction, &principal, new).await?;
            let id = task.id.to_string();
            idempotency::remember(&mut transaction, &principal, once, "task", &id).await?;
            task
        }
    };
    transaction.commit().await?;
    feed::poke(&app, workspace);
    let location = [(header::LOCATION, format!("/api/tasks/{}", task.id))];
    let shown = Json(Shown::of(workspace, task));
    Ok((StatusCode::CREATED, location, shown).into_response())
}

/// `PATCH` and `PUT /api/tasks/{id}`.
pub(super) async fn change(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
    Body(body): Body<TaskBody>,
) -> ApiResult<Json<Shown>> {
    let edit = body.edit()?;
    let workspace = principal.workspace;
    let mut transaction = app.db.begin().await?;
    let task = change::change(&mut transaction, &principal, id, edit).await?;
    transaction.commit().await?;
    feed::poke(&app, workspace);
    Ok(Json(Shown::of(workspace, task)))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct DeleteQuery {
    /// Delete it instead of archiving it.
    #[serde(default)]
    force: bool,
}

/// `DELETE /api/tasks/{id}`.
pub(super) async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
    Query(query): Query<DeleteQuery>,
) -> ApiResult<StatusCode> {
    change::delete(&app, &principal, id, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is to be taken next. May be empty.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NextTask)]
pub(super) struct NextBody {
    /// Only of this project.
    #[serde(alias = "project_id")]
    #[schema(value_type = Option<i64>)]
    project_id: Option<LooseId>,
    /// Only tasks for this kind of agent, or for any.
    #[serde(alias = "agent_type")]
    agent_type: Option<String>,
}

/// The task that was taken.
#[derive(Serialize, ToSchema)]
#[schema(as = TakenTaskOrNone)]
pub(super) struct Taken {
    task: Option<TakenTask>,
}

/// A task with its id as text.
#[derive(Serialize, ToSchema)]
struct TakenTask {
    id: String,
    #[serde(flatten)]
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    rest: serde_json::Map<String, Value>,
}

/// `POST /api/tasks/next`: takes the most urgent task that nobody has begun.
pub(super) async fn next(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(body): Body<NextBody>,
) -> ApiResult<Json<Taken>> {
    let workspace = principal.workspace;
    let project = body.project_id.map(|id| ProjectId(id.0));
    let agent = body.agent_type.as_deref();
    if agent.is_some_and(|agent| agent.contains('\0')) {
        return Err(ApiError::invalid("agentType: must not contain NUL"));
    }
    let mut transaction = app.db.begin().await?;
    let task = change::next(&mut transaction, &principal, project, agent).await?;
    transaction.commit().await?;
    let Some(task) = task else {
        return Ok(Json(Taken { task: None }));
    };
    feed::poke(&app, workspace);
    let id = task.id.to_string();
    let mut rest = match serde_json::to_value(Shown::of(workspace, task)) {
        Ok(Value::Object(rest)) => rest,
        _ => serde_json::Map::new(),
    };
    rest.remove("id");
    Ok(Json(Taken {
        task: Some(TakenTask { id, rest }),
    }))
}

/// A task's relations.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskRelations)]
pub(super) struct Relations {
    relations: Vec<Related>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskRelation)]
struct Related {
    /// `parent`, `child`, `blocks`, `blocked_by` or `relates`.
    kind: String,
    task: Other,
}

/// The other task.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RelatedTask)]
struct Other {
    id: TaskId,
    project_id: ProjectId,
    key: String,
    title: String,
    status: String,
    archived: bool,
}

/// `GET /api/tasks/{id}/relations`.
pub(super) async fn relations(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
) -> ApiResult<Json<Relations>> {
    let mut db = app.db.acquire().await?;
    let found = store::find(&mut db, principal.workspace, id).await?;
    found.ok_or_else(no_such_task)?;
    let relations = rows::list(&mut db, principal.workspace, id, MAX_LISTED).await?;
    let shown = relations.into_iter().map(|related| Related {
        kind: related.kind,
        task: Other {
            id: TaskId(related.id),
            project_id: ProjectId(related.project_id),
            key: related.key,
            title: related.title,
            status: related.status,
            archived: related.archived,
        },
    });
    Ok(Json(Relations {
        relations: shown.collect(),
    }))
}

/// A relation that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewTaskRelation)]
pub(super) struct NewRelation {
    kind: Relation,
    /// The other task.
    #[serde(alias = "task_id")]
    #[schema(value_type = i64)]
    task_id: LooseId,
}

/// `POST /api/tasks/{id}/relations`.
pub(super) async fn relate(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<TaskId>,
    Body(body): Body<NewRelation>,
) -> ApiResult<StatusCode> {
    let other = TaskId(body.task_id.0);
    let mut transaction = app.db.begin().await?;
    relations::relate(&mut transaction, &principal, id, body.kind, other).await?;
    transaction.commit().await?;
    feed::poke(&app, principal.workspace);
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/tasks/{id}/relations/{kind}/{other}`.
pub(super) async fn unrelate(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((id, kind, other)): Path<(TaskId, Relation, TaskId)>,
) -> ApiResult<StatusCode> {
    let mut transaction = app.db.begin().await?;
    relations::unrelate(&mut transaction, &principal, id, kind, other).await?;
    transaction.commit().await?;
    feed::poke(&app, principal.workspace);
    Ok(StatusCode::NO_CONTENT)
}
