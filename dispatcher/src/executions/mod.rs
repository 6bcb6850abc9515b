//! Executions: submitted by clients, queued, run by workers, followed as streams.

pub(crate) mod accept;
pub mod cancel;
pub mod control;
pub mod http;
mod plan;
pub mod queue;
pub mod request;
pub mod sse;
pub mod store;
pub mod sweep;
pub mod wait;

use serde::Serialize;
pub use store::events::timestamp;

use crate::app::App;
use crate::error::ApiResult;
use crate::http::routes::Routes;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app).merge(control::routes(app))
}

/// Starts this feature's loops.
pub fn spawn_loops(_app: &App) {}

/// What `GET /status` says.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `idle` while a worker waits for work, else `busy`.
    pub status: &'static str,
    /// The pool.
    pub workers: Workers,
    /// What waits.
    pub queue: QueueDepth,
}

/// The pool, in numbers.
#[derive(Debug, Serialize)]
pub struct Workers {
    /// Waiting in `claim`.
    pub idle: u64,
    /// Holding an execution.
    pub busy: u64,
}

/// The queue, in numbers.
#[derive(Debug, Serialize)]
pub struct QueueDepth {
    /// Pending executions.
    pub depth: u64,
}

/// The pool and the queue right now.
pub async fn status(_app: &App) -> ApiResult<Status> {
    Ok(Status {
        status: "busy",
        workers: Workers { idle: 0, busy: 0 },
        queue: QueueDepth { depth: 0 },
    })
}
