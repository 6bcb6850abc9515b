//! What an operator tells the bench: where everything is, and how much to do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use clawlink_shared::secret::Secret;

/// Measures an install that runs, and the machine beside it.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The install's address.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// The data directory of `clawlink up`: gives every setting below that is not set itself.
    #[arg(long, env = "CLAWLINK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// An API key that may submit and delete.
    #[arg(long, env = "CLAWLINK_API_KEY", hide_env_values = true)]
    pub key: Option<Secret>,
    /// Lets simulated workers claim; without it, what needs them is skipped.
    #[arg(long, env = "CLAWLINK_POOL_TOKEN", hide_env_values = true)]
    pub pool_token: Option<Secret>,
    /// The install's Postgres, to measure its limits in a schema of our own.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// The install's Redis, to measure its limits.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// The dispatcher's process on this machine, to measure memory.
    #[arg(long)]
    pub pid: Option<u32>,
    /// The worker program, to measure how fast it starts [default: clawlink-worker beside this program]
    #[arg(long, env = "CLAWLINK_WORKER_BIN", value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
    /// Measure only these.
    #[arg(long, value_enum, value_delimiter = ',', num_args = 1..)]
    pub only: Vec<Measure>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub counts: Counts,
}

/// How much to do.
#[derive(Debug, Clone, Args)]
pub struct Counts {
    /// How often each latency is measured.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub samples: u32,
    /// How many whole `shell` runs.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// How many executions go through the full cycle, per variant.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub executions: u32,
    /// Simulated workers of the full cycle; the workspace's running cap bounds them too.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub simulated_workers: u32,
    /// How many event streams are held open.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub streams: u32,
    /// How many worker processes are started, one after the other.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub starts: u32,
    /// How long each limit of the machine is measured, in seconds.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// Scale of the TPC-B tables: 100,000 accounts each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub tpcb_scale: u32,
}

/// What can be measured, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Memory of the idle dispatcher and of idle workers.
    Idle,
    /// Worker process start until it waits for work.
    Start,
    /// A whole `shell` run on a real worker.
    Shell,
    /// POST until the first event.
    Connected,
    /// POST until a waiting worker's acknowledgement is answered.
    Claim,
    /// An agent's line until the client has it.
    Line,
    /// Postgres: inserts and TPC-B-like transactions.
    Postgres,
    /// Redis: round trips.
    Redis,
    /// HTTP: requests that do nothing.
    Http,
    /// Executions per second, from accept to complete.
    Cycle,
    /// Memory per idle stream.
    Streams,
}

impl Measure {
    /// Its name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("none is hidden");
        value.get_name().to_owned()
    }
}

impl BenchArgs {
    /// Fills what is not set from the data directory of `clawlink up`.
    pub fn complete(mut self) -> Result<Self> {
        let Some(dir) = self.data_dir.clone() else {
            return Ok(self);
        };
        let read = |name: &str| read(&dir, name);
        if self.key.is_none() {
            self.key = Some(Secret::new(read("api-key")?));
        }
        if self.pool_token.is_none() {
            self.pool_token = Some(Secret::new(read("secrets/pool-token")?));
        }
        if self.database_url.is_none() {
            self.database_url = database_url(&dir)?;
        }
        if self.redis_url.is_none() && dir.join("ports/redis").exists() {
            let (password, port) = (read("secrets/redis-password")?, read("ports/redis")?);
            self.redis_url = Some(Secret::new(format!("redis://:{password}@127.0.0.1:{port}")));
        }
        if self.pid.is_none() {
            self.pid = holder(&dir.join("lock"));
        }
        Ok(self)
    }

    /// Whether this is asked for.
    pub fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }
}

/// The private Postgres of a data directory of `clawlink up`; `None` where one was configured:
/// such a part has no port of its own.
pub fn database_url(data_dir: &Path) -> Result<Option<Secret>> {
    if !data_dir.join("ports/postgres").exists() {
        return Ok(None);
    }
    let (password, port) = (
        read(data_dir, "secrets/postgres-password")?,
        read(data_dir, "ports/postgres")?,
    );
    Ok(Some(Secret::new(format!(
        "postgres://clawlink:{password}@127.0.0.1:{port}/clawlink"
    ))))
}

/// The secret key that `clawlink up` made in a data directory.
pub fn secret_key(data_dir: &Path) -> Result<Secret> {
    Ok(Secret::new(read(data_dir, "secrets/secret-key")?))
}

fn read(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The process that holds the lock on this file.
fn holder(lock: &Path) -> Option<u32> {
    let inode = format!(":{}", fs::metadata(lock).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(4);
        let pid = words.next()?.parse().ok()?;
        words.next()?.ends_with(&inode).then_some(pid)
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.01..=600.0).contains(seconds))
        .ok_or_else(|| format!("{text:?} is not a number of seconds from 0.01 to 600"))
}
