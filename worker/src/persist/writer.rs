//! The archive as it is written: entries through the secret scanner into tar and zstd, counted
//! against the session's bounds.
//!
//! A file that shrinks while it is read is filled with zeros and one that grows is cut to the
//! size in its header, so the archive stays sound whatever happens to the tree. No secret
//! passes: what is not left out has them overwritten with `*` of equal length.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::num::NonZero;

use clawlink_shared::control::Failure;
use rustix::fs::Stat;
use tar::EntryType;
use zstd::stream::write::Encoder;

use super::chunks::ChunkWriter;
use super::entry::{Head, write_end, write_head, write_padding};
use super::notes::shown;
use super::{SaveRequest, storage_error};

/// Compression level: what `zstd` itself takes by default.
const LEVEL: i32 = 3;

/// Most compressing threads; each costs memory.
const MAX_THREADS: usize = 4;

/// What one thread compresses at a time, in bytes; some of these are in memory per thread.
const JOB_BYTES: u32 = 4 * 1024 * 1024;

/// What a file is read through, in bytes. A file that fits is read once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What became of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Written as it is.
    Clean,
    /// Written with secrets overwritten.
    Masked,
    /// Not written: it holds a secret.
    LeftOut,
}

/// An archive in the making.
pub(super) struct Writer<'a> {
    request: &'a SaveRequest,
    out: Encoder<'static, ChunkWriter>,
    buffer: Vec<u8>,
    /// Bytes held back while scanning: they may begin a secret.
    keep: usize,
    bytes: u64,
    files: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(request: &'a SaveRequest, out: ChunkWriter) -> Result<Self, Failure> {
        let keep = request.secrets.longest().saturating_sub(1);
        Ok(Self {
            request,
            out: encoder(out).map_err(writing)?,
            buffer: vec![0; BUFFER_BYTES.max(4 * keep)],
            keep,
            bytes: 0,
            files: 0,
        })
    }

    /// Ends the archive; answers its size and its checksum in hex.
    pub(super) fn finish(mut self) -> Result<(u64, String), Failure> {
        write_end(&mut self.out).map_err(writing)?;
        let chunks = self.out.finish().map_err(writing)?;
        chunks.finish().map_err(writing)
    }

    pub(super) fn holds_secret(&self, bytes: &[u8]) -> bool {
        self.request.secrets.is_hit(bytes)
    }

    /// Counts an entry against the bounds and writes its header.
    pub(super) fn head(
        &mut self,
        path: &[u8],
        kind: EntryType,
        stat: &Stat,
        link: &[u8],
        size: u64,
    ) -> Result<(), Failure> {
        self.check_bounds(size)?;
        self.files += 1;
        self.bytes += size;
        let head = Head {
            kind,
            path,
            link,
            mode: stat.st_mode & 0o777,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
            size,
        };
        write_head(&mut self.out, &head).map_err(writing)
    }

    /// Writes a file, its secrets overwritten.
    pub(super) fn file_masked(
        &mut self,
        file: File,
        path: &[u8],
        stat: &Stat,
    ) -> Result<Content, Failure> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.head(path, EntryType::Regular, stat, b"", size)?;
        match self.copy(file, size, path, Output::Archive)? {
            true => Ok(Content::Masked),
            false => Ok(Content::Clean),
        }
    }

    /// Writes a file unless it holds a secret.
    pub(super) fn file_if_clean(
        &mut self,
        mut file: File,
        path: &[u8],
        stat: &Stat,
    ) -> Result<Content, Failure> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size <= self.buffer.len() as u64 {
            let size = self.fill(&mut file, size, path)?;
            if self.mask(size) {
                return Ok(Content::LeftOut);
            }
            self.head(path, EntryType::Regular, stat, b"", size as u64)?;
            self.out.write_all(&self.buffer[..size]).map_err(writing)?;
            write_padding(&mut self.out, size as u64).map_err(writing)?;
            return Ok(Content::Clean);
        }
        // A header says the size and cannot be taken back: look first, then write.
        self.check_bounds(size)?;
        let again = file.try_clone().map_err(|error| reading(path, &error))?;
        if self.copy(again, size, path, Output::Nowhere)? {
            return Ok(Content::LeftOut);
        }
        file.rewind().map_err(|error| reading(path, &error))?;
        let now = rustix::fs::fstat(&file).map_err(|error| reading(path, &error.into()))?;
        if changes(&now) != changes(stat) {
            // Let nothing through that came in between.
            return self.file_masked(file, path, stat);
        }
        self.head(path, EntryType::Regular, stat, b"", size)?;
        self.copy(file, size, path, Output::Unscanned)?;
        Ok(Content::Clean)
    }

    /// Refuses a further entry with so many bytes if it is too much.
    fn check_bounds(&self, bytes: u64) -> Result<(), Failure> {
        let (max_files, max_bytes) = (self.request.max_files, self.request.max_bytes);
        if self.files >= max_files || self.bytes.saturating_add(bytes) > max_bytes {
            return Err(storage_error(format!(
                "the session is not saved: it holds more than {max_bytes} bytes or {max_files} files"
            )));
        }
        Ok(())
    }

    /// Reads up to `size` bytes into the buffer; answers how many there were.
    fn fill(&mut self, file: &mut File, size: u64, path: &[u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        while (filled as u64) < size {
            let end = usize::try_from(size)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            match read_some(file, &mut self.buffer[filled..end]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) => return Err(reading(path, &error)),
            }
        }
        Ok(filled)
    }

    /// Passes exactly `size` bytes through the scanner; answers whether a secret was found.
    fn copy(
        &mut self,
        mut file: File,
        size: u64,
        path: &[u8],
        output: Output,
    ) -> Result<bool, Failure> {
        let (mut left, mut held, mut found) = (size, 0, false);
        loop {
            let room = (self.buffer.len() - held) as u64;
            let end = held + left.min(room) as usize;
            let length = read_some(&mut file, &mut self.buffer[held..end])
                .map_err(|error| reading(path, &error))?;
            let filled = held + length;
            left -= length as u64;
            found |= output != Output::Unscanned && self.mask(filled);
            let last = length == 0 || left == 0;
            let ready = if last {
                filled
            } else {
                filled.saturating_sub(self.keep)
            };
            if output != Output::Nowhere {
                self.out.write_all(&self.buffer[..ready]).map_err(writing)?;
            } else if found {
                return Ok(true);
            }
            self.buffer.copy_within(ready..filled, 0);
            held = filled - ready;
            if last {
                break;
            }
        }
        if output != Output::Nowhere {
            io::copy(&mut io::repeat(0).take(left), &mut self.out).map_err(writing)?;
            write_padding(&mut self.out, size).map_err(writing)?;
        }
        Ok(found)
    }

    /// Overwrites secrets at the start of the buffer; answers whether there were any.
    fn mask(&mut self, length: usize) -> bool {
        let secrets = &self.request.secrets;
        if !secrets.is_hit(&self.buffer[..length]) {
            return false;
        }
        for hit in secrets.hits(&self.buffer[..length]) {
            self.buffer[hit].fill(b'*');
        }
        true
    }
}

/// Where [`Writer::copy`] puts what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Into the archive, secrets overwritten.
    Archive,
    /// Into the archive as it is: it has been looked through.
    Unscanned,
    /// Nowhere: it is only looked through.
    Nowhere,
}

/// What changes when a file's content does.
fn changes(stat: &Stat) -> [i64; 3] {
    [stat.st_size, stat.st_ctime, stat.st_ctime_nsec as i64]
}

fn encoder(writer: ChunkWriter) -> io::Result<Encoder<'static, ChunkWriter>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut encoder = Encoder::new(writer, LEVEL)?;
    encoder.multithread(threads.min(MAX_THREADS) as u32)?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB_BYTES))?;
    Ok(encoder)
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A file that could not be read.
pub(super) fn reading(path: &[u8], error: &io::Error) -> Failure {
    storage_error(format!("read {}: {error}", shown(path)))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn writing(error: io::Error) -> Failure {
    storage_error(format!("write the session's archive: {error}"))
}
