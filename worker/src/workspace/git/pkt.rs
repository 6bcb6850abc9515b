//! The packet lines of git's smart protocol (version 0), and what a host advertises with them.
//!
//! Everything read here comes from a host that nobody vouches for: lengths are bounded, and
//! a malformed line is an error, never a panic.

use std::io::{self, Read};

use git2::Oid;

/// The longest packet line, its length included.
const MAX_LINE: usize = 65_520;

/// Most references that a host may advertise.
const MAX_REFS: usize = 1_000_000;

/// Longest advertisement, in bytes.
const MAX_ADVERT: u64 = 128 * 1024 * 1024;

const TOO_MANY_REFS: &str = "the repository has too many references";

/// One packet line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pkt {
    /// `0000`: end of a section.
    Flush,
    /// Its payload.
    Data(Vec<u8>),
}

/// Formats one packet line.
pub(super) fn line(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("{:04x}", payload.len() + 4).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// `0000`.
pub(super) const FLUSH: &[u8] = b"0000";

/// Reads one packet line; `None` at the end of the stream.
pub(super) fn read(reader: &mut impl Read) -> io::Result<Option<Pkt>> {
    let mut head = [0_u8; 4];
    if reader.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..])?;
    let length = std::str::from_utf8(&head)
        .ok()
        .and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or_else(|| io::Error::other("the git host did not answer in git's protocol"))?;
    match length {
        0 => Ok(Some(Pkt::Flush)),
        4..=MAX_LINE => {
            let mut data = vec![0; length - 4];
            reader.read_exact(&mut data)?;
            Ok(Some(Pkt::Data(data)))
        }
        _ => Err(io::Error::other(
            "the git host sent a malformed packet line",
        )),
    }
}

/// What a host says about a repository.
#[derive(Debug, Default)]
pub(super) struct Advert {
    /// References and what they point to; `HEAD` among them if it points to something.
    pub(super) refs: Vec<(String, Oid)>,
    capabilities: String,
}

impl Advert {
    /// Reads the answer to `info/refs`.
    pub(super) fn read(reader: &mut impl Read, service: &str) -> io::Result<Self> {
        let mut bounded = reader.take(MAX_ADVERT);
        let advert = Self::read_whole(&mut bounded, service);
        match bounded.limit() {
            0 => Err(io::Error::other(TOO_MANY_REFS)),
            _ => advert,
        }
    }

    fn read_whole(reader: &mut impl Read, service: &str) -> io::Result<Self> {
        let banner = format!("# service={service}");
        match read(reader)? {
            Some(Pkt::Data(data)) if data.trim_ascii_end() == banner.as_bytes() => {}
            _ => return Err(io::Error::other("there is no git repository at this URL")),
        }
        if read(reader)? != Some(Pkt::Flush) {
            return Err(io::Error::other("the git host sent a malformed greeting"));
        }
        let mut advert = Self::default();
        while let Some(Pkt::Data(data)) = read(reader)? {
            let text = String::from_utf8_lossy(data.trim_ascii_end());
            let reference = match text.split_once('\0') {
                Some((reference, capabilities)) => {
                    advert.capabilities = capabilities.to_owned();
                    reference
                }
                None => &text,
            };
            if let Some(message) = reference.strip_prefix("ERR ") {
                return Err(io::Error::other(super::host_words(message)));
            }
            let Some((hash, name)) = reference.split_once(' ') else {
                return Err(io::Error::other("the git host sent a malformed reference"));
            };
            if hash == "shallow" || name == "capabilities^{}" || name.ends_with("^{}") {
                continue;
            }
            let oid = Oid::from_str(hash).map_err(io::Error::other)?;
            advert.refs.push((name.to_owned(), oid));
            if advert.refs.len() > MAX_REFS {
                return Err(io::Error::other(TOO_MANY_REFS));
            }
        }
        Ok(advert)
    }

    /// What a reference points to.
    pub(super) fn find(&self, name: &str) -> Option<Oid> {
        self.refs
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, oid)| *oid)
    }

    /// Whether the host announced a capability, with or without a value.
    pub(super) fn has(&self, capability: &str) -> bool {
        self.capabilities
            .split(' ')
            .any(|word| word.split('=').next() == Some(capability))
    }

    /// The branch to which `HEAD` points, without `refs/heads/`, as the host says it.
    pub(super) fn head_branch(&self) -> Option<&str> {
        self.capabilities
            .split(' ')
            .find_map(|word| word.strip_prefix("symref=HEAD:refs/heads/"))
    }

    /// A hash function that is not SHA-1, if the repository uses one.
    pub(super) fn foreign_hash(&self) -> Option<&str> {
        self.capabilities
            .split(' ')
            .find_map(|word| word.strip_prefix("object-format="))
            .filter(|format| *format != "sha1")
    }
}

/// The data of band 1; band 2 goes to `words`, band 3 is an error.
pub(super) struct SideBand<'a, R> {
    pub(super) reader: R,
    pub(super) words: &'a mut dyn FnMut(&str),
    pending: Vec<u8>,
    at: usize,
}

impl<'a, R: Read> SideBand<'a, R> {
    pub(super) fn new(reader: R, words: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            reader,
            words,
            pending: Vec::new(),
            at: 0,
        }
    }
}

impl<R: Read> Read for SideBand<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.pending.len() {
            match read(&mut self.reader)? {
                None | Some(Pkt::Flush) => return Ok(0),
                Some(Pkt::Data(data)) => match data.split_first() {
                    Some((1, _)) => {
                        self.pending = data;
                        self.at = 1;
                    }
                    Some((2, text)) => (self.words)(&String::from_utf8_lossy(text)),
                    Some((3, text)) => {
                        let text = String::from_utf8_lossy(text);
                        return Err(io::Error::other(super::host_words(&text)));
                    }
                    _ => return Err(io::Error::other("the git host sent an unknown band")),
                },
            }
        }
        let count = into.len().min(self.pending.len() - self.at);
        into[..count].copy_from_slice(&self.pending[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host that says the same for ever.
    pub(in super::super) struct Endless {
        words: Vec<u8>,
        at: usize,
    }

    impl Endless {
        pub(in super::super) fn new(words: Vec<u8>) -> Self {
            Self { words, at: 0 }
        }
    }

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = (&self.words[self.at..]).read(into)?;
            self.at = (self.at + count) % self.words.len();
            Ok(count)
        }
    }

    #[test]
    fn an_advertisement_without_end_is_refused() {
        let start = [&line(b"# service=git-upload-pack\n"), FLUSH].concat();
        // Passed over one by one, so no number of references stops it.
        let peeled = format!("{} refs/tags/{}^{{}}", "0".repeat(40), "v".repeat(60_000));
        let endless = Endless::new(line(peeled.as_bytes()));
        let refused = Advert::read(&mut start.as_slice().chain(endless), "git-upload-pack");
        assert_eq!(refused.unwrap_err().to_string(), TOO_MANY_REFS);
    }
}
