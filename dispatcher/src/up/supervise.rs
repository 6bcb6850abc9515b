//! Child processes that cannot outlive us, and their orderly end.
//!
//! The kernel's parent-death signal (set by `setpriv --pdeathsig`) is bound to the *thread* that
//! forked. Therefore every child is forked by one thread that lives as long as the process:
//! a child forked by a worker thread of a runtime would die with that runtime.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::data_dir::DataDir;

/// How long a process may take to vanish after SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How often it is tried whether a server answers.
const READY_POLL: Duration = Duration::from_millis(10);
/// How often the end of a process that is not our child is looked for.
const LEFTOVER_POLL: Duration = Duration::from_millis(20);
/// How much of a log is quoted when a server does not start.
const LOG_TAIL_BYTES: usize = 600;

struct Request {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
    let (sender, requests) = mpsc::channel::<Request>();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for Request {
                mut command,
                runtime,
                reply,
            } in requests
            {
                let _in_runtime = runtime.enter();
                let child = super::orphans::forking(|| command.spawn());
                // The asker may be gone; the child then ends with the dropped handle.
                let _gone = reply.send(child);
            }
        })
        .expect("a process can start one more thread");
    sender
});

/// Forks from the long-lived thread, in a process group of its own (a Ctrl-C at the terminal
/// reaches only us). Dropping the child kills it.
pub async fn spawn(command: std::process::Command) -> io::Result<Child> {
    let mut command = Command::from(command);
    command.process_group(0);
    fork(command).await
}

/// The same in our own process group: the child may use the terminal and hears its Ctrl-C.
pub async fn spawn_beside(command: std::process::Command) -> io::Result<Child> {
    fork(Command::from(command)).await
}

async fn fork(mut command: Command) -> io::Result<Child> {
    command.kill_on_drop(true);
    let (reply, answer) = oneshot::channel();
    let request = Request {
        command,
        runtime: Handle::current(),
        reply,
    };
    SPAWNER.send(request).map_err(io::Error::other)?;
    answer.await.map_err(io::Error::other)?
}

/// A port can be taken between choosing it and listening on it: by others, or for a moment by a
/// child that is just being started and still has what looked whether it is free.
const START_TRIES: usize = 3;

/// Starts a server on the port of its data directory, again when it does not come up; answers
/// the port too.
pub(super) async fn start_on_own_port<Server>(
    data_dir: &DataDir,
    part: &str,
    start_on: impl AsyncFn(u16) -> Result<Server>,
) -> Result<(Server, u16)> {
    let mut tries = 0;
    loop {
        let port = data_dir.port(part)?;
        tries += 1;
        match start_on(port).await {
            Ok(server) => return Ok((server, port)),
            Err(error) if tries == START_TRIES => return Err(error),
            Err(error) => tracing::warn!("{error:#}; trying again"),
        }
    }
}

/// A server process that we started.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts a server whose output goes to the file `log`, emptied first. Standard input is
    /// what the command says.
    pub async fn start(
        name: &'static str,
        mut command: std::process::Command,
        log: &Path,
    ) -> Result<Self> {
        let out =
            std::fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        command
            .stdout(out.try_clone().context("share log file")?)
            .stderr(out);
        let child = spawn(command)
            .await
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, child })
    }

    /// Writes to its standard input and closes it.
    pub async fn feed(&mut self, text: &str) -> Result<()> {
        use tokio::io::AsyncWriteExt;
        let mut pipe = self.child.stdin.take().context("open standard input")?;
        pipe.write_all(text.as_bytes())
            .await
            .with_context(|| format!("configure {}", self.name))
    }

    /// Waits until the server answers `ask`; an error quotes the end of its log.
    pub(super) async fn ready(
        &mut self,
        within: Duration,
        log: &Path,
        ask: impl AsyncFn() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        while !ask().await {
            let problem = match self.ended() {
                Some(_) => "did not start",
                None if Instant::now() >= deadline => "does not answer",
                None => {
                    tokio::time::sleep(READY_POLL).await;
                    continue;
                }
            };
            anyhow::bail!("{} {problem}: {}", self.name, log_tail(log));
        }
        Ok(())
    }

    /// Waits for a program that ends by itself; true if it succeeded.
    pub async fn finish(mut self) -> Result<bool> {
        let status = self
            .child
            .wait()
            .await
            .with_context(|| format!("wait for {}", self.name))?;
        Ok(status.success())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks with each signal in turn, waiting as long as is said beside it, then kills.
    pub async fn stop(&mut self, steps: &[(Signal, Duration)]) -> Result<()> {
        for (signal, patience) in steps {
            if self.signal(*signal) && self.wait(*patience).await {
                return Ok(());
            }
        }
        self.kill().await
    }

    /// Ends it without asking, as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL);
        let gone = self.wait(KILL_WAIT).await;
        anyhow::ensure!(gone, "{} does not end", self.name);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> bool {
        send(self.child.id(), signal)
    }

    async fn wait(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.child.wait())
            .await
            .is_ok()
    }
}

/// Sends a signal; false if there is no such process any more.
pub(super) fn send(pid: Option<u32>, signal: Signal) -> bool {
    pid.and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Ends what a crashed run left behind in `dir`: processes named `program…` whose working
/// directory it is. First asks with `signal`, then kills; returns when they are gone.
pub async fn end_leftovers(dir: &Path, programs: &[&str], signal: Signal, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut asked = false;
    loop {
        let left = processes_in(dir, programs);
        if left.is_empty() {
            return;
        }
        let late = Instant::now() >= deadline;
        if !asked || late {
            tracing::warn!(?left, dir = %dir.display(), "ending what an earlier run left behind");
            for pid in left {
                send(Some(pid), if late { Signal::KILL } else { signal });
            }
        }
        if Instant::now() >= deadline + KILL_WAIT {
            return;
        }
        asked = true;
        tokio::time::sleep(LEFTOVER_POLL).await;
    }
}

fn processes_in(dir: &Path, programs: &[&str]) -> Vec<u32> {
    all_processes()
        .filter(|pid| {
            let proc = Path::new("/proc").join(pid.to_string());
            let name = std::fs::read_to_string(proc.join("comm")).unwrap_or_default();
            programs.contains(&name.trim())
                && std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == dir)
        })
        .collect()
}

/// The ids of all processes that `/proc` shows.
pub(super) fn all_processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The end of a log, for the error that says why a server did not start.
pub(super) fn log_tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&text[from..]).trim().to_owned()
}

/// Nothing to read: the usual standard input of a server.
pub(super) fn no_input(command: &mut std::process::Command) {
    command.stdin(Stdio::null());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_for_a_moment_is_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(dir.path()).expect("a data directory");
        let fails = Cell::new(START_TRIES - 1);
        let start = async |port| {
            let left = fails.get();
            fails.set(left.saturating_sub(1));
            anyhow::ensure!(left == 0, "address in use");
            Ok(port)
        };
        let (server, port) = start_on_own_port(&data, "part", start).await.expect("up");
        assert_eq!(server, port);
        fails.set(START_TRIES);
        assert!(start_on_own_port(&data, "part", start).await.is_err());
    }
}
