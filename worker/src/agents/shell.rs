//! The `shell` agent: the prompt is a bash script, run in the working directory.
//!
//! The script runs as `bash FILE`, without `-e`: its exit status is that of its last command,
//! as anywhere else. It reads nothing from its standard input.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::Failure;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::prompt::{PromptPart, text_of};
use futures::future::BoxFuture;
use serde_json::json;

use super::dialogue::{Dialogue, Heard, converse, draft};
use super::discovery::{Program, Source};
use super::process::{Launch, Output, Process};
use super::{Agent, AgentEnd, AgentEnvironment, AgentJob, check_confinement, files};

/// What is kept of the output's end as the run's result.
const MAX_RESULT_BYTES: usize = 4 * 1024;

/// The script's name in the scratch directory.
const SCRIPT: &str = "clawlink-script.sh";

/// Runs prompts as scripts.
pub(super) struct Shell {
    environment: Arc<AgentEnvironment>,
    bash: PathBuf,
}

/// bash, wherever the system has it.
pub(super) fn source() -> Source {
    Source {
        kind: AgentKind::Shell,
        program: Program::Installed {
            name: "bash",
            packaged: Vec::new,
            places: &["/bin/bash"],
        },
        make: |found| {
            Arc::new(Shell {
                environment: found.environment,
                bash: found.program,
            })
        },
    }
}

impl Agent for Shell {
    fn kind(&self) -> AgentKind {
        AgentKind::Shell
    }

    /// A script keeps no state of its own.
    fn relocate(&self, _from: &Path, _to: &Path) -> Result<()> {
        Ok(())
    }

    fn run(&self, job: AgentJob) -> BoxFuture<'_, AgentEnd> {
        Box::pin(self.run_script(job))
    }
}

impl Shell {
    async fn run_script(&self, mut job: AgentJob) -> AgentEnd {
        let is_image = |part: &PromptPart| matches!(part, PromptPart::Image { .. });
        if job.prompt.iter().any(is_image) {
            return AgentEnd::failed(ErrorCode::ValidationError, "a script cannot hold images");
        }
        if let Err(end) = check_confinement(&self.environment, &job.events).await {
            return end;
        }
        let mut process = match self.start(&job) {
            Ok(process) => process,
            Err(error) => {
                return AgentEnd::failed(ErrorCode::AgentUnavailable, format!("{error:#}"));
            }
        };
        let mut tail = Tail::default();
        let stopped = converse(
            &mut process,
            &mut tail,
            &job.desk,
            &job.events,
            &mut job.stop,
        )
        .await;
        let failure = process.setup_failure();
        let failure = failure.or_else(|| process.exit().and_then(failure_of));
        AgentEnd {
            failure: failure.filter(|_| stopped.is_none()),
            result: Some(tail.text()).filter(|text| !text.is_empty()),
            ..AgentEnd::default()
        }
    }

    fn start(&self, job: &AgentJob) -> Result<Process> {
        let script = write_script(job)?;
        let mut env = self.environment.passthrough.clone();
        env.extend(job.variables());
        let launch = Launch {
            program: self.bash.clone(),
            args: vec![script.into()],
            env,
            read_only: Vec::new(),
        };
        let mut process = Process::start(&self.environment, job, &launch)?;
        process.close_stdin();
        Ok(process)
    }
}

fn write_script(job: &AgentJob) -> Result<PathBuf> {
    let script = job.tmp.join(SCRIPT);
    let relative: &Path = script
        .strip_prefix(&job.session_root)
        .context("find the scratch directory in the session")?;
    let text = text_of(&job.prompt);
    files::write_private(&job.session_root, relative, text.as_bytes()).context("write script")?;
    Ok(script)
}

fn failure_of(exit: ExitStatus) -> Option<Failure> {
    let message = match (exit.code(), exit.signal()) {
        (Some(0), _) => return None,
        (Some(code), _) => format!("script exited with {code}"),
        (None, Some(signal)) => format!("script was ended by signal {signal}"),
        (None, None) => "script ended in an unknown way".to_owned(),
    };
    Some(Failure::new(ErrorCode::AgentError, message))
}

/// Tells every line and remembers the last ones.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn remember(&mut self, line: &str) {
        let line = &line[..line.floor_char_boundary(MAX_RESULT_BYTES - 1)];
        self.bytes += line.len() + 1;
        self.lines.push_back(line.to_owned());
        while self.bytes > MAX_RESULT_BYTES {
            let oldest = self.lines.pop_front();
            self.bytes -= oldest.map_or(self.bytes, |line| line.len() + 1);
        }
    }

    fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

impl Dialogue for Tail {
    fn hear(&mut self, output: Output, _process: &mut Process) -> Heard {
        let (stream, line) = match output {
            Output::Stdout(line) => ("stdout", line),
            Output::Stderr(line) => ("stderr", line),
        };
        self.remember(&line.text);
        let data = json!({"type": stream, "text": line.text});
        Heard {
            events: vec![
                draft(
                    EventType::AssistantMessage,
                    &json!({"provider": "shell", "data": data}),
                ),
                draft(
                    EventType::AgentText,
                    &json!({"text": line.text, "delta": false}),
                ),
            ],
            ..Heard::default()
        }
    }

    fn ask_to_stop(&mut self, _process: &mut Process) -> Duration {
        Duration::ZERO
    }
}
