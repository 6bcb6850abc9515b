//! Finding the servers that the system has, and saying how to get those it has not.
//!
//! Nothing is ever downloaded here: a missing program is one line that names the command which
//! installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow};

/// Where Debian and its relatives keep each major version's programs.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// A server to install: how people call it, and its package by package manager.
struct Package {
    name: &'static str,
    missing: &'static str,
    by_manager: [(&'static str, &'static str); 4],
}

const POSTGRES: Package = Package {
    name: "PostgreSQL",
    missing: "initdb",
    by_manager: [
        ("apt-get install -y", "postgresql"),
        ("dnf install -y", "postgresql-server"),
        ("apk add", "postgresql"),
        ("pacman -S", "postgresql"),
    ],
};

const REDIS: Package = Package {
    name: "Redis",
    missing: "redis-server",
    by_manager: [
        ("apt-get install -y", "redis-server"),
        ("dnf install -y", "valkey"),
        ("apk add", "redis"),
        ("pacman -S", "valkey"),
    ],
};

const UTIL_LINUX: Package = Package {
    name: "util-linux",
    missing: "setpriv",
    by_manager: [
        ("apt-get install -y", "util-linux"),
        ("dnf install -y", "util-linux"),
        ("apk add", "setpriv"),
        ("pacman -S", "util-linux"),
    ],
};

/// Everything is started through `setpriv`, so nothing works without it.
pub fn check_setpriv() -> Result<()> {
    version_of(Path::new("setpriv"))
        .map(drop)
        .ok_or_else(|| not_installed(&UTIL_LINUX))
}

/// PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct PostgresPrograms {
    dir: PathBuf,
    /// The major version, such as 15: data of one cannot be read by another.
    pub major: u32,
}

impl PostgresPrograms {
    /// The path, or for programs on PATH the name, of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Finds PostgreSQL: in `dir` when one is given, else on PATH, else Debian's newest. When data of
/// some major version exists already, only that version will do.
pub fn find_postgres(dir: Option<&Path>, data_major: Option<u32>) -> Result<PostgresPrograms> {
    let places = match dir {
        Some(dir) => vec![dir.to_owned()],
        None => std::iter::once(PathBuf::new())
            .chain(debian_versions())
            .collect(),
    };
    let found: Vec<_> = places.into_iter().filter_map(probe_postgres).collect();
    let Some(first) = found.first() else {
        return Err(not_installed(&POSTGRES));
    };
    let Some(major) = data_major else {
        return Ok(first.clone());
    };
    let fitting = found.iter().find(|programs| programs.major == major);
    fitting.cloned().ok_or_else(|| {
        anyhow!(
            "the data was made by PostgreSQL {major}, and only {} is installed: install \
             postgresql-{major}, or start with another --data-dir",
            first.major
        )
    })
}

/// Finds `redis-server` or `valkey-server` on PATH.
pub fn find_redis() -> Result<PathBuf> {
    ["redis-server", "valkey-server"]
        .into_iter()
        .find(|name| version_of(Path::new(name)).is_some())
        .map(PathBuf::from)
        .ok_or_else(|| not_installed(&REDIS))
}

fn debian_versions() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN_POSTGRES)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by_key(|(major, _)| std::cmp::Reverse(*major));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

fn probe_postgres(dir: PathBuf) -> Option<PostgresPrograms> {
    version_of(&dir.join("initdb"))?;
    let major = parse_major(&version_of(&dir.join("postgres"))?)?;
    Some(PostgresPrograms { dir, major })
}

/// The major version in a line such as `postgres (PostgreSQL) 15.20 (Debian 15.20-1)`.
fn parse_major(line: &str) -> Option<u32> {
    let number = line.split_whitespace().nth(2)?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn not_installed(package: &Package) -> anyhow::Error {
    let sudo = if rustix::process::geteuid().is_root() {
        ""
    } else {
        "sudo "
    };
    let (command, name) = package
        .by_manager
        .iter()
        .find(|(command, _)| {
            let manager = command
                .split(' ')
                .next()
                .expect("a command has a first word");
            Path::new("/usr/bin").join(manager).exists()
                || Path::new("/sbin").join(manager).exists()
        })
        .unwrap_or(&package.by_manager[0]);
    anyhow!(
        "{} is not installed (no `{}` found); install it with: {sudo}{command} {name}",
        package.name,
        package.missing
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.20 (Debian 15.20-0)"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("nonsense"), None);
    }

    #[test]
    fn a_folder_without_programs_is_one_line_with_the_remedy() {
        let error = find_postgres(Some(Path::new("/nonexistent")), None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("PostgreSQL is not installed") && text.contains("install"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }

    #[test]
    fn data_of_another_version_is_refused() {
        let error = find_postgres(None, Some(3)).unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 3"), "{error}");
    }
}
