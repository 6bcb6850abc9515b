//! `clawlink objects`: session archives and logs out of S3 and back, as a tar archive on a pipe.
//!
//! Archives and logs never change once they are written, so an export can be completed by a later
//! one that leaves out what the first has: a backup copies the bulk, dumps the database, and then
//! what was written meanwhile. Nothing is ever deleted by an import.
//!
//! A backup itself may lie in a bucket, another one: [`put`] and [`get`] copy a pipe into one
//! object and back. What must never happen: that a pipe that broke off leaves an object.

mod single;
mod tar;

pub use single::{get, put};

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
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
            single::write(blobs, &key, Some(size), &mut content)
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
