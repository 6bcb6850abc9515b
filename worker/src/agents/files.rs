//! Our own files below a session root that an agent may have prepared against us.
//!
//! Nothing here follows a symbolic link or leaves the root, whatever the agent left there:
//! every step is resolved by the kernel relative to the root.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, fchown, mkdirat, open, openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};

/// Replaces the file `relative` by one of mode 0600 with these bytes; makes its directories.
pub(super) fn write_private(root: &Path, relative: &Path, bytes: &[u8]) -> Result<()> {
    let parent = relative.parent().context("name a file")?;
    let name = relative.file_name().context("name a file")?;
    let owner = root.metadata().context("look at the session root")?;
    let directory = make_directories(root, parent, &owner)?;
    remove_name(&directory, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = openat2(&directory, name, flags, mode, resolve()).context("create file")?;
    give(&file, &owner)?;
    File::from(file).write_all(bytes).context("write file")
}

/// Makes the directory `relative`, and those above it, where they are not there yet.
pub(super) fn make_private(root: &Path, relative: &Path) -> Result<()> {
    let owner = root.metadata().context("look at the session root")?;
    make_directories(root, relative, &owner).map(drop)
}

/// The bytes of the regular file `relative`; `None` if it is absent, something else, or
/// longer than `max`.
pub(super) fn read_regular(root: &Path, relative: &Path, max: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let root = open_root(root).ok()?;
    let file = File::from(openat2(&root, relative, flags, Mode::empty(), resolve()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= max).then_some(bytes)
}

/// The regular file `relative`, to be read.
pub(super) fn open_regular(root: &Path, relative: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(&open_root(root)?, relative, flags, Mode::empty(), resolve());
    regular(file.context("open file")?.into())
}

/// The regular file `relative`, to be written; `None` if there is nothing of that name.
pub(super) fn open_regular_to_write(root: &Path, relative: &Path) -> Result<Option<File>> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat2(&open_root(root)?, relative, flags, Mode::empty(), resolve()) {
        Ok(file) => regular(file.into()).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).context("open file"),
    }
}

/// Makes the file `relative`, where nothing may be, and the directories that it lacks; what
/// lies there already is left alone.
pub(super) fn create(root: &Path, relative: &Path) -> Result<File> {
    let parent = relative.parent().context("name a file")?;
    let name = relative.file_name().context("name a file")?;
    let owner = root.metadata().context("look at the session root")?;
    let mut folder = open_root(root)?;
    for part in parent.components() {
        let enter = || {
            openat2(
                &folder,
                part.as_os_str(),
                directory(),
                Mode::empty(),
                resolve(),
            )
        };
        folder = match enter() {
            Err(Errno::NOENT) => {
                mkdirat(&folder, part.as_os_str(), Mode::from(0o755)).context("make directory")?;
                let made = enter().context("open the new directory")?;
                give(&made, &owner)?;
                made
            }
            entered => entered.context("enter directory")?,
        };
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file =
        openat2(&folder, name, flags, Mode::from(0o644), resolve()).context("create file")?;
    give(&file, &owner)?;
    Ok(file.into())
}

fn regular(file: File) -> Result<File> {
    let is_file = file.metadata().context("look at the file")?.is_file();
    anyhow::ensure!(is_file, "not a regular file");
    Ok(file)
}

/// Removes the file `relative`, if it is there.
pub(super) fn remove(root: &Path, relative: &Path) -> Result<()> {
    let parent = relative.parent().context("name a file")?;
    let name = relative.file_name().context("name a file")?;
    match openat2(
        open_root(root)?,
        parent,
        directory(),
        Mode::empty(),
        resolve(),
    ) {
        Ok(directory) => remove_name(&directory, name),
        // Not where we put it: then what lies elsewhere is not ours.
        Err(_) => Ok(()),
    }
}

/// The names in the directory `relative`. A directory that is absent, or reached through a link,
/// has none.
pub(super) fn names_in(root: &Path, relative: &Path) -> Result<Vec<String>> {
    match open_directory(root, relative)? {
        Some(folder) => names(&folder),
        None => Ok(Vec::new()),
    }
}

/// Gives entries of the directory `relative` the names that `renamed` returns for theirs. A
/// directory that is absent, or reached through a link, has none.
pub(super) fn rename_in(
    root: &Path,
    relative: &Path,
    renamed: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let Some(folder) = open_directory(root, relative)? else {
        return Ok(());
    };
    for old in names(&folder)? {
        if let Some(new) = renamed(&old) {
            renameat(&folder, old, &folder, new).context("rename entry")?;
        }
    }
    Ok(())
}

fn open_directory(root: &Path, relative: &Path) -> Result<Option<OwnedFd>> {
    let root = open_root(root)?;
    Ok(openat2(&root, relative, directory(), Mode::empty(), resolve()).ok())
}

fn names(folder: &OwnedFd) -> Result<Vec<String>> {
    let entries = Dir::read_from(folder).context("list directory")?;
    let name = |entry: rustix::io::Result<rustix::fs::DirEntry>| {
        let entry = entry.context("list directory")?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    };
    let names = entries.map(name);
    names
        .filter(|name| !matches!(name.as_deref(), Ok("." | "..")))
        .collect()
}

fn open_root(root: &Path) -> Result<OwnedFd> {
    open(root, directory() | OFlags::NOFOLLOW, Mode::empty()).context("open the session root")
}

fn make_directories(root: &Path, relative: &Path, owner: &std::fs::Metadata) -> Result<OwnedFd> {
    let mut directory = open_root(root)?;
    for part in relative.components() {
        directory = enter_or_make(directory, part, owner)?;
    }
    Ok(directory)
}

fn enter_or_make(at: OwnedFd, part: Component<'_>, owner: &std::fs::Metadata) -> Result<OwnedFd> {
    let Component::Normal(name) = part else {
        bail!("not a plain relative path");
    };
    let enter = || openat2(&at, name, directory(), Mode::empty(), resolve());
    match enter() {
        Ok(entered) => return Ok(entered),
        Err(Errno::NOENT) => {}
        // A link or a file where our directory belongs.
        Err(_) => remove_name(&at, name)?,
    }
    mkdirat(&at, name, Mode::RWXU).context("make directory")?;
    let made = enter().context("open the new directory")?;
    give(&made, owner)?;
    Ok(made)
}

fn remove_name(directory: &OwnedFd, name: &std::ffi::OsStr) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).context("remove file"),
    }
}

/// As root, hands a new file to the owner of the session root, under whom the agent runs.
fn give(file: &OwnedFd, owner: &std::fs::Metadata) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    fchown(file, Some(uid), Some(gid)).context("hand over file")
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}
