//! Tree to archive: one walk, in which a file is opened, judged, scanned for secrets and
//! written; nothing is staged and nothing is held but one buffer and the names of the
//! directories on the way down.
//!
//! The tree may change meanwhile (a process may have been left behind): names that vanish are
//! skipped, a file that shrinks is filled with zeros and one that grows is cut to the size in
//! its header. A secret never passes: a file of the working tree that holds one is left out,
//! and what must stay usable (agent state, `.git`) has it overwritten with `*`.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::Failure;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;
use tar::EntryType;

use super::chunks::ChunkWriter;
use super::exclude::{is_credential, is_git_lock, state_paths};
use super::ignored::Ignored;
use super::notes::Notes;
use super::read::{open_directory, open_file};
use super::writer::{Content, Writer, reading};
use super::{MAX_DEPTH, SaveRequest, storage_error};

/// A written archive.
pub(super) struct Packed {
    /// Compressed bytes.
    pub size: u64,
    /// Of the compressed bytes, in hex.
    pub sha256: String,
    /// What was left out or overwritten, for people.
    pub notes: Vec<String>,
}

/// Packs a session into a channel.
pub(super) fn pack(request: &SaveRequest, writer: ChunkWriter) -> Result<Packed, Failure> {
    let mut packer = Packer {
        request,
        out: Writer::new(request, writer)?,
        ignored: Ignored::default(),
        notes: Notes::default(),
    };
    let root = rustix::fs::open(
        &request.session_root,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| storage_error(format!("open the session root: {error}")))?;
    packer.state(root.as_fd())?;
    packer.directory(root.as_fd(), b"work", b"work", Walk::new(Place::Tree))?;
    let (size, sha256) = packer.out.finish()?;
    let notes = packer.notes.finish();
    Ok(Packed {
        size,
        sha256,
        notes,
    })
}

/// Why a file was left out.
const HOLDS_SECRET: &str = "it contains a secret";

/// What kind of place the walk is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Agent state: no links, secrets overwritten.
    State,
    /// The working tree: files with secrets left out, git's rules obeyed.
    Tree,
    /// A `.git` directory: secrets overwritten.
    Git,
}

/// How the walk came to where it is.
#[derive(Debug, Clone, Copy)]
struct Walk {
    place: Place,
    depth: usize,
    /// Below an ignored directory: only what git tracks travels.
    only_tracked: bool,
}

impl Walk {
    fn new(place: Place) -> Self {
        Self {
            place,
            depth: 0,
            only_tracked: false,
        }
    }
}

struct Packer<'a> {
    request: &'a SaveRequest,
    out: Writer<'a>,
    ignored: Ignored,
    notes: Notes,
}

impl Packer<'_> {
    /// Every agent's state: the last turn may have been another agent's.
    fn state(&mut self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        let known = AgentKind::ALL.into_iter().flat_map(state_paths).copied();
        let mut paths: BTreeSet<&str> = known.collect();
        paths.extend(self.request.own_state.as_deref());
        for path in paths {
            let mut components = path.split('/').collect::<Vec<_>>();
            let Some(name) = components.pop() else {
                continue;
            };
            let mut parent = open_directory(root, b"home");
            for component in components {
                parent = parent.and_then(|parent| open_directory(parent, component.as_bytes()));
            }
            if let Ok(parent) = parent {
                let path = format!("home/{path}");
                let walk = Walk::new(Place::State);
                self.entry(parent.as_fd(), name.as_bytes(), path.as_bytes(), &walk)?;
            }
        }
        Ok(())
    }

    /// One name in an open directory, with all below it.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        walk: &Walk,
    ) -> Result<(), Failure> {
        let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let Some(walk) = self.admit(name, path, kind, walk) else {
            return Ok(());
        };
        if self.out.holds_secret(name) {
            self.notes
                .add(&parent_of(path), "a name in it contains a secret");
            return Ok(());
        }
        match kind {
            FileType::Directory => self.directory(parent, name, path, walk),
            FileType::RegularFile => self.file(parent, name, path, walk.place),
            FileType::Symlink => self.link(parent, name, path, &stat, walk.place),
            // Sockets, pipes and devices mean nothing elsewhere.
            _ => Ok(()),
        }
    }

    /// Decides by name whether an entry travels, and how the walk goes on there.
    fn admit(&self, name: &[u8], path: &[u8], kind: FileType, walk: &Walk) -> Option<Walk> {
        let is_directory = kind == FileType::Directory;
        let mut walk = *walk;
        match walk.place {
            Place::State => (!is_credential(path)).then_some(walk),
            Place::Git => (!is_git_lock(name) || is_directory).then_some(walk),
            Place::Tree if name == b".git" && is_directory => {
                walk.place = Place::Git;
                Some(walk)
            }
            Place::Tree if name == b".git" => Some(walk),
            Place::Tree => {
                let ignored = walk.only_tracked
                    || !self.request.include_ignored && self.ignored.matches(path, is_directory);
                if (ignored || is_credential(path)) && walk.depth > 0 {
                    walk.only_tracked = true;
                    return self.ignored.is_tracked(path, is_directory).then_some(walk);
                }
                Some(walk)
            }
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        mut walk: Walk,
    ) -> Result<(), Failure> {
        walk.depth += 1;
        if walk.depth > MAX_DEPTH {
            self.notes.add(path, "it is nested too deeply");
            return Ok(());
        }
        let opened = open_directory(parent, name).and_then(|fd| {
            let stat = rustix::fs::fstat(&fd)?;
            let names = self.names(fd.as_fd())?;
            Ok((fd, stat, names))
        });
        let (fd, stat, names) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unreadable(path, error),
        };
        let path = [path, b"/"].concat();
        let in_tree = walk.place == Place::Tree;
        if in_tree && self.ignored.enter(fd.as_fd(), &path) {
            walk.only_tracked = false;
        }
        for name in names {
            let path = [&path, name.as_slice()].concat();
            self.entry(fd.as_fd(), &name, &path, &walk)?;
        }
        if in_tree {
            self.ignored.leave();
        }
        self.out.head(&path, EntryType::Directory, &stat, b"", 0)
    }

    /// The names in a directory, in order; no more than may be packed.
    fn names(&self, directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
        let most = usize::try_from(self.request.max_files).unwrap_or(usize::MAX);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
            if names.len() > most {
                break;
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        place: Place,
    ) -> Result<(), Failure> {
        if place == Place::State {
            self.notes.add(path, "agent state may not hold links");
            return Ok(());
        }
        let target = match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(error) => return self.unreadable(path, error),
        };
        if self.out.holds_secret(&target) {
            self.notes.add(path, HOLDS_SECRET);
            return Ok(());
        }
        self.out.head(path, EntryType::Symlink, stat, &target, 0)
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        place: Place,
    ) -> Result<(), Failure> {
        let (file, stat) = match open_file(parent, name) {
            Ok(opened) => opened,
            Err(error) => return self.unreadable(path, error),
        };
        let content = match place {
            Place::Tree => self.out.file_if_clean(file, path, &stat)?,
            Place::State | Place::Git => self.out.file_masked(file, path, &stat)?,
        };
        match content {
            Content::Clean => {}
            Content::Masked => self.notes.overwritten(path),
            Content::LeftOut => self.notes.add(path, HOLDS_SECRET),
        }
        Ok(())
    }

    /// What vanished is not missed; what cannot be read is named.
    fn unreadable(&mut self, path: &[u8], error: Errno) -> Result<(), Failure> {
        match error {
            Errno::NOENT => {}
            Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NOTDIR | Errno::INVAL => {
                self.notes.add(path, "it cannot be read");
            }
            error => return Err(reading(path, &error.into())),
        }
        Ok(())
    }
}

fn parent_of(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path[..end].to_vec()
}
