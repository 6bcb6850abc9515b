//! Reading objects and looking for secrets in them. What cannot be read counts as if it held
//! one: it must not travel.

use std::collections::HashSet;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use git2::{ObjectType, Odb, Oid, Repository};

use crate::redact::Redactor;

/// Largest object that is read as a whole, in bytes: libgit2 holds two or three of them when it
/// resolves a difference. Larger ones are read in pieces where they are files of their own.
const MAX_WHOLE: usize = 16 * 1024 * 1024;

/// What a larger one is read through, in bytes.
const BUFFER: usize = 1024 * 1024;

/// Most that is read of one session, in uncompressed bytes. What is beyond counts as unread.
const MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// A search through the repositories of one session.
pub(super) struct Search<'a> {
    secrets: &'a Redactor,
    /// Bytes that may still be read.
    left: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(secrets: &'a Redactor) -> Self {
        Self {
            secrets,
            left: MAX_BYTES,
        }
    }

    /// Which of these objects must not travel.
    pub(super) fn hits(&mut self, repo: &Repository, of: &[Oid]) -> Result<HashSet<Oid>> {
        let odb = repo.odb().context("read new objects")?;
        let mut hits = HashSet::new();
        for id in of {
            if !self.is_clean(&odb, *id).unwrap_or(false) {
                hits.insert(*id);
            }
        }
        Ok(hits)
    }

    fn is_clean(&mut self, odb: &Odb<'_>, id: Oid) -> Result<bool> {
        let (size, kind) = odb.read_header(id)?;
        let Some(left) = self.left.checked_sub(size as u64) else {
            return Ok(false);
        };
        self.left = left;
        if size <= MAX_WHOLE {
            return Ok(!self.secrets.is_hit(odb.read(id)?.data()));
        }
        // What leads to other objects is read as a whole later.
        Ok(kind == ObjectType::Blob && self.is_clean_in_pieces(odb, id, size)?)
    }

    fn is_clean_in_pieces(&self, odb: &Odb<'_>, id: Oid, size: usize) -> Result<bool> {
        let keep = self.secrets.longest().saturating_sub(1);
        let mut buffer = vec![0; BUFFER.max(4 * keep)];
        // Fails for an object in a pack.
        let (mut reader, _, _) = odb.reader(id)?;
        let (mut held, mut seen) = (0, 0);
        while seen < size {
            let length = reader.read(&mut buffer[held..])?;
            anyhow::ensure!(length > 0, "the object ends too early");
            seen += length;
            let filled = held + length;
            if self.secrets.is_hit(&buffer[..filled]) {
                return Ok(false);
            }
            held = filled.min(keep);
            buffer.copy_within(filled - held..filled, 0);
        }
        Ok(true)
    }
}
