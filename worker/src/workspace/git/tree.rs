//! Walking a commit's tree: any file name, any nesting, bounded.

use git2::{Error, ObjectType, Oid, Repository, TreeEntry};

/// Most entries of one tree, folders included; a small pack can describe billions.
const MAX_ENTRIES: usize = 2_000_000;

/// Calls `visit` with the path of every entry below the root tree of a commit.
pub(super) fn walk(
    repo: &Repository,
    commit: Oid,
    mut visit: impl FnMut(&[u8], &TreeEntry<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut seen = 0;
    let mut waiting = vec![(Vec::new(), repo.find_commit(commit)?.tree_id())];
    while let Some((folder, id)) = waiting.pop() {
        for entry in &repo.find_tree(id)? {
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(Error::from_str("the tree has too many entries"));
            }
            let path = [folder.as_slice(), entry.name_bytes()].concat();
            visit(&path, &entry)?;
            if entry.kind() == Some(ObjectType::Tree) {
                waiting.push(([path.as_slice(), b"/"].concat(), entry.id()));
            }
        }
    }
    Ok(())
}
