//! Going on from what a lost turn pushed.
//!
//! A worker that dies between its push and its report leaves the branch on the git host ahead
//! of the session's archive. Before the next agent starts, the session takes those commits, if
//! they are all its own and nothing stands in their way; else nothing is changed, and the push
//! will say what is wrong. What must never happen: uncommitted work is overwritten, or a file
//! is written through a link.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path};

use anyhow::{Context as _, Result, ensure};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::id::SessionId;
use git2::{Oid, Repository};
use tokio_util::sync::CancellationToken;

use super::clone::Cloning;
use super::dotgit::{Scratch, is_real_dir};
use super::http::GitAccess;
use super::stage::Entries;
use super::submodules::Links;
use super::{branch, broken, history, lfs, stage};
use crate::redact::Redactor;

/// The trailer by which a session knows its own commits.
pub const SESSION_TRAILER: &str = "Clawlink-Session";

/// What may be brought up to date, and how much may come.
#[derive(Debug, Clone, Copy)]
pub struct CatchUpRequest<'a> {
    /// The working tree.
    pub work: &'a Path,
    /// A directory outside of the agent's reach, for the throw-away repository.
    pub tmp: &'a Path,
    /// The session's branch, without `refs/heads/`.
    pub branch: &'a str,
    /// Only commits with its trailer are taken.
    pub session: SessionId,
    /// Needed to look for uncommitted work.
    pub redactor: &'a Redactor,
    /// Bound of the received pack and, separately, of the working tree.
    pub max_bytes: u64,
    /// Bound of the entries in the working tree.
    pub max_files: u64,
}

/// Fast-forwards branch, index and working tree to the branch on the git host; answers how many
/// commits that brought. Zero, or a failure, means that nothing was changed unless the disk failed.
pub fn catch_up(
    access: &GitAccess,
    request: CatchUpRequest<'_>,
    cancel: &CancellationToken,
) -> Result<usize, Failure> {
    let failed = |error: anyhow::Error| broken("catch up with the branch", format!("{error:#}"));
    let reference = branch::reference_name(request.branch)?;
    let scratch = Scratch::open(request.work, request.tmp).map_err(failed)?;
    let here = scratch.reference(&reference).map_err(failed)?;
    let Some(here) = here.filter(|here| scratch.head().is_ok_and(|head| head == Some(*here)))
    else {
        return Ok(0);
    };
    let mut silent = |_| {};
    let bounds = (request.max_bytes, request.max_files);
    let mut cloning = Cloning::new(access, cancel, &mut silent, bounds);
    let (conversation, advert) = cloning.open(access.url())?;
    let is_known = |tip: &Oid| scratch.repo.odb().is_ok_and(|odb| odb.exists(*tip));
    let Some(tip) = advert.find(&reference).filter(|tip| !is_known(tip)) else {
        return Ok(0);
    };
    let have = (here, scratch.shallow.as_slice());
    cloning.fetch_onto(&conversation, &advert, &scratch.repo, tip, have)?;
    let Some(count) = own_commits(&scratch.repo, here, tip, request.session)
        .map_err(|error| broken("read the branch's new commits", error.message()))?
    else {
        return Ok(0);
    };
    cloning.check_size(&scratch.repo, tip)?;
    let is_clean = is_clean(&scratch, here, request.redactor, &Links::new());
    if !is_clean.map_err(failed)? {
        return Ok(0);
    }
    advance(&scratch, here, tip).map_err(failed)?;
    // What cannot be downloaded stays the pointer that the commit has.
    let _pointers = cloning.fill_pointers(&scratch.repo, tip);
    let record = || -> Result<()> {
        scratch.write_back(&reference, tip)?;
        scratch.write_reference(&format!("refs/remotes/origin/{}", request.branch), tip)
    };
    record().map_err(failed)?;
    Ok(count)
}

/// How many commits lie between the two, if `tip` descends from `here` and all are the session's.
fn own_commits(
    repo: &Repository,
    here: Oid,
    tip: Oid,
    session: SessionId,
) -> Result<Option<usize>, git2::Error> {
    if !history::is_ancestor(repo, here, &[tip])? {
        return Ok(None);
    }
    let session = session.to_string();
    let new = history::new_commits(repo, tip, &[here])?;
    for commit in &new {
        let commit = repo.find_commit(*commit)?;
        let trailers = git2::message_trailers_bytes(commit.message_bytes())?;
        let is_own = trailers
            .iter()
            .any(|(name, value)| name == SESSION_TRAILER.as_bytes() && value == session.as_bytes());
        if !is_own {
            return Ok(None);
        }
    }
    Ok(Some(new.len()))
}

/// Whether the working tree is what the commit holds, without anything that could not be staged.
/// `links` are what its submodules come to beside what the remote knows of them.
pub(super) fn is_clean(
    scratch: &Scratch,
    here: Oid,
    redactor: &Redactor,
    links: &Links,
) -> Result<bool> {
    let refuse = |contents: &[lfs::Content]| {
        let refused = Failure::new(ErrorCode::PushFailed, "it is not committed");
        contents.iter().map(|_| Err(refused.clone())).collect()
    };
    let staged = stage::stage(scratch, Some(here), redactor, links, &refuse)?;
    let tree = scratch.repo.find_commit(here)?.tree_id();
    Ok(staged.tree == tree && staged.notes.is_empty())
}

/// Brings a clean working tree and its index from one commit to another. Everything is checked
/// before a file is touched; the index refuses names that git does not accept.
fn advance(scratch: &Scratch, from: Oid, to: Oid) -> Result<()> {
    let before = stage::entries_of(&scratch.repo, from)?;
    let after = stage::entries_of(&scratch.repo, to)?;
    let (old, new) = (differing(&before, &after), differing(&after, &before));
    let mut index = scratch.repo.index().context("open the index")?;
    for path in old.keys() {
        index.remove(bytes_as_path(path), 0)?;
    }
    for (path, (id, mode)) in &new {
        index.add(&stage::entry_of(path, *id, *mode, None))?;
    }
    // A tree that names a path twice, or below a link of its own, does not come out the same.
    let tree = index.write_tree().context("write the tree")?;
    ensure!(
        tree == scratch.repo.find_commit(to)?.tree_id(),
        "the branch has a tree that git would not write"
    );
    for (path, (_, mode)) in old.iter().chain(&new) {
        let at = bytes_as_path(path);
        let is_free = old.contains_key(path) || is_absent(&scratch.work.join(at));
        ensure!(
            *mode != stage::SUBMODULE && is_free && is_unlinked(&scratch.work, at),
            "{} is in the way, or a submodule that changed",
            at.display()
        );
    }
    let disk = "write the working tree";
    for path in old.keys() {
        remove(&scratch.work, bytes_as_path(path)).context(disk)?;
    }
    for (path, (id, mode)) in &new {
        let content = scratch.repo.find_blob(*id).context("read a new file")?;
        let full = scratch.work.join(bytes_as_path(path));
        let found = write(&full, *mode, content.content()).context(disk)?;
        index.add(&stage::entry_of(path, *id, *mode, Some(&found)))?;
    }
    index.write().context("write the index")
}

/// What `one` has and `other` has not, or not so.
fn differing(one: &Entries, other: &Entries) -> Entries {
    let differs = |(path, entry): &(&Vec<u8>, &(Oid, u32))| other.get(*path) != Some(*entry);
    let found = one.iter().filter(differs);
    found.map(|(path, entry)| (path.clone(), *entry)).collect()
}

fn bytes_as_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

fn is_absent(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether every folder on the way is a directory or not there yet.
fn is_unlinked(work: &Path, path: &Path) -> bool {
    let mut at = work.to_owned();
    let folders = path.parent().unwrap_or(Path::new("")).components();
    folders.into_iter().all(|folder| {
        at.push(folder);
        matches!(folder, Component::Normal(_)) && (is_real_dir(&at) || is_absent(&at))
    })
}

/// Removes a file, and the folders that it leaves empty.
fn remove(work: &Path, path: &Path) -> io::Result<()> {
    fs::remove_file(work.join(path))?;
    let mut folders = path.ancestors().skip(1).filter(|f| *f != Path::new(""));
    while folders
        .next()
        .is_some_and(|folder| fs::remove_dir(work.join(folder)).is_ok())
    {}
    Ok(())
}

/// Creates a file or a link where nothing is.
fn write(full: &Path, mode: u32, content: &[u8]) -> io::Result<Metadata> {
    fs::create_dir_all(full.parent().unwrap_or(full))?;
    if mode == stage::LINK {
        symlink(bytes_as_path(content), full)?;
    } else {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true);
        let mut file = options.mode(stage::file_mode(mode) & 0o777).open(full)?;
        file.write_all(content)?;
    }
    full.symlink_metadata()
}
