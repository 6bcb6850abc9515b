//! The HTTP surface, assembled from the features' route tables.

pub mod extract;
pub mod health;
pub mod listen;
pub mod metrics;
pub mod page;
pub mod routes;
pub mod trace;

use axum::Router;
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::ApiError;
use crate::{executions, sessions};
use routes::{Access, Route, Routes};

/// The whole route table.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get("/health", Access::Public, health::health)
        .get("/health/live", Access::Public, health::live)
        .get("/status", Access::Public, health::status)
        .get("/metrics", Access::Public, metrics::metrics)
        .merge(executions::routes(app))
        .merge(sessions::routes(app))
}

/// The service, and the table it was made from.
pub fn service(app: &App) -> (Router, Vec<Route>) {
    let (router, list) = routes(app).finish();
    let router = router
        .fallback(async || ApiError::not_found("not_found", "no such path; API.md lists them"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(middleware::from_fn(trace::request_span))
        .layer(CatchPanicLayer::custom(trace::panicked))
        .with_state(app.clone());
    (router, list)
}
