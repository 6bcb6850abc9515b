//! Every agent that speaks the Agent Client Protocol, through one client.
//!
//! The program runs in the sandbox; its lines are read here, bounded, and mean events
//! ([`updates`]); only its answers and its own requests reach the protocol's connection
//! ([`client`]). What differs between agents stands in [`table`]. The verdict comes from the
//! agent's answer to its prompt and from whether we asked it to stop, never from its exit code,
//! and whatever its tools left running is ended with it.

mod calls;
mod client;
mod command;
mod cost;
mod drive;
mod gemini;
mod launch;
mod opencode;
mod permission;
mod providers;
mod session_files;
mod setting;
mod table;
pub(super) mod updates;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use futures::future::BoxFuture;

use self::drive::Ways;
use self::setting::Wish;
use self::table::{Entry, TABLE};
use self::updates::AcpParser;
use super::discovery::{Program, Source};
use super::process::Process;
use super::{Agent, AgentEnd, AgentEnvironment, AgentJob, check_confinement};

/// The usual name of a mode that only plans.
const PLAN_MODES: [&str; 1] = ["plan"];

/// Models without a harness of their own: opencode runs them.
const MODELS: [AgentKind; 3] = [AgentKind::Ollama, AgentKind::Openai, AgentKind::Openrouter];

/// Everything that is reached through this client.
pub(super) fn sources() -> Vec<Source> {
    let own = TABLE.iter().map(|entry| (entry.kind, entry));
    let models = MODELS
        .into_iter()
        .filter_map(|kind| Some((kind, entry_of(kind)?)));
    let mut sources: Vec<Source> = own
        .chain(models)
        .map(|(kind, entry)| Source {
            kind,
            program: Program::Installed {
                name: entry.program,
                packaged: entry.packaged,
                places: &[],
            },
            make: |found| {
                let entry = entry_of(found.kind).expect("a source has its entry");
                Arc::new(Acp {
                    environment: found.environment,
                    kind: found.kind,
                    entry,
                    program: found.program,
                })
            },
        })
        .collect();
    sources.push(command::source());
    sources
}

/// The entry whose program runs that kind.
fn entry_of(kind: AgentKind) -> Option<&'static Entry> {
    let kind = if MODELS.contains(&kind) {
        AgentKind::Opencode
    } else {
        kind
    };
    TABLE.iter().find(|entry| entry.kind == kind)
}

/// One agent of the table, found on this machine.
struct Acp {
    environment: Arc<AgentEnvironment>,
    /// What it is offered as: its own name, or that of a provider of models that it runs.
    kind: AgentKind,
    entry: &'static Entry,
    program: PathBuf,
}

impl Acp {
    async fn run_agent(&self, job: AgentJob) -> AgentEnd {
        let prepared = launch::prepare(
            &self.environment,
            self.entry,
            self.kind,
            &self.program,
            &job,
        );
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(message) => return AgentEnd::failed(ErrorCode::ValidationError, message),
        };
        if let Err(end) = check_confinement(&self.environment, &job.events).await {
            return end;
        }
        let ready = prepared.write(&job).and_then(|()| match &job.resume {
            Some(conversation) => (self.entry.before_load)(&job, conversation),
            None => Ok(()),
        });
        let started =
            ready.and_then(|()| Process::start(&self.environment, &job, &prepared.launch));
        let end = match started {
            Ok(process) => follow(process, &job, self.ways(job.options.permission_mode)).await,
            Err(error) => AgentEnd::failed(ErrorCode::AgentUnavailable, format!("{error:#}")),
        };
        if let Err(error) = prepared.clear(&job) {
            tracing::error!("the agent's login stays in the session: {error:#}");
        }
        end
    }

    fn ways(&self, mode: PermissionMode) -> Ways {
        Ways {
            name: self.kind.as_str(),
            wish: Wish {
                plan_modes: match mode {
                    PermissionMode::Plan if self.entry.plan_modes.is_empty() => &PLAN_MODES,
                    PermissionMode::Plan => self.entry.plan_modes,
                    PermissionMode::Default | PermissionMode::BypassPermissions => &[],
                },
                model: None,
            },
            repeats_late: self.entry.repeats_late,
            refused: self.entry.refused,
            plans_in_words: self.entry.plans_in_words,
        }
    }
}

/// Speaks with the running program until it and everything it started are gone.
async fn follow(mut process: Process, job: &AgentJob, ways: Ways) -> AgentEnd {
    let name = ways.name;
    let parser = AcpParser::new(name, cost::before(job));
    let driven = drive::drive(&mut process, parser, job, ways).await;
    cost::keep(job, &driven.parser, driven.session.as_deref());
    let ended = match driven.outcome {
        Ok(failure) => failure,
        Err(error) => {
            let answered = verdict::of_error(name, &error);
            let what = format!("{name} ended in the middle of its turn");
            Some(answered.unwrap_or_else(|| process.early_end(&what)))
        }
    };
    AgentEnd {
        failure: ended.filter(|_| driven.stopped.is_none()),
        result: driven.parser.said().map(str::to_owned),
        usage: driven.parser.usage(),
        provider_session_id: driven.session.or_else(|| job.resume.clone()),
        ..AgentEnd::default()
    }
}

impl Agent for Acp {
    fn kind(&self) -> AgentKind {
        self.kind
    }

    fn relocate(&self, from: &Path, to: &Path) -> Result<()> {
        let Some(relocate) = self.entry.relocate else {
            bail!(
                "{} continues a conversation only in the directory where it began",
                self.kind
            );
        };
        relocate(from, to)
    }

    fn run(&self, job: AgentJob) -> BoxFuture<'_, AgentEnd> {
        Box::pin(self.run_agent(job))
    }
}
