//! Git LFS: pointers stay pointers.
//!
//! Content of an LFS path is never committed into the repository itself: a path whose
//! content is not a pointer is left out of the commit, and said so.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use git2::{AttrCheckFlags, AttrValue, ObjectType, Oid, Repository};
use sha2::{Digest as _, Sha256};

use super::tree;

/// How every pointer begins.
const MARK: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// A file larger than this is no pointer, in bytes.
const MAX_POINTER: usize = 1024;

/// Whether `content` is a pointer.
pub(super) fn is_pointer(content: &[u8]) -> bool {
    content.len() <= MAX_POINTER && content.starts_with(MARK)
}

/// Whether the attributes in the working tree give `path` to LFS.
pub(super) fn is_lfs_path(repo: &Repository, path: &Path) -> bool {
    let value = repo.get_attr_bytes(path, "filter", AttrCheckFlags::FILE_THEN_INDEX);
    value.is_ok_and(|value| AttrValue::from_bytes(value) == AttrValue::String("lfs"))
}

/// Whether `file` holds exactly what `pointer` stands for.
pub(super) fn is_content_of(file: &Path, pointer: &[u8]) -> io::Result<bool> {
    let pointer = String::from_utf8_lossy(pointer);
    let Some(wanted) = pointer
        .lines()
        .find_map(|line| line.strip_prefix("oid sha256:"))
    else {
        return Ok(false);
    };
    let mut hash = Sha256::new();
    let mut reader = File::open(file)?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = reader.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
    }
    let found: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(found == wanted.trim())
}

/// Says how many pointers a fresh checkout holds in place of content.
pub(super) fn note_pointers(repo: &Repository, tip: Oid) -> Option<String> {
    let odb = repo.odb().ok()?;
    let mut pointers = 0_u64;
    // A tree that cannot be read fails the checkout itself; there is nothing to add here.
    let _unreadable = tree::walk(repo, tip, |_, entry| {
        let is_small = entry.kind() == Some(ObjectType::Blob)
            && odb
                .read_header(entry.id())
                .is_ok_and(|(size, _)| size <= MAX_POINTER);
        if is_small
            && repo
                .find_blob(entry.id())
                .is_ok_and(|blob| is_pointer(blob.content()))
        {
            pointers += 1;
        }
        Ok(())
    });
    (pointers > 0).then(|| {
        format!("{pointers} files are Git LFS pointers; they were left as pointers, without their content.")
    })
}
