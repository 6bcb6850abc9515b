//! An agent's process: started through the sandbox, its output as bounded lines, its end as
//! the end of everything it started.
//!
//! Output is read only as fast as the caller takes it: a full event channel stops the agent,
//! it never fills our memory. No process of a run is left when [`Process::next`] has said
//! `None`.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::telemetry::traces;
use rustix::process::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::lines::{Line, Lines};
use super::sandbox::{self, EXIT_NOT_SET_UP, STDERR_PREFIX};
use super::{AgentEnvironment, AgentJob, reaper};

/// What is kept of stderr, for the message of a failure.
const MAX_TAIL_BYTES: usize = 16 * 1024;

/// How often dead orphans are collected during a run.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// Lines that may wait until the agent reads them.
const MAX_UNREAD_LINES: usize = 64;

/// What to start.
#[derive(Debug)]
pub(super) struct Launch {
    /// Absolute.
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    /// All that the program's environment consists of, beside PATH, HOME, TMPDIR and LANG.
    pub(super) env: BTreeMap<String, String>,
    /// Directories of the program itself.
    pub(super) read_only: Vec<PathBuf>,
}

/// A running agent.
pub(super) struct Process {
    child: Child,
    pid: Option<Pid>,
    stdin: Option<mpsc::Sender<String>>,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    is_open: [bool; 2],
    exit: Option<ExitStatus>,
    has_ended_all: bool,
    tail: VecDeque<String>,
    tail_bytes: usize,
    reap: Interval,
}

/// A line, and where it came from.
#[derive(Debug)]
pub(super) enum Output {
    Stdout(Line),
    Stderr(Line),
}

impl Process {
    /// Starts `launch` in the sandbox, in the job's working directory.
    pub(super) fn start(
        environment: &AgentEnvironment,
        job: &AgentJob,
        launch: &Launch,
    ) -> Result<Self> {
        reaper::become_reaper()?;
        let mut command = Command::new(&environment.worker_exe);
        command.arg("sandbox").arg("--root").arg(&job.session_root);
        for path in environment.read_only.iter().chain(&launch.read_only) {
            command.arg("--ro").arg(path);
        }
        for path in &environment.read_write {
            command.arg("--rw").arg(path);
        }
        if let Some(bytes) = job.max_file_bytes {
            command.arg("--max-file-bytes").arg(bytes.to_string());
        }
        if environment.allow_unconfined {
            command.arg("--no-landlock-ok");
        }
        command.arg("--").arg(&launch.program).args(&launch.args);
        command.env_clear();
        for (name, value) in environment.proxies.variables() {
            command.env(sandbox::passed_name(&name), value);
        }
        for (name, value) in &launch.env {
            command.env(sandbox::passed_name(name), value);
        }
        if let Some(parent) = traces::traceparent(&tracing::Span::current()) {
            let name = traces::TRACEPARENT.to_uppercase();
            command.env(sandbox::passed_name(&name), parent);
        }
        command
            .env(sandbox::passed_name("HOME"), &job.home)
            .env(sandbox::passed_name("TMPDIR"), &job.tmp)
            .current_dir(&job.cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("start the sandbox")?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let mut reap = interval_at(Instant::now() + REAP_EVERY, REAP_EVERY);
        reap.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            pid,
            stdin: child.stdin.take().map(writer),
            stdout: Lines::new(child.stdout.take().context("take stdout")?),
            stderr: Lines::new(child.stderr.take().context("take stderr")?),
            child,
            is_open: [true; 2],
            exit: None,
            has_ended_all: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            reap,
        })
    }

    /// The next line of output; `None` once the program and all its descendants are gone and
    /// everything they wrote has been read. May be cancelled and called again.
    pub(super) async fn next(&mut self) -> Option<Output> {
        loop {
            if self.exit.is_some() && !self.has_ended_all {
                // Whoever is left holds our pipes open and works for nobody.
                report_survivors(reaper::end_all_descendants().await);
                self.has_ended_all = true;
            }
            let [is_out_open, is_err_open] = self.is_open;
            if self.exit.is_some() && !is_out_open && !is_err_open {
                return None;
            }
            tokio::select! {
                line = self.stdout.next(), if is_out_open => match line {
                    Some(line) => return Some(Output::Stdout(line)),
                    None => self.is_open[0] = false,
                },
                line = self.stderr.next(), if is_err_open => match line {
                    Some(line) => {
                        self.remember(&line.text);
                        return Some(Output::Stderr(line));
                    }
                    None => self.is_open[1] = false,
                },
                status = self.child.wait(), if self.exit.is_none() => {
                    // Waiting fails only if somebody else collected it: then it is gone too.
                    self.exit = Some(status.unwrap_or_default());
                }
                _ = self.reap.tick() => reaper::reap(self.pid),
            }
        }
    }

    /// Queues one line for the program. A program that is gone or does not read gets none:
    /// its end tells what there is to tell.
    pub(super) fn write_line(&mut self, line: String) {
        let is_queued = self.stdin.as_ref().map(|queue| queue.try_send(line));
        if !matches!(is_queued, Some(Ok(()))) {
            tracing::warn!("the agent does not take its input");
        }
    }

    /// Closes its standard input, after what is queued.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Ends it and everything it started: SIGTERM, then SIGKILL after a grace. What it still
    /// wrote can be read with [`Process::next`], which sees to the rest.
    pub(super) async fn end(&mut self) {
        reaper::ask_all_to_end(self.pid).await;
    }

    /// How it exited; known after [`Process::next`] said `None`.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        self.exit
    }

    /// The failure of a program that is gone before it said how its run ended: `what` happened, how
    /// it exited, and its last words.
    pub(super) fn early_end(&self, what: &str) -> Failure {
        self.setup_failure().unwrap_or_else(|| {
            let exit = self
                .exit
                .map_or_else(String::new, |exit| format!(" ({exit})"));
            let tail = self.stderr_tail();
            let said = if tail.is_empty() { "" } else { ": " };
            Failure::new(ErrorCode::AgentError, format!("{what}{exit}{said}{tail}"))
        })
    }

    /// The failure to report when the sandbox itself refused.
    pub(super) fn setup_failure(&self) -> Option<Failure> {
        let code = self.exit?.code()?;
        let reason = self.tail.back()?.strip_prefix(STDERR_PREFIX)?;
        (code == i32::from(EXIT_NOT_SET_UP)).then(|| {
            Failure::new(
                ErrorCode::AgentUnavailable,
                format!("the agent could not be started: {reason}"),
            )
        })
    }

    /// The last lines of stderr; not redacted.
    fn stderr_tail(&self) -> String {
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        lines.join("\n").trim().to_owned()
    }

    fn remember(&mut self, line: &str) {
        let line = &line[..line.floor_char_boundary(MAX_TAIL_BYTES)];
        self.tail_bytes += line.len();
        self.tail.push_back(line.to_owned());
        while self.tail_bytes > MAX_TAIL_BYTES {
            let oldest = self.tail.pop_front();
            self.tail_bytes -= oldest.map_or(self.tail_bytes, |line| line.len());
        }
    }
}

/// Writes queued lines, so that nobody waits for a program that does not read.
fn writer(mut stdin: ChildStdin) -> mpsc::Sender<String> {
    let (queue, mut lines) = mpsc::channel::<String>(MAX_UNREAD_LINES);
    tokio::spawn(async move {
        while let Some(mut line) = lines.recv().await {
            line.push('\n');
            if stdin.write_all(line.as_bytes()).await.is_err() {
                // The program is gone; whoever reads its output sees that.
                return;
            }
        }
    });
    queue
}

fn report_survivors(count: usize) {
    if count > 0 {
        tracing::error!(count, "processes of the execution cannot be ended");
    }
}
