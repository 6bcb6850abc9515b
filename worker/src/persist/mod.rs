//! Session archives: what of a session travels to another worker, and how it gets there.
//!
//! ```text
//! save:    tree ─▶ walk, rules, secrets ─▶ tar ─▶ zstd ─▶ chunks ═▶ parts ─▶ presigned PUTs
//! restore: presigned GET ═▶ chunks ─▶ zstd ─▶ tar ─▶ checks ─▶ tree
//! ```
//!
//! Left of `═▶` a blocking thread, right of it the async side (and the reverse); between them
//! a bounded channel, so that a tree of any size passes through bounded memory. Only two
//! things travel: `work/` and the folders of agent state in [`exclude`]; scratch, the rest of
//! the agent's home, credentials and sockets never do. Both directions treat the tree and the
//! archive as hostile: nothing is opened or written through a symbolic link, nothing outside
//! the session root is touched, an archive that is not wholly sound leaves nothing behind.

mod chunks;
mod download;
mod entry;
pub mod exclude;
mod ignored;
mod notes;
mod pack;
mod read;
mod unpack;
mod upload;
mod writer;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawlink_shared::control::{
    ArchiveDone, ArchiveFinish, ArchiveGrant, ArchiveRequest, ArchiveSource, Failure, PartUrls,
    PartsRequest,
};
use clawlink_shared::execution::ErrorCode;
use tokio_util::sync::CancellationToken;

use crate::redact::Redactor;

/// Deepest nesting of directories in an archive; what lies deeper is left out, or refused.
const MAX_DEPTH: usize = 200;

/// Tries of one transfer (a part, or a download as a whole) before giving up.
const MAX_TRIES: u32 = 8;

/// Wait after the first failed try; doubled after each further one, 25 s in all.
const RETRY_BASE: Duration = Duration::from_millis(200);

/// The dispatcher's side of archiving; answers of the worker API's `archive…` calls. Errors
/// are final: whoever implements this retries what can be retried.
pub trait ArchiveApi: Sync {
    /// Asks where to upload; asking again renews.
    fn grant(
        &self,
        request: ArchiveRequest,
    ) -> impl Future<Output = Result<ArchiveGrant, Failure>> + Send;

    /// Asks for more part URLs, or for renewed ones.
    fn parts(
        &self,
        request: PartsRequest,
    ) -> impl Future<Output = Result<PartUrls, Failure>> + Send;

    /// Joins the uploaded parts.
    fn finish(&self, request: ArchiveFinish) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Asks for a fresh URL of the session's current archive.
    fn source(&self) -> impl Future<Output = Result<ArchiveSource, Failure>> + Send;
}

/// The way to the object storage.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Follows no redirects that would carry a presigned URL elsewhere.
    pub http: reqwest::Client,
    /// Wait after the first failed try; doubled after each further one.
    pub retry_base: Duration,
}

impl Storage {
    /// With the usual patience.
    pub fn new(http: reqwest::Client) -> Self {
        Self {
            http,
            retry_base: RETRY_BASE,
        }
    }

    /// Waits before the try after the `tries`-th.
    async fn back_off(&self, tries: u32) {
        tokio::time::sleep(self.retry_base * 2u32.pow(tries.saturating_sub(1))).await;
    }
}

/// What to save.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// `<root>/session-{uuid}`.
    pub session_root: PathBuf,
    /// Where an agent of the workspace's own keeps its state: a plain path below HOME.
    pub own_state: Option<String>,
    /// Whether files that git ignores travel too.
    pub include_ignored: bool,
    /// Most bytes of content, uncompressed; a larger session is not saved.
    pub max_bytes: u64,
    /// Most files, links and directories; a session with more is not saved.
    pub max_files: u64,
    /// The known secrets.
    pub secrets: Redactor,
}

/// Bounds of what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreLimits {
    /// Most bytes of content, uncompressed.
    pub max_bytes: u64,
    /// Most files, links and directories.
    pub max_files: u64,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of content, uncompressed.
    pub bytes: u64,
    /// Files, links and directories.
    pub files: u64,
}

/// Archives and uploads a session. The second part of the answer is for people: what was left
/// out or overwritten, and why. A failure leaves the session's previous archive current.
pub async fn save(
    storage: &Storage,
    api: &impl ArchiveApi,
    request: SaveRequest,
) -> Result<(ArchiveDone, Vec<String>), Failure> {
    let (writer, chunks) = chunks::outgoing();
    let packing = tokio::task::spawn_blocking(move || pack::pack(&request, writer));
    let uploaded = upload::upload(storage, api, chunks).await;
    let packed = packing
        .await
        .map_err(|_| Failure::new(ErrorCode::InternalError, "packing the session crashed"))?;
    // A failed upload makes packing fail as well, hence comes first.
    let key = uploaded?;
    let packed = packed?;
    let key = key.ok_or_else(|| {
        Failure::new(ErrorCode::InternalError, "the archive ended before its end")
    })?;
    let done = ArchiveDone {
        key,
        size: packed.size,
        sha256: packed.sha256,
    };
    Ok((done, packed.notes))
}

/// Downloads a session's archive and unpacks it below `session_root`, whose `work` and `home`
/// must be absent or empty. On failure both are removed: `session_unavailable` says that the
/// archive itself cannot be used, `storage_error` that it could not be fetched or written,
/// `interrupted` that `cancel` was cancelled.
pub async fn restore(
    storage: &Storage,
    api: &impl ArchiveApi,
    source: &ArchiveSource,
    session_root: &Path,
    limits: RestoreLimits,
    cancel: &CancellationToken,
) -> Result<Restored, Failure> {
    let (sender, reader) = chunks::incoming(source);
    let root = session_root.to_owned();
    let span = tracing::Span::current();
    let unpacking = tokio::task::spawn_blocking(move || {
        let _entered = span.entered();
        let unpacked = unpack::unpack(reader, &root, limits);
        if unpacked.is_err() {
            unpack::remove(&root);
        }
        unpacked
    });
    // Without the other end of its channel, unpacking ends as well.
    let downloaded = tokio::select! {
        downloaded = download::download(storage, api, source, sender) => downloaded,
        () = cancel.cancelled() => Err(Failure::new(ErrorCode::Interrupted, "stopped on request")),
    };
    let unpacked = unpacking
        .await
        .map_err(|_| Failure::new(ErrorCode::InternalError, "unpacking the session crashed"))?;
    // An aborted download makes unpacking fail as well, hence comes first.
    downloaded?;
    unpacked
}

/// A failure of transfer or disk.
fn storage_error(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::StorageError, message)
}

/// A failure of content.
fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::SessionUnavailable, message)
}
