//! The worker API: what is between one worker and any dispatcher.
//!
//! Every call but `claim` shows a lease; SQL compares it, so that a worker that lost its
//! execution changes nothing, whichever replica it speaks to. Every answer can be lost and its
//! call repeated. API.md lists the calls, `clawlink_shared::control` their messages.

mod archive;
mod claim;
mod complete;
mod credentials;
mod events;
mod lease;
mod protocol;
mod pull_request;
mod recent;
mod told;

use crate::app::App;
use crate::error::ApiError;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
pub use recent::Recent;

/// What workers call.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .post(
            "/worker/claim",
            Access::Pool,
            claim::claim,
            Doc::new("Wait for an execution and take it")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/ack",
            Access::Lease,
            lease::ack,
            Doc::new("Acknowledge a lease")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/state",
            Access::Lease,
            lease::state,
            Doc::new("Move the execution to another state")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/events",
            Access::Lease,
            events::events,
            Doc::new("Append events")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/heartbeat",
            Access::Lease,
            lease::heartbeat,
            Doc::new("Renew the lease")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .get(
            "/worker/executions/{id}/control",
            Access::Lease,
            lease::control,
            Doc::new("Wait for orders")
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/archive",
            Access::Lease,
            archive::grant,
            Doc::new("Ask where to upload the session's archive")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/archive/parts",
            Access::Lease,
            archive::parts,
            Doc::new("Ask for addresses of further parts")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/archive/finish",
            Access::Lease,
            archive::finish,
            Doc::new("Join the parts")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/archive/source",
            Access::Lease,
            archive::source,
            Doc::new("Ask again where the session's archive is")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
        .post(
            "/worker/executions/{id}/pull-request",
            Access::Lease,
            pull_request::open,
            Doc::new("Have the request's pull request opened")
                .any_body()
                .gives_any(200),
        )
        .post(
            "/worker/executions/{id}/credentials",
            Access::Lease,
            credentials::credentials,
            Doc::new("Store a login that the agent's program renewed")
                .any_body()
                .gives_any(200),
        )
        .post(
            "/worker/executions/{id}/complete",
            Access::Lease,
            complete::complete,
            Doc::new("Report the end")
                .any_body()
                .gives_any(200)
                .gives_nothing(204),
        )
}

/// 503: it changed each time that it was looked at; the worker repeats its call.
fn restless() -> ApiError {
    let cause = anyhow::anyhow!("the execution changed whenever it was read");
    ApiError::unavailable("try again in a moment", cause)
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
