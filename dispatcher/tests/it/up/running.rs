//! A running `clawlink up` and its processes, as seen from outside.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::open_to_all;

/// The program.
pub(super) const CLAWLINK: &str = env!("CARGO_BIN_EXE_clawlink");
/// Far more than any step takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for its lifeline, with a child that has left its process group and ignores SIGTERM.
const WORKER: &str = r#"#!/bin/bash
trap 'exit 0' TERM
/usr/bin/setsid /bin/bash -c 'trap "" TERM; while :; do /bin/sleep 60; done' </dev/null >/dev/null 2>&1 &
for path in "$PROBE"/{api-key,secrets/pool-token,postgres,redis,s3/clawlink}; do
  [[ -r $path ]] && echo "can read $path"
done
[[ -n $DATABASE_URL$REDIS_URL$S3_SECRET_KEY$PGPASSWORD ]] && echo "has credentials"
echo "settings $CLAWLINK_AGENT_DIR $CLAWLINK_LABELS $CLAWLINK_ALLOW_PRIVATE_HOSTS $CLAWLINK_DRAIN_TIMEOUT."
echo "worker pid $$ uid $UID $1 $CLAWLINK_DISPATCHER_URL"
read -r line
"#;

/// A running `clawlink up`.
pub(super) struct Up {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// Where it listens.
    pub(super) url: String,
    /// The line that it prints to be pasted.
    pub(super) curl: String,
}

/// `up` on a data directory, with a script for a worker beside it.
pub(super) fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(CLAWLINK);
    let worker = data_dir.parent().expect("a parent").join("worker.sh");
    if !worker.exists() {
        let probe = data_dir.to_str().expect("a path in UTF-8");
        std::fs::write(&worker, WORKER.replace("$PROBE", probe)).expect("write script");
        open_to_all(&worker);
    }
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("CLAWLINK_WORKER_BIN", worker)
        .env("PGPASSWORD", "not for workers")
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "2",
            "--data-dir",
        ])
        .arg(data_dir);
    command
}

/// Starts it and waits until it is ready; its log goes to a file.
pub(super) fn start(mut command: Command, log: &Path) -> Up {
    let log = std::fs::File::create(log).expect("create log");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("start clawlink");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("read a line");
    let url = line()
        .strip_prefix("ready ")
        .expect("the first line says ready")
        .to_owned();
    let curl = line();
    Up {
        child,
        lines,
        url,
        curl,
    }
}

impl Up {
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything below it, as (process, start time).
    pub(super) fn descendants(&self) -> HashSet<(i32, String)> {
        let mut all = HashSet::new();
        let mut parents = vec![self.pid().as_raw_pid()];
        while let Some(parent) = parents.pop() {
            for (pid, stat) in processes().filter(|(_, stat)| stat[1] == parent.to_string()) {
                parents.push(pid);
                all.insert((pid, stat[19].clone()));
            }
        }
        all
    }

    /// Ends it; whether it says that all went well.
    pub(super) fn finish(mut self, signal: Signal) -> bool {
        kill_process(self.pid(), signal).expect("send a signal");
        let status = self.child.wait().expect("wait");
        drop(self.lines);
        status.success()
    }
}

/// All processes, with the fields of `stat` that follow the name.
pub(super) fn processes() -> impl Iterator<Item = (i32, Vec<String>)> {
    std::fs::read_dir("/proc")
        .expect("list /proc")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let fields = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            Some((pid, fields))
        })
}

/// Those of them that still live.
pub(super) fn alive(watched: &HashSet<(i32, String)>) -> Vec<i32> {
    processes()
        .filter(|(pid, stat)| stat[0] != "Z" && watched.contains(&(*pid, stat[19].clone())))
        .map(|(pid, _)| pid)
        .collect()
}

/// Processes cannot be waited for that are not our children: they are looked at.
pub(super) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The direct children of that name.
pub(super) fn children(up: &Up, name: &str) -> Vec<Pid> {
    let parent = up.pid().as_raw_pid().to_string();
    let has_name =
        |pid: i32| text(&Path::new("/proc").join(pid.to_string()).join("comm")).trim() == name;
    processes()
        .filter(|(pid, stat)| stat[1] == parent && stat[0] != "Z" && has_name(*pid))
        .filter_map(|(pid, _)| Pid::from_raw(pid))
        .collect()
}

/// What `/health` answers, headers included; nothing if it does not.
pub(super) fn health(url: &str) -> String {
    let address = url.trim_start_matches("http://");
    let mut answer = String::new();
    if let Ok(mut stream) = std::net::TcpStream::connect(address) {
        let asked = write!(
            stream,
            "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        );
        let _read = asked.and_then(|()| stream.read_to_string(&mut answer));
    }
    answer
}

/// The processes that workers left their group with, each with its parent.
pub(super) fn daemons(below: &HashSet<(i32, String)>) -> Vec<(i32, i32)> {
    processes()
        .filter(|(pid, stat)| below.contains(&(*pid, stat[19].clone())))
        .filter(|(pid, _)| {
            text(&Path::new("/proc").join(pid.to_string()).join("cmdline")).contains("while :")
        })
        .map(|(pid, stat)| (pid, stat[1].parse().expect("a process id")))
        .collect()
}

/// What a file holds by now.
pub(super) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
