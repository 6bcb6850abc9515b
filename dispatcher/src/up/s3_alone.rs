//! `clawlink s3`: the built-in S3 endpoint as a process of its own, for stacks on machines that
//! get no image of another S3.
//!
//! One process serves one directory: a lock file in it keeps a second one out, which would sweep
//! away the first one's unfinished uploads.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clawlink_shared::shutdown::Shutdown;
use tokio::net::TcpListener;

use super::s3;
use crate::config::S3AloneSettings;

/// Serves until a signal, then lets running transfers finish, up to a bound.
pub async fn run(settings: &S3AloneSettings) -> Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("watch signals")?;
    let dir = &settings.s3_dir;
    let _lock = lock(dir)?;
    std::fs::create_dir_all(dir.join(&settings.s3_bucket)).context("create bucket")?;
    let service = s3::service(
        dir,
        &settings.s3_bucket,
        settings.s3_access_key.expose(),
        &settings.s3_secret_key,
    )?;
    let listener = TcpListener::bind(settings.s3_listen)
        .await
        .with_context(|| format!("listen on {}", settings.s3_listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving S3");
    let serving = s3::accept(listener, service, shutdown.soft().clone());
    let patience = async {
        shutdown.soft().cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(s3::DRAIN) => {}
            () = shutdown.hard().cancelled() => {}
        }
    };
    tokio::select! {
        () = serving => {}
        () = patience => tracing::warn!("transfers were cut"),
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("write into {}", dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("{} is served by another process", dir.display()),
        Err(TryLockError::Error(error)) => Err(error).context("lock the directory of objects"),
    }
}
