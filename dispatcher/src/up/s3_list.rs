//! Listing the built-in S3's objects: a walk that begins in the folder that the prefix names, so
//! that its cost is that of the folder and never that of the bucket.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output,
    MultipartUpload, Object, Timestamp,
};
use s3s::{S3Result, s3_error};

/// Keys of one answer, unless fewer are asked for.
const MAX_KEYS: i32 = 1000;

/// One page of a bucket's objects, in order of their keys. Grouping by a delimiter is refused.
pub(super) async fn list(root: &Path, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    if input.delimiter.is_some() {
        return Err(s3_error!(NotImplemented, "delimiters are not supported"));
    }
    let bucket = root.join(&input.bucket);
    let prefix = input.prefix.clone().unwrap_or_default();
    let walk = move || walk(&bucket, &prefix);
    let walked = tokio::task::spawn_blocking(walk).await;
    let mut found = walked
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| {
            tracing::error!("list objects: {error}");
            s3_error!(InternalError, "the objects could not be listed")
        })?;
    // A token is the last key that was answered.
    if let Some(after) = input
        .continuation_token
        .as_ref()
        .max(input.start_after.as_ref())
    {
        found.retain(|object| object.key.as_ref() > Some(after));
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
    let is_truncated = found.len() > max_keys as usize;
    found.truncate(max_keys as usize);
    let last = found.last().and_then(|object| object.key.clone());
    Ok(ListObjectsV2Output {
        key_count: i32::try_from(found.len()).ok(),
        max_keys: Some(max_keys),
        is_truncated: Some(is_truncated),
        next_continuation_token: last.filter(|_| is_truncated),
        contents: Some(found),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        prefix: input.prefix,
        start_after: input.start_after,
        ..Default::default()
    })
}

/// All objects whose key begins with `prefix`, in any order.
fn walk(bucket: &Path, prefix: &str) -> io::Result<Vec<Object>> {
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    // No key has such a part, so nothing is there; and a walk must not leave the bucket.
    let climbs = |part: &str| part.is_empty() || part == "." || part == "..";
    if prefix.contains('/') && folder.split('/').any(climbs) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(bucket.join(&folder)) {
            Err(error) if is_gone(&error) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let key = match folder.as_str() {
                "" => name.to_owned(),
                folder => format!("{folder}/{name}"),
            };
            if !key.starts_with(prefix) {
                continue;
            }
            let metadata = match entry.metadata() {
                Err(error) if is_gone(&error) => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                folders.push(key);
                continue;
            }
            found.push(Object {
                key: Some(key),
                last_modified: Some(Timestamp::from(metadata.modified()?)),
                size: i64::try_from(metadata.len()).ok(),
                ..Default::default()
            });
        }
    }
    Ok(found)
}

/// The uploads in parts of the object that the prefix names in full. They are found by what the
/// storage library keeps of each beside the bucket.
pub(super) async fn uploads(
    root: &Path,
    input: ListMultipartUploadsInput,
) -> S3Result<ListMultipartUploadsOutput> {
    let Some(key) = input.prefix.clone().filter(|key| !key.is_empty()) else {
        return Err(s3_error!(
            NotImplemented,
            "uploads are listed of one object: name its key as the prefix"
        ));
    };
    let (root, bucket) = (root.to_owned(), input.bucket.clone());
    let open = move || open_uploads(&root, &bucket, &key);
    let open = tokio::task::spawn_blocking(open).await;
    let found = open.map_err(io::Error::other).flatten().map_err(|error| {
        tracing::error!("list uploads: {error}");
        s3_error!(InternalError, "the uploads could not be listed")
    })?;
    Ok(ListMultipartUploadsOutput {
        is_truncated: Some(false),
        uploads: Some(found),
        bucket: Some(input.bucket),
        prefix: input.prefix,
        ..Default::default()
    })
}

fn open_uploads(root: &Path, bucket: &str, key: &str) -> io::Result<Vec<MultipartUpload>> {
    let [in_bucket, of_key] = [bucket, key].map(|name| URL_SAFE_NO_PAD.encode(name));
    let before = format!(".bucket-{in_bucket}.object-{of_key}.upload-");
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(&before));
        let Some(id) = id.and_then(|rest| rest.strip_suffix(".metadata.json")) else {
            continue;
        };
        // What was joined or aborted has lost this one first.
        if root.join(format!(".upload-{id}.json")).exists() {
            found.push(MultipartUpload {
                key: Some(key.to_owned()),
                upload_id: Some(id.to_owned()),
                ..Default::default()
            });
        }
    }
    Ok(found)
}

/// Not there, deleted meanwhile, or an object where a folder was named.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bucket: &Path, prefix: &str) -> Vec<String> {
        let found = walk(bucket, prefix).expect("listed");
        let mut keys: Vec<String> = found.into_iter().filter_map(|object| object.key).collect();
        keys.sort();
        keys
    }

    #[test]
    fn a_prefix_names_a_folder_a_part_of_a_name_or_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let bucket = root.path().join("bucket");
        for key in ["a/1", "a/b/2", "ab/3", "c"] {
            let path = bucket.join(key);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "x").expect("written");
        }
        fs::write(root.path().join("outside"), "x").expect("written");
        assert_eq!(keys(&bucket, ""), ["a/1", "a/b/2", "ab/3", "c"]);
        assert_eq!(keys(&bucket, "a"), ["a/1", "a/b/2", "ab/3"]);
        assert_eq!(keys(&bucket, "a/"), ["a/1", "a/b/2"]);
        assert_eq!(keys(&bucket, "a/b"), ["a/b/2"]);
        for nothing in ["d/", "c/", "../", "a/../../", "/", "//", "/a/", "./"] {
            assert!(keys(&bucket, nothing).is_empty(), "{nothing}");
        }
    }
}
