//! Files that an agent reads and writes through us, although it could do so itself: some agents
//! send these calls whether or not we say that we take them.
//!
//! This process is outside the sandbox. Nothing here follows a symbolic link, leaves the session
//! root, opens anything but a regular file, or writes into a file that has another name too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent_client_protocol::Error;
use agent_client_protocol::v1::schema::{ReadTextFileRequest, WriteTextFileRequest};
use anyhow::{Context, Result, bail, ensure};
use tokio::task::spawn_blocking;

use crate::agents::files;

/// Largest file that is read for an agent, in bytes.
const MAX_READ_BYTES: u64 = 16 * 1024 * 1024;

/// The part of the file system that an agent may touch through us.
#[derive(Debug, Clone)]
pub(super) struct SessionFiles {
    pub(super) root: PathBuf,
    /// Largest file that it may write, in bytes.
    pub(super) max_bytes: Option<u64>,
}

impl SessionFiles {
    /// `fs/read_text_file`: the whole file, or `limit` lines from `line` (from 1) on.
    pub(super) async fn read(&self, request: ReadTextFileRequest) -> Result<String, Error> {
        let files = self.clone();
        let read = move || {
            let text = files.read_all(&request.path)?;
            Ok(match (request.line, request.limit) {
                (None, None) => text,
                (line, limit) => {
                    let skipped = line.unwrap_or(1).saturating_sub(1) as usize;
                    let most = limit.map_or(usize::MAX, |limit| limit as usize);
                    let lines = text.split_inclusive('\n').skip(skipped).take(most);
                    lines.collect()
                }
            })
        };
        in_background(read).await
    }

    /// `fs/write_text_file`: replaces the file, or makes it and its directories.
    pub(super) async fn write(&self, request: WriteTextFileRequest) -> Result<(), Error> {
        let files = self.clone();
        in_background(move || files.write_all(&request.path, request.content.as_bytes())).await
    }

    fn read_all(&self, path: &Path) -> Result<String> {
        let file = files::open_regular(&self.root, self.relative(path)?)?;
        let mut bytes = Vec::new();
        let most = MAX_READ_BYTES + 1;
        file.take(most)
            .read_to_end(&mut bytes)
            .context("read file")?;
        ensure!(
            bytes.len() as u64 <= MAX_READ_BYTES,
            "the file is larger than {MAX_READ_BYTES} bytes"
        );
        String::from_utf8(bytes).context("read file as text")
    }

    fn write_all(&self, path: &Path, content: &[u8]) -> Result<()> {
        let fits = self
            .max_bytes
            .is_none_or(|most| content.len() as u64 <= most);
        ensure!(fits, "the file would be larger than is allowed");
        let relative = self.relative(path)?;
        let mut file = match files::open_regular_to_write(&self.root, relative)? {
            Some(file) => file,
            None => files::create(&self.root, relative)?,
        };
        ensure!(
            file.metadata().context("look at the file")?.nlink() == 1,
            "the file has another name too"
        );
        replace(&mut file, content).context("write file")
    }

    /// The path below the root, as it stands in the request: links in it are found when it is
    /// opened.
    fn relative<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        let Ok(relative) = path.strip_prefix(&self.root) else {
            bail!("the path is outside the session");
        };
        let is_plain = |part| matches!(part, std::path::Component::Normal(_));
        ensure!(
            relative.components().all(is_plain) && relative.file_name().is_some(),
            "the path is not a plain one"
        );
        Ok(relative)
    }
}

fn replace(file: &mut File, content: &[u8]) -> std::io::Result<()> {
    file.set_len(0)?;
    file.write_all(content)
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(error.into()));
    done.map_err(|error| {
        let code = if error.downcast_ref::<rustix::io::Errno>() == Some(&rustix::io::Errno::NOENT) {
            agent_client_protocol::ErrorCode::RESOURCE_NOT_FOUND
        } else {
            agent_client_protocol::ErrorCode::INVALID_PARAMS
        };
        Error::new(code, format!("{error:#}"))
    })
}
