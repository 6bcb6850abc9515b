//! Lines that are not acknowledged yet, on disk: memory stays flat however long no dispatcher
//! answers. Nothing here is needed after the process ends, so the files have no names.
//!
//! When the disk takes nothing more (an agent may fill it), one batch's worth of lines is kept
//! in memory instead, so that the end can still be told.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use clawlink_shared::control::MAX_BATCH_BYTES;

/// Bound of what may wait for acknowledgement; beyond it the agent's pipe is not read.
pub const SPOOL_BYTES: u64 = 256 * 1024 * 1024;

/// A file is given back once all of it is acknowledged; a new one begins at this size.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// A queue of lines.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    /// Where the first unacknowledged line begins in the first segment.
    offset: u64,
    /// Bytes of unacknowledged lines.
    waiting: u64,
    bound: u64,
}

/// A stretch of lines.
#[derive(Debug)]
struct Segment {
    store: Store,
    length: u64,
}

#[derive(Debug)]
enum Store {
    Disk(File),
    Memory(Vec<u8>),
}

/// Why a line was not taken.
#[derive(Debug)]
pub(super) enum Full {
    /// The bound is reached.
    Bound,
    /// The disk took nothing, nor is there room in memory.
    Disk(io::Error),
}

impl Spool {
    /// An empty spool whose files are made in `dir`.
    pub(super) fn new(dir: PathBuf, bound: u64) -> Self {
        Self {
            dir,
            segments: VecDeque::new(),
            offset: 0,
            waiting: 0,
            bound,
        }
    }

    /// Appends one line, newline included.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<(), Full> {
        let length = line.len() as u64;
        if self.waiting > 0 && self.waiting + length > self.bound {
            return Err(Full::Bound);
        }
        // The little that a full disk gives back now and then is not worth a file: what went to
        // memory goes on there.
        if !self.is_in_memory() || self.append_to_memory(line).is_err() {
            match self.append_to_disk(line) {
                Ok(()) => {}
                Err(error) => self
                    .append_to_memory(line)
                    .map_err(|()| Full::Disk(error))?,
            }
        }
        self.waiting += length;
        Ok(())
    }

    fn is_in_memory(&self) -> bool {
        let last = self.segments.back();
        last.is_some_and(|segment| matches!(segment.store, Store::Memory(_)))
    }

    fn append_to_disk(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(Segment {
            store: Store::Disk(file),
            length,
        }) = self.segments.back_mut()
            && *length < SEGMENT_BYTES
        {
            file.write_all_at(line, *length)?;
            *length += line.len() as u64;
            return Ok(());
        }
        let file = tempfile::tempfile_in(&self.dir)?;
        file.write_all_at(line, 0)?;
        self.segments.push_back(Segment {
            store: Store::Disk(file),
            length: line.len() as u64,
        });
        Ok(())
    }

    fn append_to_memory(&mut self, line: &[u8]) -> Result<(), ()> {
        if let Some(Segment {
            store: Store::Memory(bytes),
            length,
        }) = self.segments.back_mut()
        {
            if bytes.len() + line.len() > MAX_BATCH_BYTES {
                return Err(());
            }
            bytes.extend_from_slice(line);
            *length = bytes.len() as u64;
            return Ok(());
        }
        if self
            .segments
            .iter()
            .any(|segment| matches!(segment.store, Store::Memory(_)))
        {
            return Err(());
        }
        self.segments.push_back(Segment {
            store: Store::Memory(line.to_vec()),
            length: line.len() as u64,
        });
        Ok(())
    }

    /// The oldest unacknowledged whole lines, up to `most` bytes, at least one if there is any.
    /// `most` is at least the longest line.
    pub(super) fn oldest(&mut self, most: usize) -> io::Result<Vec<u8>> {
        // Emptied while it was the only one, and then the next had to begin.
        if self.segments.len() > 1 && self.offset >= self.segments[0].length {
            self.segments.pop_front();
            self.offset = 0;
        }
        let Some(segment) = self.segments.front() else {
            return Ok(Vec::new());
        };
        let left = segment.length - self.offset;
        let take = usize::try_from(left).unwrap_or(most).min(most);
        let mut bytes = vec![0; take];
        match &segment.store {
            Store::Disk(file) => file.read_exact_at(&mut bytes, self.offset)?,
            Store::Memory(all) => {
                let from = usize::try_from(self.offset).unwrap_or(usize::MAX);
                bytes.copy_from_slice(&all[from..from + take]);
            }
        }
        let whole = bytes.iter().rposition(|&byte| byte == b'\n');
        bytes.truncate(whole.map_or(0, |newline| newline + 1));
        Ok(bytes)
    }

    /// Forgets that many bytes of the oldest lines: they are acknowledged.
    pub(super) fn forget(&mut self, bytes: u64) {
        self.offset += bytes;
        self.waiting -= bytes;
        let emptied = |segment: &Segment| self.offset >= segment.length;
        if self.segments.front().is_some_and(emptied) && (self.segments.len() > 1 || self.is_worn())
        {
            self.segments.pop_front();
            self.offset = 0;
        }
    }

    /// Whether the only segment is not to be written on.
    fn is_worn(&self) -> bool {
        self.segments.front().is_some_and(|segment| {
            segment.length >= SEGMENT_BYTES || matches!(segment.store, Store::Memory(_))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(size: usize) -> Vec<u8> {
        let mut line = vec![b'x'; size - 1];
        line.push(b'\n');
        line
    }

    #[test]
    fn lines_come_back_in_order_and_space_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().into(), SPOOL_BYTES);
        let most = 200 * 1024;
        for round in 0..200_u32 {
            let mut text = line(100 * 1024);
            text[..4].copy_from_slice(&round.to_be_bytes());
            spool.append(&text).unwrap();
        }
        let mut seen = 0_u32;
        while seen < 200 {
            let lines = spool.oldest(most).unwrap();
            for text in lines.chunks(100 * 1024) {
                assert_eq!(text[..4], seen.to_be_bytes());
                seen += 1;
            }
            spool.forget(lines.len() as u64);
        }
        assert!(spool.oldest(most).unwrap().is_empty());
        assert_eq!(spool.waiting, 0);
        assert!(spool.segments.len() <= 1);
    }

    #[test]
    fn the_bound_holds_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().into(), 1000);
        spool.append(&line(600)).unwrap();
        assert!(matches!(spool.append(&line(600)), Err(Full::Bound)));
        spool.forget(600);
        spool.append(&line(600)).unwrap();
    }

    #[test]
    fn without_a_disk_one_batch_waits_in_memory() {
        let mut spool = Spool::new("/nonexistent/spool".into(), SPOOL_BYTES);
        let mut taken = 0;
        while spool.append(&line(64 * 1024)).is_ok() {
            taken += 64 * 1024;
        }
        assert_eq!(taken, MAX_BATCH_BYTES);
        assert_eq!(spool.oldest(MAX_BATCH_BYTES).unwrap().len(), taken);
        spool.forget(taken as u64);
        spool.append(&line(10)).unwrap();
    }
}
