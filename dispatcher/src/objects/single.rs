//! One object from a pipe and back, in parts where it is large: nothing holds more than one part.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clawlink_shared::control::{ARCHIVE_PART_BYTES, PartDone};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::blobs::Blobs;

/// After so many parts they grow by the size of the first: S3 takes 10,000 of an object, which
/// then are 430 GiB together.
const PARTS_OF_A_SIZE: u64 = 1000;

/// Writes what a pipe holds as one object, which exists when the pipe has ended and not before;
/// answers its bytes.
pub async fn put(blobs: &Blobs, key: &str, mut from: impl AsyncRead + Unpin) -> Result<u64> {
    write(blobs, key, None, &mut from)
        .await
        .with_context(|| format!("store {key}"))
}

/// Writes one object into a pipe; answers its bytes. An object that does not exist is an error.
pub async fn get(blobs: &Blobs, key: &str, mut to: impl AsyncWrite + Unpin) -> Result<u64> {
    let read = blobs.read(key).await?;
    let (size, content) = read.with_context(|| format!("the bucket has no object {key}"))?;
    let mut content = content.into_async_read();
    let written = tokio::io::copy(&mut content, &mut to).await;
    let written = written.with_context(|| format!("copy {key}"))?;
    ensure!(written == size, "{key} has not the size that S3 says");
    to.flush().await.context("write object")?;
    Ok(written)
}

/// Writes what is read until its end; where a size is given it must be that.
pub(super) async fn write(
    blobs: &Blobs,
    key: &str,
    size: Option<u64>,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<u64> {
    let first = part(from, ARCHIVE_PART_BYTES).await?;
    let written = first.len() as u64;
    if written < ARCHIVE_PART_BYTES {
        check(size, written)?;
        blobs.put(key, first).await?;
        return Ok(written);
    }
    let upload = blobs.begin_parts(key).await?;
    let stored = join(blobs, key, &upload, size, first, from).await;
    if stored.is_err()
        && let Err(error) = blobs.abort_parts(key, &upload).await
    {
        tracing::warn!(error = format!("{error:#}"), key, "upload not aborted");
    }
    stored
}

async fn join(
    blobs: &Blobs,
    key: &str,
    upload: &str,
    size: Option<u64>,
    mut next: Bytes,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<u64> {
    let mut parts = Vec::new();
    let mut written = 0;
    while !next.is_empty() {
        written += next.len() as u64;
        let count = parts.len() as u64;
        let number = u32::try_from(count + 1).context("count parts")?;
        let etag = blobs.put_part(key, upload, number, next).await?;
        parts.push(PartDone { number, etag });
        next = part(from, size_of_part(count + 1)).await?;
    }
    check(size, written)?;
    if !blobs.finish_parts(key, upload, &parts).await? {
        bail!("S3 does not join the parts");
    }
    Ok(written)
}

/// Bytes of the part that comes after so many others.
fn size_of_part(before: u64) -> u64 {
    ARCHIVE_PART_BYTES * (1 + before / PARTS_OF_A_SIZE)
}

fn check(size: Option<u64>, written: u64) -> Result<()> {
    ensure!(
        size.is_none_or(|size| size == written),
        "the archive is cut off"
    );
    Ok(())
}

/// The next bytes, fewer than `length` only at the end.
async fn part(from: &mut (impl AsyncRead + Unpin), length: u64) -> Result<Bytes> {
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes).await;
    read.context("read what is to be stored")?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_are_enough_for_a_backup() {
        let all: u64 = (0..10_000).map(size_of_part).sum();
        assert!(all > 400 << 30, "{all}");
        assert_eq!(size_of_part(999), ARCHIVE_PART_BYTES);
    }
}
