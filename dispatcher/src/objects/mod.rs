//! `clawlink objects`: session archives and logs out of S3 and back, as a tar archive on a pipe.
//!
//! Archives and logs never change once they are written, so an export can be completed by a later
//! one that leaves out what the first has: a backup copies the bulk, dumps the database, and then
//! what was written meanwhile. Nothing is ever deleted by an import.

mod tar;

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use clawlink_shared::control::{ARCHIVE_PART_BYTES, PartDone};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::blobs::Blobs;

/// Keys of objects.
pub type Keys = HashSet<String>;

/// Below such a folder of a session nothing changes once it is written.
const IMMUTABLE: &str = "/turns/";
/// Most keys that are read from a list.
const MAX_KEYS: usize = 50_000_000;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many objects.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// Keys from a list with one a line.
pub async fn read_keys(list: impl AsyncRead + Unpin) -> Result<Keys> {
    let mut lines = BufReader::new(list).lines();
    let mut keys = Keys::new();
    while let Some(line) = lines.next_line().await.context("read the list of keys")? {
        if keys.len() == MAX_KEYS {
            bail!("the list has more than {MAX_KEYS} keys");
        }
        keys.insert(line);
    }
    Ok(keys)
}

/// Writes all objects but the immutable ones among `except`.
pub async fn export(
    blobs: &Blobs,
    except: &Keys,
    mut out: impl AsyncWrite + Unpin,
) -> Result<Copied> {
    let mut copied = Copied::default();
    for key in blobs.list("").await? {
        if key.contains(IMMUTABLE) && except.contains(&key) {
            continue;
        }
        // Deleted since it was listed: nothing needs it.
        let Some((size, content)) = blobs.read(&key).await? else {
            continue;
        };
        out.write_all(&tar::header(&key, size)?)
            .await
            .context("write archive")?;
        let mut content = content.into_async_read();
        let written = tokio::io::copy(&mut content, &mut out).await;
        if written.with_context(|| format!("copy {key}"))? != size {
            bail!("{key} has not the size that S3 says");
        }
        out.write_all(tar::padding(size))
            .await
            .context("write archive")?;
        copied.objects += 1;
        copied.bytes += size;
    }
    out.write_all(&tar::END).await.context("write archive")?;
    out.flush().await.context("write archive")?;
    Ok(copied)
}

/// Writes what an archive holds into the bucket, but for what is there already.
pub async fn import(blobs: &Blobs, mut from: impl AsyncRead + Unpin) -> Result<Copied> {
    let mut copied = Copied::default();
    loop {
        let mut block = [0; tar::BLOCK];
        from.read_exact(&mut block).await.context("read archive")?;
        let Some((key, size)) = tar::parse(&block)? else {
            break;
        };
        let has = key.contains(IMMUTABLE) && blobs.size(&key).await? == Some(size);
        let mut content = (&mut from).take(size);
        if has {
            tokio::io::copy(&mut content, &mut tokio::io::sink())
                .await
                .context("read archive")?;
        } else {
            store(blobs, &key, size, &mut content)
                .await
                .with_context(|| format!("store {key}"))?;
            copied.objects += 1;
            copied.bytes += size;
        }
        let mut rest = [0; tar::BLOCK];
        let rest = &mut rest[..tar::padding(size).len()];
        from.read_exact(rest).await.context("read archive")?;
    }
    Ok(copied)
}

async fn store(
    blobs: &Blobs,
    key: &str,
    size: u64,
    content: &mut (impl AsyncRead + Unpin),
) -> Result<()> {
    if size <= ARCHIVE_PART_BYTES {
        return blobs.put(key, piece(content, size).await?).await;
    }
    let upload = blobs.begin_parts(key).await?;
    let mut parts = Vec::new();
    let mut left = size;
    while left > 0 {
        let length = left.min(ARCHIVE_PART_BYTES);
        let number = u32::try_from(parts.len() + 1).context("count parts")?;
        let body = piece(content, length).await?;
        let etag = blobs.put_part(key, &upload, number, body).await?;
        parts.push(PartDone { number, etag });
        left -= length;
    }
    if !blobs.finish_parts(key, &upload, &parts).await? {
        bail!("S3 does not join the parts");
    }
    Ok(())
}

/// The next bytes, all of them; at most [`ARCHIVE_PART_BYTES`].
async fn piece(content: &mut (impl AsyncRead + Unpin), length: u64) -> Result<Bytes> {
    let mut body = BytesMut::zeroed(usize::try_from(length).context("size a part")?);
    let read = content.read_exact(&mut body).await;
    read.context("the archive is cut off")?;
    Ok(body.freeze())
}
