//! Opening files of a hostile tree: by name in an open directory, never through a symbolic
//! link, never waiting on a pipe or a device.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Opens a directory.
pub(super) fn open_directory(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a regular file; anything else is `EINVAL`.
pub(super) fn open_file(parent: impl AsFd, name: &[u8]) -> Result<(File, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((File::from(file), stat)),
        _ => Err(Errno::INVAL),
    }
}

/// The content of a regular file of at most `max` bytes; nothing if it is anything else.
pub(super) fn read_small(parent: impl AsFd, name: &[u8], max: u64) -> Option<Vec<u8>> {
    let (file, stat) = open_file(parent, name).ok()?;
    if u64::try_from(stat.st_size).ok()? > max {
        return None;
    }
    let mut content = Vec::new();
    file.take(max).read_to_end(&mut content).ok()?;
    Some(content)
}
