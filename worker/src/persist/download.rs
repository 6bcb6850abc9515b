//! Fetching an archive from its presigned URL into the unpacker's channel: a connection that
//! breaks is taken up where it broke, a URL that has lapsed is renewed, both within bounds.
//!
//! No error text holds a URL: a presigned one is a credential.

use std::time::Duration;

use bytes::Bytes;
use clawlink_shared::control::{ArchiveSource, Failure};
use clawlink_shared::secret::Secret;
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ArchiveApi, MAX_TRIES, Storage, storage_error, unavailable};

/// Longest silence of the storage before the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(30);

/// Downloads into `sender`, until all is there or nobody listens any more.
pub(super) async fn download(
    storage: &Storage,
    api: &impl ArchiveApi,
    source: &ArchiveSource,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), Failure> {
    let mut url = source.url.clone();
    let mut offset = 0;
    let mut tries = 0;
    loop {
        let end = match open(storage, &url, offset).await {
            Ok(response) => pour(response, &mut offset, source.size, &sender).await,
            Err(end) => end,
        };
        tries += 1;
        match end {
            End::Done => return Ok(()),
            End::Unusable(failure) => return Err(failure),
            End::Lapsed | End::Broken(_) if offset == source.size => return Ok(()),
            End::Lapsed if tries < MAX_TRIES => url = api.source().await?.url,
            End::Broken(error) if tries < MAX_TRIES => {
                tracing::debug!(tries, offset, error, "archive download broke off");
                storage.back_off(tries).await;
            }
            End::Lapsed => return Err(storage_error("the storage refuses the archive's URL")),
            End::Broken(error) => {
                return Err(storage_error(format!(
                    "download the session's archive: {error}"
                )));
            }
        }
    }
}

/// How one connection ended.
enum End {
    /// All is there, or the unpacker wants no more.
    Done,
    /// The URL is no longer valid.
    Lapsed,
    /// Worth another try.
    Broken(String),
    /// Not worth one.
    Unusable(Failure),
}

async fn open(storage: &Storage, url: &Secret, offset: u64) -> Result<Response, End> {
    let mut request = storage.http.get(url.expose());
    if offset > 0 {
        request = request.header(RANGE, format!("bytes={offset}-"));
    }
    let response = match timeout(SILENCE, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(End::Broken(error.without_url().to_string())),
        Err(_) => return Err(End::Broken("the storage does not answer".into())),
    };
    match response.status() {
        StatusCode::OK if offset == 0 => Ok(response),
        StatusCode::PARTIAL_CONTENT if offset > 0 => Ok(response),
        StatusCode::FORBIDDEN => Err(End::Lapsed),
        StatusCode::NOT_FOUND => Err(End::Unusable(unavailable(
            "the session's archive is gone from the storage",
        ))),
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => Err(
            End::Unusable(storage_error(format!("the storage answered {status}"))),
        ),
        status => Err(End::Broken(format!("the storage answered {status}"))),
    }
}

async fn pour(
    mut response: Response,
    offset: &mut u64,
    size: u64,
    sender: &mpsc::Sender<Bytes>,
) -> End {
    loop {
        let chunk = match timeout(SILENCE, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) if *offset < size => {
                return End::Unusable(unavailable(format!(
                    "the session's archive ends after {offset} of {size} bytes"
                )));
            }
            Ok(Ok(None)) => return End::Done,
            Ok(Err(error)) => return End::Broken(error.without_url().to_string()),
            Err(_) => return End::Broken("the storage fell silent".into()),
        };
        *offset += chunk.len() as u64;
        if *offset > size {
            return End::Unusable(unavailable(format!(
                "the session's archive has more than the recorded {size} bytes"
            )));
        }
        if sender.send(chunk).await.is_err() {
            return End::Done;
        }
    }
}
