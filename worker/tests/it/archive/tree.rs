//! Trees on disk: written from a description, read back into one that can be compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file, directory or link as it is compared: kind, mode, time, content or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thing {
    kind: &'static str,
    mode: u32,
    mtime: i64,
    content: Vec<u8>,
}

/// All that is below a directory, by relative path.
pub(super) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Thing> {
    let mut all = BTreeMap::new();
    let mut rest = vec![root.to_owned()];
    while let Some(path) = rest.pop() {
        let data = path.symlink_metadata().unwrap();
        let (kind, content) = if data.is_symlink() {
            let target = path.read_link().unwrap();
            ("link", target.as_os_str().as_bytes().to_vec())
        } else if data.is_dir() {
            rest.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            ("directory", Vec::new())
        } else {
            ("file", std::fs::read(&path).unwrap())
        };
        let thing = Thing {
            kind,
            mode: data.mode(),
            mtime: data.mtime(),
            content,
        };
        all.insert(path.strip_prefix(root).unwrap().to_owned(), thing);
    }
    all
}

/// Writes a file with its parents.
pub(super) fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Makes a link with its parents.
pub(super) fn link(root: &Path, path: &str, target: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(OsStr::from_bytes(target), path).unwrap();
}

/// Sets permission bits and a time of so many seconds.
pub(super) fn dress(path: &Path, mode: u32, mtime: u64) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime);
    std::fs::File::open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// Bytes that do not compress.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
