//! Without PID namespaces: the processes that a worker leaves behind, and their end.
//!
//! We become the subreaper, so that whatever a worker leaves is handed to us by the kernel. A child
//! of ours that we did not fork is therefore such an orphan, and is killed when a worker has ended.
//! What a crash of ours left is recognised at the next start by the marker in its environment.
//! Where workers have a PID namespace of their own none of this is needed, and none of it runs.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, waitpid};
use tokio::process::Child;

use super::supervise::{all_processes, send};

/// An orphan's children become ours when it dies, so it takes rounds; a fork bomb ends here.
const ROUNDS: usize = 100;

/// Our own children, once we are the subreaper. The lock is held while forking, so that a child
/// is never seen before it is known.
static OURS: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

/// Forks under the lock, and remembers the child if anybody asks for orphans.
pub(super) fn forking(fork: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    let child = fork()?;
    if let (Some(ours), Some(pid)) = (ours.as_mut(), child.id()) {
        ours.insert(pid);
    }
    Ok(child)
}

/// From now on orphans come to us; the children that exist are not orphans.
pub(super) fn adopt() -> io::Result<()> {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if ours.is_none() {
        *ours = Some(
            children_of(getpid().as_raw_pid().cast_unsigned())
                .into_iter()
                .collect(),
        );
    }
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills every child that we did not fork, and what comes to us by that.
pub(super) fn end() {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ours) = ours.as_mut() else { return };
    for _ in 0..ROUNDS {
        let children = children_of(getpid().as_raw_pid().cast_unsigned());
        ours.retain(|pid| children.contains(pid));
        let orphans: Vec<u32> = children
            .into_iter()
            .filter(|pid| !ours.contains(pid))
            .collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            send(Some(pid), Signal::KILL);
            // Nobody else waits for it; if it is gone already, that is what was wanted.
            let _reaped = waitpid(Pid::from_raw(pid.cast_signed()), WaitOptions::empty());
        }
    }
}

/// Kills what an earlier run of ours left: workers have `marker` in their environment, agents
/// get a cleared one, but their home lies below `workspace`.
pub(super) fn end_marked(marker: &str, workspace: &Path) {
    let home = format!("HOME={}/", workspace.display());
    for _ in 0..ROUNDS {
        let left: Vec<u32> = all_processes()
            .filter(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == marker.as_bytes() || entry.starts_with(home.as_bytes()))
            })
            .filter(|pid| send(Some(*pid), Signal::KILL))
            .collect();
        if left.is_empty() {
            return;
        }
        tracing::warn!(?left, "ending what an earlier run left behind");
    }
}

/// The direct children of a process.
pub(super) fn children_of(parent: u32) -> Vec<u32> {
    all_processes()
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

/// The fourth field of `stat`; the second, a name in parentheses, may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
