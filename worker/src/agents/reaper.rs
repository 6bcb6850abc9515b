//! The worker as the one that every process of an execution comes back to.
//!
//! A tool may leave its process group, start a session, ignore SIGTERM, or lose its parent:
//! as a child subreaper (or pid 1) the worker stays the ancestor of all of them, finds them
//! in `/proc`, and ends them. Nothing that an execution started may outlive it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group,
    set_child_subreaper, set_dumpable_behavior, wait, waitpid,
};
use tokio::time::Instant;

/// How long processes get between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(1);

/// How long we go on killing what keeps appearing.
const KILL_BOUND: Duration = Duration::from_secs(10);

/// Dead children collected between two rounds of killing.
const MAX_COLLECTED: usize = 1_000;

/// Between two looks at what was asked to end.
const LOOK_POLITELY: Duration = Duration::from_millis(10);

/// Between two rounds of killing.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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

/// Kills all descendants of this process until it has no child left; returns how many it
/// still sees, which is 0 unless the kernel holds them. Collects every child: nobody else may
/// be waiting for one.
pub async fn end_all_descendants() -> usize {
    let deadline = Instant::now() + KILL_BOUND;
    loop {
        let seen = signal_all(Signal::KILL);
        // Only the kernel knows for sure: a look at `/proc` can miss what forks meanwhile.
        if !has_living_child() {
            return 0;
        }
        if Instant::now() >= deadline {
            return seen.max(1);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// SIGTERM to all descendants, SIGKILL to what is left after [`TERM_GRACE`]; leaves the exit
/// status of `child` to whoever waits for it.
pub(super) async fn ask_all_to_end(child: Option<Pid>) {
    let deadline = Instant::now() + TERM_GRACE;
    signal_all(Signal::TERM);
    while Instant::now() < deadline {
        if descendants().iter().all(|process| process.is_dead) {
            return;
        }
        reap(child);
        tokio::time::sleep(LOOK_POLITELY).await;
    }
    signal_all(Signal::KILL);
}

/// Collects dead children, and says whether a living one is left.
fn has_living_child() -> bool {
    for _ in 0..MAX_COLLECTED {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    true
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

/// Signals all living descendants; returns how many there were.
fn signal_all(signal: Signal) -> usize {
    let mut living = descendants();
    living.retain(|process| !process.is_dead);
    // Groups first, which the kernel reaches as a whole: a process that forks faster than we
    // look is not found by its number.
    let own = read_process(&getpid().to_string()).and_then(|process| process.group);
    let groups: HashSet<Pid> = living.iter().filter_map(|process| process.group).collect();
    for group in groups.into_iter().filter(|group| Some(*group) != own) {
        // It may have ended since we looked, as may each of the processes.
        let _gone = kill_process_group(group, signal);
    }
    for process in &living {
        let _gone = kill_process(process.pid, signal);
    }
    living.len()
}

#[derive(Clone, Copy)]
struct Process {
    pid: Pid,
    parent: Pid,
    /// None for a group of a PID namespace around this one.
    group: Option<Pid>,
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
    let group: i32 = fields.next()?.parse().ok()?;
    Some(Process {
        pid: Pid::from_raw(number)?,
        parent: Pid::from_raw(parent)?,
        group: Pid::from_raw(group),
        is_dead: matches!(state, "Z" | "X"),
    })
}
