//! Which agents there are, and under which names clients may ask for them.

use std::collections::BTreeMap;
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
    /// OpenAI's Codex CLI over its app-server's JSON-RPC lines.
    Codex,
    /// opencode over the Agent Client Protocol.
    Opencode,
    /// Google's Gemini CLI over the Agent Client Protocol.
    Gemini,
    /// Augment's CLI over the Agent Client Protocol.
    Auggie,
    /// `OpenHands` over the Agent Client Protocol.
    Openhands,
    /// goose over the Agent Client Protocol.
    Goose,
    /// A model that an Ollama server runs, in the opencode harness.
    Ollama,
    /// A model behind OpenAI's API or one like it, in the opencode harness.
    Openai,
    /// A model that `OpenRouter` routes to, in the opencode harness.
    Openrouter,
    /// A command of the workspace's own that speaks the Agent Client Protocol.
    Acp,
    /// An address that takes the request and answers with a stream of events.
    Http,
    /// The request as a bash script in the working tree.
    Shell,
}

/// Every kind with its canonical name and all other spellings that are understood, in lower
/// case, in the order in which lists show them.
const KINDS: [(AgentKind, &str, &[&str]); 13] = [
    (
        AgentKind::Claude,
        "claude",
        &[
            "claude-code",
            "claudecode",
            "claudeagentsdk",
            "claude-agent-sdk",
        ],
    ),
    (
        AgentKind::Codex,
        "codex",
        &["codexsdk", "codex-sdk", "cursor"],
    ),
    (AgentKind::Opencode, "opencode", &["open-code"]),
    (AgentKind::Gemini, "gemini", &["gemini-cli"]),
    (AgentKind::Auggie, "auggie", &["augment"]),
    (
        AgentKind::Openhands,
        "openhands",
        &["opendevin", "open-hands"],
    ),
    (AgentKind::Goose, "goose", &[]),
    (AgentKind::Ollama, "ollama", &[]),
    (AgentKind::Openai, "openai", &[]),
    (AgentKind::Openrouter, "openrouter", &["open-router"]),
    (AgentKind::Acp, "acp", &[]),
    (AgentKind::Http, "http", &[]),
    (AgentKind::Shell, "shell", &["bash"]),
];

impl AgentKind {
    /// Every kind, in the order in which lists show them.
    pub const ALL: [Self; KINDS.len()] = {
        let mut all = [Self::Claude; KINDS.len()];
        let mut at = 0;
        while at < KINDS.len() {
            all[at] = KINDS[at].0;
            at += 1;
        }
        all
    };

    /// The canonical name on the wire, in SQL and in Redis.
    pub fn as_str(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// Whether images may come with its prompt. Of a workspace's own command and address only
    /// they themselves can tell: the run says so if they cannot.
    pub fn takes_images(self) -> bool {
        !matches!(self, Self::Openhands | Self::Goose | Self::Shell)
    }

    /// Whether it cannot run without a credential, as a local model, a command or an address of
    /// the workspace's own and a script can.
    pub fn needs_credential(self) -> bool {
        !matches!(self, Self::Ollama | Self::Acp | Self::Http | Self::Shell)
    }

    /// Reads any known spelling in any case: `ClaudeAgentSDK`, `claude-code`, `claude`, …
    pub fn from_spelling(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let known = |name: &str, others: &[&str]| name == text || others.contains(&text.as_str());
        let mut kinds = KINDS.iter();
        kinds
            .find(|(_, name, others)| known(name, others))
            .map(|(kind, ..)| *kind)
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

/// What a workspace defined for the kinds that run nothing by themselves; the dispatcher has
/// validated it. Credentials never stand here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Definition {
    /// For [`AgentKind::Acp`].
    Command(CommandDefinition),
    /// For [`AgentKind::Http`].
    Endpoint(EndpointDefinition),
}

/// A program that speaks the Agent Client Protocol on its standard input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandDefinition {
    /// The program's name, without a path: workers look for it where they look for agents.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment; no secrets.
    pub env: BTreeMap<String, String>,
    /// The variable in which it expects the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_variable: Option<String>,
    /// Where it keeps conversations: a path below its HOME, archived with the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_folder: Option<String>,
}

/// An address that takes requests and answers with events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointDefinition {
    /// http(s) URL without credentials.
    pub url: String,
    /// Longest silence between two pieces of the answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::{AgentKind, KINDS};

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_no_spelling_is_ambiguous() {
        for (kind, name, others) in KINDS {
            assert_eq!(kind.as_str(), name);
            let mut spellings = others.iter().copied().chain([name]);
            assert!(
                spellings.all(|text| AgentKind::from_spelling(text) == Some(kind)),
                "{name}"
            );
        }
        assert_eq!(
            AgentKind::from_spelling("ClaudeAgentSDK"),
            Some(AgentKind::Claude)
        );
        assert_eq!(AgentKind::from_spelling("gpt"), None);
    }
}
