//! The little of the tar format that a list of plain files needs: `ustar` headers, with sizes
//! beyond 8 GiB in binary as other programs write them.

use anyhow::{Context, Result, bail, ensure};

/// Everything in an archive comes in such blocks.
pub(super) const BLOCK: usize = 512;
/// What ends an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Where fields stand, as (offset, length).
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const SIZE: (usize, usize) = (124, 12);
const SUM: (usize, usize) = (148, 8);
const KIND: usize = 156;
const MAGIC: (usize, usize) = (257, 8);
const PREFIX: (usize, usize) = (345, 155);
/// The largest size in octal digits.
const MAX_OCTAL: u64 = 0o77_777_777_777;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// What fills the last block of a file of this size.
pub(super) fn padding(size: u64) -> &'static [u8] {
    &ZEROS[..(BLOCK - (size % BLOCK as u64) as usize) % BLOCK]
}

/// The block before a file.
pub(super) fn header(name: &str, size: u64) -> Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let (prefix, name) = split(name).with_context(|| format!("the key {name} is too long"))?;
    put(&mut block, NAME, name.as_bytes());
    put(&mut block, PREFIX, prefix.as_bytes());
    put(&mut block, MODE, b"0000600");
    for zero in [(108, 8), (116, 8)] {
        put(&mut block, zero, b"0000000");
    }
    if size <= MAX_OCTAL {
        put(&mut block, SIZE, format!("{size:011o}").as_bytes());
    } else {
        block[SIZE.0] = 0x80;
        block[SIZE.0 + 4..SIZE.0 + SIZE.1].copy_from_slice(&size.to_be_bytes());
    }
    put(&mut block, (136, 12), b"00000000000");
    block[KIND] = b'0';
    put(&mut block, MAGIC, b"ustar\x0000");
    let sum = checksum(&block);
    put(&mut block, SUM, format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Name and size of the file after this block; `None` at the archive's end.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Option<(String, u64)>> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    ensure!(
        octal(block, SUM)? == u64::from(checksum(block)),
        "this is no tar archive, or it is damaged"
    );
    ensure!(
        matches!(block[KIND], b'0' | 0),
        "the archive holds more than plain files"
    );
    let size = if block[SIZE.0] & 0x80 == 0 {
        octal(block, SIZE)?
    } else {
        let digits = &block[SIZE.0 + 4..SIZE.0 + SIZE.1];
        u64::from_be_bytes(digits.try_into().context("read a size")?)
    };
    let (prefix, name) = (text(block, PREFIX)?, text(block, NAME)?);
    let key = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}/{name}")
    };
    ensure!(!key.is_empty(), "the archive holds a file without a name");
    Ok(Some((key, size)))
}

/// A name as prefix and rest, cut at a slash where it is too long for one field.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME.1 {
        return Some(("", name));
    }
    name.match_indices('/')
        .map(|(at, _)| (&name[..at], &name[at + 1..]))
        .find(|(prefix, rest)| prefix.len() <= PREFIX.1 && rest.len() <= NAME.1)
}

fn put(block: &mut [u8; BLOCK], (offset, length): (usize, usize), bytes: &[u8]) {
    debug_assert!(bytes.len() <= length, "the field has room");
    block[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn text(block: &[u8; BLOCK], (offset, length): (usize, usize)) -> Result<&str> {
    let field = &block[offset..offset + length];
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(field).context("a name in the archive is not UTF-8")
}

fn octal(block: &[u8; BLOCK], field: (usize, usize)) -> Result<u64> {
    let digits = text(block, field)?.trim();
    match u64::from_str_radix(digits, 8) {
        Ok(number) => Ok(number),
        Err(_) => bail!("a number in the archive is none"),
    }
}

/// The sum of all bytes, with spaces where the sum itself stands.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let is_sum = |at: &usize| (SUM.0..SUM.0 + SUM.1).contains(at);
    let bytes = block.iter().enumerate();
    bytes
        .map(|(at, byte)| if is_sum(&at) { b' ' } else { *byte })
        .map(u32::from)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let long = format!("session-{}/turns/{}", "a".repeat(60), "b".repeat(90));
        for (name, size) in [
            ("a", 0),
            (&*long, 512),
            ("dir/b", MAX_OCTAL),
            ("c", 1 << 40),
        ] {
            let block = header(name, size).unwrap();
            assert_eq!(parse(&block).unwrap(), Some((name.to_owned(), size)));
        }
        assert_eq!(parse(&[0; BLOCK]).unwrap(), None);
        assert!(header(&"x".repeat(101), 1).is_err(), "no slash to cut at");
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut block = header("a", 7).unwrap();
        block[0] = b'b';
        assert!(parse(&block).is_err());
    }

    #[test]
    fn files_end_at_a_block() {
        assert_eq!([0, 1, 511, 512].map(|n| padding(n).len()), [0, 511, 1, 0]);
    }
}
