//! Under which user a part runs, and the command line that makes it so.
//!
//! Everything is started through `setpriv` of util-linux: it changes the user, forbids gaining
//! privileges again, and asks the kernel to signal the part when the process that started it
//! dies, however it dies. A part never runs as root.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{getegid, geteuid};

/// The user of workers when `clawlink` runs as root. It needs no entry in `/etc/passwd`, and it
/// owns nothing but the workspace directory.
pub const WORKER_UID: u32 = 64_017;

/// A user and group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// Its group; supplementary groups are dropped.
    pub gid: u32,
}

impl Identity {
    /// The user that this process runs as.
    pub fn current() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        }
    }

    /// The user of workers: ours, or [`WORKER_UID`] for root.
    pub fn worker() -> Self {
        Self::unless_root(|| Self {
            uid: WORKER_UID,
            gid: WORKER_UID,
        })
    }

    /// The user of a server: ours, or for root the first of `names` that the system has.
    /// `nobody` stands behind them: `initdb` insists on a user with a name.
    pub fn server(names: &[&str]) -> Self {
        Self::unless_root(|| {
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            names
                .iter()
                .chain(&["nobody"])
                .find_map(|name| parse_passwd(&passwd, name))
                .unwrap_or(Self {
                    uid: 65_534,
                    gid: 65_534,
                })
        })
    }

    fn unless_root(other: impl FnOnce() -> Self) -> Self {
        if geteuid().is_root() {
            other()
        } else {
            Self::current()
        }
    }

    /// A command that runs `program` as this user, and that gets `signal` (`INT`, `KILL`, …)
    /// when the thread that spawned it ends: spawn it with [`super::supervise::spawn`].
    pub fn command(&self, signal: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        self.wrap(&mut command, signal);
        command.arg("--").arg(program);
        command
    }

    /// Adds the options for `setpriv` to a command line.
    pub(super) fn wrap(&self, command: &mut Command, signal: &str) {
        if *self != Self::current() {
            command
                .arg(format!("--reuid={}", self.uid))
                .arg(format!("--regid={}", self.gid))
                .arg("--clear-groups");
        }
        command
            .arg("--no-new-privs")
            .arg(format!("--pdeathsig={signal}"));
    }

    /// Whether this user can enter the directory.
    pub fn can_enter(&self, dir: &Path) -> bool {
        self.test("-x", dir)
    }

    /// Whether this user can run the program.
    pub fn can_run(&self, program: &Path) -> bool {
        self.test("-x", program)
    }

    fn test(&self, what: &str, path: &Path) -> bool {
        self.command("KILL", "test")
            .arg(what)
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

fn parse_passwd(passwd: &str, name: &str) -> Option<Identity> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    Some(Identity {
        uid: ids.next()?.ok()?,
        gid: ids.next()?.ok()?,
    })
}
