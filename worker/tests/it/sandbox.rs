//! What a command in the sandbox can and cannot reach.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clawlink_worker::agents::{harden, sandbox};

use crate::agent_job::{AGENT_UID, Session, worker_exe};

/// A process of the same user as the command, as a worker is to its agent.
struct Neighbour(std::process::Child);

impl Neighbour {
    fn start() -> Self {
        let mut command = as_agent("sleep");
        command
            .arg("300")
            .env("NEIGHBOUR_TOKEN", "neighbour-secret");
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A command as a user that is not root, whoever runs the tests.
fn as_agent(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let id = AGENT_UID.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", program]);
    command
}

/// Runs a bash script in the sandbox of a session.
fn confined(session: &Session, script: &str) -> Output {
    let worker = worker_exe();
    as_agent(worker.to_str().unwrap())
        .arg("sandbox")
        .arg("--root")
        .arg(&session.root)
        .args(["--", "/bin/bash", "-c", script])
        .env("WORKER_TOKEN", "worker-secret")
        .env(sandbox::passed_name("PASSED"), "passed on")
        .current_dir(session.work())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// The script fails, and with a refusal.
fn refused(session: &Session, script: &str) {
    let output = confined(session, script);
    let text = text(&output);
    assert!(!output.status.success(), "{script} succeeded: {text}");
    assert!(
        text.contains("denied") || text.contains("not permitted"),
        "{text}"
    );
}

#[test]
fn kernel_of_the_tests_has_landlock() {
    assert!(sandbox::is_landlock_available());
}

#[test]
fn session_is_writable_and_nothing_else() {
    let session = Session::new();
    let output = confined(
        &session,
        "echo hi > $HOME/a && echo hi > $TMPDIR/b && cat $HOME/a",
    );
    assert!(output.status.success(), "{}", text(&output));
    for place in ["/tmp", "/var/tmp", "/dev/shm", "/usr", "/etc"] {
        let script = format!("echo x > {place}/clawlink-test-file");
        assert!(!confined(&session, &script).status.success(), "{place}");
    }
    refused(&session, "ls /dev/pts");
    refused(&session, "ls /run");
    let shared = session.outside().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, Permissions::from_mode(0o777)).unwrap();
    refused(&session, &format!("echo x > {}/file", shared.display()));
}

#[test]
fn files_outside_are_unreadable_also_through_links() {
    let session = Session::new();
    let secret = session.outside().join("secret");
    std::fs::write(&secret, "outside-secret").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let path = secret.display();
    refused(&session, &format!("cat {path}"));
    refused(&session, &format!("ln -s {path} link; cat link"));
    refused(&session, "cat ../../secret");
    refused(&session, &format!("ls {}", session.outside().display()));
    let neighbour = Session::named("session-other");
    refused(&session, &format!("ls {}", neighbour.root.display()));
}

#[test]
fn another_process_of_the_same_user_is_out_of_reach() {
    let session = Session::new();
    let neighbour = Neighbour::start();
    let pid = neighbour.0.id();
    let environ = format!("cat /proc/{pid}/environ");
    let plain = as_agent("bash").args(["-c", &environ]).output().unwrap();
    assert!(
        text(&plain).contains("neighbour-secret"),
        "readable without the sandbox"
    );
    for file in [
        "environ",
        "mem",
        "fd/0",
        "root/etc/passwd",
        "cwd/Cargo.toml",
        "maps",
    ] {
        let output = confined(&session, &format!("cat /proc/{pid}/{file}"));
        assert!(!output.status.success(), "{file}: {}", text(&output));
    }
    refused(&session, &format!("kill -9 {pid}"));
    refused(&session, &format!("kill -0 {pid}"));
}

#[test]
fn own_processes_can_be_signalled_and_traced() {
    let session = Session::new();
    let output = confined(
        &session,
        "sleep 300 & kill -9 $!; wait $!; cat /proc/$$/environ | tr '\\0' '\\n' | grep ^HOME",
    );
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn environment_is_what_was_passed() {
    let output = confined(&Session::new(), "env; id -u");
    let text = text(&output);
    assert!(text.contains("PASSED=passed on"), "{text}");
    assert!(!text.contains("worker-secret"), "{text}");
    assert!(!text.contains("CLAWLINK"), "{text}");
    assert!(!text.lines().any(|line| line == "0"), "{text}");
}

#[test]
fn privileges_and_limits_are_set() {
    let script = "grep NoNewPrivs /proc/self/status; ulimit -c; ulimit -n; ulimit -f";
    let text = text(&confined(&Session::new(), script));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("NoNewPrivs:\t1"));
    assert_eq!(lines.next(), Some("0"));
    let open_files: u64 = lines.next().unwrap().parse().unwrap();
    assert!(open_files <= 65_536);
}

#[test]
fn root_becomes_the_owner_or_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let run = |root: &Path| {
        Command::new(worker_exe())
            .args(["sandbox", "--root"])
            .arg(root)
            .args(["--", "id", "-u"])
            .output()
            .unwrap()
    };
    let session = Session::new();
    assert_eq!(text(&run(&session.root)).trim(), AGENT_UID.to_string());
    let output = run(session.outside());
    assert_eq!(output.status.code(), Some(sandbox::EXIT_NOT_SET_UP.into()));
    assert!(text(&output).contains("refusing to run a command as root"));
}

#[test]
fn file_size_is_bounded() {
    let session = Session::new();
    let worker = worker_exe();
    let output = as_agent(worker.to_str().unwrap())
        .args(["sandbox", "--max-file-bytes", "1000000", "--root"])
        .arg(&session.root)
        .args(["--", "/bin/bash", "-c", "head -c 2000000 /dev/zero > big"])
        .current_dir(session.work())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let size = session.work().join("big").metadata().unwrap().len();
    assert_eq!(size, 1_000_000);
}

#[test]
fn missing_program_is_a_setup_failure() {
    let session = Session::new();
    let worker = worker_exe();
    let output = as_agent(worker.to_str().unwrap())
        .args(["sandbox", "--root"])
        .arg(&session.root)
        .args(["--", "/nonexistent/program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(sandbox::EXIT_NOT_SET_UP.into()));
    assert!(text(&output).starts_with(sandbox::STDERR_PREFIX));
}

#[test]
fn hardened_process_is_not_dumpable() {
    harden().unwrap();
    let behaviour = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(behaviour, rustix::process::DumpableBehavior::NotDumpable);
}

#[test]
fn it_needs_no_settings_of_the_work_and_minds_none() {
    let root = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(worker_exe());
    command
        .env_clear()
        .env("CLAWLINK_WORKSPACE_DIR", "/workspace")
        .args(["sandbox", "--no-landlock-ok", "--root"])
        .arg(root.path())
        .args(["--", "/bin/true"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("pool_token"), "{said}");
}
