//! Agents: an open set, one file each, behind [`Agent`].
//!
//! An agent turns a prompt into a child process in the sandbox, its output into events, and
//! its end into a verdict. It never decides by the exit code alone, and no process of a run
//! is left when the run is over.

mod acp;
mod claude;
mod codex;
pub mod desk;
mod dialogue;
mod discovery;
mod files;
mod http;
mod lines;
mod login;
mod process;
pub mod rate_limit;
mod raw;
mod reaper;
pub mod sandbox;
mod shell;
pub mod skills;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clawlink_shared::agent::{AgentKind, Definition};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::{AgentOptions, ErrorCode, Usage};
use clawlink_shared::prompt::PromptPart;
use clawlink_shared::secret::Secret;
use tokio::sync::watch;

use self::desk::Desk;
use crate::events::EventSink;
use crate::proxy::Proxies;
use crate::redact::Redactor;

pub use acp::updates::{AcpParsed, AcpParser};
pub use claude::parse::{ClaudeParser, Parsed, Signal, Verdict};
pub use claude::permission::Permission;
pub use codex::parse::{CodexParsed, CodexParser, CodexSignal, CodexVerdict};
pub use discovery::{Agents, discover};
pub use lines::{Line, MAX_LINE_BYTES};
pub use reaper::{TERM_GRACE, become_reaper, end_all_descendants, harden};

/// A way to run one kind of agent.
pub trait Agent: Send + Sync {
    /// Which kind.
    fn kind(&self) -> AgentKind;

    /// Adapts its state below `home` when the session's directory was `from` and now is `to`.
    fn relocate(&self, from: &Path, to: &Path) -> anyhow::Result<()>;

    /// Runs it to its end. Whatever happens is an [`AgentEnd`]; all descendants of this
    /// process are gone when this returns.
    fn run(&self, job: AgentJob) -> futures::future::BoxFuture<'_, AgentEnd>;
}

/// What all agents of this worker have in common; from the worker's settings.
#[derive(Debug, Clone, Default)]
pub struct AgentEnvironment {
    /// Where agents are looked for first: programs, or a `node_modules` with them.
    pub agent_dir: Option<PathBuf>,
    /// Directories of the worker's `PATH`, where they are looked for next.
    pub search_path: Vec<PathBuf>,
    /// Environment of every agent: the vendors' base URLs. No secrets.
    pub passthrough: BTreeMap<String, String>,
    /// This program, whose `sandbox` command starts agents.
    pub worker_exe: PathBuf,
    /// What agents may read and execute beside the system's own directories.
    pub read_only: Vec<PathBuf>,
    /// What they may write beside their session: `/dev/pts` and the like, where these are not
    /// shared with anybody.
    pub read_write: Vec<PathBuf>,
    /// Where versions are remembered between starts; absent: programs are asked each time.
    pub version_cache: Option<PathBuf>,
    /// Whether agents may run where the kernel cannot confine them; a run then says so.
    pub allow_unconfined: bool,
    /// Whether agents that are addresses may be private ones.
    pub allow_private_hosts: bool,
    /// By which they are reached; every agent's environment names them too.
    pub proxies: Proxies,
}

/// What an agent is given.
#[derive(Debug)]
pub struct AgentJob {
    /// What is wanted.
    pub prompt: Vec<PromptPart>,
    /// How.
    pub options: AgentOptions,
    /// What runs, for the kinds that a workspace defines.
    pub definition: Option<Definition>,
    /// Its credential: a raw key or JSON as text.
    pub credential: Option<Secret>,
    /// Additional environment.
    pub env: BTreeMap<String, Secret>,
    /// `<root>/session-{uuid}`: all that the sandbox lets it write. If this process is root,
    /// its owner is whom the agent runs as.
    pub session_root: PathBuf,
    /// Its HOME, below the session root.
    pub home: PathBuf,
    /// Its scratch directory, below the session root.
    pub tmp: PathBuf,
    /// Its working directory, below the session root.
    pub cwd: PathBuf,
    /// Its own name for the conversation to continue.
    pub resume: Option<String>,
    /// Largest file that it may write, in bytes.
    pub max_file_bytes: Option<u64>,
    /// Where it asks people and hears from them.
    pub desk: Desk,
    /// Where its output goes.
    pub events: EventSink,
    /// Masks what goes there; learns what the agent makes of its credential.
    pub redactor: Redactor,
    /// Told each credential that the agent makes of its own while it runs.
    pub renewed: watch::Sender<Option<Secret>>,
    /// Becomes `Some` when it must stop.
    pub stop: watch::Receiver<Option<StopReason>>,
}

/// Why an agent is stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody cancelled the execution.
    Cancel,
    /// The worker drains.
    Drain,
    /// `timeoutSeconds` passed.
    Timeout,
    /// A limit on money is reached.
    Budget,
    /// The lease is lost: nothing of this run counts any more.
    LeaseLost,
}

/// How a run ended. Its texts come from the agent and are not redacted yet.
#[derive(Debug, Default)]
pub struct AgentEnd {
    /// Absent when it did what was asked; a run that was stopped from outside has none
    /// either: the caller knows why it stopped it.
    pub failure: Option<Failure>,
    /// It said itself that it did what was asked, whatever it was asked to stop for then.
    pub has_finished: bool,
    /// Its last word.
    pub result: Option<String>,
    /// What it consumed.
    pub usage: Option<Usage>,
    /// Its own name for the conversation.
    pub provider_session_id: Option<String>,
    /// The credential, in the shape in which it came, if the agent renewed it.
    pub refreshed_credential: Option<Secret>,
}

impl AgentJob {
    /// The additional environment in clear, for the agent's process alone.
    fn variables(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let exposed = |(name, value): (&String, &Secret)| (name.clone(), value.expose().to_owned());
        self.env.iter().map(exposed)
    }
}

impl AgentEnd {
    /// A run that never began.
    fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            failure: Some(Failure::new(code, message)),
            ..Self::default()
        }
    }
}

/// Waits until the agent is to stop. Never returns if nobody can ask for that any more.
async fn stopped(stop: &mut watch::Receiver<Option<StopReason>>) -> StopReason {
    let reason = stop.wait_for(Option::is_some).await.ok().and_then(|it| *it);
    match reason {
        Some(reason) => reason,
        None => futures::future::pending().await,
    }
}

/// Before an agent starts: says, or refuses, that nothing confines it.
async fn check_confinement(
    environment: &AgentEnvironment,
    events: &EventSink,
) -> Result<(), AgentEnd> {
    if sandbox::is_landlock_available() {
        return Ok(());
    }
    if !environment.allow_unconfined {
        return Err(AgentEnd::failed(
            ErrorCode::AgentUnavailable,
            "this worker's kernel has no Landlock to confine agents; its operator may allow them \
             without, by CLAWLINK_ALLOW_UNCONFINED=true",
        ));
    }
    events
        .message("This worker's kernel has no Landlock: the agent is not confined to its session.")
        .await;
    Ok(())
}
