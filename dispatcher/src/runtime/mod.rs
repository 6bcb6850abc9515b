//! The runtime API of an earlier generation: client sessions, `tasks/submit`, state, cancel,
//! agents and skills, in snake_case. Underneath are executions like any other.
//!
//! Its clients send no credential. Without one a request is served only if the operator named
//! a workspace and a role for such clients, and then with a session of theirs; a session that
//! somebody with a credential opened is nothing without that credential.

mod catalog;
mod sessions;
mod store;
mod tasks;
mod translate;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

pub use sessions::{anonymous, clean};
pub use translate::translate;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .post(
            "/api/runtime/sessions",
            Access::Needs(Permission::ExecutionRead),
            sessions::open,
            Doc::new("Open a client session; parameters in the query or the body")
                .query::<sessions::NewSession>()
                .body::<sessions::NewSession>()
                .gives::<sessions::Session>(200),
        )
        .get(
            "/api/runtime/sessions/{id}",
            Access::Needs(Permission::ExecutionRead),
            sessions::get,
            Doc::new("A client session")
                .uuid("id")
                .gives::<sessions::Session>(200),
        )
        .post(
            "/api/runtime/tasks/submit",
            Access::Needs(Permission::ExecutionSubmit),
            tasks::submit,
            Doc::new("Submit an execution")
                .query::<sessions::OfSession>()
                .body::<tasks::Submission>()
                .gives::<tasks::Task>(200),
        )
        .get(
            "/api/runtime/tasks/{id}/state",
            Access::Needs(Permission::ExecutionRead),
            tasks::state,
            Doc::new("How far a submitted execution is")
                .uuid("id")
                .query::<sessions::OfSession>()
                .gives::<tasks::Task>(200),
        )
        .post(
            "/api/runtime/tasks/{id}/cancel",
            Access::Needs(Permission::ExecutionCancel),
            tasks::cancel_task,
            Doc::new("Cancel a submitted execution")
                .uuid("id")
                .query::<sessions::OfSession>()
                .gives::<tasks::Cancelled>(200),
        )
        .get(
            "/api/runtime/agents",
            Access::Needs(Permission::AgentRead),
            catalog::agents,
            Doc::new("Agents that can be asked for")
                .query::<sessions::OfSession>()
                .gives::<Vec<catalog::Agent>>(200),
        )
        .get(
            "/api/runtime/skills",
            Access::Needs(Permission::AgentRead),
            catalog::skills,
            Doc::new("Skills that can be asked for")
                .query::<sessions::OfSession>()
                .gives::<Vec<catalog::Skill>>(200),
        )
}
