//! Git LFS: pointers in commits, content in the working tree.
//!
//! The batch API is spoken here, over the same checked connections as git itself: no program,
//! no configuration of the repository (`.lfsconfig`, `lfs.url`, filters) takes part, the token
//! never enters the sandbox, and every address that a host hands out passes the same rules.
//! Nothing but a pointer is ever staged for an LFS path whose content is new; what cannot be
//! transferred stays as it was and is named, it never fails a run.

mod api;
mod download;
mod upload;

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use git2::{AttrCheckFlags, AttrValue, Repository};
use sha2::{Digest as _, Sha256};

use crate::redact::Redactor;

pub(super) use download::download;
pub(super) use upload::{Content, upload};

/// How every pointer begins.
const MARK: &str = "version https://git-lfs.github.com/spec/v1\n";

/// A file larger than this is no pointer, in bytes.
pub(super) const MAX_POINTER: usize = 1024;

/// Most files of one clone or one commit that are transferred.
const MAX_FILES: usize = 10_000;

/// Most reasons that a note gives.
const MAX_REASONS: usize = 5;

/// How long the transfers of one clone or one commit may take together.
const MAX_DURATION: Duration = Duration::from_secs(30 * 60);

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What a commit holds in place of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    /// SHA-256 of the content, 64 lower-case hex digits.
    oid: String,
    /// Of the content, in bytes.
    size: u64,
}

impl Pointer {
    /// Reads a pointer; lines of extensions are passed over.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        if content.len() > MAX_POINTER || !text.starts_with(MARK) {
            return None;
        }
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
        let oid = value("oid sha256:")?;
        let is_hash =
            oid.len() == 64 && oid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        Some(Self {
            oid: is_hash.then(|| oid.to_owned())?,
            size: value("size ")?.parse().ok()?,
        })
    }

    /// The pointer as it is committed.
    pub(super) fn text(&self) -> String {
        format!("{MARK}oid sha256:{}\nsize {}\n", self.oid, self.size)
    }
}

/// Whether the attributes in the working tree give `path` to LFS.
pub(super) fn is_lfs_path(repo: &Repository, path: &Path) -> bool {
    has_filter(repo, path, AttrCheckFlags::FILE_THEN_INDEX)
}

fn has_filter(repo: &Repository, path: &Path, from: AttrCheckFlags) -> bool {
    let value = repo.get_attr_bytes(path, "filter", from);
    value.is_ok_and(|value| AttrValue::from_bytes(value) == AttrValue::String("lfs"))
}

/// The pointer to what `content` holds, and whether it holds a secret that `redactor` knows.
pub(super) fn examine(mut content: impl Read, redactor: &Redactor) -> io::Result<(Pointer, bool)> {
    let mut sum = Sum::default();
    let overlap = redactor.longest().saturating_sub(1);
    let (mut window, mut is_hit) = (Vec::new(), false);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = content.read(&mut chunk)?;
        if count == 0 {
            return Ok((sum.pointer(), is_hit));
        }
        sum.add(&chunk[..count]);
        window.extend_from_slice(&chunk[..count]);
        is_hit = is_hit || redactor.is_hit(&window);
        window.drain(..window.len().saturating_sub(overlap));
    }
}

/// Counts and hashes content as it passes.
#[derive(Default)]
struct Sum {
    hash: Sha256,
    size: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn pointer(self) -> Pointer {
        let hash = self.hash.finalize();
        Pointer {
            oid: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            size: self.size,
        }
    }
}
