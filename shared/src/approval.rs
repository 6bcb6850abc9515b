//! What agents ask people, and what people answer: the parts that worker and dispatcher share.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Questions of one execution that may be open at the same time.
pub const MAX_OPEN_QUESTIONS: usize = 64;

/// Largest input of a question, in bytes of JSON; longer ones are cut and marked as partial.
pub const MAX_INPUT_BYTES: usize = 128 * 1024;

/// Longest name of a tool, in bytes.
pub const MAX_TOOL_BYTES: usize = 256;

/// Longest text that is sent to a running agent, in bytes: as JSON it fits one event.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024;

/// Texts that may wait at one running agent.
pub const MAX_MESSAGES: usize = 32;

/// What an agent reads when a rule denies.
pub const DENIED_BY_RULE: &str = "A rule of this workspace does not allow this.";

/// What it reads when it asks too much at once.
pub const TOO_MANY_QUESTIONS: &str = "Too many questions wait for an answer already.";

/// What it reads when nobody answered in time.
pub const UNANSWERED: &str =
    "Nobody answered in time. Go on without it, or say what you would have done.";

/// Kinds of questions. Wire form: lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// It wants to use a tool.
    Tool,
    /// It has made a plan, and wants to carry it out.
    Plan,
}

impl QuestionKind {
    /// The name on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Plan => "plan",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tool, Self::Plan]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// What is answered. Wire form: snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may.
    Allow,
    /// It may, and so may the same step for the rest of the session.
    AllowForSession,
    /// It may not.
    Deny,
}

impl Decision {
    /// The name on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowForSession => "allow_for_session",
            Self::Deny => "deny",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Allow, Self::AllowForSession, Self::Deny]
            .into_iter()
            .find(|decision| decision.as_str() == name)
    }

    /// Whether the step may be taken.
    pub fn is_allowing(self) -> bool {
        matches!(self, Self::Allow | Self::AllowForSession)
    }
}

/// The fields of a worker's `approval_requested`. The dispatcher adds `expiresAt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requested {
    /// Made by the worker.
    pub approval_id: Uuid,
    /// What kind of step it is.
    pub kind: QuestionKind,
    /// The tool's name as the agent says it.
    pub tool: String,
    /// Its arguments as the agent says them, redacted.
    pub input: Box<RawValue>,
    /// The arguments are cut or masked: no pattern may allow what it cannot see.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// The fields of a worker's `approval_withdrawn`: nobody waits for the answer any more.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withdrawn {
    /// Of the question.
    pub approval_id: Uuid,
}

/// The fields of a worker's `user_message`: the agent has taken a text that a person sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// As the dispatcher named it.
    pub message_id: Uuid,
    /// The text, redacted.
    pub text: String,
}
