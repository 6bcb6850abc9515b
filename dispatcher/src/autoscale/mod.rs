//! `clawlink autoscale`: keeps some workers idle, by the size of a Swarm service.
//!
//! A service of its own, because it alone holds the Docker socket. It asks the dispatchers what
//! waits and who is idle, [`decide`] decides, [`docker`] changes one number. What must never
//! happen: that a busy worker is killed. Swarm chooses which tasks a smaller service loses, so the
//! service is only made smaller while enough workers are idle, and only if its stop grace period
//! is as long as the longest run: a busy worker that is chosen all the same finishes first.

pub mod decide;
mod docker;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use clap::Args;
use clawlink_shared::secret::Secret;
use clawlink_shared::shutdown::Shutdown;
use serde::Deserialize;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::audit::{self, Actor, Entry, Outcome};
use crate::http::metrics;
use decide::{Bounds, Move, Seen};
use docker::{Pool, Swarm};

/// How long a dispatcher may take to say its status.
const STATUS_WITHIN: Duration = Duration::from_secs(5);
/// How long Postgres may take to take an audit entry.
const AUDIT_WITHIN: Duration = Duration::from_secs(5);

/// What to keep, and where.
#[derive(Debug, Clone, Args)]
pub struct AutoscaleArgs {
    /// The Swarm service of the workers
    #[arg(
        long,
        env = "CLAWLINK_AUTOSCALE_SERVICE",
        default_value = "clawlink_worker",
        value_name = "NAME"
    )]
    pub service: String,
    /// A dispatcher, or what stands before all of them
    #[arg(
        long,
        env = "CLAWLINK_AUTOSCALE_STATUS_URL",
        default_value = "http://tasks.dispatcher:8000",
        value_name = "URL"
    )]
    pub status_url: String,
    /// The Docker Engine's socket, of a manager
    #[arg(
        long,
        env = "CLAWLINK_AUTOSCALE_DOCKER",
        default_value = "/var/run/docker.sock",
        value_name = "FILE"
    )]
    pub docker: String,
    /// Fewest workers; at least 1, because only workers say which agents they have
    #[arg(long, env = "CLAWLINK_AUTOSCALE_MIN", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub min_workers: u64,
    /// Most workers
    #[arg(long, env = "CLAWLINK_AUTOSCALE_MAX", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_workers: u64,
    /// Fewest idle workers: more are added
    #[arg(long, env = "CLAWLINK_AUTOSCALE_MIN_IDLE", default_value_t = 1)]
    pub min_idle: u64,
    /// Most idle workers: some are taken away after a while
    #[arg(long, env = "CLAWLINK_AUTOSCALE_MAX_IDLE", default_value_t = 4)]
    pub max_idle: u64,
    /// An execution that waits this long for a worker asks for one, in seconds
    #[arg(
        long,
        env = "CLAWLINK_AUTOSCALE_PATIENCE_SECONDS",
        default_value_t = 2.0
    )]
    pub patience_seconds: f64,
    /// How long nothing was changed, and too many were idle, before workers are taken away, in seconds
    #[arg(
        long,
        env = "CLAWLINK_AUTOSCALE_DOWN_AFTER_SECONDS",
        default_value_t = 120
    )]
    pub down_after_seconds: u64,
    /// How often it looks, in seconds
    #[arg(long, env = "CLAWLINK_AUTOSCALE_EVERY_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub every_seconds: u64,
    /// The longest run of an agent, in seconds: CLAWLINK_MAX_TIMEOUT_SECONDS of the dispatchers
    #[arg(long, env = "CLAWLINK_MAX_TIMEOUT_SECONDS", default_value_t = 86_400)]
    pub longest_run_seconds: u64,
    /// Postgres, for entries in the audit log; without it changes are only logged
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// Where metrics are served
    #[arg(
        long,
        env = "CLAWLINK_AUTOSCALE_LISTEN",
        default_value = "0.0.0.0:9464"
    )]
    pub listen: SocketAddr,
    /// Say what would be done, and do nothing
    #[arg(long, env = "CLAWLINK_AUTOSCALE_DRY_RUN")]
    pub dry_run: bool,
}

impl AutoscaleArgs {
    fn bounds(&self) -> Result<Bounds> {
        anyhow::ensure!(
            self.min_workers <= self.max_workers && self.min_idle <= self.max_idle,
            "the fewest are more than the most: see --min-workers, --max-workers, --min-idle, --max-idle"
        );
        Ok(Bounds {
            workers: (self.min_workers, self.max_workers),
            idle: (self.min_idle, self.max_idle),
            patience: Duration::try_from_secs_f64(self.patience_seconds)
                .context("read --patience-seconds")?,
            down_after: Duration::from_secs(self.down_after_seconds),
        })
    }
}

/// What of `GET /status` matters here.
#[derive(Debug, Deserialize)]
struct Status {
    workers: Workers,
    queue: Queue,
}

#[derive(Debug, Deserialize)]
struct Workers {
    idle: u64,
    busy: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    waiting_for_worker: u64,
    longest_wait_seconds: f64,
}

/// Since when things are as they are.
struct Times {
    changed: Instant,
    surplus: Option<Instant>,
}

/// Runs until a signal.
pub async fn run(args: &AutoscaleArgs) -> Result<()> {
    let bounds = args.bounds()?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("watch signals")?;
    metrics::install(&shutdown);
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    let router = Router::new().route("/metrics", get(metrics::metrics));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let swarm = Swarm::new(&args.docker)?;
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(STATUS_WITHIN)
        .build()
        .context("make an HTTP client")?;
    let mut times = Times {
        changed: Instant::now(),
        surplus: None,
    };
    tracing::info!(
        service = args.service,
        dry_run = args.dry_run,
        "keeping workers"
    );
    let every = Duration::from_secs(args.every_seconds);
    while !shutdown.soft().is_cancelled() {
        if let Err(error) = look(args, &bounds, &swarm, &http, &mut times).await {
            ::metrics::counter!("clawlink_autoscale_errors_total").increment(1);
            tracing::warn!("nothing is changed: {error:#}");
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.soft().cancelled() => {}
        }
    }
    serving.abort();
    Ok(())
}

async fn look(
    args: &AutoscaleArgs,
    bounds: &Bounds,
    swarm: &Swarm,
    http: &reqwest::Client,
    times: &mut Times,
) -> Result<()> {
    let pool = swarm.pool(&args.service).await?;
    let answer = http.get(format!("{}/status", args.status_url)).send();
    let answer = answer.await.context("ask for the status")?;
    // 429 says that nobody is idle.
    let status: Status = answer.json().await.context("read the status")?;
    let is_surplus = status.workers.idle > bounds.idle.1;
    let surplus = is_surplus.then(|| *times.surplus.get_or_insert_with(Instant::now));
    times.surplus = surplus;
    let seen = Seen {
        workers: pool.replicas,
        idle: status.workers.idle,
        busy: status.workers.busy,
        short: status.queue.waiting_for_worker,
        waited: Duration::try_from_secs_f64(status.queue.longest_wait_seconds).unwrap_or_default(),
        surplus_for: surplus.map_or(Duration::ZERO, |since| since.elapsed()),
        unchanged_for: times.changed.elapsed(),
    };
    ::metrics::gauge!("clawlink_autoscale_workers").set(pool.replicas as f64);
    let Some(step) = decide::decide(bounds, &seen) else {
        return Ok(());
    };
    let may_finish = pool.stop_grace >= Duration::from_secs(args.longest_run_seconds);
    if step.to < pool.replicas && !may_finish {
        times.surplus = None;
        tracing::warn!(
            "{} idle workers are too many, but the service's stop grace period is shorter than \
             the longest run: a busy one could be killed, so none is taken away",
            seen.idle
        );
        return Ok(());
    }
    apply(args, swarm, &pool, step).await?;
    times.changed = Instant::now();
    times.surplus = None;
    Ok(())
}

async fn apply(args: &AutoscaleArgs, swarm: &Swarm, pool: &Pool, step: Move) -> Result<()> {
    let direction = if step.to > pool.replicas {
        "up"
    } else {
        "down"
    };
    let (from, to, why) = (pool.replicas, step.to, step.why);
    if args.dry_run {
        tracing::info!(from, to, why, "would scale");
        return Ok(());
    }
    swarm.resize(pool, to).await?;
    ::metrics::counter!("clawlink_autoscale_changes_total", "direction" => direction).increment(1);
    tracing::info!(from, to, why, "scaled");
    if let Some(url) = &args.database_url {
        let told = tokio::time::timeout(AUDIT_WITHIN, tell(url, &args.service, from, to, &why));
        let told = told.await.context("Postgres does not answer").flatten();
        if let Err(error) = told {
            tracing::error!("the change is not in the audit log: {error:#}");
        }
    }
    Ok(())
}

/// Changes are rare: a connection for each.
async fn tell(url: &Secret, service: &str, from: u64, to: u64, why: &str) -> Result<()> {
    let mut db = PgConnection::connect(url.expose())
        .await
        .context("connect to Postgres")?;
    let actor = Actor {
        name: "autoscaler".to_owned(),
        address: None,
    };
    let entry = Entry {
        workspace: None,
        actor: &actor,
        action: "pool.scaled",
        resource: Some(("service", service.to_owned())),
        outcome: Outcome::Allowed,
        details: json!({"from": from, "to": to, "why": why}),
    };
    audit::record(&mut db, &entry).await?;
    db.close().await.context("close connection")
}
