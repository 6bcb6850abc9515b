//! From starting the worker program until its claim arrives, at an endpoint of our own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Bench;
use super::report::{Figure, Stat};
use super::stats::Samples;

/// A worker that has not claimed by then will not.
const CLAIM_WITHIN: Duration = Duration::from_secs(20);

/// One after the other; each is ended when its claim has come.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let program = match &bench.args.worker_bin {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .context("find own program")?
            .with_file_name("clawlink-worker"),
    };
    if !program.exists() {
        let why = format!("there is no worker program at {}", program.display());
        return Ok(vec![Figure::skipped("worker_start", why)]);
    }
    let dir = std::env::temp_dir().join(format!("clawlink-bench-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    let measured = start_all(bench, &program, &dir).await;
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    let figure = Figure::durations("worker_start", "worker start to claim", &measured?);
    Ok(vec![figure.at_most(Stat::P50, 30.0)])
}

async fn start_all(bench: &Bench, program: &Path, dir: &Path) -> Result<Samples> {
    let (claims, mut claimed) = mpsc::channel(16);
    let app = Router::new().route(
        "/worker/claim",
        post(async move || {
            // The receiver is there as long as workers are started.
            let _measured = claims.send(Instant::now()).await;
            std::future::pending::<()>().await
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut samples = Samples::new();
    let mut ran = Ok(());
    // The first start reads the program from disk and is not counted.
    for round in 0..=bench.args.counts.starts {
        match start_one(program, dir.to_owned(), &url, &mut claimed).await {
            Ok(took) if round > 0 => samples.add(took),
            Ok(_) => {}
            Err(error) => {
                ran = Err(error);
                break;
            }
        }
    }
    server.abort();
    ran.map(|()| samples)
}

async fn start_one(
    program: &Path,
    dir: PathBuf,
    url: &str,
    claimed: &mut mpsc::Receiver<Instant>,
) -> Result<Duration> {
    let start = Instant::now();
    let mut child = tokio::process::Command::new(program)
        .env("CLAWLINK_DISPATCHER_URL", url)
        .env("CLAWLINK_POOL_TOKEN", "bench")
        .env("CLAWLINK_WORKSPACE_DIR", dir.join("workspace"))
        .env("CLAWLINK_SPOOL_DIR", dir.join("spool"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let at = tokio::select! {
        at = claimed.recv() => at.context("the endpoint ended")?,
        status = child.wait() => anyhow::bail!("the worker ended without a claim: {}", status?),
        () = tokio::time::sleep(CLAIM_WITHIN) => anyhow::bail!("no claim came in time"),
    };
    child.kill().await.context("end the worker")?;
    Ok(at - start)
}
