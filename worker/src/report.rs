//! The worker's own private directory: what must outlive its process.
//!
//! ```text
//! <spool dir>/{random}/lock           held while the worker lives
//! <spool dir>/{random}/complete.json  its report, until a dispatcher has acknowledged it
//! ```
//!
//! The report is on the disk before it is sent: a worker that dies in between leaves it to
//! the next one, which finds the directory unlocked. It holds a lease token, so nobody else
//! may enter the directory, and agents cannot reach it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clawlink_shared::control::Complete;
use clawlink_shared::id::ExecutionId;
use clawlink_shared::secret::Secret;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{CallError, Client, Held};
use crate::lease::Lease;
use crate::workspace::root::{Lock, private_dir, remove};

/// How long earlier workers' reports are tried, all together, before new work is asked for.
const EARLIER_PATIENCE: Duration = Duration::from_secs(20);

/// How long one of them is tried.
const ONE_PATIENCE: Duration = Duration::from_secs(5);

/// How long looking for a living worker may take.
pub const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Tries to make a directory of our own.
const OPEN_TRIES: u32 = 5;

/// A report with what is needed to send it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whose end it is.
    pub execution: ExecutionId,
    /// The right to report it.
    pub token: Secret,
    /// The end itself.
    pub complete: Complete,
}

/// This process's directory.
#[derive(Debug)]
pub struct Desk {
    dir: PathBuf,
    lock: Lock,
}

impl Desk {
    /// Makes a directory below `spool`, which only this user may enter.
    ///
    /// # Errors
    ///
    /// When `spool` belongs to somebody else, or cannot be written.
    pub fn open(spool: &Path) -> Result<Self> {
        let shown = spool.display();
        if let Some(parent) = spool.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        private_dir(spool).with_context(|| format!("create {shown}"))?;
        let metadata = fs::symlink_metadata(spool).with_context(|| format!("look at {shown}"))?;
        let uid = rustix::process::geteuid().as_raw();
        ensure!(
            metadata.is_dir() && metadata.uid() == uid,
            "{shown} is not a directory of this user; choose another --spool-dir"
        );
        for _ in 0..OPEN_TRIES {
            let dir = spool.join(Uuid::new_v4().simple().to_string());
            private_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
            // A worker that starts at this moment may take it for an abandoned one.
            if let Ok(Some(lock)) = Lock::take(dir.join("lock"), Duration::ZERO) {
                return Ok(Self { dir, lock });
            }
        }
        anyhow::bail!("cannot keep a directory below {shown}")
    }

    /// For files of this process.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts the report on the disk; returns when it is safe there.
    pub fn keep(&self, report: &Report) -> Result<()> {
        let temporary = self.dir.join("complete.json.new");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .context("create report")?;
        let bytes = serde_json::to_vec(report).context("serialize report")?;
        file.write_all(&bytes).context("write report")?;
        file.sync_all().context("sync report")?;
        fs::rename(&temporary, self.dir.join("complete.json")).context("name report")?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .context("sync report's directory")
    }

    /// Removes the directory: nothing in it is needed any more.
    pub fn close(self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "spool directory stays");
        }
        drop(self.lock);
    }

    /// Gives up the directory, but leaves the report in it to the next worker.
    pub fn leave(self) {
        drop(self.lock);
    }
}

/// Whether some worker holds a directory below `spool`; no, if that cannot be found out within
/// [`LOOK_PATIENCE`], as on a disk that does not answer.
pub fn is_worker_alive(spool: PathBuf) -> bool {
    let (tell, told) = mpsc::channel();
    // It may block for ever; the process ends without it.
    std::thread::spawn(move || {
        let _nobody_waits = tell.send(is_held(&spool));
    });
    told.recv_timeout(LOOK_PATIENCE).unwrap_or(false)
}

fn is_held(spool: &Path) -> bool {
    let held = |dir: PathBuf| {
        let lock = File::open(dir.join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    };
    directories(spool).is_ok_and(|dirs| dirs.into_iter().any(held))
}

/// Sends the reports that earlier workers left below `spool`, and removes what is settled.
/// Begins behind this worker's own `desk`, whose name is random: so every report has its turn
/// at some start, however many of them wait on.
pub async fn send_earlier(client: &Arc<Client>, spool: &Path, desk: &Desk) {
    let mut dirs = directories(spool).unwrap_or_default();
    dirs.sort_unstable();
    let own = dirs.partition_point(|dir| dir.as_path() < desk.dir());
    dirs.rotate_left(own);
    let sent = tokio::time::timeout(EARLIER_PATIENCE, send_all(client, dirs));
    if sent.await.is_err() {
        tracing::warn!("earlier reports wait on: there was no time for all of them");
    }
}

async fn send_all(client: &Arc<Client>, dirs: Vec<PathBuf>) {
    for dir in dirs {
        let Ok(Some(lock)) = Lock::take(dir.join("lock"), Duration::ZERO) else {
            continue;
        };
        let is_settled = match read(&dir.join("complete.json")) {
            Ok(Some(report)) => send_one(client, report).await,
            Ok(None) => true,
            Err(error) => {
                tracing::error!(%error, dir = %dir.display(), "an earlier report is unreadable");
                true
            }
        };
        if is_settled {
            Desk { dir, lock }.close();
        }
    }
}

/// Whether nothing is left to do about it.
async fn send_one(client: &Arc<Client>, report: Report) -> bool {
    let id = report.execution;
    // Its own length is not known any more, and it is not renewed.
    let length_ms = ONE_PATIENCE.as_millis() as u64;
    let lease = Lease::new(Instant::now(), length_ms, ONE_PATIENCE);
    let held = Held::new(client.clone(), id, report.token, lease);
    match tokio::time::timeout(ONE_PATIENCE, held.complete(&report.complete)).await {
        Ok(Ok(())) => {
            tracing::info!(execution.id = %id, "reported an earlier worker's end");
            true
        }
        Err(_) | Ok(Err(CallError::Unreachable)) => {
            tracing::warn!(execution.id = %id, "an earlier report waits on");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(execution.id = %id, %error, "an earlier report is void");
            true
        }
    }
}

fn directories(spool: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

fn read(path: &Path) -> Result<Option<Report>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).context("parse report")?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read report"),
    }
}
