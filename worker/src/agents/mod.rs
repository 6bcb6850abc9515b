//! Agents: an open set, one file each, behind [`Agent`].
//!
//! An agent turns a prompt into a child process in the sandbox, its output into events, and
//! its end into a verdict. It never decides by the exit code alone.

use std::path::PathBuf;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::Failure;
use clawlink_shared::execution::{AgentOptions, Usage};
use clawlink_shared::prompt::PromptPart;
use clawlink_shared::secret::Secret;
use tokio::sync::watch;

use crate::events::EventSink;

/// A way to run one kind of agent.
pub trait Agent: Send + Sync {
    /// Which kind.
    fn kind(&self) -> AgentKind;

    /// Runs it to its end. Whatever happens is an [`AgentEnd`]; all its processes are gone
    /// when this returns.
    fn run(&self, job: AgentJob) -> futures::future::BoxFuture<'_, AgentEnd>;
}

/// What an agent is given.
#[derive(Debug)]
pub struct AgentJob {
    /// What is wanted.
    pub prompt: Vec<PromptPart>,
    /// How.
    pub options: AgentOptions,
    /// Its credential: a raw key or JSON as text.
    pub credential: Option<Secret>,
    /// `<root>/session-{uuid}`: all that the sandbox lets it write.
    pub session_root: PathBuf,
    /// Its HOME, below the session root.
    pub home: PathBuf,
    /// Its scratch directory, below the session root.
    pub tmp: PathBuf,
    /// Its working directory, below the session root.
    pub cwd: PathBuf,
    /// Its own name for the conversation to continue.
    pub resume: Option<String>,
    /// Where its output goes.
    pub events: EventSink,
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
    /// The lease is lost: nothing of this run counts any more.
    LeaseLost,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct AgentEnd {
    /// Absent when it did what was asked; a run that was stopped from outside and had no
    /// error of its own has none either: the caller knows why it stopped it.
    pub failure: Option<Failure>,
    /// Its last word.
    pub result: Option<String>,
    /// What it consumed.
    pub usage: Option<Usage>,
    /// Its own name for the conversation.
    pub provider_session_id: Option<String>,
}
