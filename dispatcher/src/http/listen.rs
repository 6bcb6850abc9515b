//! Connections: HTTP/1.1 with small bounded buffers, because ten thousand idle streams are
//! ten thousand connections. A reader that takes nothing is cut instead of buffered, and
//! draining ends every connection after its current answer.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::serve::Listener;
use clawlink_shared::shutdown::Shutdown;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::config::Tuning;

/// Bytes that a connection may hold unsent, beyond one piece of a body; also the largest
/// head of a request.
const MAX_BUFFER: usize = 64 * 1024;

/// The other end of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Serves connections until draining begins; those that are open go on, on the tracker.
/// [`Tuning::slow_reader`] is how long a client may take nothing of what is written to it,
/// [`Tuning::request`] how long a connection may be open without the head of a request.
pub async fn accept(
    mut listener: TcpListener,
    router: Router,
    tuning: &Tuning,
    shutdown: &Shutdown,
) {
    let bounds = (tuning.slow_reader, tuning.request);
    loop {
        // Failures to accept, such as too many open files, are waited out in there.
        let (stream, address) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = shutdown.soft().cancelled() => return,
        };
        let peer = Peer(address.ip());
        let connection = serve(stream, peer, router.clone(), bounds, shutdown.clone());
        shutdown.tracker().spawn(connection);
    }
}

async fn serve(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    (slow_reader, request): (Duration, Duration),
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(slow_reader));
    // A connection keeps room for the future of an answer also after that has begun to stream:
    // in a box it is a pointer's.
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        Box::pin(router.clone().oneshot(request))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(request)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.soft().cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shutdown.hard().cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients go away all the time.
        tracing::debug!(%error, "connection ended");
    }
}
