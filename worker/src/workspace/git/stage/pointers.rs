//! LFS paths of the working tree: their content goes to the host, their pointers into the
//! commit, in this order.

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clawlink_shared::control::Failure;
use git2::{ObjectType, Oid};

use super::super::dotgit::Scratch;
use super::super::lfs;
use super::Staging;

/// Most branches of the remote in which the content of LFS paths is looked up.
const MAX_REMOTE_TREES: usize = 256;

/// Brings content of LFS paths to the host; answers for each whether it is there.
pub(in super::super) type Upload<'a> = &'a dyn Fn(&[lfs::Content]) -> Vec<Result<(), Failure>>;

/// An LFS path whose content the host must have before its pointer is committed.
pub(super) struct Waiting {
    path: PathBuf,
    id: Oid,
    mode: u32,
    found: Metadata,
}

/// Root trees of the branches that the remote is known to have, the newest first.
pub(super) fn trees_at_remote(scratch: &Scratch) -> Result<Vec<Oid>> {
    let known = scratch.known_to_remote()?.into_iter();
    let mut found: Vec<(i64, Oid)> = known
        .filter_map(|commit| {
            let commit = scratch.repo.find_commit(commit).ok()?;
            Some((commit.time().seconds(), commit.tree_id()))
        })
        .collect();
    found.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let trees = found.into_iter().map(|(_, tree)| tree);
    Ok(trees.take(MAX_REMOTE_TREES).collect())
}

impl Staging<'_> {
    /// Only pointers are committed for LFS paths. Their content waits to be uploaded, unless
    /// the remote is known to have the file as it is.
    pub(super) fn visit_lfs(
        &mut self,
        path: &Path,
        full: &Path,
        found: &Metadata,
        mode: u32,
    ) -> Result<()> {
        // An empty file is its own pointer.
        let is_pointer = found.len() == 0
            || (found.len() <= lfs::MAX_POINTER as u64
                && fs::read(full).is_ok_and(|content| lfs::Pointer::parse(&content).is_some()));
        if is_pointer {
            let id = self.store(path, full).context("store a pointer")?;
            return self.add(path, id, mode, found);
        }
        let before = self.before.get(path.as_os_str().as_bytes());
        let before = before.map(|(id, _)| *id);
        let pointer_before = before.and_then(|id| self.pointer(id));
        if let Some(id) = before.filter(|_| pointer_before.is_none()) {
            if self.is_at_remote(path, id) && Oid::hash_file(ObjectType::Blob, full) == Ok(id) {
                return self.add(path, id, mode, found);
            }
            if !self.is_at_remote(path, id) {
                self.name(
                    "an earlier commit holds its content, not a Git LFS pointer",
                    path,
                );
            }
        }
        let examined = File::open(full).and_then(|file| lfs::examine(file, self.redactor));
        let pointer = match examined {
            Ok((pointer, false)) => pointer,
            Ok((_, true)) => {
                return self.leave_out("it holds a secret that was given to this execution", path);
            }
            Err(_) => return self.leave_out("it cannot be read", path),
        };
        let id = match before.filter(|_| pointer_before.as_ref() == Some(&pointer)) {
            Some(id) if self.is_at_remote(path, id) => return self.add(path, id, mode, found),
            Some(id) => id,
            None => {
                let stored = self.scratch.repo.blob(pointer.text().as_bytes());
                stored.context("store a pointer")?
            }
        };
        let waiting = Waiting {
            path: path.to_owned(),
            id,
            mode,
            found: found.clone(),
        };
        let full = full.to_owned();
        self.waiting.push((waiting, lfs::Content { pointer, full }));
        Ok(())
    }

    /// Commits pointers of what `upload` brought to the host.
    pub(super) fn settle(&mut self, upload: Upload<'_>) -> Result<()> {
        let (waiting, contents): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().unzip();
        if contents.is_empty() {
            return Ok(());
        }
        for (file, outcome) in waiting.into_iter().zip(upload(&contents)) {
            match outcome {
                Ok(()) => self.add(&file.path, file.id, file.mode, &file.found)?,
                Err(failure) => {
                    let why = format!("its Git LFS content was not uploaded: {}", failure.message);
                    self.leave_out(&why, &file.path)?;
                }
            }
        }
        Ok(())
    }

    /// The pointer that a blob is, if it is one.
    fn pointer(&self, id: Oid) -> Option<lfs::Pointer> {
        let (size, _) = self.scratch.repo.odb().ok()?.read_header(id).ok()?;
        if size > lfs::MAX_POINTER {
            return None;
        }
        lfs::Pointer::parse(self.scratch.repo.find_blob(id).ok()?.content())
    }

    /// Whether a branch of the remote is known to have this blob at `path`.
    fn is_at_remote(&self, path: &Path, id: Oid) -> bool {
        self.at_remote.iter().any(|tree| {
            let tree = self.scratch.repo.find_tree(*tree);
            tree.and_then(|tree| tree.get_path(path))
                .is_ok_and(|entry| entry.id() == id)
        })
    }
}
