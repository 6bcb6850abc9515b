//! Instructions that a workspace offers its agents, placed where each agent's program looks.
//!
//! They stand below the session's HOME: never in the repository, hence never committed, and
//! never among the agent's state, hence never archived. Each run gets those of its own request.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::Skill;
use serde_json::json;

use super::files;

/// Longest name of a skill's folder.
const MAX_NAME: usize = 64;

/// Most skills that are placed.
const MAX_SKILLS: usize = 100;

/// Where an agent looks for skills, below its HOME; each is a folder with a `SKILL.md`.
pub(super) fn folder(agent: AgentKind) -> Option<&'static str> {
    match agent {
        AgentKind::Claude => Some(".claude/skills"),
        AgentKind::Codex => Some(".codex/skills"),
        AgentKind::Opencode | AgentKind::Ollama | AgentKind::Openai | AgentKind::Openrouter => {
            Some(".config/opencode/skills")
        }
        AgentKind::Gemini => Some(".gemini/skills"),
        AgentKind::Auggie => Some(".augment/skills"),
        AgentKind::Openhands => Some(".openhands/skills"),
        AgentKind::Goose => Some(".config/goose/skills"),
        AgentKind::Acp | AgentKind::Http | AgentKind::Shell => None,
    }
}

/// Places skills below the agent's `home`, which lies below `session_root`. One whose name is
/// taken or has no letter is left out. Blocks.
///
/// # Errors
///
/// When the disk refuses.
pub fn place(agent: AgentKind, session_root: &Path, home: &Path, skills: &[Skill]) -> Result<()> {
    let Some(folder) = folder(agent) else {
        return Ok(());
    };
    let home = home.strip_prefix(session_root);
    let folder = home.context("find HOME in the session")?.join(folder);
    let mut taken = BTreeSet::new();
    for skill in skills.iter().take(MAX_SKILLS) {
        let name = slug(&skill.name);
        if name.is_empty() || !taken.insert(name.clone()) {
            tracing::warn!(skill = skill.name, "skill has no name of its own; left out");
            continue;
        }
        let file = folder.join(&name).join("SKILL.md");
        files::write_private(session_root, &file, text(&name, skill).as_bytes())
            .context("place skill")?;
    }
    Ok(())
}

/// Lower-case letters and digits, with `-` between.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if slug.len() >= MAX_NAME {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// The file that agents read: a head in YAML, of which JSON's strings are a part.
fn text(name: &str, skill: &Skill) -> String {
    let description = skill.description.split_whitespace().collect::<Vec<_>>();
    format!(
        "---\nname: {name}\ndescription: {}\n---\n\n{}\n",
        json!(description.join(" ")),
        skill.instructions.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skills_stand_in_folders_of_their_names() {
        let root = tempfile::tempdir().expect("a directory");
        let skill = |name: &str| Skill {
            name: name.to_owned(),
            description: "Says \"how\"\nto review: well".to_owned(),
            instructions: "# Review\n\nBe kind.\n".to_owned(),
        };
        let skills = [
            skill("Code Review!"),
            skill("code-review"),
            skill("../../up"),
            skill("日本"),
        ];
        let home = root.path().join("home");
        place(AgentKind::Claude, root.path(), &home, &skills).expect("placed");
        let folder = home.join(".claude/skills");
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["code-review", "up"]);
        let text = std::fs::read_to_string(folder.join("code-review/SKILL.md")).expect("a file");
        assert_eq!(
            text,
            "---\nname: code-review\ndescription: \"Says \\\"how\\\" to review: well\"\n---\n\n\
             # Review\n\nBe kind.\n"
        );
        place(AgentKind::Shell, root.path(), &home, &skills).expect("nothing to place");
    }

    #[test]
    fn no_skill_is_archived() {
        for kind in AgentKind::ALL {
            let states = crate::persist::exclude::state_paths(kind);
            let folder = folder(kind).unwrap_or("none");
            assert!(!states.iter().any(|state| folder.starts_with(state)));
        }
    }
}
