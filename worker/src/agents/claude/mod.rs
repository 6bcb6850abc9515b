//! The `claude` agent: the vendor's CLI over its two-way pipe.
//!
//! The verdict comes from the CLI's `result` line and from whether we asked it to stop; its
//! exit code says neither. A CLI that has said its result and stays is ended.

mod credential;
mod launch;
pub(super) mod parse;
pub(super) mod permission;
mod usage;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::ErrorCode;
use futures::future::BoxFuture;
use uuid::Uuid;

use self::credential::Credential;
use self::parse::{ClaudeParser, Signal, Verdict};
use self::permission::Permission;
use super::desk::Answer;
use super::dialogue::{Asked, Dialogue, Heard, converse};
use super::discovery::{Program, Source, npm_machine};
use super::login::with_login;
use super::process::{Output, Process};
use super::{Agent, AgentEnd, AgentEnvironment, AgentJob, check_confinement, files};

/// How long the CLI may take to exit after its result, with its input closed.
const EXIT_GRACE: Duration = Duration::from_secs(3);

/// How long it may take to obey an interrupt.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);

/// Where the CLI keeps conversations, below the session root.
const PROJECTS: &str = "home/.claude/projects";

/// Runs the CLI.
pub(super) struct Claude {
    environment: Arc<AgentEnvironment>,
    program: PathBuf,
}

/// The native program inside the npm packages for this machine, or `claude` on the `PATH`.
pub(super) fn source() -> Source {
    let packaged = || {
        let package = |libc| format!("@anthropic-ai/claude-code-linux-{}{libc}", npm_machine());
        let packages = ["", "-musl"].map(|libc| Path::new(&package(libc)).join("claude"));
        packages.to_vec()
    };
    Source {
        kind: AgentKind::Claude,
        program: Program::Installed {
            name: "claude",
            packaged,
            places: &[],
        },
        make: |found| {
            Arc::new(Claude {
                environment: found.environment,
                program: found.program,
            })
        },
    }
}

impl Claude {
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
        let session = launch::session(&job);
        let launch = launch::launch(&self.environment, &self.program, &job, credential, &session);
        let mut process = Process::start(&self.environment, &job, &launch)?;
        for line in launch::opening(&job) {
            process.write_line(line);
        }
        let mut talk = Talk::default();
        let stopped = converse(
            &mut process,
            &mut talk,
            &job.desk,
            &job.events,
            &mut job.stop,
        )
        .await;
        let has_finished = talk.verdict.as_ref().is_some_and(|it| it.failure.is_none());
        let verdict = talk.verdict.unwrap_or_else(|| Verdict {
            failure: Some(process.early_end("claude ended without a result")),
            ..Verdict::default()
        });
        Ok(AgentEnd {
            failure: verdict.failure.filter(|_| stopped.is_none()),
            has_finished,
            result: verdict.result,
            usage: verdict.usage,
            provider_session_id: talk.session.or(job.resume),
            refreshed_credential: None,
        })
    }
}

impl Agent for Claude {
    fn kind(&self) -> AgentKind {
        AgentKind::Claude
    }

    /// The CLI keeps a conversation in a folder that is named after the working directory.
    fn relocate(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, new) = (project_folder(from), project_folder(to));
        files::rename_in(to, Path::new(PROJECTS), |name| {
            name.strip_prefix(&old).map(|rest| format!("{new}{rest}"))
        })
    }

    fn run(&self, job: AgentJob) -> BoxFuture<'_, AgentEnd> {
        Box::pin(self.run_cli(job))
    }
}

/// The CLI's name for a directory's folder: everything but letters and digits becomes `-`.
fn project_folder(directory: &Path) -> String {
    let text = directory.to_string_lossy();
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

/// Our side of the pipe.
#[derive(Default)]
struct Talk {
    parser: ClaudeParser,
    /// Known once the CLI has begun the conversation: only then is there one to resume.
    session: Option<String>,
    /// Requests that wait for an answer, by their names.
    asked: HashMap<String, Permission>,
    /// A plan that somebody refused without a word: it is the run's result.
    refused_plan: Option<String>,
    /// Names of texts that the CLI was given and has not put into the conversation.
    unheard: HashSet<String>,
    verdict: Option<Verdict>,
}

impl Talk {
    /// A turn has ended. What was said in its last moment makes another one.
    fn end_turn(&mut self, mut verdict: Verdict, process: &mut Process) -> Option<Duration> {
        if let Some(plan) = self.refused_plan.take() {
            verdict.failure = None;
            verdict.result = Some(plan);
        }
        verdict.keep_usage_of(self.verdict.take());
        let goes_on = !self.unheard.is_empty() && verdict.failure.is_none();
        self.verdict = Some(verdict);
        if goes_on {
            return None;
        }
        process.close_stdin();
        Some(EXIT_GRACE)
    }
}

impl Dialogue for Talk {
    fn hear(&mut self, output: Output, process: &mut Process) -> Heard {
        let Output::Stdout(line) = output else {
            return Heard::default();
        };
        let parsed = self.parser.line(&line.text);
        let mut heard = Heard {
            events: parsed.events,
            ..Heard::default()
        };
        match parsed.signal {
            Some(Signal::Session(session)) => self.session = Some(session),
            Some(Signal::Permission(permission)) => {
                let id = permission.request_id.clone();
                heard.asked.push(Asked {
                    id: id.clone(),
                    question: permission.question(),
                });
                self.asked.insert(id, permission);
            }
            Some(Signal::Withdrawn { request_id }) => {
                self.asked.remove(&request_id);
                heard.withdrawn.push(request_id);
            }
            Some(Signal::Taken { id }) => drop(self.unheard.remove(&id)),
            Some(Signal::Result(verdict)) => {
                heard.end_within = self.end_turn(verdict, process);
            }
            None => {}
        }
        heard
    }

    fn ask_to_stop(&mut self, process: &mut Process) -> Duration {
        process.write_line(launch::interrupt());
        INTERRUPT_GRACE
    }

    fn answered(&mut self, id: &str, answer: Answer, process: &mut Process) -> Heard {
        if let Some(permission) = self.asked.remove(id) {
            if permission.is_ended_by(&answer) {
                self.refused_plan = permission.plan().map(str::to_owned);
            }
            process.write_line(permission.line(&answer));
        }
        Heard::default()
    }

    fn is_listening(&self) -> bool {
        self.session.is_some() && self.verdict.is_none() && self.refused_plan.is_none()
    }

    fn told(&mut self, text: String, process: &mut Process) -> Heard {
        let id = Uuid::new_v4().to_string();
        process.write_line(launch::say(&id, &text));
        self.unheard.insert(id);
        Heard::default()
    }
}
