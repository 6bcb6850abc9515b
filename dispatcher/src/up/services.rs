//! `clawlink services`: private Postgres, Redis and S3 for the time that one command runs.
//!
//! What tests and developers use; the servers are the same as under `clawlink up`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context, Result};
use clawlink_shared::secret::Secret;
use clawlink_shared::shutdown::Shutdown;
use rustix::process::Signal;

use super::data_dir::DataDir;
use super::supervise::{send, spawn_beside};
use super::{postgres, redis, s3};

/// Runs `command` with `DATABASE_URL`, `DATABASE_MIGRATION_URL`, `REDIS_URL` and the `S3_*`
/// variables set; returns its exit code, which for a command ended by a signal is 128 plus the
/// signal's number.
pub async fn run(data_dir: &Path, postgres_bin: Option<&Path>, command: &[OsString]) -> Result<u8> {
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("watch signals")?;
    let (program, args) = command.split_first().context("no command given")?;
    let data_dir = DataDir::open(data_dir)?;
    let (postgres, redis, s3) = tokio::join!(
        Box::pin(postgres::start(&data_dir, postgres_bin)),
        Box::pin(redis::start(&data_dir)),
        s3::start(&data_dir)
    );
    let (mut postgres, mut redis, mut s3) = (postgres?, redis?, s3?);
    let mut child = std::process::Command::new("setpriv");
    child
        .args(["--pdeathsig=TERM", "--"])
        .arg(program)
        .args(args)
        .env("DATABASE_URL", postgres.url())
        .env("DATABASE_MIGRATION_URL", postgres.owner_url())
        .env("REDIS_URL", redis.url())
        .env("S3_ENDPOINT", s3.url())
        .env("S3_BUCKET", s3::BUCKET)
        .env("S3_REGION", s3::REGION)
        .env("S3_ACCESS_KEY", s3.access_key())
        .env("S3_SECRET_KEY", Secret::expose(s3.secret_key()));
    let child = spawn_beside(child).await;
    let status = match child {
        Ok(mut child) => {
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                () = shutdown.soft().cancelled() => None,
            };
            match ended {
                Some(status) => status,
                None => {
                    send(child.id(), Signal::TERM);
                    child.wait().await
                }
            }
        }
        Err(error) => Err(error),
    };
    s3.stop().await;
    redis.stop().await?;
    postgres.stop().await?;
    let status = status.with_context(|| format!("run {}", program.display()))?;
    Ok(exit_code(status))
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
