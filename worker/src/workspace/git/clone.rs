//! Cloning: shallow unless asked otherwise, bounded in bytes and files before anything is
//! written to the working tree.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::rc::Rc;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::{ErrorCode, Repository as Wanted};
use git2::build::{CheckoutBuilder, TreeUpdateBuilder};
use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::http::{Body, Conversation, GitAccess, Service};
use super::pkt::{self, Advert, Pkt, SideBand};
use super::{Progress, branch, broken, host_words, lfs, stage, submodules, tree};

/// How much of a pack is handed to the indexer at once, in bytes.
const PACK_CHUNK: usize = 64 * 1024;

/// Between two progress reports, in received bytes.
const REPORT_EVERY: u64 = 1024 * 1024;

const GITMODULES: &str = ".gitmodules";

/// What to clone, and how much of it may come.
#[derive(Debug, Clone, Copy)]
pub struct CloneRequest<'a> {
    /// From the stored request; its URL is the one that the [`GitAccess`] was made for.
    pub repository: &'a Wanted,
    /// Where the work will go. A host that already has this branch is cloned from it, so that
    /// the work can be pushed there.
    pub working_branch: Option<&'a str>,
    /// The working tree; empty or absent.
    pub into: &'a Path,
    /// Bound of the received pack and, separately, of the working tree.
    pub max_bytes: u64,
    /// Bound of the entries in the working tree.
    pub max_files: u64,
}

/// What was cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The branch that is checked out.
    pub branch: String,
    /// Its tip; absent in an empty repository.
    pub commit: Option<String>,
    /// What a person should know: another branch was taken, LFS pointers were left, …
    pub notes: Vec<String>,
}

/// Clones the repository with its submodules.
pub fn clone(
    access: &GitAccess,
    request: CloneRequest<'_>,
    cancel: &CancellationToken,
    progress: &mut dyn FnMut(Progress),
) -> Result<Cloned, Failure> {
    let bounds = (request.max_bytes, request.max_files);
    let mut cloning = Cloning::new(access, cancel, progress, bounds);
    let mut notes = Vec::new();
    let (conversation, advert) = cloning.open(access.url())?;
    let repo = init(request.into, access.url())?;
    let is_there = |name: &&str| advert.find(&format!("refs/heads/{name}")).is_some();
    let base = request.repository.branch.as_deref();
    let ongoing = request.working_branch.filter(is_there);
    if let Some(name) = ongoing.filter(|name| Some(*name) != base) {
        notes.push(format!(
            "Branch {name} exists on the git host; the work goes on from there."
        ));
    }
    let Some((name, tip)) = choose(&advert, ongoing.or(base), &mut notes)? else {
        let name = base.or(advert.head_branch()).unwrap_or("main").to_owned();
        let reference = branch::reference_name(&name)?;
        repo.set_head(&reference)
            .map_err(|error| broken("set the branch", error.message()))?;
        notes.push("The repository is empty; the first commit creates the branch.".to_owned());
        return Ok(Cloned {
            branch: name,
            commit: None,
            notes,
        });
    };
    let wants = match request.repository.depth {
        0 => all_branches(&advert),
        _ => vec![(format!("refs/remotes/origin/{name}"), tip)],
    };
    let depth = request.repository.depth;
    let repo = cloning.fetch(&conversation, &advert, repo, &wants, depth)?;
    cloning.check_out(&repo, &name, tip)?;
    notes.extend(cloning.fill_pointers(&repo, tip)?);
    submodules::clone_all(&mut cloning, &repo, access.url(), tip, &mut notes)?;
    Ok(Cloned {
        branch: name,
        commit: Some(tip.to_string()),
        notes,
    })
}

/// One clone with its submodules: they share its bounds.
pub(super) struct Cloning<'a> {
    pub(super) access: &'a GitAccess,
    pub(super) cancel: &'a CancellationToken,
    pub(super) progress: &'a mut dyn FnMut(Progress),
    bytes_left: u64,
    files_left: u64,
    max_pack_bytes: u64,
}

impl<'a> Cloning<'a> {
    pub(super) fn new(
        access: &'a GitAccess,
        cancel: &'a CancellationToken,
        progress: &'a mut dyn FnMut(Progress),
        (max_bytes, max_files): (u64, u64),
    ) -> Self {
        Self {
            access,
            cancel,
            progress,
            bytes_left: max_bytes,
            files_left: max_files,
            max_pack_bytes: max_bytes,
        }
    }

    pub(super) fn open(&mut self, url: &Url) -> Result<(Conversation<'a>, Advert), Failure> {
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
    pub(super) fn fetch(
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
    pub(super) fn fetch_onto(
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
            if words.len() < super::MAX_HOST_WORDS {
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
        self.cancel.is_cancelled().then(super::stopped)
    }

    fn broke(&self, action: &str, error: std::io::Error) -> Failure {
        self.interrupted().unwrap_or_else(|| broken(action, error))
    }

    /// Checks the size of what `tip` holds, then writes it and makes `branch` current.
    pub(super) fn check_out(
        &mut self,
        repo: &Repository,
        branch: &str,
        tip: Oid,
    ) -> Result<(), Failure> {
        self.check_size(repo, tip)?;
        let reference = branch::reference_name(branch)?;
        let write = || -> Result<(), git2::Error> {
            write_tree(repo, tip)?;
            repo.reference(&reference, tip, true, "clone")?;
            repo.set_head(&reference)
        };
        write().map_err(|error| broken("check out the branch", error.message()))
    }

    /// Replaces Git LFS pointers by their content, which counts as files of the session.
    pub(super) fn fill_pointers(
        &mut self,
        repo: &Repository,
        tip: Oid,
    ) -> Result<Option<String>, Failure> {
        let bytes_left = &mut self.bytes_left;
        lfs::download(
            self.access,
            self.access.url(),
            (repo, tip),
            bytes_left,
            self.cancel,
        )
    }

    /// Counts what `tip` holds against what may still come.
    pub(super) fn check_size(&mut self, repo: &Repository, tip: Oid) -> Result<(), Failure> {
        let git = |error: git2::Error| broken("read the repository", error.message());
        let odb = repo.odb().map_err(git)?;
        let mut refused = None;
        let walked = tree::walk(repo, tip, |_, entry| {
            let size = match entry.kind() {
                Some(ObjectType::Blob) => odb.read_header(entry.id()).map_or(0, |(size, _)| size),
                _ => 0,
            };
            let bytes_left = self.bytes_left.checked_sub(size as u64);
            let (Some(bytes), Some(files)) = (bytes_left, self.files_left.checked_sub(1)) else {
                refused = Some(match bytes_left {
                    None => "its files exceed the bytes that a session may hold",
                    Some(_) => "it has more files than a session may hold",
                });
                return Err(git2::Error::from_str("too large"));
            };
            self.bytes_left = bytes;
            self.files_left = files;
            Ok(())
        });
        match refused {
            Some(why) => Err(too_large(why.to_owned())),
            None => walked.map_err(git),
        }
    }
}

/// Writes a commit's tree to the working tree and the index. libgit2 would read
/// `.gitmodules` as configuration, and whatever files it includes: it is written last, by us.
fn write_tree(repo: &Repository, tip: Oid) -> Result<(), git2::Error> {
    let tree = repo.find_commit(tip)?.tree()?;
    let mut force = CheckoutBuilder::new();
    force.force();
    let Some(modules) = tree.get_name(GITMODULES) else {
        return repo.checkout_tree(tree.as_object(), Some(&mut force));
    };
    if modules.filemode() & 0o170_000 != 0o100_000 {
        return Err(git2::Error::from_str(".gitmodules is not a plain file"));
    }
    let rest = TreeUpdateBuilder::new()
        .remove(GITMODULES)
        .create_updated(repo, &tree)?;
    repo.checkout_tree(repo.find_tree(rest)?.as_object(), Some(&mut force))?;
    let mut index = repo.index()?;
    let mode = modules.filemode().cast_unsigned();
    index.add(&stage::entry_of(
        GITMODULES.as_bytes(),
        modules.id(),
        mode,
        None,
    ))?;
    index.write()?;
    let content = repo.find_blob(modules.id())?;
    let written = repo
        .workdir()
        .map(|work| fs::write(work.join(GITMODULES), content.content()));
    match written {
        Some(Err(error)) => Err(git2::Error::from_str(&error.to_string())),
        _ => Ok(()),
    }
}

fn too_large(why: String) -> Failure {
    Failure::new(
        ErrorCode::RepoTooLarge,
        format!("the repository is too large: {why}"),
    )
}

/// A repository of our own: no templates, and a remote for people to read.
pub(super) fn init(into: &Path, url: &Url) -> Result<Repository, Failure> {
    let create = || -> Result<Repository, git2::Error> {
        let mut options = RepositoryInitOptions::new();
        options.mkpath(true).external_template(false);
        let repo = Repository::init_opts(into, &options)?;
        repo.remote("origin", url.as_str())?;
        Ok(repo)
    };
    create().map_err(|error| broken("create the repository", error.message()))
}

/// The branch to work from and its tip; `None` in an empty repository.
fn choose(
    advert: &Advert,
    wanted: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Option<(String, Oid)>, Failure> {
    let branch = |name: &str| {
        let tip = advert.find(&format!("refs/heads/{name}"))?;
        Some((name.to_owned(), tip))
    };
    if let Some(found) = wanted.and_then(branch) {
        return Ok(Some(found));
    }
    let head = advert.find("HEAD");
    let by_tip = || {
        let is_head =
            |(name, tip): &&(String, Oid)| name.starts_with("refs/heads/") && Some(*tip) == head;
        let (name, _) = advert.refs.iter().find(is_head)?;
        branch(name.trim_start_matches("refs/heads/"))
    };
    let default = advert
        .head_branch()
        .and_then(branch)
        .or_else(|| branch("main"))
        .or_else(|| branch("master"))
        .or_else(by_tip);
    match (&default, wanted) {
        (None, _)
            if advert
                .refs
                .iter()
                .any(|(name, _)| name.starts_with("refs/heads/")) =>
        {
            Err(Failure::new(
                ErrorCode::ValidationError,
                "the repository has no default branch; name one in github.branch",
            ))
        }
        (Some((name, _)), Some(wanted)) => {
            notes.push(format!(
                "Branch {wanted} does not exist; using the default branch {name}."
            ));
            Ok(default)
        }
        _ => Ok(default),
    }
}

fn all_branches(advert: &Advert) -> Vec<(String, Oid)> {
    let local = |(name, oid): &(String, Oid)| {
        let branch = name.strip_prefix("refs/heads/");
        let local = match branch {
            Some(branch) => format!("refs/remotes/origin/{branch}"),
            None if name.starts_with("refs/tags/") => name.clone(),
            None => return None,
        };
        git2::Reference::is_valid_name(&local).then_some((local, *oid))
    };
    advert.refs.iter().filter_map(local).collect()
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
    loop {
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
}
