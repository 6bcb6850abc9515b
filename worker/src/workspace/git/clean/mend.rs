//! Making a repository whole again without the objects that must not travel. Whatever of it may
//! hold one by another name (other packs, lists of commits, reflogs) goes too; only what is
//! named here stays.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use git2::{Index, OdbLookupFlags, Oid};

use super::files::{Files, Known, Pack};
use super::graph::Graph;
use super::references::{Moved, References};
use super::remove;
use super::view::View;
use crate::workspace::git::{dotgit, list};

/// What stays of a git directory; of these, `HEAD`, references, objects and index are made anew.
const KEPT: [&str; 12] = [
    "HEAD",
    "config",
    "description",
    "hooks",
    "index",
    "info",
    "lfs",
    "modules",
    "objects",
    "packed-refs",
    "refs",
    "shallow",
];

/// Most branches that are told of.
const MAX_TOLD: usize = 10;

/// A repository that holds what must not travel.
pub(super) struct Stored<'a> {
    pub(super) git_dir: &'a Path,
    /// A directory outside of the agent's reach.
    pub(super) tmp: &'a Path,
    pub(super) files: &'a Files,
    /// All its objects.
    pub(super) view: &'a View,
    pub(super) known: &'a Known,
}

/// Takes `hits` out, which are among the `new` objects; says for people what that changed.
pub(super) fn mend(
    stored: &Stored<'_>,
    new: &HashSet<Oid>,
    mut hits: HashSet<Oid>,
) -> Result<Vec<String>> {
    let repo = &stored.view.repo;
    let graph = Graph::of(repo, new, &mut hits);
    let index = stored.view.path().join("index-of-agent");
    let index = dotgit::index_of_agent(stored.git_dir, &index)?;
    let names = graph.name(&hits, index.as_ref());
    let mut references = References::read(stored.git_dir)?;
    let moved = references.go_back(repo, &graph.above(&hits));
    let kept = graph.below(&references.tips());
    write_index(stored, references.head_commit())?;
    keep_objects(stored, new, &kept)?;
    references.write(stored.git_dir)?;
    for entry in fs::read_dir(stored.git_dir).context("list the repository")? {
        let entry = entry.context("list the repository")?;
        if !KEPT.iter().any(|name| entry.file_name() == *name) {
            remove(&entry.path()).context("remove what remembers commits")?;
        }
    }
    let mut notes = vec![format!(
        "left out of the session's git history: {} (a secret is in it, or cannot be ruled out)",
        list(&names)
    )];
    notes.extend(moved.iter().take(MAX_TOLD).map(told));
    Ok(notes)
}

fn told(moved: &Moved) -> String {
    let Moved { name, to } = moved;
    match to {
        Some(to) => format!(
            "in the saved session {name} is back at commit {}, its last without a secret; the files \
             of the working tree stay, uncommitted",
            &to.to_string()[..7]
        ),
        None => format!("in the saved session {name} has no commit any more: each holds a secret"),
    }
}

/// Keeps what was there before and the new objects `kept`.
fn keep_objects(stored: &Stored<'_>, new: &HashSet<Oid>, kept: &HashSet<Oid>) -> Result<()> {
    let objects = stored.git_dir.join("objects");
    let packs = stored.files.packs.iter().cloned();
    let (old, changed): (Vec<Pack>, Vec<Pack>) =
        packs.partition(|pack| stored.known.has_pack(pack));
    for (id, file) in &stored.files.loose {
        if new.contains(id) && !kept.contains(id) {
            remove(file).context("remove an object")?;
        }
    }
    if !changed.is_empty() {
        // What else they hold gets a pack of its own.
        let rest = View::open(&objects, &old, stored.tmp)?;
        let there = rest.repo.odb().context("read objects")?;
        let mut pack = stored.view.repo.packbuilder().context("make a pack")?;
        pack.set_threads(1);
        let mut failed = Ok(());
        for changed in &changed {
            changed.each(|id| {
                let is_wanted = stored.known.has(&id) || kept.contains(&id);
                let is_there = there.exists_ext(id, OdbLookupFlags::NO_REFRESH);
                if is_wanted && !is_there && failed.is_ok() {
                    failed = pack.insert_object(id, None);
                }
            })?;
        }
        failed.context("make a pack")?;
        let folder = objects.join("pack");
        let made = stored.view.path().join("made");
        fs::create_dir(&made).context("make a pack")?;
        if pack.object_count() > 0 {
            pack.write(&made, 0).context("write a pack")?;
        }
        for entry in fs::read_dir(&folder).context("list packs")? {
            let path = entry.context("list packs")?.path();
            let is_old = old
                .iter()
                .any(|old| old.file.file_stem() == path.file_stem());
            if !is_old {
                remove(&path).context("remove a pack")?;
            }
        }
        for entry in fs::read_dir(&made).context("list packs")? {
            let entry = entry.context("list packs")?;
            fs::copy(entry.path(), folder.join(entry.file_name())).context("move a pack")?;
        }
    }
    // Lists of what is there, which name what is not there any more.
    for list in ["info/commit-graph", "info/commit-graphs", "info/packs"] {
        remove(&objects.join(list)).context("remove a list of objects")?;
    }
    for list in ["pack/multi-pack-index", "pack/multi-pack-index.d"] {
        remove(&objects.join(list)).context("remove a list of objects")?;
    }
    Ok(())
}

/// An index of the commit that `HEAD` is at, where there was an index.
fn write_index(stored: &Stored<'_>, head: Option<Oid>) -> Result<()> {
    let path = stored.git_dir.join("index");
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let Some(head) = head else {
        return remove(&path).context("remove the index");
    };
    let new = stored.view.path().join("index");
    let write = || -> Result<(), git2::Error> {
        let tree = stored.view.repo.find_commit(head)?.tree()?;
        let mut index = Index::open(&new)?;
        index.read_tree(&tree)?;
        index.write()
    };
    write().context("make a new index")?;
    let bytes = fs::read(&new).context("make a new index")?;
    dotgit::replace(stored.git_dir, Path::new("index"), &bytes)
}
