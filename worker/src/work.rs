//! The life of the process: make ready, wait for one assignment, work on it, exit.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use clawlink_shared::agent::AgentOffer;
use clawlink_shared::control::{ClaimRequest, MAX_WAIT_SECONDS};
use clawlink_shared::id::ClaimId;
use clawlink_shared::shutdown::Shutdown;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::agents::{self, AgentEnvironment};
use crate::client::{CallError, Client};
use crate::config::{self, WorkArgs};
use crate::control::SHORTEST_POLL;
use crate::exit::Exit;
use crate::proxy::Proxies;
use crate::report::{self, Desk};
use crate::run::{self, Ended, Worker};
use crate::workspace::root;

/// Pause after a claim whose answer was not understood.
const GARBLED_PAUSE: Duration = Duration::from_secs(5);

/// Where versions of agents are remembered, below the spool directory.
const VERSIONS: &str = "agents.json";

/// Runs one execution, or exits when it is told to stop before there is one.
pub async fn work(settings: WorkArgs) -> Exit {
    let outcome = tokio::select! {
        outcome = try_work(&settings) => outcome,
        () = lifeline(settings.lifeline) => {
            agents::end_all_descendants().await;
            Ok(Exit::LifelineCut)
        }
    };
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        Exit::Broken
    })
}

async fn try_work(settings: &WorkArgs) -> Result<Exit> {
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("listen to signals")?;
    let proxies = Proxies::read(&settings.shared)?;
    let (urls, token) = (&settings.dispatcher_url, settings.pool_token.clone());
    let client = Client::new(urls, token, &proxies.for_own())?;
    let client = Arc::new(client);
    let root = workspace(&settings.workspace_dir)?;
    let spool = settings
        .spool_dir
        .clone()
        .unwrap_or_else(config::default_spool_dir);
    anyhow::ensure!(
        !spool.starts_with(&root),
        "the spool directory must not be below the workspace directory, which agents may write"
    );
    let desk = Desk::open(&spool)?;
    let agents = agents::discover(environment(settings, &spool, &proxies)?).await;
    let swept = root.clone();
    tokio::task::spawn_blocking(move || root::sweep(&swept));
    let worker = Worker {
        id: format!("{}-{:08x}", host(), Uuid::new_v4().as_fields().0),
        client,
        agents,
        desk,
        root,
        allow_private_hosts: settings.shared.allow_private_hosts,
        proxies,
        drain_timeout: settings.drain_timeout,
        rate_limit_wait: settings
            .shared
            .rate_limit_wait_seconds
            .map_or(run::RATE_LIMIT_WAIT, Duration::from_secs),
        shutdown,
    };
    tokio::select! {
        () = report::send_earlier(&worker.client, &spool, &worker.desk) => {}
        () = worker.shutdown.soft().cancelled() => {}
    }
    let exit = serve_one(&worker, settings).await?;
    match exit {
        Exit::Unreachable => worker.desk.leave(),
        _ => worker.desk.close(),
    }
    Ok(exit)
}

/// Claims until there is an assignment, and works on it.
async fn serve_one(worker: &Worker, settings: &WorkArgs) -> Result<Exit> {
    let host = host();
    let offers = worker.agents.offers();
    tracing::info!(worker.id = worker.id, agents = ?names(&offers), "waiting for work");
    loop {
        let request = ClaimRequest {
            claim_id: ClaimId(Uuid::new_v4()),
            worker_id: worker.id.clone(),
            host: host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            root: worker.root.display().to_string(),
            agents: offers.clone(),
            labels: settings.shared.labels.iter().cloned().collect(),
            wait_seconds: MAX_WAIT_SECONDS,
        };
        let asked = Instant::now();
        let claimed = tokio::select! {
            claimed = worker.client.claim(&request) => claimed,
            // An answer that is on its way is taken back, because nobody acknowledges it.
            () = worker.shutdown.soft().cancelled() => return Ok(Exit::Done),
        };
        let (assignment, sent) = match claimed {
            Ok(Some(claimed)) => claimed,
            Ok(None) => {
                tokio::time::sleep_until(asked + SHORTEST_POLL).await;
                continue;
            }
            Err(error @ CallError::Protocol(_)) => {
                tracing::error!(%error, "this worker is too old or too new; exchange it");
                return Ok(Exit::WrongProtocol);
            }
            Err(error) => {
                tracing::error!(%error, "claim failed");
                tokio::time::sleep(GARBLED_PAUSE).await;
                continue;
            }
        };
        tracing::info!(
            execution.id = %assignment.execution.id,
            session.id = %assignment.session.id,
            attempt = assignment.lease.attempt,
            "claimed"
        );
        return Ok(match run::execute(worker, assignment, sent).await {
            Ended::NotOurs => continue,
            Ended::Recorded => Exit::Done,
            Ended::LeaseLost => {
                tracing::warn!("another worker, or nobody, holds the execution now");
                Exit::Done
            }
            Ended::Unreachable => Exit::Unreachable,
            Ended::Refused => Exit::Broken,
        });
    }
}

fn workspace(dir: &Path) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    dir.canonicalize()
        .with_context(|| format!("resolve {}", dir.display()))
}

fn environment(settings: &WorkArgs, spool: &Path, proxies: &Proxies) -> Result<AgentEnvironment> {
    let shared = &settings.shared;
    Ok(AgentEnvironment {
        agent_dir: shared.agent_dir.clone(),
        search_path: config::search_path(),
        passthrough: config::passed_to_agents(),
        worker_exe: std::env::current_exe().context("find the worker's own program")?,
        read_only: shared.agent_read_only.clone(),
        read_write: shared.agent_read_write.clone(),
        version_cache: Some(spool.join(VERSIONS)),
        allow_unconfined: shared.allow_unconfined,
        allow_private_hosts: shared.allow_private_hosts,
        proxies: proxies.clone(),
    })
}

fn names(offers: &[AgentOffer]) -> Vec<&'static str> {
    offers.iter().map(|offer| offer.kind.as_str()).collect()
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(100).collect();
    if name.is_empty() {
        "unknown".into()
    } else {
        name
    }
}

/// Waits until standard input reaches its end; for ever if that means nothing.
async fn lifeline(is_watched: bool) {
    if !is_watched {
        return std::future::pending().await;
    }
    let (cut, is_cut) = tokio::sync::oneshot::channel();
    // Not a task: a blocked read must not keep the runtime from ending.
    std::thread::spawn(move || {
        let _read_to_end = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _nobody_waits = cut.send(());
    });
    let _thread_gone = is_cut.await;
    tracing::error!("the lifeline is cut");
}
