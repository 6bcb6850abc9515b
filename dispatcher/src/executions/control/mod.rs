//! The worker API: what is between one worker and any dispatcher.
//!
//! Every call but `claim` shows a lease; SQL compares it, so that a worker that lost its
//! execution changes nothing, whichever replica it speaks to. Every answer can be lost and its
//! call repeated. API.md lists the calls, `clawlink_shared::control` their messages.

mod archive;
mod claim;
mod complete;
mod events;
mod lease;
mod protocol;

use crate::app::App;
use crate::error::ApiError;
use crate::http::routes::{Access, Routes};

/// What workers call.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .post("/worker/claim", Access::Pool, claim::claim)
        .post("/worker/executions/{id}/ack", Access::Lease, lease::ack)
        .post("/worker/executions/{id}/state", Access::Lease, lease::state)
        .post(
            "/worker/executions/{id}/events",
            Access::Lease,
            events::events,
        )
        .post(
            "/worker/executions/{id}/heartbeat",
            Access::Lease,
            lease::heartbeat,
        )
        .get(
            "/worker/executions/{id}/control",
            Access::Lease,
            lease::control,
        )
        .post(
            "/worker/executions/{id}/archive",
            Access::Lease,
            archive::grant,
        )
        .post(
            "/worker/executions/{id}/archive/parts",
            Access::Lease,
            archive::parts,
        )
        .post(
            "/worker/executions/{id}/archive/finish",
            Access::Lease,
            archive::finish,
        )
        .post(
            "/worker/executions/{id}/archive/source",
            Access::Lease,
            archive::source,
        )
        .post(
            "/worker/executions/{id}/complete",
            Access::Lease,
            complete::complete,
        )
}

/// 409: the worker must stop.
fn lease_lost() -> ApiError {
    metrics::counter!("clawlink_leases_refused_total").increment(1);
    ApiError::conflict(
        clawlink_shared::control::LEASE_LOST,
        "this lease is not current; stop the agent and exit",
    )
}

/// 409: the call came before `ack`.
fn not_acknowledged() -> ApiError {
    ApiError::conflict("lease_not_acknowledged", "call `ack` first")
}
