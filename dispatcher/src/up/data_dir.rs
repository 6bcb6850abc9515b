//! The data directory of one installation: its lock, its generated secrets, its ports.
//!
//! Everything `clawlink up` keeps lies here, so a second start finds the same passwords, the
//! same ports and the same data. Two processes never use one data directory at a time: the
//! lock is held as long as any clone of [`DataDir`] lives. A secret never leaves its file for
//! an error text or a log line, and its file is readable by the owner alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clawlink_shared::secret::Secret;

use super::identity::Identity;
use super::programs::check_setpriv;

/// Where an installation of root lives when the current directory is closed to other users.
pub const ROOT_DATA_DIR: &str = "/var/lib/clawlink";
/// The directory that is used when none is named.
pub const DEFAULT_DATA_DIR: &str = ".clawlink";
/// Bytes of randomness in a generated secret; also the length of the sealing key.
const SECRET_BYTES: usize = 32;
/// Ports are chosen below the range that the kernel hands out by itself, so that they are
/// still free at the next start.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How many ports are tried before giving up.
const PORT_TRIES: usize = 100;

/// An opened and locked data directory; clones share the lock.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// The directory to use: the one that was asked for, else `.clawlink` here, else, for root
    /// in a directory that other users cannot enter (`/root`), `/var/lib/clawlink`.
    pub fn choose(asked: Option<&Path>) -> PathBuf {
        if let Some(path) = asked {
            return path.to_owned();
        }
        let here = Path::new(DEFAULT_DATA_DIR);
        let closed = rustix::process::geteuid().is_root()
            && !here.exists()
            && check_enterable(here).is_err();
        if closed {
            return PathBuf::from(ROOT_DATA_DIR);
        }
        here.to_owned()
    }

    /// Creates the directory where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self> {
        check_setpriv()?;
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            check_enterable(path)?;
        }
        if !path.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(if is_root { 0o711 } else { 0o700 })
                .create(path)
                .with_context(|| format!("create data directory {}", path.display()))?;
        }
        let root = path
            .canonicalize()
            .with_context(|| format!("open data directory {}", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join("lock"))
            .with_context(|| format!("write into data directory {}", root.display()))?;
        let owner = lock.metadata().context("read lock file")?.uid();
        let us = Identity::current().uid;
        ensure!(
            owner == us,
            "{} was made by the user with id {owner}, not by {us}: run as that user, or choose another --data-dir",
            root.display()
        );
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use by another clawlink: stop that one, or choose another --data-dir",
                root.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).context("lock data directory");
            }
        }
        Ok(Self {
            root,
            _lock: Arc::new(lock),
        })
    }

    /// The absolute path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory below it that only `owner` can read (mode 0700), made where it is missing.
    pub fn private(&self, name: &str, owner: &Identity) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let meta = fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
        if (meta.uid(), meta.gid()) != (owner.uid, owner.gid) {
            std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid))
                .with_context(|| format!("change the owner of {}", path.display()))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("close {} to others", path.display()))?;
        Ok(path)
    }

    /// The secret of that name: 64 hex digits, made at the first call and kept.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        self.secret_made_by(name, || random_hex(SECRET_BYTES))
    }

    /// The key of that name: 32 bytes in base64, made at the first call and kept.
    pub fn key(&self, name: &str) -> Result<Secret> {
        self.secret_made_by(name, || {
            STANDARD.encode(rand::random::<[u8; SECRET_BYTES]>())
        })
    }

    fn secret_made_by(&self, name: &str, make: impl FnOnce() -> String) -> Result<Secret> {
        let dir = self.private("secrets", &Identity::current())?;
        let path = dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim();
                ensure!(!text.is_empty(), "{} is empty", path.display());
                Ok(Secret::new(text))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = make();
                write_private(&path, &text)?;
                Ok(Secret::new(text))
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The loopback port of a part: the one of the last start unless it is taken.
    pub fn port(&self, part: &str) -> Result<u16> {
        let file = self.private("ports", &Identity::current())?.join(part);
        let kept = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(port) = kept.filter(|port| is_free(*port)) {
            return Ok(port);
        }
        let port = (0..PORT_TRIES)
            .map(|_| rand::random_range(PORT_RANGE))
            .find(|port| is_free(*port))
            .context("find a free loopback port")?;
        write_private(&file, &port.to_string())?;
        Ok(port)
    }
}

/// As root: whether the users of the parts can enter the directory, or the one it is to be made in.
fn check_enterable(path: &Path) -> Result<()> {
    let absolute = std::path::absolute(path).context("resolve data directory")?;
    let existing = absolute.ancestors().find(|dir| dir.exists());
    let existing = existing.context("find an existing directory")?;
    let existing = existing.canonicalize().context("resolve data directory")?;
    ensure!(
        Identity::worker().can_enter(&existing),
        "as root, clawlink runs its parts under unprivileged users, and these cannot enter {}: \
         use a directory that every user can enter, such as --data-dir {ROOT_DATA_DIR}",
        existing.display()
    );
    Ok(())
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Random bytes as lower-case hex digits.
fn random_hex(bytes: usize) -> String {
    (0..bytes)
        .map(|_| format!("{:02x}", rand::random::<u8>()))
        .collect()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
