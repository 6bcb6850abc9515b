//! Memory of processes that do nothing, as the kernel counts it.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

use super::Bench;
use super::report::{Figure, Stat, Unit};

/// The kernel keeps 15 characters of a program's name.
const WORKER: &str = "clawlink-worker";

/// The dispatcher, and the workers among its descendants.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let Some(pid) = bench.args.pid else {
        let why = "the dispatcher's --pid is not known";
        return Ok(["dispatcher_memory", "worker_memory"]
            .map(|name| Figure::skipped(name, why))
            .into());
    };
    let mebibytes = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let dispatcher = Figure::value(
        "dispatcher_memory",
        "idle dispatcher",
        Unit::Mebibytes,
        1,
        mebibytes(resident_bytes(pid)?),
    );
    let mut workers = Vec::new();
    for worker in workers_below(pid)? {
        // One that ended meanwhile was not idle.
        workers.extend(resident_bytes(worker).ok());
    }
    let largest = workers.iter().copied().max();
    let worker = match largest {
        None => Figure::skipped("worker_memory", "no worker runs below the dispatcher"),
        Some(largest) => Figure::value(
            "worker_memory",
            "idle worker (the largest)",
            Unit::Mebibytes,
            workers.len() as u64,
            mebibytes(largest),
        )
        .at_most(Stat::Value, 15.0),
    };
    Ok(vec![dispatcher.at_most(Stat::Value, 40.0), worker])
}

/// VmRSS of a process, in bytes.
pub(super) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("find VmRSS in {path}"))?;
    Ok(kibibytes * 1024)
}

/// Worker processes among the descendants of a process.
fn workers_below(root: u32) -> Result<Vec<u32>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let name = entry.context("list processes")?.file_name();
        let pid: Option<u32> = name.to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some((name, parent)) = name_and_parent(&stat)
        {
            all.insert(pid, (name.to_owned(), parent));
        }
    }
    let is_below = |pid: u32| {
        let parents = std::iter::successors(Some(pid), |pid| all.get(pid).map(|of| of.1));
        parents.skip(1).take(all.len()).any(|parent| parent == root)
    };
    let workers = all.iter().filter(|(_, (name, _))| name == WORKER);
    Ok(workers
        .map(|(pid, _)| *pid)
        .filter(|pid| is_below(*pid))
        .collect())
}

/// `123 (name) S 1 …`; the name may hold anything.
fn name_and_parent(stat: &str) -> Option<(&str, u32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let parent = after.split_whitespace().nth(1)?.parse().ok()?;
    Some((name, parent))
}
