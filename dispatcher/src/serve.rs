//! The dispatcher as a process: listener, loops, drain.

use std::time::Duration;

use clawlink_shared::shutdown::Shutdown;
use tokio::net::TcpListener;

use crate::app::App;
use crate::{approvals, audit, auth, executions, feed, http, idempotency, outbox, secrets};

/// How long connections to Postgres may take to close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Serves until the soft token, then drains: streams end, open requests finish, loops stop.
pub async fn serve(app: App, listener: TcpListener) -> anyhow::Result<()> {
    http::metrics::install(&app.shutdown);
    spawn_loops(&app);
    let (router, _) = http::service(&app);
    let shutdown: Shutdown = app.shutdown.clone();
    http::listen::accept(listener, router, &app.tuning, &shutdown).await;
    if !shutdown.drain(app.tuning.drain).await {
        tracing::warn!("requests or loops were still open when draining ended");
    }
    // A task that was aborted may hold a connection until its query is answered.
    if tokio::time::timeout(CLOSE_GRACE, app.db.close())
        .await
        .is_err()
    {
        tracing::warn!("connections to Postgres were still open");
    }
    Ok(())
}

/// Serves until a signal, and for [`leave_seconds`](crate::config::Tuning::leave_seconds) more, in
/// which load balancers learn from `/health/live` that this replica goes. A second signal ends it
/// at once.
pub async fn serve_until(signals: Shutdown, app: App, listener: TcpListener) -> anyhow::Result<()> {
    let shutdown = app.shutdown.clone();
    let patience = Duration::from_secs(app.tuning.leave_seconds);
    let told = tokio::spawn(async move {
        signals.soft().cancelled().await;
        shutdown.leaving().cancel();
        tokio::select! {
            () = tokio::time::sleep(patience) => {}
            () = signals.hard().cancelled() => {}
        }
        shutdown.soft().cancel();
        signals.hard().cancelled().await;
        shutdown.hard().cancel();
    });
    let served = serve(app, listener).await;
    told.abort();
    served
}

/// Starts the loops that any replica may run at any time.
fn spawn_loops(app: &App) {
    auth::spawn_loops(app);
    outbox::spawn(app);
    executions::spawn_loops(app);
    approvals::spawn_loops(app);
    secrets::spawn_loops(app);
    audit::spawn_loops(app);
    feed::spawn_loops(app);
    app.shutdown
        .tracker()
        .spawn(idempotency::clean_loop(app.clone()));
}
