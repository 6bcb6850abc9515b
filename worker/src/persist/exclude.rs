//! What of a session may travel, by name: a table of agent state, and the names of
//! credentials that never do.
//!
//! Agent state is a list of what is allowed, because an agent's home fills with caches and
//! credentials that nobody enumerated. The credential names apply to that state and to
//! untracked files of the working tree. A file that git tracks is the repository's own, is on
//! the git host already, and would look deleted if it were missing after a restore.

use clawlink_shared::agent::AgentKind;

/// Where an agent keeps what it needs to continue a conversation: paths below its HOME.
/// Everything else in HOME is lost when the worker exits.
pub fn state_paths(agent: AgentKind) -> &'static [&'static str] {
    match agent {
        AgentKind::Claude => &[".claude/projects", ".claude/todos"],
        AgentKind::Codex => &[".codex/sessions"],
        AgentKind::Opencode | AgentKind::Ollama | AgentKind::Openai | AgentKind::Openrouter => &[
            ".local/share/opencode/opencode.db",
            ".local/share/opencode/opencode.db-wal",
            ".local/share/opencode/opencode.db-shm",
            // What the conversation has cost, for every agent of the same client.
            ".clawlink",
        ],
        AgentKind::Gemini => &[".gemini/tmp"],
        AgentKind::Auggie => &[".augment/sessions"],
        AgentKind::Openhands => &[".openhands/conversations"],
        AgentKind::Goose => &[".local/share/goose/sessions"],
        AgentKind::Acp | AgentKind::Http | AgentKind::Shell => &[],
    }
}

/// Credential files and folders: the last components of their paths.
const CREDENTIALS: &[&[&str]] = &[
    &[".aws"],
    &[".claude", ".credentials.json"],
    &[".claude.json"],
    &[".codex", "auth.json"],
    &[".docker", "config.json"],
    &[".git-credentials"],
    &[".netrc"],
    &[".npmrc"],
    &[".ssh"],
];

/// Whether a path, `/`-separated, names a place where programs keep credentials.
pub(super) fn is_credential(path: &[u8]) -> bool {
    CREDENTIALS.iter().any(|ending| {
        let mut components = path.rsplit(|byte| *byte == b'/');
        ending
            .iter()
            .rev()
            .all(|name| components.next() == Some(name.as_bytes()))
    })
}

/// Whether a path inside a `.git` directory is the lock of a git that was killed: it would
/// stop the next turn's git.
pub(super) fn is_git_lock(path: &[u8]) -> bool {
    path.ends_with(b".lock")
}

#[cfg(test)]
mod tests {
    use super::is_credential;

    #[test]
    fn credentials_are_known_by_the_end_of_their_path() {
        for path in [
            "work/.npmrc",
            "home/.claude/.credentials.json",
            "work/a/.ssh",
        ] {
            assert!(is_credential(path.as_bytes()), "{path}");
        }
        for path in ["work/config.json", "work/x.npmrc", "work/auth.json", "work"] {
            assert!(!is_credential(path.as_bytes()), "{path}");
        }
    }
}
