//! Reads a server-sent event stream: `id:` and `data:` lines, comments skipped.

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};

/// An event is at most 256 KiB and its envelope adds little; a longer line is no event of ours.
const MAX_LINE: usize = 1 << 20;

/// One event as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// The `id:` line, if there was one.
    pub id: Option<String>,
    /// The `data:` lines, joined by newlines.
    pub data: BytesMut,
}

/// Reads events from a body as it arrives.
pub struct SseReader<S> {
    body: S,
    buffer: BytesMut,
}

impl<S, E> SseReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    /// Reads from this body.
    pub fn new(body: S) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next event, or none at the end of the stream. Safe to cancel between events only.
    pub async fn next(&mut self) -> anyhow::Result<Option<SseEvent>> {
        let (mut id, mut data) = (None, None::<BytesMut>);
        while let Some(line) = self.line().await? {
            if line.is_empty() {
                if let Some(data) = data.take() {
                    return Ok(Some(SseEvent { id, data }));
                }
                id = None;
            } else if let Some(value) = field(&line, b"data") {
                match &mut data {
                    None => data = Some(BytesMut::from(value)),
                    Some(data) => {
                        data.extend_from_slice(b"\n");
                        data.extend_from_slice(value);
                    }
                }
            } else if let Some(value) = field(&line, b"id") {
                id = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(None)
    }

    /// The next line without its end; an unfinished last line is dropped, as browsers do.
    async fn line(&mut self) -> anyhow::Result<Option<BytesMut>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let mut line = self.buffer.split_to(searched + at + 1);
                line.truncate(searched + at);
                if line.ends_with(b"\r") {
                    line.truncate(line.len() - 1);
                }
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            ensure!(searched <= MAX_LINE, "the stream sent a line over 1 MiB");
            match self.body.next().await {
                Some(chunk) => self
                    .buffer
                    .extend_from_slice(&chunk.context("read stream")?),
                None => return Ok(None),
            }
        }
    }
}

/// The value of a `name: value` line.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}
