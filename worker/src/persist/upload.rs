//! Sending an archive to presigned URLs: as one object when it is small, else in parts, a few
//! at a time. A part is kept in memory until the storage has it, so that it can be sent again.
//!
//! No error text holds a URL: a presigned one is a credential.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clawlink_shared::control::{
    ARCHIVE_PART_BYTES, ArchiveFinish, ArchiveGrant, ArchiveRequest, Failure, PartDone, PartUrl,
    PartsRequest,
};
use clawlink_shared::secret::Secret;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::ETAG;
use tokio::sync::{Mutex, mpsc};

use super::chunks::Chunk;
use super::{ArchiveApi, MAX_TRIES, Storage, storage_error};

/// Largest archive that is sent as one object, in bytes.
const MAX_SINGLE_BYTES: usize = ARCHIVE_PART_BYTES as usize;

/// Sizes of a part that S3 takes and memory allows, in bytes; parts in flight are in memory.
const PART_BYTES: std::ops::RangeInclusive<u64> = 5 * 1024 * 1024..=16 * 1024 * 1024;

/// Parts sent at the same time.
const PARTS_IN_FLIGHT: usize = 2;

/// Part URLs asked for at a time.
const URLS_PER_CALL: u32 = 16;

/// Longest time that one try of one part may take.
const PUT_TIMEOUT: Duration = Duration::from_secs(300);

/// Uploads what comes out of the channel; answers the object's key, or nothing when the
/// channel closed before the archive's end: then nothing was joined.
pub(super) async fn upload(
    storage: &Storage,
    api: &impl ArchiveApi,
    chunks: mpsc::Receiver<Chunk>,
) -> Result<Option<String>, Failure> {
    let mut source = Source {
        chunks,
        pending: BytesMut::new(),
        ended: false,
    };
    if !source.fill(MAX_SINGLE_BYTES + 1).await {
        return Ok(None);
    }
    let size = source.ended.then_some(source.pending.len() as u64);
    let grant = api.grant(ArchiveRequest { size }).await?;
    match &grant.url {
        Some(url) if source.ended => {
            let body = source.pending.freeze();
            put(storage, url.clone(), &body, || async {
                let renewed = api.grant(ArchiveRequest { size }).await?;
                renewed
                    .url
                    .ok_or_else(|| storage_error("no URL was granted"))
            })
            .await?;
        }
        _ => {
            let Some(parts) = send_parts(storage, api, &grant, source).await? else {
                return Ok(None);
            };
            api.finish(ArchiveFinish { parts }).await?;
        }
    }
    Ok(Some(grant.key))
}

async fn send_parts(
    storage: &Storage,
    api: &impl ArchiveApi,
    grant: &ArchiveGrant,
    source: Source,
) -> Result<Option<Vec<PartDone>>, Failure> {
    if !PART_BYTES.contains(&grant.part_size) {
        return Err(storage_error(format!(
            "parts of {} bytes were granted",
            grant.part_size
        )));
    }
    let size = grant.part_size as usize;
    let urls = Urls {
        api,
        known: Mutex::new(HashMap::new()),
    };
    urls.learn(grant.parts.clone()).await;
    let urls = &urls;
    let parts = stream::try_unfold((source, 1), |(mut source, number)| async move {
        if !source.fill(size).await {
            return Err(Stop::PackingEnded);
        }
        let body = source.take(size);
        Ok((!body.is_empty()).then_some(((number, body), (source, number + 1))))
    });
    // Parts are gathered only while fewer than the bound are under way.
    let sent = parts
        .map(|part| async move {
            let (number, body) = part?;
            let url = urls.get(number).await?;
            let etag = put(storage, url, &body, || urls.renew(number)).await?;
            let etag = etag.ok_or_else(|| storage_error("the storage answered without an ETag"))?;
            Ok::<_, Stop>(PartDone { number, etag })
        })
        .buffered(PARTS_IN_FLIGHT)
        .try_collect()
        .await;
    match sent {
        Ok(parts) => Ok(Some(parts)),
        Err(Stop::PackingEnded) => Ok(None),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// Why the parts end early.
enum Stop {
    PackingEnded,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The archive, as it comes.
struct Source {
    chunks: mpsc::Receiver<Chunk>,
    pending: BytesMut,
    ended: bool,
}

impl Source {
    /// Waits until so many bytes are pending or the archive has ended; false when it was
    /// given up.
    async fn fill(&mut self, length: usize) -> bool {
        while self.pending.len() < length && !self.ended {
            match self.chunks.recv().await {
                Some(Chunk::Data(bytes)) => self.pending.extend_from_slice(&bytes),
                Some(Chunk::End) => self.ended = true,
                None => return false,
            }
        }
        true
    }

    fn take(&mut self, length: usize) -> Bytes {
        let length = length.min(self.pending.len());
        let rest = self.pending.split_off(length);
        std::mem::replace(&mut self.pending, rest).freeze()
    }
}

/// Part URLs, fetched some at a time.
struct Urls<'a, A> {
    api: &'a A,
    known: Mutex<HashMap<u32, Secret>>,
}

impl<A: ArchiveApi> Urls<'_, A> {
    async fn learn(&self, parts: Vec<PartUrl>) {
        let parts = parts.into_iter().map(|part| (part.number, part.url));
        self.known.lock().await.extend(parts);
    }

    async fn get(&self, number: u32) -> Result<Secret, Failure> {
        let known = self.known.lock().await.remove(&number);
        match known {
            Some(url) => Ok(url),
            None => self.fetch(number, URLS_PER_CALL).await,
        }
    }

    async fn renew(&self, number: u32) -> Result<Secret, Failure> {
        self.fetch(number, 1).await
    }

    async fn fetch(&self, from: u32, count: u32) -> Result<Secret, Failure> {
        let answer = self.api.parts(PartsRequest { from, count }).await?;
        self.learn(answer.parts).await;
        let url = self.known.lock().await.remove(&from);
        url.ok_or_else(|| storage_error("no URL was granted for a part"))
    }
}

/// Sends one body until the storage has it; answers its ETag.
async fn put<F>(
    storage: &Storage,
    mut url: Secret,
    body: &Bytes,
    renew: impl Fn() -> F,
) -> Result<Option<String>, Failure>
where
    F: Future<Output = Result<Secret, Failure>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let request = storage.http.put(url.expose()).timeout(PUT_TIMEOUT);
        let problem = match request.body(body.clone()).send().await {
            Ok(response) if response.status().is_success() => {
                let etag = response.headers().get(ETAG);
                return Ok(etag.and_then(|etag| Some(etag.to_str().ok()?.to_owned())));
            }
            Ok(response) if response.status() == StatusCode::FORBIDDEN && tries < MAX_TRIES => {
                url = renew().await?;
                continue;
            }
            Ok(response) => {
                let status = response.status();
                let problem = format!("the storage answered {status}");
                let passing = status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::REQUEST_TIMEOUT;
                if !passing {
                    return Err(storage_error(format!("upload the session: {problem}")));
                }
                problem
            }
            Err(error) => error.without_url().to_string(),
        };
        if tries == MAX_TRIES {
            return Err(storage_error(format!("upload the session: {problem}")));
        }
        tracing::debug!(tries, problem, "archive upload failed, trying again");
        storage.back_off(tries).await;
    }
}
