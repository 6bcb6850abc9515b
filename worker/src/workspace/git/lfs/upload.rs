//! Content for the pointers that are about to be committed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use clawlink_shared::control::Failure;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::super::broken;
use super::super::http::GitAccess;
use super::api::{Actions, Api, BATCH, failed};
use super::{MAX_FILES, Pointer};

/// A file whose content the host shall have.
pub(in super::super) struct Content {
    /// What it holds.
    pub(in super::super) pointer: Pointer,
    /// Where it lies; a plain file.
    pub(in super::super) full: PathBuf,
}

/// Uploads what the host of `access` lacks. Answers for each of `contents` whether the host
/// has it now, in their order.
pub(in super::super) fn upload(
    access: &GitAccess,
    contents: &[Content],
    cancel: &CancellationToken,
) -> Vec<Result<(), Failure>> {
    let api = match Api::new(access, access.url(), cancel) {
        Ok(api) => api,
        Err(failure) => return contents.iter().map(|_| Err(failure.clone())).collect(),
    };
    let (wanted, excess) = contents.split_at(contents.len().min(MAX_FILES));
    let mut outcomes = Vec::new();
    for batch in wanted.chunks(BATCH) {
        // Files of the same content are one object.
        let objects: BTreeMap<_, _> = batch
            .iter()
            .map(|content| (&content.pointer.oid, content))
            .collect();
        let answer = api.ask("upload", objects.values().map(|content| &content.pointer));
        let done: BTreeMap<_, _> = objects
            .into_iter()
            .map(|(oid, content)| {
                let outcome = match &answer {
                    Ok(answer) => match answer.get(oid) {
                        Some(Ok(actions)) => send(&api, content, actions),
                        Some(Err(failure)) => Err(failure.clone()),
                        None => Err(failed("the git host says nothing about it")),
                    },
                    Err(failure) => Err(failure.clone()),
                };
                (oid, outcome)
            })
            .collect();
        outcomes.extend(
            batch
                .iter()
                .map(|content| done[&content.pointer.oid].clone()),
        );
    }
    outcomes.extend(excess.iter().map(|_| Err(failed("too many files"))));
    outcomes
}

/// Without an action, the host has the object already.
fn send(api: &Api<'_>, content: &Content, actions: &Actions) -> Result<(), Failure> {
    if let Some(action) = &actions.upload {
        api.act(Method::PUT, action, |request| {
            let request = request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, content.pointer.size);
            Ok(request.body(open(&content.full)?))
        })?;
    }
    match &actions.verify {
        Some(action) => api.verify(action, &content.pointer),
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<reqwest::Body, Failure> {
    let file = File::open(path).map_err(|error| broken("read the content", error))?;
    let stream = ReaderStream::new(tokio::fs::File::from_std(file));
    Ok(reqwest::Body::wrap_stream(stream))
}
