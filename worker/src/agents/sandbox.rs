//! `clawlink-worker sandbox -- CMD`: restricts itself, then becomes the command.
//!
//! The restrictions are set in the process that will be the agent, by `exec` rather than
//! between fork and exec, so that no unsafe code is needed. What survives into the command:
//! the environment variables that carry [`ENV_PREFIX`] (without it), a fixed `PATH`, and the
//! right to write below `--root`. The prefix also keeps a request's `LD_PRELOAD` from being
//! honoured before the restrictions stand.
//!
//! The command must never run with uid 0, with the worker's environment, or unconfined
//! without the caller having said that this is acceptable.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Gid, Resource, Rlimit, Uid};

/// Variables with this prefix reach the command, without it; no others do.
pub const ENV_PREFIX: &str = "CLAWLINK_SANDBOX_ENV_";

/// Exit code when the sandbox could not be set up; the reason is the last line on stderr.
pub const EXIT_NOT_SET_UP: u8 = 113;

/// Begins every line that the sandbox itself writes to stderr.
pub const STDERR_PREFIX: &str = "clawlink-sandbox: ";

/// The newest Landlock interface that we ask for; older kernels give what they have.
const NEWEST: ABI = ABI::V9;

/// Where the command looks for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files per process.
const MAX_OPEN_FILES: u64 = 65_536;

/// Processes and threads of the command's user, against fork bombs.
const MAX_PROCESSES: u64 = 8_192;

/// Programs and libraries: read and execute.
const SYSTEM: [&str; 8] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt",
];

/// What programs need to know about the machine: read. Neither all of `/etc` (services keep
/// secrets there) nor `/run` (Docker puts them there). Another process's memory and
/// environment stay out of reach although `/proc` is listed: Landlock forbids tracing out of
/// the sandbox.
const MACHINE: [&str; 41] = [
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
    "/dev/random",
    "/dev/urandom",
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/java",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki",
    "/etc/profile",
    "/etc/protocols",
    "/etc/python3",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/terminfo",
    "/etc/timezone",
];

/// Devices that any program may use: read and write. Neither `/dev/shm`, which outlives the
/// execution, nor `/dev/pts`, where the terminals of the same user are: where both are
/// private, as in a container, `--rw` opens them.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"];

/// Arguments of `clawlink-worker sandbox`.
#[derive(Debug, clap::Args)]
pub struct SandboxArgs {
    /// Directory that the command may write to; its HOME and TMPDIR are `home` and `tmp` in it
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Further directory or file that it may write to
    #[arg(long, value_name = "PATH")]
    pub rw: Vec<PathBuf>,
    /// Further directory or file that it may read and execute
    #[arg(long, value_name = "PATH")]
    pub ro: Vec<PathBuf>,
    /// Largest file that it may write, in bytes
    #[arg(long, value_name = "BYTES")]
    pub max_file_bytes: Option<u64>,
    /// Run the command even where the kernel has no Landlock
    #[arg(long)]
    pub no_landlock_ok: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Becomes the command. Returns only when that failed, with [`EXIT_NOT_SET_UP`]. To be called
/// while the process has one thread: uid, Landlock and `no_new_privs` are set for this one.
pub fn enter(args: SandboxArgs) -> ExitCode {
    let error = match try_enter(&args) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("{STDERR_PREFIX}{error:#}");
    ExitCode::from(EXIT_NOT_SET_UP)
}

/// Whether this kernel can confine a command to directories.
pub fn is_landlock_available() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

fn try_enter(args: &SandboxArgs) -> Result<std::convert::Infallible> {
    let root = args.root.canonicalize().context("find the root")?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        bail!("no command");
    };
    limit_resources(args.max_file_bytes)?;
    // A session of its own: no controlling terminal, and one group for a first polite signal.
    // Fails only for a group leader, which has what this is for.
    let _group_leader = rustix::process::setsid();
    give_up_root(&root)?;
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    confine(args, &root)?;
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", root.join("home"))
        .env("TMPDIR", root.join("tmp"))
        .env("LANG", "C.UTF-8")
        .envs(passed_environment())
        .exec();
    Err(error).with_context(|| format!("execute {}", Path::new(program).display()))
}

fn passed_environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.as_bytes().strip_prefix(ENV_PREFIX.as_bytes())?;
            (!name.is_empty()).then(|| (OsString::from_vec(name.to_vec()), value))
        })
        .collect()
}

/// The name under which [`enter`] finds a variable that the command shall have.
pub fn passed_name(name: &str) -> OsString {
    let mut passed = OsString::from(ENV_PREFIX);
    passed.push(OsStr::new(name));
    passed
}

fn limit_resources(max_file_bytes: Option<u64>) -> Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, MAX_OPEN_FILES)?;
    lower(Resource::Nproc, MAX_PROCESSES)?;
    if let Some(bytes) = max_file_bytes {
        lower(Resource::Fsize, bytes)?;
    }
    Ok(())
}

/// Sets a limit for good, never above what is allowed already.
fn lower(resource: Resource, wanted: u64) -> Result<()> {
    let allowed = rustix::process::getrlimit(resource).maximum;
    let limit = Some(allowed.map_or(wanted, |allowed| allowed.min(wanted)));
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    rustix::process::setrlimit(resource, limit).with_context(|| format!("limit {resource:?}"))
}

/// As uid 0: becomes the owner of the root, who must be somebody else.
fn give_up_root(root: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() && !rustix::process::getuid().is_root() {
        return Ok(());
    }
    let owner = root.metadata().context("look at the root")?;
    if owner.uid() == 0 || owner.gid() == 0 {
        bail!(
            "refusing to run a command as root: give {} to another user, or run the worker as one",
            root.display()
        );
    }
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    rustix::thread::set_thread_groups(&[]).context("drop groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("set group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("set user")
}

fn confine(args: &SandboxArgs, root: &Path) -> Result<()> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let status = Ruleset::default()
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(SYSTEM, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(MACHINE, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&args.ro, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(DEVICES, all)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&args.rw, all)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([root], all)))
        .and_then(|rules| rules.restrict_self())
        .context("restrict file access")?;
    if status.ruleset == RulesetStatus::NotEnforced && !args.no_landlock_ok {
        bail!("this kernel has no Landlock, and nothing said that running without is acceptable");
    }
    Ok(())
}
