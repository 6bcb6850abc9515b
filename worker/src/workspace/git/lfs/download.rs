//! Content for the pointers of a fresh checkout.
//!
//! Content is written beside its pointer, checked against the pointer's hash and size, and only
//! then put in its place. The index keeps the pointer with the new file's facts, so that git
//! sees an unchanged file without any filter being configured.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clawlink_shared::control::Failure;
use git2::{AttrCheckFlags, Index, ObjectType, Oid, Repository};
use reqwest::{Method, Url};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::super::http::GitAccess;
use super::super::{broken, dotgit, list, stage, stopped, tree};
use super::api::{Actions, Api, BATCH, failed};
use super::{CHUNK, MAX_FILES, MAX_POINTER, Pointer, Sum, has_filter};

/// How far back content is dated: git distrusts files that are as young as its index.
const OLDER: Duration = Duration::from_secs(5);

/// A pointer in the working tree.
struct Found {
    path: PathBuf,
    blob: Oid,
    mode: u32,
    pointer: Pointer,
}

/// Replaces the pointers of `tip` by content, as far as `bytes_left` goes; says which were
/// left, and why. Fails if it was stopped, or if the disk does.
pub(in super::super) fn download(
    access: &GitAccess,
    url: &Url,
    (repo, tip): (&Repository, Oid),
    bytes_left: &mut u64,
    cancel: &CancellationToken,
) -> Result<Option<String>, Failure> {
    let found = pointers(repo, tip);
    let (Some(work), false) = (repo.workdir(), found.is_empty()) else {
        return Ok(None);
    };
    let git = |error: git2::Error| broken("open the index", error.message());
    let api = Api::new(access, url, cancel)?;
    let mut index = repo.index().map_err(git)?;
    let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut leave = |file: &Found, why: &str| {
        let paths = left.entry(why.to_owned()).or_default();
        paths.push(file.path.display().to_string());
    };
    let (wanted, excess) = found.split_at(found.len().min(MAX_FILES));
    for batch in wanted.chunks(BATCH) {
        let answer = api.ask("download", batch.iter().map(|file| &file.pointer));
        for file in batch {
            let actions = match &answer {
                Ok(answer) => answer.get(&file.pointer.oid),
                Err(failure) => Some(&Err(failure.clone())),
            };
            let placed = match actions {
                Some(Ok(actions)) => place(&api, work, file, actions, bytes_left, &mut index),
                Some(Err(failure)) => Err(failure.clone()),
                None => Err(failed("the git host says nothing about it")),
            };
            if let Err(failure) = placed {
                leave(file, &failure.message);
            }
            if cancel.is_cancelled() {
                return Err(stopped());
            }
        }
    }
    for file in excess {
        leave(file, "too many files");
    }
    index.write().map_err(git)?;
    Ok(note(&left))
}

/// Pointers at LFS paths; one with lines that we would not write has extensions, which only
/// their owner can run.
fn pointers(repo: &Repository, tip: Oid) -> Vec<Found> {
    let mut found = Vec::new();
    let Ok(odb) = repo.odb() else { return found };
    // A tree that cannot be read fails the checkout itself; there is nothing to add here.
    let _unreadable = tree::walk(repo, tip, |path, entry| {
        let is_small = entry.kind() == Some(ObjectType::Blob)
            && odb
                .read_header(entry.id())
                .is_ok_and(|(size, _)| size <= MAX_POINTER);
        let mode = entry.filemode().cast_unsigned();
        if is_small
            && mode != stage::LINK
            && let Ok(blob) = repo.find_blob(entry.id())
            && let Some(pointer) = Pointer::parse(blob.content())
            && pointer.text().as_bytes() == blob.content()
        {
            found.push(Found {
                path: PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())),
                blob: entry.id(),
                mode: stage::file_mode(mode),
                pointer,
            });
        }
        Ok(())
    });
    found.retain(|file| has_filter(repo, &file.path, AttrCheckFlags::INDEX_ONLY));
    found
}

/// Downloads one object and puts it in the place of its pointer.
fn place(
    api: &Api<'_>,
    work: &Path,
    file: &Found,
    actions: &Actions,
    bytes_left: &mut u64,
    index: &mut Index,
) -> Result<(), Failure> {
    let action = actions
        .download
        .as_ref()
        .ok_or_else(|| failed("the git host does not have it"))?;
    let Some(rest) = bytes_left.checked_sub(file.pointer.size) else {
        return Err(failed("it exceeds the bytes that a session may hold"));
    };
    let full = work.join(&file.path);
    let is_as_committed = dotgit::is_real_path(work, &file.path)
        && full.symlink_metadata().is_ok_and(|found| found.is_file())
        && fs::read(&full).is_ok_and(|content| content == file.pointer.text().as_bytes());
    if !is_as_committed {
        return Err(failed("its file is not as it is in the commit"));
    }
    let body = api.act(Method::GET, action, Ok)?;
    let disk = |error: io::Error| broken("write the content", error);
    let beside = full.parent().unwrap_or(work);
    let mut content = NamedTempFile::new_in(beside).map_err(disk)?;
    receive(api, body, &mut content, &file.pointer)?;
    let settle = || -> io::Result<fs::Metadata> {
        let plain = content.as_file();
        plain.set_permissions(full.metadata()?.permissions())?;
        plain.set_modified(SystemTime::now() - OLDER)?;
        content.persist(&full)?;
        full.symlink_metadata()
    };
    let written = settle().map_err(disk)?;
    *bytes_left = rest;
    let name = file.path.as_os_str().as_bytes();
    index
        .add(&stage::entry_of(name, file.blob, file.mode, Some(&written)))
        .map_err(|error| broken("update the index", error.message()))
}

fn receive(
    api: &Api<'_>,
    mut body: impl Read,
    into: &mut NamedTempFile,
    wanted: &Pointer,
) -> Result<(), Failure> {
    let mut sum = Sum::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = body
            .read(&mut chunk)
            .map_err(|error| failed(format!("its content broke off: {error}")))?;
        sum.add(&chunk[..count]);
        if sum.size > wanted.size || count == 0 {
            break;
        }
        api.check_time()?;
        into.write_all(&chunk[..count])
            .map_err(|error| broken("write the content", error))?;
    }
    match sum.pointer() == *wanted {
        true => Ok(()),
        false => Err(failed("what came is not what the pointer stands for")),
    }
}

fn note(left: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let groups = left
        .iter()
        .map(|(why, paths)| format!("{} ({why})", list(paths)));
    let groups: Vec<String> = groups.take(super::MAX_REASONS).collect();
    let count: usize = left.values().map(Vec::len).sum();
    (count > 0).then(|| {
        format!(
            "{count} Git LFS files were left as pointers, without their content: {}",
            groups.join("; ")
        )
    })
}
