//! Which agents this worker really has: found on disk, and able to say their version.
//!
//! Every kind has one [`Source`], in the file of its agent; this file only knows where they
//! all stand, and looks for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawlink_shared::agent::{AgentKind, AgentOffer};

use super::versions::Versions;
use super::{Agent, AgentEnvironment, acp, claude, codex, http, shell};

/// Where the agents of a kind come from.
pub(super) struct Source {
    /// Which kind.
    pub(super) kind: AgentKind,
    /// What has to be there.
    pub(super) program: Program,
    /// Makes the agent, once its program is found.
    pub(super) make: fn(Found) -> Arc<dyn Agent>,
}

/// What has to be there, so that a kind can run.
pub(super) enum Program {
    /// A program on disk.
    Installed {
        /// Its name in the agents' directory, in `node_modules/.bin` and on the `PATH`.
        name: &'static str,
        /// Programs inside npm packages, looked for first: paths below `node_modules`.
        packaged: fn() -> Vec<PathBuf>,
        /// Absolute paths, looked at last.
        places: &'static [&'static str],
    },
    /// Nothing, before a workspace's definition is there.
    Nothing,
}

/// A program that was found, for [`Source::make`].
pub(super) struct Found {
    /// Which kind it was found for.
    pub(super) kind: AgentKind,
    /// What all agents have in common.
    pub(super) environment: Arc<AgentEnvironment>,
    /// Absolute, without links; empty where nothing has to be there.
    pub(super) program: PathBuf,
}

/// Every source. A native agent has its own; agents of the Agent Client Protocol share a table.
fn sources() -> Vec<Source> {
    let mut sources = vec![claude::source(), codex::source()];
    sources.extend(acp::sources());
    sources.extend([http::source(), shell::source()]);
    sources
}

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
    let mut versions = Versions::load(&environment);
    let mut agents = Agents::default();
    for source in sources() {
        let Some((program, version)) = find(&source.program, &environment, &mut versions).await
        else {
            continue;
        };
        let kind = source.kind;
        let agent = (source.make)(Found {
            kind,
            environment: environment.clone(),
            program,
        });
        agents.found.push((AgentOffer { kind, version }, agent));
    }
    versions.save();
    agents
}

/// The first candidate that says its version.
async fn find(
    program: &Program,
    environment: &AgentEnvironment,
    versions: &mut Versions,
) -> Option<(PathBuf, String)> {
    if let Program::Nothing = program {
        return Some((PathBuf::new(), env!("CARGO_PKG_VERSION").to_owned()));
    }
    for candidate in candidates(program, environment) {
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

fn candidates(program: &Program, environment: &AgentEnvironment) -> Vec<PathBuf> {
    let Program::Installed {
        name,
        packaged,
        places,
    } = program
    else {
        return Vec::new();
    };
    let mut candidates = Vec::new();
    if let Some(directory) = &environment.agent_dir {
        let modules = directory.join("node_modules");
        // The package's own launcher needs an install script to have run; its parts do not.
        candidates.extend(packaged().iter().map(|path| modules.join(path)));
    }
    candidates.extend(named(name, environment));
    candidates.extend(places.iter().map(PathBuf::from));
    candidates
}

/// Where a program of that name may be.
fn named(name: &str, environment: &AgentEnvironment) -> Vec<PathBuf> {
    let own = environment.agent_dir.iter();
    let own = own.flat_map(|directory| [directory.clone(), directory.join("node_modules/.bin")]);
    let places = own.chain(environment.search_path.iter().cloned());
    places.map(|directory| directory.join(name)).collect()
}

/// A program by its name alone, where agents are.
pub(super) fn find_program(name: &str, environment: &AgentEnvironment) -> Option<PathBuf> {
    let mut places = named(name, environment).into_iter();
    places.find_map(|place| {
        place
            .canonicalize()
            .ok()
            .filter(|program| program.is_file())
    })
}

/// This machine's architecture in the words of npm packages.
pub(super) fn npm_machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
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
