//! What programs say about their version, remembered between starts.
//!
//! Asking a program for its version costs up to seconds, so the answer is remembered by path,
//! size and mtime: a worker that starts again on the same machine asks nothing. What is
//! remembered is only ever shown to people.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::AgentEnvironment;

/// How long a program may take to say its version.
const VERSION_BOUND: Duration = Duration::from_secs(45);

/// Longest version text that is kept.
const MAX_VERSION_BYTES: usize = 100;

/// What programs said, by path.
#[derive(Debug, Default)]
pub(super) struct Versions {
    file: Option<PathBuf>,
    /// The `PATH` with which programs are asked: some are scripts.
    path: OsString,
    known: BTreeMap<PathBuf, Known>,
    is_changed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    size: u64,
    mtime: i64,
    mtime_nsec: i64,
    version: String,
}

impl Versions {
    /// A cache that cannot be read is an empty one.
    pub(super) fn load(environment: &AgentEnvironment) -> Self {
        let file = environment.version_cache.as_deref();
        let known = file.and_then(|file| std::fs::read(file).ok());
        Self {
            file: file.map(Path::to_owned),
            path: std::env::join_paths(&environment.search_path).unwrap_or_default(),
            known: known
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default(),
            is_changed: false,
        }
    }

    /// The program's version: its own words.
    pub(super) async fn of(&mut self, program: &Path) -> Result<String> {
        let metadata = program.metadata().context("look at the program")?;
        let (size, mtime) = (metadata.size(), metadata.mtime());
        let mtime_nsec = metadata.mtime_nsec();
        if let Some(known) = self.known.get(program)
            && (known.size, known.mtime, known.mtime_nsec) == (size, mtime, mtime_nsec)
        {
            return Ok(known.version.clone());
        }
        let version = ask(program, &self.path).await?;
        let known = Known {
            size,
            mtime,
            mtime_nsec,
            version: version.clone(),
        };
        self.known.insert(program.to_owned(), known);
        self.is_changed = true;
        Ok(version)
    }

    /// Written beside and renamed: workers that start together see a whole file.
    pub(super) fn save(&self) {
        let Some(file) = self.file.as_deref().filter(|_| self.is_changed) else {
            return;
        };
        let beside = file.with_extension(format!("{}.new", std::process::id()));
        let saved = serde_json::to_vec(&self.known)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(&beside, bytes))
            .and_then(|()| std::fs::rename(&beside, file));
        if let Err(error) = saved {
            tracing::warn!(%error, file = %file.display(), "agent versions are not remembered");
        }
    }
}

async fn ask(program: &Path, path: &OsString) -> Result<String> {
    // Some programs say nothing unless they can write to their HOME.
    let home = tempfile::tempdir().context("make a home for the program")?;
    let output = Command::new(program)
        .arg("--version")
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_BOUND, output)
        .await
        .context("wait for its version")?
        .context("ask for its version")?;
    anyhow::ensure!(
        output.status.success(),
        "--version ended with {}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.context("it says no version")?;
    Ok(line[..line.floor_char_boundary(MAX_VERSION_BYTES)].to_owned())
}
