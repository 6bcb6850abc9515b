//! Fetching: what is asked of the git host, and its pack, bounded as it comes.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::rc::Rc;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use git2::{Oid, Repository};
use reqwest::Url;

use super::{Cloning, too_large};
use crate::workspace::git::http::{Body, Conversation, Service};
use crate::workspace::git::pkt::{self, Advert, Pkt, SideBand};
use crate::workspace::git::{MAX_HOST_WORDS, Progress, broken, host_words, stopped};

/// How much of a pack is handed to the indexer at once, in bytes.
const PACK_CHUNK: usize = 64 * 1024;

/// Most packet lines of an answer before its pack: one for each commit whose parents are left out.
const MAX_ANSWER_LINES: usize = 1_000_000;

/// Between two progress reports, in received bytes.
const REPORT_EVERY: u64 = 1024 * 1024;

impl<'a> Cloning<'a> {
    pub(in crate::workspace::git) fn open(
        &mut self,
        url: &Url,
    ) -> Result<(Conversation<'a>, Advert), Failure> {
        let service = Service::UploadPack;
        let (conversation, mut body) = Conversation::open(self.access, url, service, self.cancel)?;
        let advert = Advert::read(&mut body, service.name()).map_err(|error| {
            self.interrupted().unwrap_or_else(|| {
                Failure::new(ErrorCode::RepoNotFound, format!("cannot clone: {error}"))
            })
        })?;
        if let Some(format) = advert.foreign_hash() {
            return Err(Failure::new(
                ErrorCode::ValidationError,
                format!("the repository uses {format} object names; only sha1 is supported"),
            ));
        }
        Ok((conversation, advert))
    }

    /// Fetches `wants` (a local reference for each) into a fresh repository; it is opened
    /// again afterwards, so that it knows about shallow commits.
    pub(in crate::workspace::git) fn fetch(
        &mut self,
        conversation: &Conversation<'a>,
        advert: &Advert,
        repo: Repository,
        wants: &[(String, Oid)],
        depth: u32,
    ) -> Result<Repository, Failure> {
        let request = fetch_request(advert, wants, depth);
        let length = request.len() as u64;
        let mut body = conversation.post(request.into(), length)?;
        let shallow = read_answer(&mut body, depth > 0 && advert.has("shallow"))
            .map_err(|error| self.broke("fetch from the git host", error))?;
        self.receive(&repo, body)?;
        if !shallow.is_empty() {
            fs::write(repo.path().join("shallow"), shallow.join("\n") + "\n")
                .map_err(|error| broken("write the shallow file", error))?;
        }
        let path = repo.path().to_owned();
        drop(repo);
        let open = || -> Result<Repository, git2::Error> {
            let repo = Repository::open(&path)?;
            for (name, oid) in wants {
                repo.reference(name, *oid, true, "clone")?;
            }
            Ok(repo)
        };
        open().map_err(|error| broken("record what was fetched", error.message()))
    }

    /// Fetches `tip` into a repository that has the commit `have.0` and what is below it, down
    /// to the shallow commits `have.1`.
    pub(in crate::workspace::git) fn fetch_onto(
        &mut self,
        conversation: &Conversation<'a>,
        advert: &Advert,
        repo: &Repository,
        tip: Oid,
        have: (Oid, &[Oid]),
    ) -> Result<(), Failure> {
        let request = update_request(advert, tip, have);
        let length = request.len() as u64;
        let mut body = conversation.post(request.into(), length)?;
        read_answer(&mut body, false)
            .map_err(|error| self.broke("fetch from the git host", error))?;
        self.receive(repo, body)
    }

    fn receive(&mut self, repo: &Repository, body: Body<'_>) -> Result<(), Failure> {
        let git = |error: git2::Error| broken("store the received objects", error.message());
        let odb = repo.odb().map_err(git)?;
        let mut writer = odb.packwriter().map_err(git)?;
        let counts = Rc::new(Cell::new((0, 0)));
        let seen = Rc::clone(&counts);
        writer.progress(move |stats| {
            seen.set((stats.received_objects(), stats.total_objects()));
            true
        });
        let mut words = String::new();
        let mut collect = |text: &str| {
            if words.len() < MAX_HOST_WORDS {
                words.push_str(text);
            }
        };
        let mut pack = SideBand::new(body, &mut collect);
        let mut chunk = vec![0; PACK_CHUNK];
        let (mut bytes, mut reported) = (0_u64, 0_u64);
        loop {
            let count = pack
                .read(&mut chunk)
                .map_err(|error| self.broke("receive from the git host", error))?;
            if count == 0 {
                break;
            }
            bytes += count as u64;
            if bytes > self.max_pack_bytes {
                return Err(too_large(format!(
                    "it sends more than {} bytes",
                    self.max_pack_bytes
                )));
            }
            writer
                .write_all(&chunk[..count])
                .map_err(|error| broken("store the received objects", error))?;
            if bytes - reported >= REPORT_EVERY {
                reported = bytes;
                let (received, total) = counts.get();
                (self.progress)(Progress::Objects {
                    received,
                    total,
                    bytes,
                });
            }
        }
        writer.commit().map_err(git)?;
        let (received, total) = counts.get();
        (self.progress)(Progress::Objects {
            received,
            total,
            bytes,
        });
        drop(writer);
        if !words.is_empty() {
            (self.progress)(Progress::Message(host_words(&words)));
        }
        Ok(())
    }

    /// Reading ended because that was asked for, not because of the host.
    fn interrupted(&self) -> Option<Failure> {
        self.cancel.is_cancelled().then(stopped)
    }

    fn broke(&self, action: &str, error: std::io::Error) -> Failure {
        self.interrupted().unwrap_or_else(|| broken(action, error))
    }
}

fn fetch_request(advert: &Advert, wants: &[(String, Oid)], depth: u32) -> Vec<u8> {
    let shallow = depth > 0 && advert.has("shallow");
    let mut oids: Vec<Oid> = wants.iter().map(|(_, oid)| *oid).collect();
    oids.sort_unstable();
    oids.dedup();
    let mut capabilities = " side-band-64k ofs-delta".to_owned();
    if shallow {
        capabilities.push_str(" shallow");
    }
    let mut request = Vec::new();
    for oid in oids {
        request.extend(pkt::line(format!("want {oid}{capabilities}\n").as_bytes()));
        capabilities.clear();
    }
    if shallow {
        request.extend(pkt::line(format!("deepen {depth}\n").as_bytes()));
    }
    request.extend_from_slice(pkt::FLUSH);
    request.extend(pkt::line(b"done\n"));
    request
}

fn update_request(advert: &Advert, tip: Oid, (have, shallow): (Oid, &[Oid])) -> Vec<u8> {
    let knows_shallow = advert.has("shallow");
    let capability = if knows_shallow { " shallow" } else { "" };
    let mut request =
        pkt::line(format!("want {tip} side-band-64k ofs-delta{capability}\n").as_bytes());
    for commit in shallow.iter().filter(|_| knows_shallow) {
        request.extend(pkt::line(format!("shallow {commit}\n").as_bytes()));
    }
    request.extend_from_slice(pkt::FLUSH);
    request.extend(pkt::line(format!("have {have}\n").as_bytes()));
    request.extend(pkt::line(b"done\n"));
    request
}

/// Reads up to the pack; answers the shallow commits.
fn read_answer(body: &mut impl Read, shallow: bool) -> std::io::Result<Vec<String>> {
    let error = |text: &str| std::io::Error::other(host_words(text));
    let mut commits = Vec::new();
    let mut in_shallow = shallow;
    for _ in 0..MAX_ANSWER_LINES {
        let Some(packet) = pkt::read(body)? else {
            return Err(error("the git host ended its answer early"));
        };
        let Pkt::Data(data) = packet else {
            in_shallow = false;
            continue;
        };
        let text = String::from_utf8_lossy(data.trim_ascii_end()).into_owned();
        match text.split_once(' ') {
            Some(("shallow", commit)) if in_shallow => {
                let commit = Oid::from_str(commit).map_err(std::io::Error::other)?;
                commits.push(commit.to_string());
            }
            Some(("unshallow", _)) if in_shallow => {}
            Some(("ERR", words)) => return Err(error(words)),
            Some(("ACK", _)) => return Ok(commits),
            _ if text == "NAK" => return Ok(commits),
            _ => return Err(error("the git host answered in an unexpected way")),
        }
    }
    Err(error("the git host's answer has too many lines"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::git::pkt::tests::Endless;

    #[test]
    fn an_answer_that_never_comes_to_its_pack_is_refused() {
        let shallow = pkt::line(format!("shallow {}", "1".repeat(40)).as_bytes());
        for words in [shallow, pkt::FLUSH.to_vec()] {
            let refused = read_answer(&mut Endless::new(words), true).unwrap_err();
            assert!(refused.to_string().contains("too many lines"), "{refused}");
        }
    }
}
