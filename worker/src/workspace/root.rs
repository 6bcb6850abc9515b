//! The directory of one session: made empty, locked while it is used, emptied afterwards.
//!
//! The lock file stands beside the directory, out of the agent's reach. Removal never follows
//! a link, never recurses and needs one directory entry at a time, because an agent may leave
//! trees of any depth and without any permission.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clawlink_shared::id::SessionId;

/// How long a predecessor on this machine may take to leave the directory: to end its agent, and to
/// remove what that left.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// Pause between looks at a lock that somebody holds.
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// A session's directory, locked for this process.
#[derive(Debug)]
pub struct SessionRoot {
    path: PathBuf,
    lock: Lock,
}

impl SessionRoot {
    /// Locks the session's directory below `root` and makes it empty. Blocks, at most for two
    /// minutes beside the removal of what was there.
    ///
    /// # Errors
    ///
    /// When another process holds it, or the disk refuses.
    pub fn prepare(root: &Path, session: SessionId) -> Result<Self> {
        let path = root.join(session.folder());
        let lock = Lock::take(lock_path(&path), LOCK_PATIENCE)?
            .with_context(|| format!("lock {}: another process holds it", path.display()))?;
        let prepared = Self { path, lock };
        remove(&prepared.path).context("empty session directory")?;
        for dir in [
            prepared.path().to_owned(),
            prepared.work(),
            prepared.home(),
            prepared.tmp(),
        ] {
            private_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        Ok(prepared)
    }

    /// `<root>/session-{uuid}`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The working tree, or what holds the clone.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// The agent's HOME.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// Scratch, never archived.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Removes the directory and gives up the lock. Blocks.
    ///
    /// # Errors
    ///
    /// When something in it cannot be removed.
    pub fn clear(self) -> Result<()> {
        remove(&self.path).context("remove session directory")?;
        self.lock.give_up();
        Ok(())
    }
}

/// Removes session directories below `root` that nobody holds: their workers died. Blocks.
pub fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_session = name
            .to_str()
            .and_then(|name| name.strip_prefix("session-"))
            .is_some_and(|id| id.parse::<SessionId>().is_ok());
        if !is_session {
            continue;
        }
        let path = entry.path();
        if let Ok(Some(lock)) = Lock::take(lock_path(&path), Duration::ZERO) {
            match remove(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed an abandoned session"),
                Err(error) => tracing::warn!(%error, path = %path.display(), "session stays"),
            }
            lock.give_up();
        }
    }
}

fn lock_path(session: &Path) -> PathBuf {
    session.with_extension("lock")
}

/// Makes a directory that only this user may enter; one that exists is made so.
pub fn private_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, Permissions::from_mode(0o700))
        }
        done => done,
    }
}

/// An exclusively locked file, which is removed with the lock.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes it, waiting up to `patience`; `None` when somebody else keeps it.
    pub(crate) fn take(path: PathBuf, patience: Duration) -> Result<Option<Self>> {
        let deadline = Instant::now() + patience;
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("open {}", path.display()))?;
            match file.try_lock() {
                // Whoever held it may have removed the name meanwhile: then this lock is none.
                Ok(()) if is_at(&file, &path) => return Ok(Some(Self { path, file })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOK),
                Err(TryLockError::Error(error)) => bail!("lock {}: {error}", path.display()),
            }
        }
    }

    /// Removes the file, then unlocks it.
    pub(crate) fn give_up(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "lock file stays");
        }
        drop(self.file);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}

/// Removes a directory with everything in it, or nothing if it is not there. Directories
/// inside directories are moved up first, so neither depth nor permissions matter.
pub(crate) fn remove(top: &Path) -> io::Result<()> {
    match fs::remove_dir_all(top) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Too deep, or without permission: the patient way.
        Err(_) => {}
    }
    open_up(top)?;
    let mut moved = 0_u64;
    let mut dirs = Vec::new();
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    while let Some(dir) = dirs.pop() {
        open_up(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open_up(&entry.path())?;
                let up = loop {
                    moved += 1;
                    let up = top.join(format!(".removed-{moved}"));
                    if fs::symlink_metadata(&up).is_err() {
                        break up;
                    }
                };
                fs::rename(entry.path(), &up)?;
                dirs.push(up);
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(&dir)?;
    }
    fs::remove_dir(top)
}

/// Gives the owner all rights in a directory; no process of the agent is left to swap it.
fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_very_deep_tree_without_permissions_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        // Built from the inside out, since its full path would be too long to name.
        let mut inner = top.join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        for level in 0..3000 {
            let outer = top.join(format!("outer-{level}"));
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("in")).unwrap();
            inner = outer;
        }
        fs::create_dir_all(top.join("shut/in")).unwrap();
        fs::set_permissions(top.join("shut"), Permissions::from_mode(0o000)).unwrap();
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
    }

    #[test]
    fn a_session_is_held_once_and_swept_only_when_free() {
        let dir = tempfile::tempdir().unwrap();
        let session = SessionId::random();
        let held = SessionRoot::prepare(dir.path(), session).unwrap();
        fs::write(held.work().join("kept"), "x").unwrap();
        assert!(
            Lock::take(lock_path(held.path()), Duration::ZERO)
                .unwrap()
                .is_none()
        );
        sweep(dir.path());
        assert!(held.work().join("kept").exists());
        let path = held.path().to_owned();
        drop(held);
        sweep(dir.path());
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
