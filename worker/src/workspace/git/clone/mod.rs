//! Cloning: shallow unless asked otherwise, bounded in bytes and files before anything is
//! written to the working tree.

mod branches;
mod checkout;
mod fetch;

use std::path::Path;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::{ErrorCode, Repository as Wanted};
use git2::{Repository, RepositoryInitOptions};
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::http::GitAccess;
use super::{Progress, branch, broken, submodules};
use branches::{all_branches, choose};

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

fn too_large(why: String) -> Failure {
    Failure::new(
        ErrorCode::RepoTooLarge,
        format!("the repository is too large: {why}"),
    )
}
