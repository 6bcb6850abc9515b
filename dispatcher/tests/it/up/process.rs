//! The program itself: what it says, what it leaves behind when it is killed, how it recovers.
//! The worker is a script here: it shows how workers are started, not what they do.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{mode, open_to_all, scratch};

const CLAWLINK: &str = env!("CARGO_BIN_EXE_clawlink");
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
echo "worker pid $$ uid $UID $1 $CLAWLINK_DISPATCHER_URL"
read -r line
"#;

struct Up {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    url: String,
    curl: String,
}

fn command(data_dir: &Path) -> Command {
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

fn start(mut command: Command, log: &Path) -> Up {
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
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything below it, as (process, start time).
    fn descendants(&self) -> HashSet<(i32, String)> {
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

    fn finish(mut self, signal: Signal) -> bool {
        kill_process(self.pid(), signal).expect("send a signal");
        let status = self.child.wait().expect("wait");
        drop(self.lines);
        status.success()
    }
}

/// All processes, with the fields of `stat` that follow the name.
fn processes() -> impl Iterator<Item = (i32, Vec<String>)> {
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

fn alive(watched: &HashSet<(i32, String)>) -> Vec<i32> {
    processes()
        .filter(|(pid, stat)| stat[0] != "Z" && watched.contains(&(*pid, stat[19].clone())))
        .map(|(pid, _)| pid)
        .collect()
}

/// Processes cannot be waited for that are not our children: they are looked at.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The direct children of that name.
fn children(up: &Up, name: &str) -> Vec<Pid> {
    let parent = up.pid().as_raw_pid().to_string();
    let has_name =
        |pid: i32| text(&Path::new("/proc").join(pid.to_string()).join("comm")).trim() == name;
    processes()
        .filter(|(pid, stat)| stat[1] == parent && stat[0] != "Z" && has_name(*pid))
        .filter_map(|(pid, _)| Pid::from_raw(pid))
        .collect()
}

/// What `/health` answers, headers included; nothing if it does not.
fn health(url: &str) -> String {
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
fn daemons(below: &HashSet<(i32, String)>) -> Vec<(i32, i32)> {
    processes()
        .filter(|(pid, stat)| below.contains(&(*pid, stat[19].clone())))
        .filter(|(pid, _)| {
            text(&Path::new("/proc").join(pid.to_string()).join("cmdline")).contains("while :")
        })
        .map(|(pid, stat)| (pid, stat[1].parse().expect("a process id")))
        .collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_killed_up_leaves_nothing_behind_and_the_next_one_recovers() {
    let dir = scratch();
    let (data, log) = (dir.path().join("data dir"), dir.path().join("log"));
    let up = start(command(&data), &log);
    eventually("both workers run", || {
        text(&log).matches("worker pid").count() >= 2
    });
    let said = text(&log);
    assert!(!said.contains("has credentials"), "{said}");
    assert!(said.contains(&format!("--lifeline {}", up.url)), "{said}");
    if rustix::process::geteuid().is_root() {
        assert!(said.contains("worker pid 1 uid 64017"), "{said}");
        assert!(!said.contains("can read"), "{said}");
    }
    assert!(
        up.curl
            .contains(&format!("$(cat '{}')", data.join("api-key").display())),
        "{}",
        up.curl
    );
    assert_eq!(mode(&data.join("api-key")), 0o600);
    assert_eq!(mode(&data.join("secrets")), 0o700);
    let key = text(&data.join("api-key"));

    let server = children(&up, "postgres")[0];
    kill_process(server, Signal::KILL).expect("kill PostgreSQL");
    eventually("another server runs", || {
        children(&up, "postgres").iter().any(|pid| *pid != server)
    });
    eventually("all parts are well again", || {
        health(&up.url).contains("\"status\":\"ok\"")
    });

    let second = command(&data).output().expect("run");
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && error.contains("in use by another clawlink"),
        "{error}"
    );

    let below = up.descendants();
    assert!(
        below.len() >= 8,
        "servers, workers and their children: {below:?}"
    );
    assert!(!up.finish(Signal::KILL));
    eventually("every process below it is gone", || {
        alive(&below).is_empty()
    });

    let up = start(command(&data), &log);
    assert_eq!(text(&data.join("api-key")), key, "the first key is kept");
    let below = up.descendants();
    assert!(up.finish(Signal::TERM), "{}", text(&log));
    eventually("every process below it is gone", || {
        alive(&below).is_empty()
    });
}

#[test]
fn without_namespaces_what_workers_leave_is_ended_one_by_one() {
    let dir = scratch();
    let (data, log, bin) = (
        dir.path().join("data"),
        dir.path().join("log"),
        dir.path().join("bin"),
    );
    std::fs::create_dir(&bin).expect("make a directory");
    open_to_all(&bin);
    // A PATH without `unshare`.
    for program in ["setpriv", "test", "redis-server"] {
        symlink(Path::new("/usr/bin").join(program), bin.join(program)).expect("link");
    }
    let without_unshare = || {
        let mut command = command(&data);
        command.env("PATH", &bin);
        command
    };
    let up = start(without_unshare(), &log);
    eventually("both daemons run", || daemons(&up.descendants()).len() >= 2);
    assert!(
        text(&log).contains("no PID namespaces here"),
        "{}",
        text(&log)
    );

    let below = up.descendants();
    let (daemon, worker) = daemons(&below)[0];
    let worker = Pid::from_raw(worker).expect("a process id");
    kill_process(worker, Signal::KILL).expect("kill a worker");
    eventually("the killed worker's daemon is gone", || {
        !alive(&below).contains(&daemon)
    });

    eventually("the worker is replaced", || {
        daemons(&up.descendants()).len() >= 2
    });
    let below = up.descendants();
    assert!(!up.finish(Signal::KILL));
    let up = start(without_unshare(), &log);
    eventually("what the crash left is gone", || alive(&below).is_empty());
    eventually("both daemons run", || daemons(&up.descendants()).len() >= 2);
    let below = up.descendants();
    assert!(up.finish(Signal::TERM), "{}", text(&log));
    eventually("every process below it is gone", || {
        alive(&below).is_empty()
    });
}

#[test]
fn a_missing_program_is_one_line_with_the_command_that_installs_it() {
    let dir = scratch();
    let mut without = command(&dir.path().join("data"));
    let output = without
        .args(["--postgres-bin", "/nonexistent"])
        .output()
        .expect("run");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        error.contains("PostgreSQL is not installed") && error.contains("install"),
        "{error}"
    );
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

#[test]
fn services_give_a_command_its_parts_and_its_exit_code() {
    let dir = scratch();
    // An unsigned request is refused, which nobody needs to be woken for.
    let script = r#"[[ $DATABASE_URL == postgres://* && $DATABASE_MIGRATION_URL == postgres://* && $REDIS_URL == redis://* && -n $S3_BUCKET ]] || exit 1
exec 3<>"/dev/tcp/127.0.0.1/${S3_ENDPOINT##*:}"
printf 'GET / HTTP/1.0\r\n\r\n' >&3
read -r answer <&3
[[ $answer == *403* ]] && exit 7"#;
    let output = Command::new(CLAWLINK)
        .args(["services", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--", "bash", "-c", script])
        .env_remove("CLAWLINK_LOG")
        .output()
        .expect("run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}
