//! The `codex` agent: the vendor's CLI over its app-server's JSON-RPC lines.
//!
//! The verdict comes from the turn's last status and from whether we asked it to stop. An
//! app-server that stays after its turn is ended. With permission mode `plan` it has two
//! turns: one in which nothing may change, and, once a person has approved the plan, another.

mod approval;
mod credential;
mod items;
mod launch;
pub(super) mod parse;
mod talk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::ErrorCode;
use futures::future::BoxFuture;

use self::credential::Credential;
use self::talk::Talk;
use super::dialogue::converse;
use super::discovery::{Program, Source, npm_machine};
use super::login::with_login;
use super::process::Process;
use super::{Agent, AgentEnd, AgentEnvironment, AgentJob, check_confinement, files};

/// Runs the CLI.
struct Codex {
    environment: Arc<AgentEnvironment>,
    program: PathBuf,
}

/// The native program inside the npm package for this machine, or `codex` on the `PATH`.
pub(super) fn source() -> Source {
    let packaged = || {
        let package = format!("@openai/codex-linux-{}/vendor", npm_machine());
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let nested = format!("@openai/codex/node_modules/{package}");
        let program = |package: &str| Path::new(package).join(&target).join("bin/codex");
        vec![program(&package), program(&nested)]
    };
    Source {
        kind: AgentKind::Codex,
        program: Program::Installed {
            name: "codex",
            packaged,
            places: &[],
        },
        make: |found| {
            Arc::new(Codex {
                environment: found.environment,
                program: found.program,
            })
        },
    }
}

impl Codex {
    async fn run_cli(&self, job: AgentJob) -> AgentEnd {
        let credential = job.credential.as_ref().map(Credential::parse).transpose();
        let credential = match credential {
            Ok(credential) => credential,
            Err(error) => {
                return AgentEnd::failed(ErrorCode::ValidationError, format!("{error:#}"));
            }
        };
        if let Err(end) = check_confinement(&self.environment, &job.events).await {
            return end;
        }
        let login = match &credential {
            Some(Credential::Login(login)) => Some((credential::LOGIN, login)),
            _ => None,
        };
        with_login(login, job, |job| self.talk(job, credential.as_ref())).await
    }

    async fn talk(&self, mut job: AgentJob, credential: Option<&Credential>) -> Result<AgentEnd> {
        // The CLI refuses a home that does not exist.
        let home = job.home.join(launch::FOLDER);
        files::make_private(&job.session_root, home.strip_prefix(&job.session_root)?)?;
        let launch = launch::launch(&self.environment, &self.program, &job, credential);
        let mut process = Process::start(&self.environment, &job, &launch)?;
        let mut talk = Talk::begin(&job, &mut process);
        let (desk, events) = (&job.desk, &job.events);
        let stopped = converse(&mut process, &mut talk, desk, events, &mut job.stop).await;
        let usage = talk.usage();
        let session = talk.thread.or(job.resume);
        let has_finished = talk.verdict.is_some();
        let (failure, result) = match talk.verdict {
            Some(verdict) => (verdict.failure, verdict.result),
            None => (
                Some(process.early_end("codex ended before its turn did")),
                None,
            ),
        };
        Ok(AgentEnd {
            has_finished: has_finished && failure.is_none(),
            failure: failure.filter(|_| stopped.is_none()),
            result,
            usage,
            provider_session_id: session,
            ..AgentEnd::default()
        })
    }
}

impl Agent for Codex {
    fn kind(&self) -> AgentKind {
        AgentKind::Codex
    }

    /// Conversations are found by their names alone.
    fn relocate(&self, _from: &Path, _to: &Path) -> Result<()> {
        Ok(())
    }

    fn run(&self, job: AgentJob) -> BoxFuture<'_, AgentEnd> {
        Box::pin(self.run_cli(job))
    }
}
