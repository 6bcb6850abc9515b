//! Which agents there are, and under which names clients may ask for them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Variables that tell the vendors' programs where their models are. Agents get them as they
/// are set on the worker; none is a secret.
pub const VENDOR_ADDRESSES: [&str; 7] = [
    "ANTHROPIC_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_VERTEX_BASE_URL",
    "AUGMENT_API_URL",
    "OPENROUTER_BASE_URL",
    "OLLAMA_HOST",
];

/// A runnable kind of agent. The wire form is the lower-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// Anthropic's Claude Code CLI over its two-way stream-json pipe.
    Claude,
    /// The request as a bash script in the working tree.
    Shell,
}

impl AgentKind {
    /// Every kind, in the order in which lists show them.
    pub const ALL: [Self; 2] = [Self::Claude, Self::Shell];

    /// The canonical name on the wire, in SQL and in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Shell => "shell",
        }
    }

    /// Reads any known spelling in any case: `ClaudeAgentSDK`, `claude-code`, `claude`, …
    pub fn from_spelling(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "claude" | "claude-code" | "claudecode" | "claudeagentsdk" | "claude-agent-sdk" => {
                Some(Self::Claude)
            }
            "shell" | "bash" => Some(Self::Shell),
            _ => None,
        }
    }
}

impl fmt::Display for AgentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An agent that a worker really has, with the version its program reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOffer {
    /// Which kind.
    pub kind: AgentKind,
    /// As the program says it, for people to read.
    pub version: String,
}
