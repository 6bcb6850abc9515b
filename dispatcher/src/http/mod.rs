//! The HTTP surface, assembled from the features' route tables.

pub mod body;
pub mod doc;
mod docs;
pub mod edge;
pub mod extract;
pub mod forwarded;
pub mod health;
pub mod limit;
pub mod listen;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod routes;
pub mod trace;

use axum::middleware;
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::ApiError;
use crate::{
    agents, api_keys, approvals, audit, auth, devices, executions, feed, github, limits, messages,
    policies, projects, runtime, secrets, sessions, tasks, usage, workspaces,
};
use doc::Doc;
use routes::{Access, Route, Routes};

/// The whole route table.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/health",
            Access::Public,
            health::health,
            Doc::new("Whether this dispatcher can do its work").gives_any(200),
        )
        .get(
            "/health/live",
            Access::Public,
            health::live,
            Doc::new("Whether this process answers, and goes on doing so")
                .gives_as(200, "text/plain")
                .gives_as(503, "text/plain"),
        )
        .get(
            "/status",
            Access::Public,
            health::status,
            Doc::new("The pool and the queue; 429 while no worker is idle")
                .gives_any(200)
                .gives_any(429),
        )
        .get(
            "/metrics",
            Access::Public,
            metrics::metrics,
            Doc::new("Numbers for Prometheus").gives_as(200, "text/plain"),
        )
        .get(
            "/openapi.json",
            Access::Public,
            openapi::openapi,
            Doc::new("This document").gives_any(200),
        )
        .get(
            "/docs",
            Access::Public,
            docs::redirect,
            Doc::new("To the page about this API").gives_nothing(308),
        )
        .get(
            "/docs/",
            Access::Public,
            docs::index,
            Doc::new("A page about this API").gives_as(200, "text/html"),
        )
        .get(
            "/docs/{file}",
            Access::Public,
            docs::file,
            Doc::new("A file of that page")
                .text("file")
                .gives_as(200, "*/*"),
        )
        .merge(auth::routes(app))
        .merge(executions::routes(app))
        .merge(approvals::routes(app))
        .merge(messages::routes(app))
        .merge(sessions::routes(app))
        .merge(runtime::routes(app))
        .merge(agents::routes(app))
        .merge(github::routes(app))
        .merge(secrets::routes(app))
        .merge(audit::routes(app))
        .merge(projects::routes(app))
        .merge(tasks::routes(app))
        .merge(feed::routes(app))
        .merge(workspaces::routes(app))
        .merge(api_keys::routes(app))
        .merge(devices::routes(app))
        .merge(policies::routes(app))
        .merge(usage::routes(app))
        .merge(limits::routes(app))
}

/// The service, and the table it was made from.
pub fn service(app: &App) -> (Router, Vec<Route>) {
    let (router, list) = routes(app).finish();
    let document = openapi::Document::of(list.clone());
    let router = router
        .layer(Extension(document))
        .fallback(async || ApiError::no_such_path())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(middleware::from_fn_with_state(
            app.clone(),
            runtime::translate,
        ))
        .layer(edge::cors(&app.tuning.cors_origins))
        .layer(middleware::from_fn(edge::security_headers))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            forwarded::client_address,
        ))
        .layer(middleware::from_fn(trace::request_span))
        .layer(CatchPanicLayer::custom(trace::panicked))
        .with_state(app.clone());
    (router, list)
}
