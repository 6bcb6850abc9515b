//! No secret leaves inside an object of git: git compresses what it stores, and the archive's own
//! search reads files as they lie on the disk.
//!
//! Before the agent starts, it is remembered which objects there are. When the session is about
//! to be archived, those that came into being since are read and searched. If one holds a
//! secret, it goes, with everything that leads to it: branches go back to their last commit
//! without one, the working tree stays as it is, and what remembers more than references do
//! (reflogs, the index, a merge half done) is made anew or dropped. Then the repository is as
//! usable as it was, and the rest of the history is there.
//!
//! The repository is the agent's, so it is never opened: `files` lists what is there, `view`
//! shows libgit2 objects and nothing else, `search` reads them one by one. A repository that
//! cannot be looked through does not travel at all. What somebody hides on purpose (encrypted, or
//! under an object's name that was there before) is not found; what must never happen is that
//! ordinary use of git carries a secret into the storage, or that a repository has us read
//! outside of itself.

mod files;
mod graph;
mod mend;
mod references;
mod search;
mod view;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;

use self::files::{Files, Known};
use self::search::Search;
use self::view::View;
use crate::redact::Redactor;
use crate::workspace::root;

/// Most repositories in one working tree that are looked through; further ones do not travel.
const MAX_REPOSITORIES: usize = 256;

/// Deepest folder that is looked into; the archive goes no deeper.
const MAX_DEPTH: usize = 200;

/// The objects that were there before the agent.
#[derive(Debug, Default)]
pub struct Before {
    repositories: HashMap<PathBuf, Known>,
}

/// Remembers which objects the repositories of a working tree have. What cannot be remembered
/// is read later.
pub fn remember(work: &Path) -> Before {
    let known = |git_dir: PathBuf| {
        let files = Files::list(&git_dir.join("objects")).ok()?;
        Some((git_dir, files.known().ok()?))
    };
    let found = repositories(work).into_iter().take(MAX_REPOSITORIES);
    Before {
        repositories: found.filter_map(known).collect(),
    }
}

/// What to make safe to archive.
#[derive(Debug)]
pub struct CleanRequest<'a> {
    /// The working tree.
    pub work: &'a Path,
    /// A directory outside of the agent's reach.
    pub tmp: &'a Path,
    /// What was there before the agent.
    pub before: &'a Before,
    /// The known secrets.
    pub secrets: &'a Redactor,
}

/// Takes secrets out of what git stored in a working tree since `before`; says for people what
/// that changed, a name of which may be a secret itself. No process of the agent may run any more.
/// After a failure the tree must not be archived.
pub fn clean(request: &CleanRequest<'_>) -> Result<Vec<String>, Failure> {
    let mut search = Search::new(request.secrets);
    let mut notes = Vec::new();
    for (count, git_dir) in repositories(request.work).into_iter().enumerate() {
        let cleaned = match count {
            0..MAX_REPOSITORIES => clean_one(request, &git_dir, &mut search),
            _ => Err(anyhow::anyhow!("there are too many repositories")),
        };
        match cleaned {
            Ok(more) => notes.extend(more),
            Err(error) => {
                let shown = git_dir.strip_prefix(request.work).unwrap_or(&git_dir);
                let shown = shown.display();
                root::remove(&git_dir).map_err(|error| {
                    let message = format!("the session is not saved: remove {shown}: {error}");
                    Failure::new(ErrorCode::StorageError, message)
                })?;
                notes.push(format!(
                    "left out of the session: {shown}, because it cannot be looked through for \
                     secrets ({error:#})"
                ));
            }
        }
    }
    Ok(notes)
}

fn clean_one(
    request: &CleanRequest<'_>,
    git_dir: &Path,
    search: &mut Search<'_>,
) -> Result<Vec<String>> {
    let objects = git_dir.join("objects");
    let files = Files::list(&objects)?;
    for junk in &files.junk {
        remove(junk).context("remove what a git that was killed left")?;
    }
    let nothing = Known::default();
    let known = request.before.repositories.get(git_dir);
    let known = known.unwrap_or(&nothing);
    let new = files.new_objects(known)?;
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let view = View::open(&objects, &files.packs, request.tmp)?;
    let hits = search.hits(&view.repo, &new)?;
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let stored = mend::Stored {
        git_dir,
        tmp: request.tmp,
        files: &files,
        view: &view,
        known,
    };
    let new = new.into_iter().collect();
    mend::mend(&stored, &new, hits)
}

/// The directories of all repositories below a folder, also of bare ones and of those inside
/// others. A `.git` that is a file leads elsewhere: what is there is found by itself, or does
/// not travel.
fn repositories(work: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![(work.to_owned(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        let (mut has_objects, mut has_head, mut inside) = (false, false, Vec::new());
        for entry in entries.flatten() {
            let name = entry.file_name();
            has_head |= name == "HEAD";
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                has_objects |= name == "objects";
                inside.push(name);
            }
        }
        let is_named = folder.file_name().is_some_and(|name| name == ".git");
        let is_repository = has_objects && (has_head || is_named);
        if depth < MAX_DEPTH {
            let inside = inside.into_iter();
            let inside = inside.filter(|name| !is_repository || name != "objects");
            waiting.extend(inside.map(|name| (folder.join(name), depth + 1)));
        }
        if is_repository {
            found.push(folder);
        }
    }
    // Those outside before those inside, which go with them.
    found.sort_unstable();
    found
}

/// Removes a file, a link or a folder; what is not there is not missed.
fn remove(path: &Path) -> Result<()> {
    let Ok(found) = path.symlink_metadata() else {
        return Ok(());
    };
    match found.is_dir() {
        true => root::remove(path)?,
        false => fs::remove_file(path)?,
    }
    ensure!(path.symlink_metadata().is_err(), "it is still there");
    Ok(())
}
