//! Which commits are new, and which objects they bring.
//!
//! libgit2's own walk does not know shallow commits; commits read one by one do.

use std::collections::{BinaryHeap, HashMap, HashSet};

use git2::{Error, ObjectType, Oid, Repository, Tree};

/// Commits reachable from `tip` and from none of `known`, newest first. `known` may name
/// commits that are not here; they are passed over. A wrong clock may add a few known ones.
pub(super) fn new_commits(repo: &Repository, tip: Oid, known: &[Oid]) -> Result<Vec<Oid>, Error> {
    let mut heap = BinaryHeap::new();
    let mut is_known: HashMap<Oid, bool> = HashMap::new();
    let mut open = 1_usize;
    // Newest first; of the same second, known ones first.
    heap.push((repo.find_commit(tip)?.time().seconds(), false, tip));
    is_known.insert(tip, false);
    for oid in known {
        if let Ok(commit) = repo.find_commit(*oid) {
            match is_known.insert(*oid, true) {
                Some(false) => open -= 1,
                Some(true) => {}
                None => heap.push((commit.time().seconds(), true, *oid)),
            }
        }
    }
    let mut found = Vec::new();
    // `open` counts the unknown commits in the heap: without any, the rest is known.
    while open > 0
        && let Some((_, _, oid)) = heap.pop()
    {
        let known_here = is_known[&oid];
        if !known_here {
            open -= 1;
            found.push(oid);
        }
        for parent in repo.find_commit(oid)?.parent_ids() {
            match is_known.get(&parent).copied() {
                Some(known_before) if known_here && !known_before => {
                    is_known.insert(parent, true);
                    // Still in the heap unless it was already reported as new.
                    if !found.contains(&parent) {
                        open -= 1;
                    }
                }
                Some(_) => {}
                None => {
                    let commit = match repo.find_commit(parent) {
                        Ok(commit) => commit,
                        Err(_) if known_here => continue,
                        Err(error) => return Err(error),
                    };
                    is_known.insert(parent, known_here);
                    open += usize::from(!known_here);
                    heap.push((commit.time().seconds(), known_here, parent));
                }
            }
        }
    }
    found.retain(|oid| !is_known[oid]);
    Ok(found)
}

/// Whether `ancestor` is one of `tips` or reachable from them. Exact, whatever the clocks of
/// those who committed said; tips that are not here are passed over.
pub(super) fn is_ancestor(repo: &Repository, ancestor: Oid, tips: &[Oid]) -> Result<bool, Error> {
    let mut seen: HashSet<Oid> = tips.iter().copied().collect();
    let mut heap: BinaryHeap<(i64, Oid)> = BinaryHeap::new();
    for tip in &seen {
        if let Ok(commit) = repo.find_commit(*tip) {
            heap.push((commit.time().seconds(), *tip));
        }
    }
    while !seen.contains(&ancestor) {
        let Some((_, oid)) = heap.pop() else {
            return Ok(false);
        };
        for parent in repo.find_commit(oid)?.parent_ids() {
            if seen.insert(parent) {
                heap.push((repo.find_commit(parent)?.time().seconds(), parent));
            }
        }
    }
    Ok(true)
}

/// An object that a commit brings.
pub(super) struct NewObject {
    pub(super) id: Oid,
    /// The commit that brings it; the object itself, if it is the commit.
    pub(super) commit: Oid,
    /// Where it is in that commit's tree; empty for the commit and its root.
    pub(super) path: Vec<u8>,
}

/// Each commit, and the objects that its first parent does not have.
pub(super) fn new_objects(repo: &Repository, commits: &[Oid]) -> Result<Vec<NewObject>, Error> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for id in commits {
        let commit = repo.find_commit(*id)?;
        let before = match commit.parent_count() {
            0 => None,
            _ => Some(commit.parent(0)?.tree()?),
        };
        let mut objects = vec![(*id, Vec::new())];
        add_tree(repo, commit.tree()?, before, &mut seen, &mut objects)?;
        let new = |(object, path)| NewObject {
            id: object,
            commit: *id,
            path,
        };
        found.extend(objects.into_iter().map(new));
    }
    Ok(found)
}

/// Adds `tree` without what `before` has; no recursion, because trees can nest at will.
fn add_tree<'r>(
    repo: &'r Repository,
    tree: Tree<'r>,
    before: Option<Tree<'r>>,
    seen: &mut HashSet<Oid>,
    objects: &mut Vec<(Oid, Vec<u8>)>,
) -> Result<(), Error> {
    let mut waiting = vec![(tree, before, Vec::new())];
    while let Some((tree, before, path)) = waiting.pop() {
        let is_old = before
            .as_ref()
            .is_some_and(|before| before.id() == tree.id());
        if is_old || !seen.insert(tree.id()) {
            continue;
        }
        objects.push((tree.id(), path.clone()));
        for entry in &tree {
            let old = before
                .as_ref()
                .and_then(|before| before.get_name_bytes(entry.name_bytes()));
            if old.as_ref().is_some_and(|old| old.id() == entry.id()) {
                continue;
            }
            let path = match path.as_slice() {
                [] => entry.name_bytes().to_vec(),
                above => [above, b"/", entry.name_bytes()].concat(),
            };
            match entry.kind() {
                Some(ObjectType::Tree) => {
                    let old = old.filter(|old| old.kind() == Some(ObjectType::Tree));
                    let old = old.map(|old| repo.find_tree(old.id())).transpose()?;
                    waiting.push((repo.find_tree(entry.id())?, old, path));
                }
                Some(ObjectType::Blob) if seen.insert(entry.id()) => {
                    objects.push((entry.id(), path));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
