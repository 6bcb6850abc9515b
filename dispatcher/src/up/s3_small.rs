//! Writing a small object: one file, synced, moved into place.
//!
//! `s3s-fs` writes three files for each object: what it keeps beside them (checksum, user's
//! metadata) costs more than a log of a few hundred bytes, and nothing here reads it. Of an
//! object without side files it computes the checksum when it is read, which is why this is
//! for small ones only. A write is either all there or not at all, also after a crash.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bytes::BytesMut;
use futures::TryStreamExt;
use s3s::dto::PutObjectInput;
use s3s::dto::StreamingBlob;
use uuid::Uuid;

/// Largest object that is written this way, in bytes.
const MAX_BYTES: i64 = 256 * 1024;

/// Whether the object is small, and comes with nothing that would have to be kept beside it.
pub(super) fn is_small(input: &PutObjectInput) -> bool {
    let is_plain = input.metadata.is_none()
        && input.content_md5.is_none()
        && input.checksum_algorithm.is_none()
        && input.checksum_crc32.is_none()
        && input.checksum_crc32c.is_none()
        && input.checksum_crc64nvme.is_none()
        && input.checksum_sha1.is_none()
        && input.checksum_sha256.is_none();
    let is_object = !input.key.ends_with('/');
    let fits = input
        .content_length
        .is_some_and(|bytes| (0..=MAX_BYTES).contains(&bytes));
    is_plain && is_object && fits
}

/// The whole body; an error if it is longer than [`MAX_BYTES`] or breaks off.
pub(super) async fn gather(mut body: StreamingBlob) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.try_next().await.map_err(io::Error::other)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as i64 > MAX_BYTES {
            return Err(io::Error::other("the body is longer than it said"));
        }
    }
    Ok(bytes)
}

/// Writes `bytes` as `object`, below `root`, and removes what was `beside` an earlier one.
pub(super) fn write(
    root: &Path,
    object: &Path,
    beside: &[impl AsRef<Path>],
    bytes: &[u8],
) -> io::Result<()> {
    // The name is one that the storage removes at its next start.
    let unfinished = root.join(format!(".tmp.{}.internal.part", Uuid::new_v4()));
    let written = move_in(root, &unfinished, object, beside, bytes);
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn move_in(
    root: &Path,
    unfinished: &Path,
    object: &Path,
    beside: &[impl AsRef<Path>],
    bytes: &[u8],
) -> io::Result<()> {
    let mut file = File::create_new(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let folder = object.parent().unwrap_or(root);
    let made: Vec<&Path> = object
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(root) && !folder.exists())
        .collect();
    fs::create_dir_all(folder)?;
    for side in beside {
        match fs::remove_file(side) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(unfinished, object)?;
    File::open(folder)?.sync_all()?;
    for parent in made.iter().filter_map(|folder| folder.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn an_object_replaces_an_earlier_one_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().expect("a directory");
        let object = root.path().join("bucket/a/b/log");
        let side = root.path().join("side");
        std::fs::write(&side, "of the earlier one").expect("written");
        for text in ["first", "second, and longer"] {
            write(root.path(), &object, &[&side], text.as_bytes()).expect("written");
            assert_eq!(std::fs::read_to_string(&object).expect("there"), text);
        }
        let names = std::fs::read_dir(root.path()).expect("read");
        let names: Vec<_> = names
            .map(|one| one.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["bucket"]);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        // A folder stands where the object should.
        let object = root.path().join("bucket/a");
        std::fs::create_dir_all(object.join("b")).expect("made");
        let none: [&str; 0] = [];
        write(root.path(), &object, &none, b"x").expect_err("cannot replace a folder");
        assert_eq!(std::fs::read_dir(root.path()).expect("read").count(), 1);
    }
}
