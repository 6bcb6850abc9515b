//! The real worker binary as a process, as an ordinary user also when tests run as root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::agent_job::{AGENT_UID, PATIENCE, worker_exe};
use crate::dispatcher::{Dispatcher, POOL_TOKEN};

/// Where workers of one machine keep sessions and reports.
pub(crate) struct Machine {
    base: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let base = TempDir::new().unwrap();
        std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["workspace", "spool"] {
            let dir = base.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            if is_root() {
                chown(&dir, Some(AGENT_UID), Some(AGENT_UID)).unwrap();
            }
        }
        Self { base }
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.base.path().join("workspace")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.base.path().join("spool")
    }

    /// The worker's command line, not yet started.
    pub(crate) fn command(&self, dispatcher: &Dispatcher) -> Command {
        let mut command = as_user(&worker_exe());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CLAWLINK_DISPATCHER_URL", &dispatcher.url)
            .env("CLAWLINK_POOL_TOKEN", POOL_TOKEN)
            .env("CLAWLINK_WORKSPACE_DIR", self.workspace())
            .env("CLAWLINK_SPOOL_DIR", self.spool())
            .env("CLAWLINK_DRAIN_TIMEOUT", "0")
            .env("CLAWLINK_ALLOW_PRIVATE_HOSTS", "true")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn start(&self, dispatcher: &Dispatcher) -> Worker {
        Worker::start(self.command(dispatcher))
    }
}

/// A running worker.
pub(crate) struct Worker {
    child: Child,
    log: tokio::task::JoinHandle<String>,
}

impl Worker {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            let _read_to_end = stderr.read_to_end(&mut log).await;
            String::from_utf8_lossy(&log).into_owned()
        });
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Cuts what `--lifeline` watches.
    pub(crate) fn cut_lifeline(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end: the exit code and its log. Prints the log, for tests that fail.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = status else {
            self.child.start_kill().unwrap();
            panic!("the worker does not end:\n{}", self.log.await.unwrap());
        };
        let log = self.log.await.unwrap();
        eprintln!("{log}");
        (status.unwrap().code(), log)
    }
}

/// A command that runs as an ordinary user.
pub(crate) fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            format!("--reuid={AGENT_UID}"),
            format!("--regid={AGENT_UID}"),
        ])
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
