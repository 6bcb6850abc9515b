//! Events: what a stream consists of.
//!
//! A worker sends [`WorkerEvent`] lines; the dispatcher numbers them and stores the bytes of
//! the final envelope `{type, seq, executionId, sessionId, timestamp, …fields}`. Fields are
//! carried as raw JSON from the agent's output to the client: nobody in between
//! re-serializes them, so nothing valid is refused or reshaped on the way.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Every type a stream can hold. Wire form: the snake_case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    // Written by the dispatcher only.
    Connected,
    Queued,
    StateChanged,
    ApprovalResolved,
    PullRequestCreated,
    Completed,
    Error,
    Cancelled,
    // Written by workers; the dispatcher writes `Message` too.
    SessionName,
    Message,
    GithubPullProgress,
    BranchCreated,
    AssistantMessage,
    AgentText,
    AgentToolCall,
    AgentToolResult,
    Usage,
    ApprovalRequested,
    UserMessage,
    CommitProgress,
    /// Never stored: it becomes an `approval_resolved`.
    ApprovalWithdrawn,
}

impl EventType {
    /// Whether a worker may send it.
    pub fn is_from_worker(self) -> bool {
        !matches!(
            self,
            Self::Connected
                | Self::Queued
                | Self::StateChanged
                | Self::ApprovalResolved
                | Self::PullRequestCreated
                | Self::Completed
                | Self::Error
                | Self::Cancelled
        )
    }

    /// Whether a stream ends after it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Error | Self::Cancelled)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Queued => "queued",
            Self::StateChanged => "state_changed",
            Self::ApprovalResolved => "approval_resolved",
            Self::PullRequestCreated => "pull_request_created",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::SessionName => "session_name",
            Self::Message => "message",
            Self::GithubPullProgress => "github_pull_progress",
            Self::BranchCreated => "branch_created",
            Self::AssistantMessage => "assistant_message",
            Self::AgentText => "agent_text",
            Self::AgentToolCall => "agent_tool_call",
            Self::AgentToolResult => "agent_tool_result",
            Self::Usage => "usage",
            Self::ApprovalRequested => "approval_requested",
            Self::UserMessage => "user_message",
            Self::CommitProgress => "commit_progress",
            Self::ApprovalWithdrawn => "approval_withdrawn",
        }
    }
}

/// One line of `POST /worker/executions/{id}/events`.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerEvent {
    /// Its number within the attempt, from 1, without gaps.
    pub n: u64,
    /// What it is; one that [`EventType::is_from_worker`] allows.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// A JSON object: the type's own fields, as they will reach the client.
    pub fields: Box<RawValue>,
}
