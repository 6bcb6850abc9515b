//! The worker's settings: the only reader of flags and environment.
//!
//! Every setting is a flag and an environment variable; a variable `NAME` may also be given
//! as `NAME_FILE`, the path of a file whose content is the value (Docker secrets). No setting
//! names Postgres, Redis or S3: a worker has no business with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clawlink_shared::agent::VENDOR_ADDRESSES;
use clawlink_shared::secret::Secret;
use clawlink_shared::settings::{self, Fallbacks, process_environment as variable};
use clawlink_shared::telemetry::LogArgs;
use clawlink_shared::worker_args::{PROXY_NAMES, WorkerArgs};

use crate::agents::sandbox::SandboxArgs;

/// Runs one execution, then exits.
#[derive(Debug, Parser)]
#[command(
    name = "clawlink-worker",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// Without one: claims an execution, runs it, exits.
    #[command(subcommand)]
    pub command: Option<Sub>,
    /// The settings of that.
    #[command(flatten)]
    pub work: Option<WorkArgs>,
    /// More of them. Clap cannot tell whether settings that hold others are there at all.
    #[command(flatten)]
    pub shared: WorkerArgs,
    /// How it logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Other things this program does.
#[derive(Debug, Subcommand)]
pub enum Sub {
    /// Run a command that may only touch one directory
    Sandbox(SandboxArgs),
    /// Says whether a worker lives on this machine: exit 0, else 1
    Health(HealthArgs),
}

/// Where to look for a living worker.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// As the worker's own `--spool-dir`
    #[arg(long, env = "CLAWLINK_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
}

/// Settings of a worker.
#[derive(Debug, Clone, Args)]
pub struct WorkArgs {
    /// Dispatchers to ask for work, separated by commas: replicas of one another
    #[arg(
        long,
        env = "CLAWLINK_DISPATCHER_URL",
        required = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub dispatcher_url: Vec<String>,
    /// The right to claim work; better given as CLAWLINK_POOL_TOKEN_FILE
    #[arg(
        long,
        env = "CLAWLINK_POOL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub pool_token: Secret,
    /// Where session directories are made; sessions resume only under the same path
    #[arg(
        long,
        env = "CLAWLINK_WORKSPACE_DIR",
        default_value = "/workspace",
        value_name = "DIR"
    )]
    pub workspace_dir: PathBuf,
    /// Private directory for events and reports not yet acknowledged; never below the
    /// workspace directory [default: /var/tmp/clawlink-worker-UID]
    #[arg(long, env = "CLAWLINK_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// How long a running agent may finish after SIGTERM, in seconds
    #[arg(
        long,
        env = "CLAWLINK_DRAIN_TIMEOUT",
        default_value = "30",
        value_parser = seconds,
        value_name = "SECONDS"
    )]
    pub drain_timeout: Duration,
    /// What `clawlink up` passes on.
    #[arg(skip)]
    pub shared: WorkerArgs,
    /// End at once when standard input reaches its end: whoever started the worker is gone
    #[arg(long)]
    pub lifeline: bool,
}

/// Older names of settings, used when the newer ones are not set.
const OLD_NAMES: [(&str, &str); 4] = [
    ("WORKSPACE_DIR", "CLAWLINK_WORKSPACE_DIR"),
    PROXY_NAMES[0],
    PROXY_NAMES[1],
    PROXY_NAMES[2],
];

/// Reads flags, environment and `NAME_FILE` files; exits with clap's own message on misuse.
///
/// # Errors
///
/// When a file that a `NAME_FILE` variable names cannot be read.
pub fn parse() -> anyhow::Result<Cli> {
    let fallbacks = Fallbacks {
        lookup: &variable,
        old_names: &OLD_NAMES,
        derived: &|_, _| None,
    };
    let command = settings::with_fallbacks(Cli::command(), &fallbacks)?;
    let matches = command.get_matches();
    let read = if matches.subcommand_name().is_some() {
        // Some settings of the work may stand in the environment, but not what it needs.
        Sub::from_arg_matches(&matches).and_then(|command| {
            Ok(Cli {
                command: Some(command),
                work: None,
                shared: WorkerArgs::default(),
                log: LogArgs::from_arg_matches(&matches)?,
            })
        })
    } else {
        Cli::from_arg_matches(&matches)
    };
    let mut cli = read.unwrap_or_else(|error| error.exit());
    if let Some(work) = &mut cli.work {
        work.shared = cli.shared.clone();
    }
    Ok(cli)
}

/// The vendors' variables that are set.
pub fn passed_to_agents() -> BTreeMap<String, String> {
    VENDOR_ADDRESSES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
        .collect()
}

/// Directories in which programs are looked for.
pub fn search_path() -> Vec<PathBuf> {
    variable("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// Where the worker keeps what must outlive its process, unless told otherwise. Not `/tmp`:
/// that is often memory.
pub fn default_spool_dir() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    Path::new("/var/tmp").join(format!("clawlink-worker-{uid}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "must be a whole number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
