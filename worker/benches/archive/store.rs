//! An archive store for the benchmark: parts are files, the whole is their concatenation.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path as Name, State};
use axum::routing::put;
use clawlink_shared::control::{
    ARCHIVE_PART_BYTES, ArchiveFinish, ArchiveGrant, ArchiveRequest, ArchiveSource, Failure,
    PartUrl, PartUrls, PartsRequest,
};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use clawlink_worker::persist::ArchiveApi;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes read from a file at a time.
const CHUNK: usize = 256 * 1024;

/// What the dispatcher would say.
pub(crate) struct Api {
    base: String,
    store: PathBuf,
}

impl Api {
    /// Waits until the store has written down where it listens.
    pub(crate) async fn of(scratch: &Path) -> Result<Self> {
        let file = scratch.join("address");
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        Ok(Self {
            base: std::fs::read_to_string(file).context("read the store's address")?,
            store: scratch.join("store"),
        })
    }

    /// Where the whole archive can be read.
    pub(crate) fn whole(&self) -> Secret {
        Secret::new(format!("{}/whole", self.base))
    }

    fn part(&self, number: u32) -> Secret {
        Secret::new(format!("{}/part-{number:06}", self.base))
    }

    fn join(&self) -> Result<()> {
        let mut parts: Vec<PathBuf> = std::fs::read_dir(&self.store)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        parts.retain(|path| path.file_name().is_some_and(|name| name != "whole"));
        parts.sort();
        let mut whole = std::fs::File::create(self.store.join("whole"))?;
        for part in parts {
            std::io::copy(&mut std::fs::File::open(&part)?, &mut whole)?;
            std::fs::remove_file(part)?;
        }
        Ok(())
    }
}

impl ArchiveApi for Api {
    async fn grant(&self, request: ArchiveRequest) -> Result<ArchiveGrant, Failure> {
        Ok(ArchiveGrant {
            key: "archive".to_owned(),
            url: request.size.map(|_| self.whole()),
            part_size: ARCHIVE_PART_BYTES,
            parts: Vec::new(),
        })
    }

    async fn parts(&self, request: PartsRequest) -> Result<PartUrls, Failure> {
        let numbers = request.from..request.from + request.count;
        let parts = numbers.map(|number| PartUrl {
            number,
            url: self.part(number),
        });
        Ok(PartUrls {
            parts: parts.collect(),
        })
    }

    async fn finish(&self, _parts: ArchiveFinish) -> Result<(), Failure> {
        self.join()
            .map_err(|error| Failure::new(ErrorCode::StorageError, format!("{error:#}")))
    }

    async fn source(&self) -> Result<ArchiveSource, Failure> {
        Err(Failure::new(
            ErrorCode::StorageError,
            "URLs of this store do not expire",
        ))
    }
}

/// Stores and serves files until killed.
pub(crate) async fn serve(scratch: &Path) -> Result<()> {
    let store = scratch.join("store");
    let router = Router::new()
        .route("/{name}", put(write).get(read))
        .layer(DefaultBodyLimit::disable())
        .with_state(store);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    std::fs::write(scratch.join("address.new"), address)?;
    std::fs::rename(scratch.join("address.new"), scratch.join("address"))?;
    Ok(axum::serve(listener, router).await?)
}

async fn write(
    State(store): State<PathBuf>,
    Name(name): Name<String>,
    body: Body,
) -> [(&'static str, &'static str); 1] {
    let mut file = tokio::fs::File::create(store.join(name))
        .await
        .expect("create part");
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        file.write_all(&chunk.expect("read part"))
            .await
            .expect("write part");
    }
    file.flush().await.expect("write part");
    [("etag", "\"part\"")]
}

async fn read(State(store): State<PathBuf>, Name(name): Name<String>) -> Body {
    let file = tokio::fs::File::open(store.join(name))
        .await
        .expect("open archive");
    Body::from_stream(futures::stream::unfold(file, async |mut file| {
        let mut chunk = vec![0; CHUNK];
        let count = file.read(&mut chunk).await.expect("read archive");
        chunk.truncate(count);
        (count > 0).then_some((Ok::<_, std::io::Error>(chunk), file))
    }))
}
