//! The order in which `clawlink up` starts and stops.
//!
//! Start: parts, schema, first key, dispatcher, workers. Stop: workers first, while the dispatcher
//! still takes their reports; then the dispatcher; then the parts. A second signal skips the waiting.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clawlink_shared::secret::Secret;
use clawlink_shared::shutdown::Shutdown;
use tokio::net::TcpListener;

use super::data_dir::{DataDir, write_private};
use super::identity::Identity;
use super::parts;
use super::workers::{self, WorkerOptions, Workers};
use crate::app::{App, FIRST_WORKSPACE};
use crate::audit::Actor;
use crate::auth::api_key;
use crate::auth::principal::KeyRole;
use crate::config::{Listen, Settings, UpSettings};
use crate::{serve, workspaces};

/// The dispatcher answers within milliseconds of listening.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often readiness is tried.
const READY_POLL: Duration = Duration::from_millis(10);
/// Beyond its drain time, a worker gets this long to save the session and report.
const REPORT_WITHIN: Duration = Duration::from_secs(90);

/// Runs the whole system until a signal.
pub async fn run(up: &UpSettings, mut settings: Settings, listen: SocketAddr) -> Result<()> {
    let signals = Shutdown::new();
    signals.on_signals().context("watch signals")?;
    let data_dir = DataDir::open(&DataDir::choose(up.data_dir.as_deref()))?;
    let program = up.worker_program()?;
    let (workspace, program) = workers::prepare(&data_dir, &program)?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen on {listen}"))?;
    let url = Listen::url_of(listener.local_addr().context("read own address")?);
    if settings.secret_key.is_none() {
        settings.secret_key = Some(data_dir.key("secret-key")?);
    }
    if settings.pool_token.is_none() {
        settings.pool_token = Some(data_dir.secret("pool-token")?);
    }
    let starting = Box::pin(parts::start(
        &data_dir,
        up.postgres_bin.as_ref(),
        &mut settings,
    ));
    let mut parts = tokio::select! {
        parts = starting => parts?,
        () = signals.soft().cancelled() => return Ok(()),
    };
    let ran = tokio::select! {
        ran = Box::pin(run_on(up, &settings, &data_dir, listener, &url, &signals, (workspace, program))) => ran,
        () = parts.tend() => Ok(()),
    };
    let stopped = parts.stop().await;
    ran.and(stopped)
}

/// The dispatcher and its workers, on parts that run.
async fn run_on(
    up: &UpSettings,
    settings: &Settings,
    data_dir: &DataDir,
    listener: TcpListener,
    url: &str,
    signals: &Shutdown,
    (workspace, program): (PathBuf, PathBuf),
) -> Result<()> {
    let shutdown = Shutdown::new();
    let app = App::connect(settings, shutdown.clone()).await?;
    app.prepare().await?;
    let key_file = first_key(&app, data_dir).await?;
    let mut serving = tokio::spawn(serve::serve(app.clone(), listener));
    wait_until_healthy(url).await?;
    let pool_token = settings.pool_token.as_ref().context("make a pool token")?;
    let options = worker_options(up, data_dir, url, pool_token, &workspace, program)?;
    let pool = Workers::start(data_dir, &options)?;
    announce(url, &key_file);
    let early = tokio::select! {
        served = &mut serving => Some(served),
        () = signals.soft().cancelled() => None,
    };
    if let Some(served) = early {
        return served
            .context("run the dispatcher")?
            .context("the dispatcher ended");
    }
    tracing::info!("stopping; once more to stop at once");
    tokio::select! {
        () = pool.stop() => {}
        () = signals.hard().cancelled() => {}
    }
    shutdown.soft().cancel();
    tokio::select! {
        served = &mut serving => served.context("run the dispatcher")?,
        () = signals.hard().cancelled() => {
            serving.abort();
            Ok(())
        }
    }
}

/// The file with the first API key: made with the key at the first start, and again when it was
/// lost or belongs to another database.
async fn first_key(app: &App, data_dir: &DataDir) -> Result<PathBuf> {
    let file = data_dir.path("api-key");
    let mut db = app.db.begin().await.context("connect to Postgres")?;
    if let Ok(key) = std::fs::read_to_string(&file)
        && api_key::is_valid(&mut db, &Secret::new(key.trim())).await?
    {
        return Ok(file);
    }
    let tuning = &app.tuning;
    let workspace = workspaces::ensure(
        &mut db,
        FIRST_WORKSPACE,
        tuning.running_cap,
        tuning.pending_cap,
    )
    .await?;
    let (name, by) = ("clawlink up", Actor::operator());
    let key = api_key::create_by(&mut db, workspace, name, KeyRole::Admin, &by).await?;
    db.commit().await.context("store the first key")?;
    write_private(&file, &format!("{}\n", key.expose()))?;
    Ok(file)
}

fn worker_options(
    up: &UpSettings,
    data_dir: &DataDir,
    url: &str,
    pool_token: &Secret,
    workspace: &Path,
    program: PathBuf,
) -> Result<WorkerOptions> {
    let user = Identity::worker();
    let spool = data_dir.private("spool", &user)?;
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("the data directory's path is not UTF-8")
    };
    let mut env = vec![
        ("CLAWLINK_DISPATCHER_URL".to_owned(), url.to_owned()),
        (
            "CLAWLINK_POOL_TOKEN".to_owned(),
            pool_token.expose().to_owned(),
        ),
        ("CLAWLINK_WORKSPACE_DIR".to_owned(), text(workspace)?),
        ("CLAWLINK_SPOOL_DIR".to_owned(), text(&spool)?),
        (
            "CLAWLINK_DRAIN_TIMEOUT".to_owned(),
            up.worker_drain_seconds.to_string(),
        ),
        ("CLAWLINK_LOG".to_owned(), up.worker_log.clone()),
    ];
    let passed_on = up.for_workers.variables();
    env.extend(passed_on.context("pass settings on to workers")?);
    if user != Identity::current() {
        // Ours is closed to that user, and programs complain about a home they cannot read.
        env.push(("HOME".to_owned(), text(&spool)?));
    }
    Ok(WorkerOptions {
        program,
        args: vec!["--lifeline".to_owned()],
        env,
        count: up.workers,
        drain: Duration::from_secs(up.worker_drain_seconds) + REPORT_WITHIN,
    })
}

async fn wait_until_healthy(url: &str) -> Result<()> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(READY_WITHIN)
        .build()
        .context("make an HTTP client")?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let answer = http.get(format!("{url}/health")).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the dispatcher does not become healthy"
        );
        tokio::time::sleep(READY_POLL).await;
    }
}

#[expect(clippy::print_stdout, reason = "what the user waits for and pastes")]
fn announce(url: &str, key_file: &Path) {
    let key_file = quoted(&key_file.to_string_lossy());
    println!("ready {url}");
    println!(
        "curl -sSN {url}/execute -H \"Authorization: Bearer $(cat {key_file})\" \
         -H 'Content-Type: application/json' \
         -d '{{\"codingAssistantProvider\":\"shell\",\"userRequest\":\"echo hello from $(hostname)\"}}'"
    );
}

/// A path as one word for a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("/a/b-c"), "/a/b-c");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
