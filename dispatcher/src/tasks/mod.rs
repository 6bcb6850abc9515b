//! Tasks: what is wanted, how far it is, how it hangs together, and in which order a board
//! shows it.
//!
//! Keys such as `APP-001` are numbered under a row lock and never given twice. Every change is
//! written with its audit entry and its feed event in one transaction. What is deleted is
//! archived unless forced; a task of another workspace is not there.

mod change;
mod edit;
mod follow;
mod http;
mod kinds;
mod place;
mod query;
mod rank;
mod relations;
mod shown;
mod store;

use clawlink_shared::id::{TaskId, WorkspaceId};
use sqlx::PgConnection;

use crate::app::App;
use crate::error::ApiError;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

pub use follow::{Step, follow, pull_request_merged};
pub use kinds::Status;
pub use store::Task;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/tasks",
            Access::Needs(Permission::TaskRead),
            http::list,
            Doc::new("Tasks: a project's board, or the newest first")
                .query::<query::ListQuery>()
                .gives::<http::List>(200),
        )
        .post(
            "/api/tasks",
            Access::Needs(Permission::TaskWrite),
            http::create,
            Doc::new("Make a task")
                .body::<edit::Body>()
                .gives::<shown::Shown>(201),
        )
        .post(
            "/api/tasks/next",
            Access::Needs(Permission::TaskWrite),
            http::next,
            Doc::new("Take the most urgent task that nobody has begun")
                .body::<http::NextBody>()
                .gives::<http::Taken>(200),
        )
        .get(
            "/api/tasks/{id}",
            Access::Needs(Permission::TaskRead),
            http::get,
            Doc::new("A task").gives::<shown::Shown>(200),
        )
        .patch(
            "/api/tasks/{id}",
            Access::Needs(Permission::TaskWrite),
            http::change,
            Doc::new("Change a task; null clears a field")
                .body::<edit::Body>()
                .gives::<shown::Shown>(200),
        )
        .put(
            "/api/tasks/{id}",
            Access::Needs(Permission::TaskWrite),
            http::change,
            Doc::new("The same as PATCH")
                .body::<edit::Body>()
                .gives::<shown::Shown>(200),
        )
        .delete(
            "/api/tasks/{id}",
            Access::Needs(Permission::TaskDelete),
            http::delete,
            Doc::new("Archive a task, or with `force` delete it")
                .query::<http::DeleteQuery>()
                .gives_nothing(204),
        )
        .get(
            "/api/tasks/{id}/relations",
            Access::Needs(Permission::TaskRead),
            http::relations,
            Doc::new("How a task hangs together with others").gives::<http::Relations>(200),
        )
        .post(
            "/api/tasks/{id}/relations",
            Access::Needs(Permission::TaskWrite),
            http::relate,
            Doc::new("Relate a task to another")
                .body::<http::NewRelation>()
                .gives_nothing(204),
        )
        .delete(
            "/api/tasks/{id}/relations/{kind}/{other}",
            Access::Needs(Permission::TaskWrite),
            http::unrelate,
            Doc::new("Take a relation away")
                .text("kind")
                .gives_nothing(204),
        )
}

/// A task of this workspace.
pub async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: TaskId,
) -> anyhow::Result<Option<Task>> {
    store::find(db, workspace, id).await
}

/// 404 `task_not_found`.
pub(crate) fn no_such_task() -> ApiError {
    ApiError::not_found("task_not_found", "this workspace has no such task")
}
