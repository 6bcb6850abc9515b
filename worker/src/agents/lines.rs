//! Lines from a pipe that may hold anything: too long, without end, not UTF-8.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is kept; the rest of a longer one is read and thrown away.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes per read.
const CHUNK: usize = 64 * 1024;

/// One line without its newline.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Invalid UTF-8 has become U+FFFD.
    pub text: String,
    /// Bytes beyond [`MAX_LINE_BYTES`] that were thrown away.
    pub dropped: u64,
}

/// Cuts a byte stream into lines. Reading resumes where it stopped when a call is cancelled.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: R,
    chunk: Vec<u8>,
    /// What of `chunk` has been read but not looked at yet.
    fresh: std::ops::Range<usize>,
    line: Vec<u8>,
    dropped: u64,
    is_at_end: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            chunk: Vec::new(),
            fresh: 0..0,
            line: Vec::new(),
            dropped: 0,
            is_at_end: false,
        }
    }

    /// The next line; the last one need not end with a newline. `None` at the end, also when
    /// the pipe breaks.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            let fresh = &self.chunk[self.fresh.clone()];
            if let Some(length) = fresh.iter().position(|byte| *byte == b'\n') {
                self.keep(length);
                self.fresh.start += 1;
                return Some(self.take());
            }
            self.keep(self.fresh.len());
            if self.is_at_end {
                let is_rest = !self.line.is_empty() || self.dropped > 0;
                return is_rest.then(|| self.take());
            }
            self.chunk.resize(CHUNK, 0);
            let read = self.source.read(&mut self.chunk).await.unwrap_or(0);
            self.fresh = 0..read;
            self.is_at_end = read == 0;
        }
    }

    /// Moves `length` fresh bytes to the line, up to its bound.
    fn keep(&mut self, length: usize) {
        let room = MAX_LINE_BYTES - self.line.len();
        let kept = length.min(room);
        let start = self.fresh.start;
        self.line
            .extend_from_slice(&self.chunk[start..start + kept]);
        self.dropped += (length - kept) as u64;
        self.fresh.start += length;
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.line);
        Line {
            text: String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            dropped: std::mem::take(&mut self.dropped),
        }
    }
}
