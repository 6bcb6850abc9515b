//! An execution's states, outcomes and error codes, and what a worker is told to run.

use serde::{Deserialize, Serialize};

use crate::agent::{AgentKind, Definition};
use crate::prompt::PromptPart;

/// Where an execution stands. Wire and SQL form: the lower-case name.
///
/// ```text
/// pending ─▶ planning ─▶ running ◀─▶ waiting
///    │  ▲        │  │        │          │
///    │  └────────┼──┴────────┴──────────┘   (lease lost)
///    ▼           ▼           ▼          ▼
/// cancelled   failed     completed   failed …
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Accepted, not held by a worker.
    Pending,
    /// A worker holds the lease and prepares the session.
    Planning,
    /// The agent runs.
    Running,
    /// The agent waits for a person's answer.
    Waiting,
    /// Ended well.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Planning,
        Self::Running,
        Self::Waiting,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The only place that says which changes exist. `running` and `waiting` return to
    /// `pending` only for `onWorkerLost: "resume"`, once; the caller guards that.
    pub fn can_become(self, to: Self) -> bool {
        use State::{Cancelled, Completed, Failed, Pending, Planning, Running, Waiting};
        match self {
            Pending => matches!(to, Planning | Cancelled),
            Planning => matches!(to, Running | Failed | Cancelled | Pending),
            Running => matches!(to, Waiting | Completed | Failed | Cancelled | Pending),
            Waiting => matches!(to, Running | Failed | Cancelled | Pending),
            Completed | Failed | Cancelled => false,
        }
    }

    /// Ended, for good.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Held by a worker.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Planning | Self::Running | Self::Waiting)
    }

    /// The name on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// How urgent an execution is: a weight within its workspace, never an absolute right.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Weight 1.
    Low,
    /// Weight 2.
    #[default]
    Medium,
    /// Weight 4.
    High,
    /// Weight 8.
    Critical,
}

impl Priority {
    /// Every class, from the lowest.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The share of a workspace's turns that this class gets, relative to the others.
    pub fn weight(self) -> u32 {
        1 << (self as u32)
    }

    /// Its number in SQL: 0 is the lowest.
    pub fn as_i16(self) -> i16 {
        self as i16
    }

    /// Reads that number back.
    pub fn from_i16(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_i16() == number)
    }
}

/// What happens to a running execution whose worker is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnWorkerLost {
    /// It fails with `worker_lost`.
    #[default]
    Fail,
    /// It runs once more from the session's last archive.
    Resume,
}

/// How a worker says that its execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The agent did what was asked.
    Completed,
    /// It did not; `error` says why.
    Failed,
    /// A cancel request was obeyed.
    Cancelled,
    /// The worker was told to stop (drain) before the agent was done.
    Interrupted,
}

/// Stable codes of a failed execution; clients match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be run as it is.
    ValidationError,
    /// The session to resume does not exist.
    SessionNotFound,
    /// Its archive cannot be used.
    SessionUnavailable,
    /// The git host does not know the repository.
    RepoNotFound,
    /// The git host refused the token, or wants one.
    RepoAuthFailed,
    /// The repository exceeds the configured size or count.
    RepoTooLarge,
    /// The worker does not have the agent, or could not start it.
    AgentUnavailable,
    /// The model refused the credentials.
    AuthError,
    /// The model's rate or usage limit.
    RateLimited,
    /// A spending limit was reached.
    BudgetExceeded,
    /// The turn limit was reached.
    MaxTurns,
    /// The agent reported an error of its own.
    AgentError,
    /// The commit exists, the git host did not take it.
    PushFailed,
    /// `timeoutSeconds` passed.
    Timeout,
    /// The worker was stopped.
    Interrupted,
    /// The worker vanished.
    WorkerLost,
    /// The archive could not be written or read.
    StorageError,
    /// A defect of ours.
    InternalError,
}

impl ErrorCode {
    /// Whether the same request may succeed when sent again unchanged.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::PushFailed
                | Self::Interrupted
                | Self::WorkerLost
                | Self::StorageError
                | Self::InternalError
        )
    }

    /// The name on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidationError => "validation_error",
            Self::SessionNotFound => "session_not_found",
            Self::SessionUnavailable => "session_unavailable",
            Self::RepoNotFound => "repo_not_found",
            Self::RepoAuthFailed => "repo_auth_failed",
            Self::RepoTooLarge => "repo_too_large",
            Self::AgentUnavailable => "agent_unavailable",
            Self::AuthError => "auth_error",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::MaxTurns => "max_turns",
            Self::AgentError => "agent_error",
            Self::PushFailed => "push_failed",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::WorkerLost => "worker_lost",
            Self::StorageError => "storage_error",
            Self::InternalError => "internal_error",
        }
    }
}

/// What the agent may do without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermissionMode {
    /// Everything the sandbox allows.
    #[default]
    #[serde(rename = "bypassPermissions")]
    BypassPermissions,
    /// The agent's own default.
    #[serde(rename = "default")]
    Default,
    /// Read only; ends with a plan.
    #[serde(rename = "plan")]
    Plan,
}

/// What a client may tune about the agent; every field has been validated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentOptions {
    /// The model's name, as the agent spells it.
    pub model: Option<String>,
    /// What it may do unasked.
    pub permission_mode: PermissionMode,
    /// At most so many turns of the agent's own loop.
    pub max_turns: Option<u32>,
    /// At most so many US dollars, as the agent counts them.
    pub max_budget_usd: Option<f64>,
    /// Wall-clock limit of the agent's run, in seconds.
    pub timeout_seconds: Option<u64>,
}

/// The repository of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// http(s) URL without credentials.
    pub url: String,
    /// The branch to start from; absent means the host's default branch.
    pub branch: Option<String>,
    /// Working directory inside the repository, relative, no `..`.
    pub directory: Option<String>,
    /// Commits of history to fetch; 0 means all.
    pub depth: u32,
}

/// How a client wants its pull request; what is absent is chosen when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PullRequestWish {
    /// One line; absent: the session's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Markdown; absent: which session and execution it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The branch it is for; absent: the one that the work began from, else the default branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether it is a draft.
    pub draft: bool,
}

/// What a worker is told to run: the validated request, completed from its session,
/// without any credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Text and images for the agent.
    pub prompt: Vec<PromptPart>,
    /// Which agent.
    pub agent: AgentKind,
    /// Absent: the agent works in an empty directory.
    pub repository: Option<Repository>,
    /// Commit and push what is left afterwards.
    pub auto_commit: bool,
    /// The session's name, for people.
    pub session_name: String,
    /// The branch that this session works on; with a repository and `autoCommit` always set.
    pub working_branch: Option<String>,
    /// The pull request to open after a push; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestWish>,
    /// The agent's settings.
    pub options: AgentOptions,
    /// Numbers of the skills that it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<i64>,
    /// What runs, for kinds that a workspace defines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// The trace that the request belongs to, where traces are sent: worker and agent go on in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What an execution consumed, as the agent reports it.
///
/// A `usage` event says what its attempt has consumed since it began, not since the event before:
/// so a later report replaces an earlier one, and none is counted twice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Tokens read by the model, those of its cache included.
    pub input_tokens: u64,
    /// Tokens written by the model.
    pub output_tokens: u64,
    /// Of the input, tokens served from the model's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    /// Of the input, tokens written to the model's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
    /// US dollars, if the agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The model that most of it was for, if the agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Usage {
    /// Adds what somebody else consumed. A sum of which a part has no known cost has none.
    pub fn add(&mut self, other: &Self) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (Some(one), Some(other)) => Some(one + other),
            (None, cost) if self.is_nothing() => cost,
            (cost, None) if other.is_nothing() => cost,
            _ => None,
        };
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cache_read_tokens = sum(self.cache_read_tokens, other.cache_read_tokens);
        self.cache_write_tokens = sum(self.cache_write_tokens, other.cache_write_tokens);
        if other.model.is_some() {
            self.model.clone_from(&other.model);
        }
    }

    /// Whether no token was read or written.
    pub fn is_nothing(&self) -> bool {
        self.input_tokens == 0 && self.output_tokens == 0
    }
}

#[cfg(test)]
mod tests {
    use super::State;
    use proptest::prelude::*;

    fn any_state() -> impl Strategy<Value = State> {
        prop::sample::select(State::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn terminal_states_never_change(from in any_state(), to in any_state()) {
            if from.is_terminal() {
                prop_assert!(!from.can_become(to));
            }
        }

        #[test]
        fn no_state_becomes_itself(state in any_state()) {
            prop_assert!(!state.can_become(state));
        }

        #[test]
        fn every_walk_can_still_end_cancelled(walk in prop::collection::vec(any_state(), 0..20)) {
            let mut at = State::Pending;
            for next in walk {
                if at.can_become(next) {
                    at = next;
                }
            }
            prop_assert!(at.is_terminal() || at.can_become(State::Cancelled));
        }

        #[test]
        fn names_read_back(state in any_state()) {
            prop_assert_eq!(State::from_name(state.as_str()), Some(state));
        }
    }
}
