//! The archive's format: GNU tar, written by hand so that names and link targets travel as the
//! bytes they are, and so that what is read back is no more than what is written.
//!
//! A directory's entry comes after its content: its time is set last, and neither side has to
//! remember directories. Long names are `L` and `K` entries; nothing else extends the format.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::unavailable;
use clawlink_shared::control::Failure;

/// tar's unit.
const BLOCK: usize = 512;

/// Longest name or link target, in bytes.
const MAX_NAME: u64 = 64 * 1024;

/// The name that GNU tar gives to entries that hold names.
const LONG_NAME: &[u8] = b"././@LongLink";

/// An entry without its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    /// File, symbolic link or directory.
    pub kind: EntryType,
    /// Relative to the session root, `/`-separated; a directory's ends in `/`.
    pub path: &'a [u8],
    /// Target of a link, else empty.
    pub link: &'a [u8],
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes of content that follow.
    pub size: u64,
}

/// Writes an entry's header, preceded by its long names.
pub(super) fn write_head(out: &mut impl Write, head: &Head<'_>) -> io::Result<()> {
    let mut header = Header::new_gnu();
    for (name, kind, field) in [
        (head.path, EntryType::GNULongName, 100),
        (head.link, EntryType::GNULongLink, 100),
    ] {
        if name.len() > field {
            write_long_name(out, name, kind)?;
        }
    }
    header.set_entry_type(head.kind);
    header.set_mode(head.mode);
    header.set_mtime(head.mtime);
    header.set_size(head.size);
    let fields = header.as_gnu_mut().expect("made as a GNU header");
    copy_name(&mut fields.name, head.path);
    copy_name(&mut fields.linkname, head.link);
    write_header(out, header)
}

/// Zeros up to the next block after `size` bytes of content.
pub(super) fn write_padding(out: &mut impl Write, size: u64) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    match over {
        0 => Ok(()),
        over => out.write_all(&[0; BLOCK][over..]),
    }
}

/// The two empty blocks that end an archive.
pub(super) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Reads the content of an `L` or `K` entry.
pub(super) fn read_long_name(entry: &mut impl Read, size: u64) -> Result<Vec<u8>, Failure> {
    if size > MAX_NAME {
        return Err(unavailable(
            "the session's archive has a name that is too long",
        ));
    }
    let mut name = Vec::new();
    entry
        .read_to_end(&mut name)
        .map_err(|error| unavailable(format!("the session's archive is damaged: {error}")))?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn write_long_name(out: &mut impl Write, name: &[u8], kind: EntryType) -> io::Result<()> {
    let size = name.len() as u64 + 1;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    let fields = header.as_gnu_mut().expect("made as a GNU header");
    copy_name(&mut fields.name, LONG_NAME);
    write_header(out, header)?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    write_padding(out, size)
}

fn write_header(out: &mut impl Write, mut header: Header) -> io::Result<()> {
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// As much of a name as the field holds.
fn copy_name(field: &mut [u8; 100], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}
