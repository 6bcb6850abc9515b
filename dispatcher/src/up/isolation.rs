//! The command line that starts one worker, shut in as far as the system allows.
//!
//! At best a worker is process 1 of a PID namespace with its own `/proc`: it sees no other process,
//! and when it ends the kernel ends everything it started. That needs root or unprivileged user
//! namespaces; where neither is to be had, [`super::orphans`] cleans up instead.

use std::path::Path;
use std::process::{Command, Stdio};

use super::identity::Identity;

/// What keeps a worker's processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// A PID namespace; `user_namespace` because we are not root.
    PidNamespace {
        /// Whether a user namespace is needed to make one.
        user_namespace: bool,
    },
    /// Nothing but our adopting what a worker leaves.
    Subreaper,
}

impl Isolation {
    /// The best that works here: tried once, with a program that does nothing.
    pub fn probe() -> Self {
        let user_namespace = !rustix::process::geteuid().is_root();
        let best = Self::PidNamespace { user_namespace };
        let works = best
            .command(&Identity::worker(), Path::new("true"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if works { best } else { Self::Subreaper }
    }

    /// A command that runs `program` as `user`. It is killed with the thread that spawned it.
    pub fn command(self, user: &Identity, program: &Path) -> Command {
        let Self::PidNamespace { user_namespace } = self else {
            return user.command("KILL", program);
        };
        let mut command = Identity::current().command("KILL", "unshare");
        if user_namespace {
            command.args(["--user", "--map-current-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        // Shared memory and message queues end with the worker too.
        command.args(["--ipc", "--"]);
        // Changing the user clears the parent-death signal, so it is asked for again.
        command.arg("setpriv");
        user.wrap(&mut command, "KILL");
        command.arg("--").arg(program);
        command
    }
}
