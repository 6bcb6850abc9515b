//! Writing what was fetched to the working tree, once it is known to fit.

use std::fs;

use clawlink_shared::control::Failure;
use git2::build::{CheckoutBuilder, TreeUpdateBuilder};
use git2::{ObjectType, Oid, Repository};

use super::{Cloning, too_large};
use crate::workspace::git::{branch, broken, lfs, stage, tree};

const GITMODULES: &str = ".gitmodules";

impl Cloning<'_> {
    /// Checks the size of what `tip` holds, then writes it and makes `branch` current.
    pub(in crate::workspace::git) fn check_out(
        &mut self,
        repo: &Repository,
        branch: &str,
        tip: Oid,
    ) -> Result<(), Failure> {
        self.check_size(repo, tip)?;
        let reference = branch::reference_name(branch)?;
        let write = || -> Result<(), git2::Error> {
            write_tree(repo, tip)?;
            repo.reference(&reference, tip, true, "clone")?;
            repo.set_head(&reference)
        };
        write().map_err(|error| broken("check out the branch", error.message()))
    }

    /// Replaces Git LFS pointers by their content, which counts as files of the session.
    pub(in crate::workspace::git) fn fill_pointers(
        &mut self,
        repo: &Repository,
        tip: Oid,
    ) -> Result<Option<String>, Failure> {
        let bytes_left = &mut self.bytes_left;
        lfs::download(
            self.access,
            self.access.url(),
            (repo, tip),
            bytes_left,
            self.cancel,
        )
    }

    /// Counts what `tip` holds against what may still come.
    pub(in crate::workspace::git) fn check_size(
        &mut self,
        repo: &Repository,
        tip: Oid,
    ) -> Result<(), Failure> {
        let git = |error: git2::Error| broken("read the repository", error.message());
        let odb = repo.odb().map_err(git)?;
        let mut refused = None;
        let walked = tree::walk(repo, tip, |_, entry| {
            let size = match entry.kind() {
                Some(ObjectType::Blob) => odb.read_header(entry.id()).map_or(0, |(size, _)| size),
                _ => 0,
            };
            let bytes_left = self.bytes_left.checked_sub(size as u64);
            let (Some(bytes), Some(files)) = (bytes_left, self.files_left.checked_sub(1)) else {
                refused = Some(match bytes_left {
                    None => "its files exceed the bytes that a session may hold",
                    Some(_) => "it has more files than a session may hold",
                });
                return Err(git2::Error::from_str("too large"));
            };
            self.bytes_left = bytes;
            self.files_left = files;
            Ok(())
        });
        match refused {
            Some(why) => Err(too_large(why.to_owned())),
            None => walked.map_err(git),
        }
    }
}

/// Writes a commit's tree to the working tree and the index. libgit2 would read
/// `.gitmodules` as configuration, and whatever files it includes: it is written last, by us.
fn write_tree(repo: &Repository, tip: Oid) -> Result<(), git2::Error> {
    let tree = repo.find_commit(tip)?.tree()?;
    let mut force = CheckoutBuilder::new();
    force.force();
    let Some(modules) = tree.get_name(GITMODULES) else {
        return repo.checkout_tree(tree.as_object(), Some(&mut force));
    };
    if modules.filemode() & 0o170_000 != 0o100_000 {
        return Err(git2::Error::from_str(".gitmodules is not a plain file"));
    }
    let rest = TreeUpdateBuilder::new()
        .remove(GITMODULES)
        .create_updated(repo, &tree)?;
    repo.checkout_tree(repo.find_tree(rest)?.as_object(), Some(&mut force))?;
    let mut index = repo.index()?;
    let mode = modules.filemode().cast_unsigned();
    index.add(&stage::entry_of(
        GITMODULES.as_bytes(),
        modules.id(),
        mode,
        None,
    ))?;
    index.write()?;
    let content = repo.find_blob(modules.id())?;
    let written = repo
        .workdir()
        .map(|work| fs::write(work.join(GITMODULES), content.content()));
    match written {
        Some(Err(error)) => Err(git2::Error::from_str(&error.to_string())),
        _ => Ok(()),
    }
}
