//! Executions as the portal and its adapters see them: of tasks, numbered, with text for payload
//! and result. Underneath they are executions like any other.
//!
//! One that nobody holds can be taken by a client that runs it itself and reports how it goes:
//! it is external from then on, and no worker ever gets it.

mod external;
pub(crate) mod follow;
mod http;
mod pull;
mod submit;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

/// What the portal calls.
pub(super) fn routes(app: &App) -> Routes {
    let read = Access::Needs(Permission::ExecutionRead);
    let submit = Access::Needs(Permission::ExecutionSubmit);
    Routes::new(app)
        .post(
            "/api/runtime/executions",
            submit,
            http::create,
            Doc::new("Run a task")
                .body::<http::NewExecution>()
                .gives::<http::Shown>(201),
        )
        .get(
            "/api/runtime/executions",
            read,
            http::list,
            Doc::new("Executions, newest first")
                .query::<http::ListQuery>()
                .gives::<Vec<http::Shown>>(200),
        )
        .get(
            "/api/runtime/executions/{id}",
            read,
            http::get,
            Doc::new("An execution").gives::<http::Shown>(200),
        )
        .patch(
            "/api/runtime/executions/{id}/state",
            submit,
            external::report,
            Doc::new("Report how an execution goes that the caller runs itself")
                .body::<external::Report>()
                .gives::<http::Shown>(200),
        )
        .post(
            "/api/runtime/executions/{id}/cancel",
            Access::Needs(Permission::ExecutionCancel),
            http::cancel,
            Doc::new("Cancel an execution").gives::<http::Shown>(200),
        )
        .get(
            "/api/runtime/tasks/{id}/executions",
            read,
            http::of_task,
            Doc::new("A task's executions, newest first")
                .query::<http::ListQuery>()
                .gives::<Vec<http::Shown>>(200),
        )
        .get(
            "/api/tasks/{id}/executions",
            read,
            http::of_task,
            Doc::new("A task's executions, newest first")
                .query::<http::ListQuery>()
                .gives::<Vec<http::Shown>>(200),
        )
        .post(
            "/api/tasks/execute",
            submit,
            http::create,
            Doc::new("Run a task")
                .body::<http::NewExecution>()
                .gives::<http::Shown>(201),
        )
        .post(
            "/api/tasks/{id}/create_pr",
            submit,
            http::create_pr,
            Doc::new("Open a pull request for what a task's last execution pushed")
                .body::<http::NewPull>()
                .gives::<http::Pull>(200),
        )
}
