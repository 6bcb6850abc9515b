//! The worker as the one that every process of an execution comes back to.
//!
//! A tool may leave its process group, start a session, ignore SIGTERM, or lose its parent:
//! as a child subreaper (or pid 1) the worker stays the ancestor of all of them, finds them
//! in `/proc`, and ends them. Nothing that an execution started may outlive it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper,
    set_dumpable_behavior, waitpid,
};
use tokio::time::Instant;

/// How long processes get between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(1);

/// How long we go on killing what keeps appearing.
const KILL_BOUND: Duration = Duration::from_secs(10);

/// Between two looks at `/proc`.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Protects this process from what it starts: its memory, environment and open files are
/// unreadable for processes of the same user, and no descendant escapes it.
pub fn harden() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("make the worker non-dumpable")?;
    become_reaper()
}

/// Orphaned descendants become children of this process from now on.
pub fn become_reaper() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("become subreaper")
}

/// Kills all descendants of this process until none is left. Returns how many survived,
/// which is 0 unless the kernel holds them.
pub async fn end_all_descendants() -> usize {
    end_all_but_reaping(None).await
}

/// The same, leaving the exit status of `child` to whoever waits for it.
pub(super) async fn end_all_but_reaping(child: Option<Pid>) -> usize {
    let deadline = Instant::now() + KILL_BOUND;
    loop {
        let alive = signal_all(Signal::KILL);
        reap(child);
        if alive == 0 || Instant::now() >= deadline {
            return alive;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// SIGTERM to all, SIGKILL to what is left after [`TERM_GRACE`].
pub(super) async fn ask_then_end_all(child: Option<Pid>) -> usize {
    let deadline = Instant::now() + TERM_GRACE;
    signal_all(Signal::TERM);
    while count_living() > 0 && Instant::now() < deadline {
        reap(child);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    end_all_but_reaping(child).await
}

/// Collects dead orphans, so that they do not count against the limit on processes.
pub(super) fn reap(except: Option<Pid>) {
    let me = getpid();
    for process in descendants() {
        if process.is_dead && process.parent == me && Some(process.pid) != except {
            // Somebody else may have collected it meanwhile, which is as good.
            let _collected = waitpid(Some(process.pid), WaitOptions::NOHANG);
        }
    }
}

fn count_living() -> usize {
    descendants().iter().filter(|one| !one.is_dead).count()
}

/// Signals all living descendants; returns how many there were.
fn signal_all(signal: Signal) -> usize {
    let mut living = 0;
    for process in descendants() {
        if !process.is_dead {
            living += 1;
            // It may have ended since we looked.
            let _gone = kill_process(process.pid, signal);
        }
    }
    living
}

#[derive(Clone, Copy)]
struct Process {
    pid: Pid,
    parent: Pid,
    is_dead: bool,
}

/// All descendants of this process, as `/proc` shows them now.
fn descendants() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut children: HashMap<Pid, Vec<Process>> = HashMap::new();
    for entry in entries.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(read_process) else {
            continue;
        };
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut ancestors = vec![getpid()];
    while let Some(ancestor) = ancestors.pop() {
        for process in children.get(&ancestor).into_iter().flatten() {
            if seen.insert(process.pid) {
                found.push(*process);
                ancestors.push(process.pid);
            }
        }
    }
    found
}

fn read_process(pid: &str) -> Option<Process> {
    let number: i32 = pid.parse().ok()?;
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name stands in parentheses and may itself contain anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent: i32 = fields.next()?.parse().ok()?;
    Some(Process {
        pid: Pid::from_raw(number)?,
        parent: Pid::from_raw(parent)?,
        is_dead: matches!(state, "Z" | "X"),
    })
}
