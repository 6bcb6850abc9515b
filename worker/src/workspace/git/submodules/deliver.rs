//! What an agent did inside of submodules: it is pushed before the commit that links to it.
//!
//! A changed submodule gets a commit on a branch named as the session's, on its own remote. What
//! the agent left in `.gitmodules` does not say where that is: the git host's own base branch does,
//! and only the host that the token was given for gets it. Where that is not possible the link
//! stays as the host knows it, the change stays in the session, and a note says why. What must
//! never happen: the branch's tip links to what only the session has, or the token goes to a
//! repository that an agent chose.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use clawlink_shared::control::{CommitAuthor, Failure};
use clawlink_shared::execution::ErrorCode;
use git2::Oid;
use reqwest::Url;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{MAX_DEPTH, MAX_SUBMODULES, links_of};
use crate::redact::Redactor;
use crate::workspace::git::clone::{Cloning, init};
use crate::workspace::git::commit::{CommitRequest, commit_all};
use crate::workspace::git::dotgit::{Scratch, is_real_dir, is_real_path};
use crate::workspace::git::http::GitAccess;
use crate::workspace::git::push::{PushRequest, push};
use crate::workspace::git::{catch_up, history, stage};

/// Most bytes that are fetched to read where submodules are, if the base branch moved on.
const MAX_BASE_BYTES: u64 = 1 << 30;

/// Links by their paths in the working tree, as the next commit shall have them.
pub(in crate::workspace::git) type Links = BTreeMap<Vec<u8>, Oid>;

/// What became of a working tree's submodules.
#[derive(Debug, Clone, Default)]
pub struct Submodules {
    pub(in crate::workspace::git) links: Links,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Whose submodules, and how to commit in them.
#[derive(Debug, Clone, Copy)]
pub struct SubmodulesRequest<'a> {
    /// The working tree around them.
    pub work: &'a Path,
    /// A directory outside of the agent's reach, for throw-away repositories.
    pub tmp: &'a Path,
    /// The session's branch, without `refs/heads/`.
    pub branch: &'a str,
    /// The branch that the session began from, if the request names one.
    pub base: Option<&'a str>,
    /// The whole message.
    pub message: &'a str,
    /// Author and committer.
    pub author: &'a CommitAuthor,
    /// Stops a push with a secret that it knows.
    pub redactor: &'a Redactor,
}

/// Whether there may be submodules: without this file they have no place.
pub fn may_have_submodules(work: &Path) -> bool {
    work.join(".gitmodules").symlink_metadata().is_ok()
}

/// Commits and pushes changed submodules, deeper ones first. Fails only if it is stopped, or if
/// the working tree's own `.git` cannot be used.
pub fn deliver_submodules(
    access: &GitAccess,
    request: SubmodulesRequest<'_>,
    cancel: &CancellationToken,
) -> Result<Submodules, Failure> {
    let scratch = open(request.work, request.tmp)?;
    let mut delivery = Delivery {
        access,
        request,
        cancel,
        left: MAX_SUBMODULES,
        notes: Vec::new(),
    };
    let places = match delivery.places(&scratch) {
        Err(failure) if is_stop(&failure) => return Err(failure),
        places => places.unwrap_or_default(),
    };
    let links = delivery.level(&scratch, &places, "", 0)?;
    Ok(Submodules {
        links,
        notes: delivery.notes,
    })
}

/// Submodules by their paths, with what the parent's links and its `.gitmodules` say.
type Places = BTreeMap<String, Url>;

struct Delivery<'a> {
    access: &'a GitAccess,
    request: SubmodulesRequest<'a>,
    cancel: &'a CancellationToken,
    left: usize,
    notes: Vec<String>,
}

impl Delivery<'_> {
    /// Where the git host itself says that submodules are: on the base branch, which is not the
    /// one that agents write.
    fn places(&self, scratch: &Scratch) -> Result<Places, Failure> {
        let access = self.access;
        let mut silent = |_| {};
        let bounds = (MAX_BASE_BYTES, 0);
        let mut cloning = Cloning::new(access, self.cancel, &mut silent, bounds);
        let (conversation, advert) = cloning.open(access.url())?;
        let names = [self.request.base, advert.head_branch()];
        let tip = names
            .into_iter()
            .flatten()
            .filter(|name| *name != self.request.branch)
            .find_map(|name| advert.find(&format!("refs/heads/{name}")));
        let Some(tip) = tip else {
            return Ok(Places::new());
        };
        // Objects are named by their content, whoever wrote them.
        if scratch.repo.find_commit(tip).is_ok() {
            return Ok(places_of(access, access.url(), &scratch.repo, tip));
        }
        let dir = TempDir::with_prefix_in("base-", self.request.tmp);
        let dir = dir.map_err(|error| failed(format!("create a scratch directory: {error}")))?;
        let wants = [("refs/remotes/origin/base".to_owned(), tip)];
        let repo = init(dir.path(), access.url())?;
        let repo = cloning.fetch(&conversation, &advert, repo, &wants, 1)?;
        Ok(places_of(access, access.url(), &repo, tip))
    }

    /// The links of one working tree, those of its submodules settled before.
    fn level(
        &mut self,
        parent: &Scratch,
        places: &Places,
        prefix: &str,
        depth: usize,
    ) -> Result<Links, Failure> {
        let mut links = Links::new();
        let found = stage::submodules(parent).map_err(|error| failed(format!("{error:#}")))?;
        for (path, known) in found {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let shown = format!("{prefix}{}", String::from_utf8_lossy(&path));
            match self.one(parent, &path, known, places, (&shown, depth)) {
                Ok(Some(tip)) => drop(links.insert(path, tip)),
                Ok(None) => {}
                Err(failure) if is_stop(&failure) => return Err(failure),
                Err(failure) => self.notes.push(format!(
                    "Submodule {shown} stays at the commit that the git host knows; its changes stay in the session: {}.",
                    failure.message.trim_end_matches('.')
                )),
            }
        }
        Ok(links)
    }

    /// The commit that the parent may link to, if that is another one than it is known to have.
    fn one(
        &mut self,
        parent: &Scratch,
        path: &[u8],
        known: Option<Oid>,
        places: &Places,
        (shown, depth): (&str, usize),
    ) -> Result<Option<Oid>, Failure> {
        let at = Path::new(OsStr::from_bytes(path));
        let work = parent.work.join(at);
        let git_dir = work.join(".git");
        if git_dir.symlink_metadata().is_err() {
            return Ok(None);
        }
        if !is_real_path(&parent.work, &at.join("in")) || !is_real_dir(&git_dir) {
            return Err(failed("its .git is not a directory of its own"));
        }
        let scratch = open(&work, self.request.tmp)?;
        let url = places.get(&*String::from_utf8_lossy(path));
        let inner = match (url, known) {
            (Some(url), Some(known)) => places_of(self.access, url, &scratch.repo, known),
            _ => Places::new(),
        };
        let deeper = match depth + 1 {
            MAX_DEPTH => Links::new(),
            depth => self.level(&scratch, &inner, &format!("{shown}/"), depth)?,
        };
        let head = scratch
            .head()
            .map_err(|error| failed(format!("{error:#}")))?;
        let is_clean = |head| catch_up::is_clean(&scratch, head, self.request.redactor, &deeper);
        let is_clean = match head {
            Some(head) => is_clean(head).map_err(|error| failed(format!("{error:#}")))?,
            None => false,
        };
        if is_clean && head == known {
            return Ok(None);
        }
        let Some(url) = url else {
            return Err(failed(
                "the base branch on the git host does not say where it is",
            ));
        };
        let access = self.access.for_submodule(url);
        if is_clean
            && let Some(head) = head
            && self.host_has(&access, &scratch, head)?
        {
            return Ok(Some(head));
        }
        if !access.has_token() {
            return Err(failed(
                "it is not on the host that the token was given for, so it cannot be pushed",
            ));
        }
        let tip = self.commit(&access, &work, &deeper, shown)?;
        if tip == known {
            return Ok(None);
        }
        let push_request = PushRequest {
            work: &work,
            tmp: self.request.tmp,
            branch: self.request.branch,
            redactor: self.request.redactor,
        };
        push(&access, push_request, self.cancel)?;
        Ok(tip)
    }

    /// Whether a branch or tag of the host is known to hold this commit.
    fn host_has(&self, access: &GitAccess, scratch: &Scratch, tip: Oid) -> Result<bool, Failure> {
        let mut silent = |_| {};
        let mut cloning = Cloning::new(access, self.cancel, &mut silent, (0, 0));
        let (_, advert) = cloning.open(access.url())?;
        let tips: Vec<Oid> = advert.refs.iter().map(|(_, tip)| *tip).collect();
        Ok(history::is_ancestor(&scratch.repo, tip, &tips).unwrap_or(false))
    }

    fn commit(
        &mut self,
        access: &GitAccess,
        work: &Path,
        links: &Links,
        shown: &str,
    ) -> Result<Option<Oid>, Failure> {
        let submodules = Submodules {
            links: links.clone(),
            notes: Vec::new(),
        };
        let request = CommitRequest {
            work,
            tmp: self.request.tmp,
            branch: self.request.branch,
            message: self.request.message,
            author: self.request.author,
            redactor: self.request.redactor,
            submodules: &submodules,
        };
        let outcome = commit_all(access, request, self.cancel, || {})?;
        let notes = outcome.notes.into_iter();
        self.notes
            .extend(notes.map(|note| format!("Submodule {shown}: {note}")));
        let tip = outcome.tip.map(|tip| tip.parse()).transpose();
        tip.map_err(|error: git2::Error| failed(error.message()))
    }
}

/// Where a commit's `.gitmodules` says that its links are; what is not allowed is passed over.
fn places_of(access: &GitAccess, url: &Url, repo: &git2::Repository, commit: Oid) -> Places {
    let links = links_of(repo, commit).unwrap_or_default().into_iter();
    links
        .filter_map(|(path, _, target)| Some((path, access.check(url, &target?).ok()?)))
        .collect()
}

fn open(work: &Path, tmp: &Path) -> Result<Scratch, Failure> {
    let opened = Scratch::open(work, tmp).context("cannot commit");
    opened.map_err(|error| failed(format!("{error:#}")))
}

fn is_stop(failure: &Failure) -> bool {
    failure.code == ErrorCode::Interrupted
}

fn failed(why: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::PushFailed, why)
}
