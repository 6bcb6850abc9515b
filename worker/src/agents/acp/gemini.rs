//! gemini's conversations on disk, `.gemini/tmp/FOLDER/chats/session-MINUTE-ID.jsonl`, and what it
//! does to them.
//!
//! To continue a conversation gemini first begins a new one with its id, in a file that is named
//! after the minute: a conversation of the same minute would be emptied by that. So the file that
//! has the conversation gets a name here that gemini gives to none. The empty file stays, and
//! gemini's cleanup would remove every file of that id because of it: the cleanup must be off.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::launch::home;
use crate::agents::{AgentJob, files};

/// Below HOME, with a folder for each working directory.
const PROJECTS: &str = ".gemini/tmp";

/// Below a folder: the working directory that it belongs to.
const MARKER: &str = ".project_root";

/// Longest path that is read there, in bytes.
const MAX_MARKER_BYTES: u64 = 4096;

/// What the names of conversations begin with.
const PREFIX: &str = "session-";

/// What then follows in the names that are given here.
const KEPT: &str = "session-kept-";

/// Letters of an id in a name.
const ID_LETTERS: usize = 8;

/// gemini's settings.
pub(super) const SETTINGS: &str = r#"{"privacy":{"usageStatisticsEnabled":false},"telemetry":{"enabled":false},"general":{"disableAutoUpdate":true,"disableUpdateNag":true,"enableAutoUpdate":false,"maxAttempts":3,"sessionRetention":{"enabled":false}},"tools":{"shell":{"enableInteractiveShell":false}},"security":{"auth":{"selectedType":"gemini-api-key"}}}"#;

/// Gives the conversation that a job continues a name that no new one gets.
pub(super) fn keep_conversation(job: &AgentJob, id: &str) -> Result<()> {
    let projects = home(job)?.join(PROJECTS);
    let end: String = id.chars().take(ID_LETTERS).collect();
    let end = format!("-{end}.jsonl");
    for project in files::names_in(&job.session_root, &projects)? {
        let chats = projects.join(project).join("chats");
        let names = files::names_in(&job.session_root, &chats)?;
        let kept = |name: &str| {
            let rest = name.strip_prefix(PREFIX)?;
            let kept = format!("{KEPT}{rest}");
            let is_new = !name.starts_with(KEPT) && name.ends_with(&end);
            // The conversation is kept already, in the same minute: this is the empty file.
            (is_new && !names.contains(&kept)).then_some(kept)
        };
        files::rename_in(&job.session_root, &chats, kept).context("keep the conversation")?;
    }
    Ok(())
}

/// Says in the folders of a moved session where their working directory is now.
pub(super) fn relocate(from: &Path, to: &Path) -> Result<()> {
    let projects = Path::new("home").join(PROJECTS);
    for project in files::names_in(to, &projects)? {
        let marker = projects.join(project).join(MARKER);
        let Some(directory) = files::read_regular(to, &marker, MAX_MARKER_BYTES) else {
            continue;
        };
        let directory = PathBuf::from(String::from_utf8_lossy(&directory).trim());
        if let Ok(rest) = directory.strip_prefix(from) {
            let moved = to.join(rest);
            let moved = moved.to_str().context("name the working directory")?;
            files::write_private(to, &marker, moved.as_bytes()).context("move the conversation")?;
        }
    }
    Ok(())
}
