//! Archive to tree, trusting nothing: the archive was made where a model's code ran.
//!
//! A name is accepted only if it begins with `work` or `home` and has no empty, `.` or `..`
//! component. Each directory on the way is opened in the one before without following links,
//! and everything is created exclusively, so nothing is ever written through or over what an
//! earlier entry made. Symbolic links in `work/` stay as they are, whatever they point to: a
//! repository may hold any link, and nothing here follows one; in `home/` there are none.
//! Hard links, devices, pipes and every extension of the format but long names are refused.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use clawlink_shared::control::Failure;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use tar::{Archive, EntryType};
use zstd::stream::read::Decoder;

use super::chunks::ChunkReader;
use super::entry::read_long_name;
use super::notes::shown;
use super::read::open_directory;
use super::{MAX_DEPTH, RestoreLimits, Restored, storage_error, unavailable};

/// What may stand at the top of an archive.
const TOP: [&[u8]; 2] = [b"work", b"home"];

/// Largest zstd window that is accepted, as a power of two: bounds the decoder's memory.
const MAX_WINDOW_LOG: u32 = 23;

/// Bytes copied at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Zeros that may follow the end of the archive proper, in bytes.
const MAX_TRAILER_BYTES: u64 = 64 * 1024;

/// Directories above the agent state, which have no entries of their own.
const IMPLIED_DIRECTORIES: u64 = 64;

/// Entries of the format per file: its long name and its long link target.
const HEADS_PER_FILE: u64 = 3;

/// Unpacks and verifies an archive. What a failure leaves behind is the caller's to [`remove`].
pub(super) fn unpack(
    reader: ChunkReader,
    root: &Path,
    limits: RestoreLimits,
) -> Result<Restored, Failure> {
    let root = open_root(root).map_err(|error| disk("open the session root", error))?;
    let mut decoder = Decoder::new(reader).map_err(damaged)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(damaged)?;
    let mut unpacker = Unpacker {
        place: Place::new(root).map_err(|error| disk("open the session root", error))?,
        limits,
        restored: Restored::default(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let mut archive = Archive::new(decoder);
    unpacker.entries(&mut archive)?;
    let mut decoder = archive.into_inner();
    let trailer = io::copy(
        &mut (&mut decoder).take(MAX_TRAILER_BYTES + 1),
        &mut io::sink(),
    );
    if trailer.map_err(damaged)? > MAX_TRAILER_BYTES {
        return Err(unavailable("the session's archive goes on after its end"));
    }
    decoder.finish().into_inner().verify()?;
    Ok(unpacker.restored)
}

/// Removes what was unpacked, following no links.
pub(super) fn remove(root: &Path) {
    for top in ["work", "home"] {
        match std::fs::remove_dir_all(root.join(top)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, top, "remove a partly restored session");
            }
            _ => {}
        }
    }
}

struct Unpacker {
    place: Place,
    limits: RestoreLimits,
    restored: Restored,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entries<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<(), Failure> {
        let most_files = self.limits.max_files.saturating_add(IMPLIED_DIRECTORIES);
        let most_heads = most_files.saturating_mul(HEADS_PER_FILE);
        let mut heads = 0;
        let (mut long_path, mut long_link) = (None, None);
        for entry in archive.entries().map_err(damaged)?.raw(true) {
            let mut entry = entry.map_err(damaged)?;
            heads += 1;
            if heads > most_heads {
                return Err(self.too_large());
            }
            let size = entry.size();
            let kind = entry.header().entry_type();
            match kind {
                EntryType::GNULongName => {
                    long_path = Some(read_long_name(&mut entry, size)?);
                    continue;
                }
                EntryType::GNULongLink => {
                    long_link = Some(read_long_name(&mut entry, size)?);
                    continue;
                }
                _ => {}
            }
            let path = long_path
                .take()
                .unwrap_or_else(|| entry.header().path_bytes().into_owned());
            let link = long_link.take().or_else(|| {
                entry
                    .header()
                    .link_name_bytes()
                    .map(|link| link.into_owned())
            });
            let (parents, name) = split(&path)?;
            let mode = entry.header().mode().map_err(damaged)?;
            let mtime = entry.header().mtime().map_err(damaged)?;
            match kind {
                EntryType::Directory => self.directory(&parents, name, mode, mtime)?,
                EntryType::Regular if !parents.is_empty() => {
                    self.file(&parents, name, mode, mtime, size, &mut entry)?;
                }
                EntryType::Symlink if parents.first() == Some(&TOP[0]) => {
                    self.link(&parents, name, &link.unwrap_or_default(), mtime)?;
                }
                _ => return Err(refused(&path, "may not be of its type")),
            }
            self.restored.files = self.place.made;
            if self.place.made > most_files {
                return Err(self.too_large());
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        mode: u32,
        mtime: u64,
    ) -> Result<(), Failure> {
        let path = [parents, &[name]].concat();
        let directory = self.place.open(&path)?;
        // Its owner must be able to empty it again.
        let mode = Mode::from_raw_mode(mode & 0o777 | 0o700);
        rustix::fs::fchmod(directory, mode)
            .and_then(|()| rustix::fs::futimens(directory, &times(mtime)))
            .map_err(|error| self::disk("write a directory", error))
    }

    fn file(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        mode: u32,
        mtime: u64,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), Failure> {
        self.restored.bytes = self.restored.bytes.saturating_add(size);
        if self.restored.bytes > self.limits.max_bytes {
            return Err(self.too_large());
        }
        let parent = self.place.open(parents)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| creating(parents, name, error))?;
        self.place.made += 1;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let length = content.read(&mut self.buffer).map_err(damaged)?;
            if length == 0 {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all(&self.buffer[..length])
                .map_err(|error| storage_error(format!("write a restored file: {error}")))?;
            left = left.saturating_sub(length as u64);
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))
            .and_then(|()| rustix::fs::futimens(&file, &times(mtime)))
            .map_err(|error| disk("write a restored file", error))
    }

    fn link(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        target: &[u8],
        mtime: u64,
    ) -> Result<(), Failure> {
        let parent = self.place.open(parents)?;
        rustix::fs::symlinkat(target, parent, name)
            .map_err(|error| creating(parents, name, error))?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(parent, name, &times(mtime), flags)
            .map_err(|error| disk("write a link", error))?;
        self.place.made += 1;
        Ok(())
    }

    fn too_large(&self) -> Failure {
        unavailable(format!(
            "the session's archive holds more than {} bytes or {} files",
            self.limits.max_bytes, self.limits.max_files
        ))
    }
}

/// Directories below the root, made as needed; the last one stays open.
struct Place {
    root: OwnedFd,
    path: Vec<Vec<u8>>,
    directory: OwnedFd,
    /// Files, links and directories made so far.
    made: u64,
}

impl Place {
    fn new(root: OwnedFd) -> Result<Self, Errno> {
        let directory = rustix::io::fcntl_dupfd_cloexec(&root, 0)?;
        Ok(Self {
            root,
            path: Vec::new(),
            directory,
            made: 0,
        })
    }

    /// Opens a directory, making what is missing; refuses anything else in the way.
    fn open(&mut self, path: &[&[u8]]) -> Result<BorrowedFd<'_>, Failure> {
        if self.path != path {
            let mut at = None;
            for (depth, name) in path.iter().enumerate() {
                let parent = at.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
                let next = match open_directory(parent, name) {
                    Err(Errno::NOENT) => {
                        rustix::fs::mkdirat(parent, *name, Mode::RWXU)
                            .map_err(|error| creating(&path[..depth], name, error))?;
                        self.made += 1;
                        open_directory(parent, name)
                    }
                    opened => opened,
                };
                at = Some(next.map_err(|error| creating(&path[..depth], name, error))?);
            }
            if let Some(directory) = at {
                self.directory = directory;
                self.path = path.iter().map(|name| name.to_vec()).collect();
            }
        }
        Ok(self.directory.as_fd())
    }
}

/// Checks a name; answers the directories above it and its last component.
fn split(path: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Failure> {
    let mut components = path
        .strip_suffix(b"/")
        .unwrap_or(path)
        .split(|byte| *byte == b'/')
        .collect::<Vec<_>>();
    let sound =
        |name: &&[u8]| !name.is_empty() && *name != b"." && *name != b".." && !name.contains(&0);
    if !components.iter().all(sound) || !TOP.contains(&components[0]) {
        return Err(refused(path, "may not be outside the session"));
    }
    if components.len() > MAX_DEPTH {
        return Err(refused(path, "may not be nested so deeply"));
    }
    let name = components
        .pop()
        .expect("splitting yields at least one part");
    Ok((components, name))
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(root)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

fn times(mtime: u64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(mtime).unwrap_or(0),
            tv_nsec: 0,
        },
    }
}

/// An entry that could not be made: because of what an earlier one made, or of the disk.
fn creating(parents: &[&[u8]], name: &[u8], error: Errno) -> Failure {
    let path = [parents, &[name]].concat().join(&b'/');
    match error {
        Errno::EXIST | Errno::LOOP | Errno::NOTDIR | Errno::MLINK => {
            refused(&path, "is in the way of another entry")
        }
        Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ | Errno::NOENT => {
            refused(&path, "has a name or target that this system refuses")
        }
        error => disk("make a restored file", error),
    }
}

fn refused(path: &[u8], why: &str) -> Failure {
    unavailable(format!(
        "the session's archive is refused: {} {why}",
        shown(path)
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn damaged(error: io::Error) -> Failure {
    unavailable(format!("the session's archive is damaged: {error}"))
}

fn disk(doing: &str, error: impl std::fmt::Display) -> Failure {
    storage_error(format!("{doing}: {error}"))
}
