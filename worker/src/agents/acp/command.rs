//! The `acp` agent: a program that the workspace names, which speaks the protocol.
//!
//! It is looked for where agents are, by its name alone: which programs there are is the
//! operator's choice. It runs in the sandbox as all others do.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clawlink_shared::agent::{AgentKind, CommandDefinition, Definition};
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use futures::future::BoxFuture;

use super::drive::Ways;
use super::setting::Wish;
use super::{PLAN_MODES, follow};
use crate::agents::discovery::{Program, Source, find_program, needs_of};
use crate::agents::process::{Launch, Process};
use crate::agents::{Agent, AgentEnd, AgentEnvironment, AgentJob, check_confinement};

/// Needs nothing before there is a definition.
pub(super) fn source() -> Source {
    Source {
        kind: AgentKind::Acp,
        program: Program::Nothing,
        make: |found| {
            Arc::new(AcpCommand {
                environment: found.environment,
            })
        },
    }
}

/// Runs programs that workspaces name.
struct AcpCommand {
    environment: Arc<AgentEnvironment>,
}

impl AcpCommand {
    async fn run_command(&self, job: AgentJob) -> AgentEnd {
        let Some(Definition::Command(command)) = &job.definition else {
            return AgentEnd::failed(
                ErrorCode::ValidationError,
                "an acp agent needs a stored definition: send its agentId",
            );
        };
        let Some(program) = find_program(&command.command, &self.environment) else {
            let message = format!("this worker has no program named {}", command.command);
            return AgentEnd::failed(ErrorCode::AgentUnavailable, message);
        };
        if job.credential.is_some() && command.credential_variable.is_none() {
            return AgentEnd::failed(
                ErrorCode::ValidationError,
                "the agent's definition has no credentialVariable for its credential",
            );
        }
        if let Err(end) = check_confinement(&self.environment, &job.events).await {
            return end;
        }
        let launch = self.launch(&program, command, &job);
        match Process::start(&self.environment, &job, &launch) {
            Ok(process) => follow(process, &job, ways(&job)).await,
            Err(error) => AgentEnd::failed(ErrorCode::AgentUnavailable, format!("{error:#}")),
        }
    }

    fn launch(&self, program: &Path, command: &CommandDefinition, job: &AgentJob) -> Launch {
        let mut env = self.environment.passthrough.clone();
        env.extend(command.env.clone());
        env.extend(job.variables());
        if let (Some(variable), Some(credential)) = (&command.credential_variable, &job.credential)
        {
            env.insert(variable.clone(), credential.expose().trim().to_owned());
        }
        Launch {
            program: program.to_owned(),
            args: command.args.iter().map(Into::into).collect(),
            env,
            read_only: vec![needs_of(program, &self.environment)],
        }
    }
}

/// Of an agent that nobody knows, everything is to be expected.
fn ways(job: &AgentJob) -> Ways {
    Ways {
        name: AgentKind::Acp.as_str(),
        wish: Wish {
            plan_modes: match job.options.permission_mode {
                PermissionMode::Plan => &PLAN_MODES,
                PermissionMode::Default | PermissionMode::BypassPermissions => &[],
            },
            model: job.options.model.clone(),
        },
        repeats_late: true,
        refused: &[],
        plans_in_words: false,
    }
}

impl Agent for AcpCommand {
    fn kind(&self) -> AgentKind {
        AgentKind::Acp
    }

    /// Whether it finds its conversation in another directory, it says itself.
    fn relocate(&self, _from: &Path, _to: &Path) -> Result<()> {
        Ok(())
    }

    fn run(&self, job: AgentJob) -> BoxFuture<'_, AgentEnd> {
        Box::pin(self.run_command(job))
    }
}
