//! A private S3 endpoint in this process, on a loopback port, with objects as plain files.
//!
//! Clients talk to it over HTTP with signatures, exactly as to any S3; presigned URLs work. An
//! unsigned request is never answered with anything but 403.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::secret::Secret;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::data_dir::DataDir;
use super::identity::Identity;
use super::s3_store::{OneBucket, Store};
use super::supervise::start_on_own_port;

/// The one bucket of an installation.
pub const BUCKET: &str = "clawlink";
/// The region that signatures name.
pub const REGION: &str = "us-east-1";
/// How long running transfers may go on when the endpoint stops.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// A pause after a failed accept (too many open files), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running endpoint. Dropping it cuts all connections.
#[derive(Debug)]
pub struct S3Server {
    root: PathBuf,
    port: u16,
    access_key: String,
    secret_key: Secret,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Starts the endpoint of a data directory.
pub async fn start(data_dir: &DataDir) -> Result<S3Server> {
    let root = data_dir.private("s3", &Identity::current())?;
    std::fs::create_dir_all(root.join(BUCKET)).context("create bucket")?;
    let access_key = data_dir.secret("s3-access-key")?.expose()[..20].to_owned();
    let secret_key = data_dir.secret("s3-secret-key")?;
    let stop = CancellationToken::new();
    let listen_on = async |port| listen(&root, port, &access_key, &secret_key, stop.clone()).await;
    let (task, port) = start_on_own_port(data_dir, "s3", listen_on).await?;
    Ok(S3Server {
        root,
        port,
        access_key,
        secret_key,
        stop,
        task,
    })
}

impl S3Server {
    /// The endpoint, such as `http://127.0.0.1:9000`; it stays the same over [`S3Server::restart`].
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The key id that requests are signed with.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The key that requests are signed with.
    pub fn secret_key(&self) -> &Secret {
        &self.secret_key
    }

    /// Accepts nothing new and lets running transfers finish, up to a bound.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        if tokio::time::timeout(DRAIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    /// Cuts all connections, as a crash would.
    pub async fn kill(&mut self) {
        self.task.abort();
        // The only outcome of an aborted task is that it was aborted.
        let _aborted = (&mut self.task).await;
    }

    /// Kills it if it runs, and listens again on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        if !self.task.is_finished() {
            self.kill().await;
        }
        self.stop = CancellationToken::new();
        self.task = listen(
            &self.root,
            self.port,
            &self.access_key,
            &self.secret_key,
            self.stop.clone(),
        )
        .await?;
        Ok(())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    root: &std::path::Path,
    port: u16,
    access_key: &str,
    secret_key: &Secret,
    stop: CancellationToken,
) -> Result<JoinHandle<()>> {
    let service = service(root, BUCKET, access_key, secret_key)?;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .context("listen for S3")?;
    Ok(tokio::spawn(accept(listener, service, stop)))
}

/// What answers for one bucket below `root`, to requests signed with these keys.
pub(super) fn service(
    root: &std::path::Path,
    bucket: &str,
    access_key: &str,
    secret_key: &Secret,
) -> Result<S3Service> {
    let mut builder = S3ServiceBuilder::new(Store::open(root)?);
    // Access is only checked where authentication is set, so the two belong together.
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key.expose()));
    builder.set_access(OneBucket(bucket.to_owned()));
    Ok(builder.build())
}

/// Accepts until told to stop. Dropping this future drops the set of connections, cutting them.
pub(super) async fn accept(listener: TcpListener, service: S3Service, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve(socket, service.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!("accept S3 connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(socket: TcpStream, service: S3Service, stop: CancellationToken) {
    // Small answers must not wait for more bytes; a socket that refuses this still works.
    let _no_delay = socket.set_nodelay(true);
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!("S3 connection ended: {error}");
    }
}
