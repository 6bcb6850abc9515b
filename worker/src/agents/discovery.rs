//! Which agents this worker really has: found on disk, and able to say their version.
//!
//! Asking a program for its version costs up to seconds, so the answer is remembered by path,
//! size and mtime: a worker that starts again on the same machine asks nothing. What is
//! remembered is only ever shown to people.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::agent::{AgentKind, AgentOffer};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::claude::Claude;
use super::shell::Shell;
use super::{Agent, AgentEnvironment};

/// How long a program may take to say its version.
const VERSION_BOUND: Duration = Duration::from_secs(15);

/// Longest version text that is kept.
const MAX_VERSION_BYTES: usize = 100;

/// The agents of this worker.
#[derive(Clone, Default)]
pub struct Agents {
    found: Vec<(AgentOffer, Arc<dyn Agent>)>,
}

impl Agents {
    /// For the claim.
    pub fn offers(&self) -> Vec<AgentOffer> {
        self.found.iter().map(|(offer, _)| offer.clone()).collect()
    }

    /// The agent of that kind, if this worker has it.
    pub fn get(&self, kind: AgentKind) -> Option<Arc<dyn Agent>> {
        let found = self.found.iter().find(|(offer, _)| offer.kind == kind);
        found.map(|(_, agent)| agent.clone())
    }
}

/// Looks for all kinds of agents.
pub async fn discover(environment: AgentEnvironment) -> Agents {
    let environment = Arc::new(environment);
    let mut versions = Versions::load(environment.version_cache.as_deref());
    let mut agents = Agents::default();
    for kind in AgentKind::ALL {
        let Some((program, version)) = find(kind, &environment, &mut versions).await else {
            continue;
        };
        let agent: Arc<dyn Agent> = match kind {
            AgentKind::Claude => Arc::new(Claude::new(environment.clone(), program)),
            AgentKind::Shell => Arc::new(Shell {
                environment: environment.clone(),
                bash: program,
            }),
            _ => continue,
        };
        agents.found.push((AgentOffer { kind, version }, agent));
    }
    versions.save();
    agents
}

/// The first candidate that says its version.
async fn find(
    kind: AgentKind,
    environment: &AgentEnvironment,
    versions: &mut Versions,
) -> Option<(PathBuf, String)> {
    for candidate in candidates(kind, environment) {
        let Ok(program) = candidate.canonicalize() else {
            continue;
        };
        match versions.of(&program).await {
            Ok(version) => return Some((program, version)),
            Err(error) => {
                tracing::debug!(program = %program.display(), "not usable: {error:#}");
            }
        }
    }
    None
}

fn candidates(kind: AgentKind, environment: &AgentEnvironment) -> Vec<PathBuf> {
    let (name, packages) = match kind {
        AgentKind::Claude => ("claude", claude_packages()),
        AgentKind::Shell => ("bash", Vec::new()),
        _ => return Vec::new(),
    };
    let mut candidates = Vec::new();
    if let Some(directory) = &environment.agent_dir {
        let modules = directory.join("node_modules");
        // The package's own launcher needs an install script to have run; its parts do not.
        candidates.extend(packages.iter().map(|package| modules.join(package)));
        candidates.push(directory.join(name));
        candidates.push(modules.join(".bin").join(name));
    }
    let on_path = environment.search_path.iter();
    candidates.extend(on_path.map(|directory| directory.join(name)));
    if kind == AgentKind::Shell {
        candidates.push(PathBuf::from("/bin/bash"));
    }
    candidates
}

/// The native program inside the npm packages for this machine.
fn claude_packages() -> Vec<PathBuf> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    ["", "-musl"]
        .map(|libc| format!("@anthropic-ai/claude-code-linux-{machine}{libc}/claude").into())
        .to_vec()
}

/// What programs said, by path.
#[derive(Debug, Default)]
struct Versions {
    file: Option<PathBuf>,
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
    fn load(file: Option<&Path>) -> Self {
        let known = file.and_then(|file| std::fs::read(file).ok());
        Self {
            file: file.map(Path::to_owned),
            known: known
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default(),
            is_changed: false,
        }
    }

    async fn of(&mut self, program: &Path) -> Result<String> {
        let metadata = program.metadata().context("look at the program")?;
        let (size, mtime) = (metadata.size(), metadata.mtime());
        let mtime_nsec = metadata.mtime_nsec();
        if let Some(known) = self.known.get(program)
            && (known.size, known.mtime, known.mtime_nsec) == (size, mtime, mtime_nsec)
        {
            return Ok(known.version.clone());
        }
        let version = ask(program).await?;
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
    fn save(&self) {
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

async fn ask(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .env_clear()
        .env("HOME", "/nonexistent")
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

/// What a program needs to read outside the system's own directories: all of the agents'
/// directory, or else itself alone, for who knows what lies beside it.
pub(super) fn needs_of(program: &Path, environment: &AgentEnvironment) -> PathBuf {
    let agent_dir = environment.agent_dir.as_ref();
    let agent_dir = agent_dir.and_then(|directory| directory.canonicalize().ok());
    agent_dir
        .filter(|directory| program.starts_with(directory))
        .unwrap_or_else(|| program.to_owned())
}
