//! The worker pool: processes that run one job each, replaced the moment they end.
//!
//! A worker gets the dispatcher's address and the pool token, and nothing else of ours: no
//! database, Redis or S3 credentials are in its environment. It lives no longer than we do: its
//! standard input is a lifeline that closes when we end, and the kernel kills it with us. Replacing
//! is immediate after success; a worker that fails at once is tried again with growing pauses.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clawlink_shared::agent::VENDOR_ADDRESSES;
use clawlink_shared::settings::process_environment;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::data_dir::DataDir;
use super::identity::Identity;
use super::isolation::Isolation;
use super::orphans;
use super::supervise::{send, spawn};

/// A worker that failed before this is not replaced at once.
const FAILED_FAST: Duration = Duration::from_secs(5);
/// Pauses between fast failures: from, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How often it is tried whether a worker can be asked to stop.
const ASK_POLL: Duration = Duration::from_millis(20);
/// A longer line of a worker's log is cut into lines of this length.
const LOG_LINE_BYTES: u64 = 64 << 10;

/// What workers inherit, beside the vendors' addresses; everything else may be a secret.
const INHERITED: [&str; 12] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
    "CLAWLINK_LOG",
    "CLAWLINK_LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// What the pool starts.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The worker program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its settings, beside the little that it inherits.
    pub env: Vec<(String, String)>,
    /// How many run at a time.
    pub count: usize,
    /// How long they may go on when asked to stop.
    pub drain: Duration,
}

/// Where workers keep sessions, and the program in a place where they can run it: for root,
/// workers have a user of their own, who may not see the directory of the program.
pub fn prepare(data_dir: &DataDir, program: &Path) -> Result<(PathBuf, PathBuf)> {
    let user = Identity::worker();
    let workspace = data_dir.private("workspace", &user)?;
    anyhow::ensure!(
        program.exists(),
        "there is no worker program at {}: build it with `cargo build --release`, or name it in CLAWLINK_WORKER_BIN",
        program.display()
    );
    if user.can_run(program) {
        return Ok((workspace, program.to_owned()));
    }
    let bin = data_dir.path("bin");
    std::fs::create_dir_all(&bin).context("create directory for the worker program")?;
    let (copy, fresh) = (bin.join("clawlink-worker"), bin.join("clawlink-worker.new"));
    std::fs::copy(program, &fresh).context("copy the worker program")?;
    std::fs::rename(&fresh, &copy).context("move the worker program to its place")?;
    Ok((workspace, copy))
}

/// Running workers. Dropping it kills them.
#[derive(Debug)]
pub struct Workers {
    stop: CancellationToken,
    slots: JoinSet<()>,
}

impl Workers {
    /// Starts the pool.
    pub fn start(data_dir: &DataDir, options: &WorkerOptions) -> Result<Self> {
        let isolation = Isolation::probe();
        let marker = format!("CLAWLINK_MARKER={}", data_dir.root().display());
        if isolation == Isolation::Subreaper {
            tracing::warn!("no PID namespaces here: what workers leave behind is ended one by one");
            orphans::end_marked(&marker, &data_dir.path("workspace"));
            orphans::adopt().context("become the subreaper")?;
        }
        let stop = CancellationToken::new();
        let mut slots = JoinSet::new();
        for number in 1..=options.count {
            let slot = Slot {
                number,
                isolation,
                marker: marker.clone(),
                options: options.clone(),
                stop: stop.clone(),
            };
            slots.spawn(slot.keep_running());
        }
        Ok(Self { stop, slots })
    }

    /// Asks all workers to stop, and returns when all have ended.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.slots.join_next().await.is_some() {}
    }
}

struct Slot {
    number: usize,
    isolation: Isolation,
    marker: String,
    options: WorkerOptions,
    stop: CancellationToken,
}

impl Slot {
    async fn keep_running(self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let ok = match self.run_one().await {
                Ok(ok) => ok,
                Err(error) => {
                    tracing::error!("worker {}: {error:#}", self.number);
                    false
                }
            };
            if ok || began.elapsed() >= FAILED_FAST {
                failures = 0;
                continue;
            }
            let pause = (PAUSE.0 * 2_u32.saturating_pow(failures)).min(PAUSE.1);
            failures = (failures + 1).min(8);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Runs one worker to its end; true if it ended well.
    async fn run_one(&self) -> Result<bool> {
        let mut command = self
            .isolation
            .command(&Identity::worker(), &self.options.program);
        command.args(&self.options.args);
        command.env_clear();
        for name in INHERITED.iter().chain(&VENDOR_ADDRESSES) {
            command.envs(process_environment(name).map(|value| (name, value)));
        }
        command.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        if let Some((name, value)) = self.marker.split_once('=') {
            command.env(name, value);
        }
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command).await.context("start worker")?;
        let lifeline = child.stdin.take();
        let logs = [
            child
                .stdout
                .take()
                .map(|pipe| tokio::spawn(relay(self.number, pipe))),
            child
                .stderr
                .take()
                .map(|pipe| tokio::spawn(relay(self.number, pipe))),
        ];
        let ended = tokio::select! {
            status = child.wait() => Some(status),
            () = self.stop.cancelled() => None,
        };
        let status = match ended {
            Some(status) => status.context("wait for worker")?,
            None => {
                self.end(&mut child).await;
                child.wait().await.context("wait for worker")?
            }
        };
        drop(lifeline);
        if self.isolation == Isolation::Subreaper {
            tokio::task::spawn_blocking(orphans::end)
                .await
                .context("end orphans")?;
        }
        // The pipes close with the last process that holds them, and all of them are gone.
        for log in logs.into_iter().flatten() {
            log.await.context("relay log")?;
        }
        if !status.success() {
            tracing::warn!("worker {} ended: {status}", self.number);
        }
        Ok(status.success())
    }

    /// Asks once with SIGTERM (a second one would mean "now") and waits until it ends or its
    /// time is up, then kills.
    async fn end(&self, child: &mut Child) {
        let deadline = Instant::now() + self.options.drain;
        let mut asked = false;
        while child.id().is_some() && Instant::now() < deadline {
            asked = asked || self.ask(child);
            let patience = if asked {
                deadline - Instant::now()
            } else {
                ASK_POLL
            };
            // Either it ended, or the loop goes on.
            let _ended = tokio::time::timeout(patience, child.wait()).await;
        }
        if child.id().is_some() {
            tracing::warn!("worker {} did not stop in time", self.number);
            // It may have ended meanwhile; the caller waits for it either way.
            let _killed = child.start_kill();
        }
    }

    /// Sends SIGTERM to the worker; false if it cannot take it yet. `unshare` passes no signals
    /// on, so the process below it is asked, and process 1 of a namespace loses a signal for
    /// which it has no handler.
    fn ask(&self, child: &Child) -> bool {
        let Some(pid) = child.id() else { return true };
        match self.isolation {
            Isolation::Subreaper => send(Some(pid), Signal::TERM),
            Isolation::PidNamespace { .. } => orphans::children_of(pid)
                .into_iter()
                .any(|worker| handles_sigterm(worker) && send(Some(worker), Signal::TERM)),
        }
    }
}

fn handles_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (Signal::TERM.as_raw() - 1)) != 0)
}

/// Copies a worker's output to ours, each line behind the worker's number.
async fn relay(number: usize, pipe: impl AsyncRead + Unpin) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader)
            .take(LOG_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                // Nobody may be reading: the worker goes on all the same.
                let _unread = writeln!(std::io::stderr(), "worker {number} | {}", text.trim_end());
            }
        }
    }
}
