//! The bounded channel between the blocking side (tar, zstd, disk) and the async side
//! (HTTP), in both directions. Size and checksum are taken as the bytes pass.
//!
//! An outgoing archive ends with an explicit [`Chunk::End`]: a packer that fails in the middle
//! drops its end of the channel, which must never look like a whole archive.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use clawlink_shared::control::ArchiveSource;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::unavailable;
use clawlink_shared::control::Failure;

/// Bytes gathered before they are sent on.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that may wait between the two sides.
const CHUNKS: usize = 8;

/// A piece of an outgoing archive.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Its next bytes.
    Data(Bytes),
    /// It is whole.
    End,
}

/// A writer for the packer and what the uploader reads.
pub(super) fn outgoing() -> (ChunkWriter, mpsc::Receiver<Chunk>) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let writer = ChunkWriter {
        sender,
        buffer: BytesMut::with_capacity(CHUNK_BYTES),
        hash: Sha256::new(),
        size: 0,
    };
    (writer, receiver)
}

/// The packer's end.
pub(super) struct ChunkWriter {
    sender: mpsc::Sender<Chunk>,
    buffer: BytesMut,
    hash: Sha256,
    size: u64,
}

impl ChunkWriter {
    /// Says that the archive is whole; answers its size and its checksum in hex.
    pub(super) fn finish(mut self) -> io::Result<(u64, String)> {
        self.flush()?;
        self.send(Chunk::End)?;
        Ok((self.size, hex(&self.hash.finalize())))
    }

    fn send(&self, chunk: Chunk) -> io::Result<()> {
        self.sender
            .blocking_send(chunk)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended"))
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK_BYTES));
        self.hash.update(&full);
        self.size += full.len() as u64;
        self.send(Chunk::Data(full.freeze()))
    }
}

/// What the downloader writes and a reader for the unpacker.
pub(super) fn incoming(source: &ArchiveSource) -> (mpsc::Sender<Bytes>, ChunkReader) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let reader = ChunkReader {
        receiver,
        current: Bytes::new(),
        hash: Sha256::new(),
        size: 0,
        expected_size: source.size,
        expected_sha256: source.sha256.clone(),
    };
    (sender, reader)
}

/// The unpacker's end.
pub(super) struct ChunkReader {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
    hash: Sha256,
    size: u64,
    expected_size: u64,
    expected_sha256: String,
}

impl ChunkReader {
    /// Refuses an archive that is not the recorded one. To be called when all has been read.
    pub(super) fn verify(self) -> Result<(), Failure> {
        if self.size != self.expected_size {
            return Err(unavailable(format!(
                "the session's archive has {} bytes instead of {}",
                self.size, self.expected_size
            )));
        }
        if hex(&self.hash.finalize()) != self.expected_sha256 {
            return Err(unavailable(
                "the session's archive has another checksum than recorded",
            ));
        }
        Ok(())
    }
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => {
                    self.hash.update(&chunk);
                    self.size += chunk.len() as u64;
                    self.current = chunk;
                }
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
