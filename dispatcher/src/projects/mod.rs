//! Projects: what tasks belong to, with a repository and defaults for their executions.
//!
//! A project's key begins its tasks' keys and is unique in the workspace. What is deleted is
//! archived unless forced; a project of another workspace is not there.

mod change;
mod http;
mod key;
pub mod repository;
mod store;

use clawlink_shared::id::{ProjectId, WorkspaceId};
use sqlx::PgConnection;

use crate::app::App;
use crate::error::ApiError;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

pub use store::Project;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/projects",
            Access::Needs(Permission::ProjectRead),
            http::list,
            Doc::new("Projects, by key")
                .query::<http::ListQuery>()
                .gives::<http::List>(200),
        )
        .post(
            "/api/projects",
            Access::Needs(Permission::ProjectWrite),
            http::create,
            Doc::new("Make a project; without a key one is derived from the name")
                .body::<http::NewProject>()
                .gives::<http::Shown>(201),
        )
        .post(
            "/api/projects/upsert",
            Access::Needs(Permission::ProjectWrite),
            http::upsert,
            Doc::new("Make or change the project with this key or name")
                .body::<http::NewProject>()
                .gives::<http::Upserted>(200),
        )
        .get(
            "/api/projects/{id}",
            Access::Needs(Permission::ProjectRead),
            http::get,
            Doc::new("A project").gives::<http::Shown>(200),
        )
        .patch(
            "/api/projects/{id}",
            Access::Needs(Permission::ProjectWrite),
            http::change,
            Doc::new("Change a project; null clears a field")
                .body::<http::Change>()
                .gives::<http::Shown>(200),
        )
        .put(
            "/api/projects/{id}",
            Access::Needs(Permission::ProjectWrite),
            http::change,
            Doc::new("The same as PATCH")
                .body::<http::Change>()
                .gives::<http::Shown>(200),
        )
        .delete(
            "/api/projects/{id}",
            Access::Needs(Permission::ProjectDelete),
            http::delete,
            Doc::new("Archive a project, or with `force` delete it with its tasks")
                .query::<http::DeleteQuery>()
                .gives_nothing(204),
        )
}

/// A project of this workspace.
pub async fn find(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ProjectId,
) -> anyhow::Result<Option<Project>> {
    store::find(db, workspace, id).await
}

/// Locks the project until the end of the transaction, so that order and numbers of its tasks
/// change by one caller at a time. Its key; `None` if there is no such project.
pub(crate) async fn lock(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: ProjectId,
) -> anyhow::Result<Option<String>> {
    store::lock(db, workspace, id).await
}

/// 404 `project_not_found`.
pub(crate) fn no_such_project() -> ApiError {
    ApiError::not_found("project_not_found", "this workspace has no such project")
}
