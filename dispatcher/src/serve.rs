//! The dispatcher as a process: listener, loops, drain.

use std::io;
use std::time::Duration;

use anyhow::Context;
use axum::serve::Listener;
use clawlink_shared::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

use crate::app::App;
use crate::{executions, http, outbox};

/// How long connections to Postgres may take to close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Accepts connections whose writes must make progress: a reader that takes nothing for
/// `slow_reader` is cut instead of buffered.
struct CuttingListener {
    inner: TcpListener,
    slow_reader: Duration,
}

impl Listener for CuttingListener {
    type Io = std::pin::Pin<Box<TimeoutStream<TcpStream>>>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.inner).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.slow_reader));
        (Box::pin(stream), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// Serves until the soft token, then drains: streams end, open requests finish, loops stop.
pub async fn serve(app: App, listener: TcpListener) -> anyhow::Result<()> {
    http::metrics::install();
    spawn_loops(&app);
    let (router, _) = http::service(&app);
    let shutdown: Shutdown = app.shutdown.clone();
    let listener = CuttingListener {
        inner: listener,
        slow_reader: app.tuning.slow_reader,
    };
    let soft = shutdown.soft().clone();
    let server =
        axum::serve(listener, router).with_graceful_shutdown(async move { soft.cancelled().await });
    tokio::select! {
        served = async { server.await } => served.context("serve HTTP")?,
        () = async {
            shutdown.soft().cancelled().await;
            tokio::time::sleep(app.tuning.drain).await;
        } => tracing::warn!("requests were still open when draining ended"),
    }
    if !shutdown.drain(app.tuning.drain).await {
        tracing::warn!("loops were still busy when draining ended");
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

/// Starts the loops that any replica may run at any time.
fn spawn_loops(app: &App) {
    outbox::spawn(app);
    executions::spawn_loops(app);
}
