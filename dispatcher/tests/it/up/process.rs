//! The program itself: what it says, what it leaves behind when it is killed, how it recovers.
//! The worker is a script here: it shows how workers are started, not what they do.

use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::running::{
    CLAWLINK, alive, children, command, daemons, eventually, health, start, text,
};
use super::{mode, open_to_all, scratch};

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
fn workers_get_their_settings_and_empty_variables_count_as_unset() {
    let dir = scratch();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut command = command(&data);
    command.args(["--agent-dir", "agents", "--label", "gpu=yes,zone=a"]);
    command.args(["--allow-private-hosts", "--worker-drain-seconds", "7"]);
    for name in [
        "DATABASE_URL",
        "CLAWLINK_TICK_SECONDS",
        "CLAWLINK_AGENT_READ_ONLY",
    ] {
        command.env(name, "");
    }
    let up = start(command, &log);
    let agents = std::path::absolute("agents").expect("a directory");
    let settings = format!("settings {} gpu=yes,zone=a true 7.", agents.display());
    eventually("both workers tell their settings", || {
        text(&log).matches(&settings).count() >= 2
    });
    assert_eq!(children(&up, "postgres").len(), 1, "a private one");
    assert!(up.finish(Signal::TERM), "{}", text(&log));
}

/// As a user who is not root, also when tests run as root.
fn as_ordinary_user(command: &Command, program: &Path) -> Command {
    let mut ordinary = Command::new("setpriv");
    ordinary
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(program)
        .args(command.get_args())
        .env_clear();
    for (name, value) in command.get_envs() {
        ordinary.env(name, value.unwrap_or_default());
    }
    ordinary
}

#[test]
fn an_ordinary_user_runs_two_side_by_side() {
    let dir = scratch();
    let home = dir.path().join("home of nobody");
    std::fs::create_dir(&home).expect("make a directory");
    open_to_all(&home);
    let is_root = rustix::process::geteuid().is_root();
    let program = home.join("clawlink");
    if is_root {
        let linked = std::fs::hard_link(CLAWLINK, &program);
        linked
            .or_else(|_| std::fs::copy(CLAWLINK, &program).map(|_| ()))
            .expect("put the program where that user can run it");
        chown(&home, Some(65534), Some(65534)).expect("hand over");
    }
    let started = ["one", "two"].map(|name| {
        let log = dir.path().join(name);
        let mut command = command(&home.join(name));
        if is_root {
            command = as_ordinary_user(&command, &program);
        }
        (start(command, &log), log)
    });
    for (up, log) in &started {
        eventually("all parts are well", || {
            health(&up.url).contains("\"status\":\"ok\"")
        });
        eventually("both workers run", || {
            text(log).matches("worker pid").count() >= 2
        });
        assert!(!text(log).contains("uid 0 "), "{}", text(log));
    }
    let [(one, _), (two, log)] = started;
    let below = one.descendants();
    assert!(!one.finish(Signal::KILL));
    eventually("every process below it is gone", || {
        alive(&below).is_empty()
    });
    assert!(
        health(&two.url).contains("\"status\":\"ok\""),
        "the other goes on"
    );
    let below = two.descendants();
    assert!(two.finish(Signal::TERM), "{}", text(&log));
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
