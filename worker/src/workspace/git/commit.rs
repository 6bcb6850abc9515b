//! Committing what a turn left behind, on the session's branch.

use std::path::Path;

use anyhow::{Context as _, Result};
use clawlink_shared::control::{CommitAuthor, Failure};
use clawlink_shared::execution::ErrorCode;
use git2::{Commit, Oid, Signature};

use tokio_util::sync::CancellationToken;

use super::dotgit::Scratch;
use super::http::GitAccess;
use super::submodules::Submodules;
use super::{branch, history, lfs, stage};
use crate::redact::Redactor;

/// How to commit.
#[derive(Debug, Clone, Copy)]
pub struct CommitRequest<'a> {
    /// The working tree.
    pub work: &'a Path,
    /// A directory outside of the agent's reach, for the throw-away repository.
    pub tmp: &'a Path,
    /// The branch that gets the commit, without `refs/heads/`.
    pub branch: &'a str,
    /// The whole message.
    pub message: &'a str,
    /// Author and committer.
    pub author: &'a CommitAuthor,
    /// Keeps files with a secret that it knows from being uploaded to Git LFS.
    pub redactor: &'a Redactor,
    /// What was pushed of submodules; all others stay as the remote knows them.
    pub submodules: &'a Submodules,
}

/// What there is on the branch now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOutcome {
    /// The branch's tip; absent if nothing was ever committed.
    pub tip: Option<String>,
    /// Whether a commit was made; if not, the tip is the agent's own or an earlier one.
    pub committed: bool,
    /// Whether the branch holds commits that the remote is not known to have.
    pub unpushed: bool,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Commits everything uncommitted and puts the branch there; the agent's own commits stay
/// below it, whichever branch they were made on. Content of Git LFS paths is uploaded before
/// its pointer is committed. `begin` is called before the commit is made, if there is anything
/// to commit. Every failure is a `push_failed`: the session keeps the files as
/// they are.
pub fn commit_all(
    access: &GitAccess,
    request: CommitRequest<'_>,
    cancel: &CancellationToken,
    begin: impl FnOnce(),
) -> Result<CommitOutcome, Failure> {
    let reference = branch::reference_name(request.branch)?;
    let upload = |contents: &[lfs::Content]| lfs::upload(access, contents, cancel);
    commit_to(request, &reference, &upload, begin)
        .map_err(|error| Failure::new(ErrorCode::PushFailed, format!("cannot commit: {error:#}")))
}

fn commit_to(
    request: CommitRequest<'_>,
    reference: &str,
    upload: stage::Upload<'_>,
    begin: impl FnOnce(),
) -> Result<CommitOutcome> {
    let scratch = Scratch::open(request.work, request.tmp)?;
    let repo = &scratch.repo;
    let before = scratch.reference(reference)?;
    let parents: Vec<Commit<'_>> = parents(&scratch, before)?
        .into_iter()
        .map(|oid| repo.find_commit(oid))
        .collect::<Result<_, _>>()
        .context("read the last commit")?;
    let old_tree = parents
        .first()
        .map(Commit::tree)
        .transpose()
        .context("read the last commit")?;
    let parent = parents.first().map(Commit::id);
    let links = &request.submodules.links;
    let staged = stage::stage(&scratch, parent, request.redactor, links, upload)?;
    let is_clean = match &old_tree {
        Some(tree) => parents.len() == 1 && tree.id() == staged.tree,
        None => repo
            .find_tree(staged.tree)
            .is_ok_and(|tree| tree.is_empty()),
    };
    let tip = if is_clean {
        parents.first().map(Commit::id)
    } else {
        begin();
        let author = Signature::now(&request.author.name, &request.author.email)
            .context("read the configured commit author")?;
        let tree = repo.find_tree(staged.tree).context("read the new tree")?;
        let parents: Vec<&Commit<'_>> = parents.iter().collect();
        let made = repo.commit(None, &author, &author, request.message, &tree, &parents);
        Some(made.context("write the commit")?)
    };
    if let Some(tip) = tip {
        scratch.write_back(reference, tip)?;
    }
    let unpushed = match tip {
        Some(tip) => is_unpushed(&scratch, tip)?,
        None => false,
    };
    Ok(CommitOutcome {
        tip: tip.map(|tip| tip.to_string()),
        committed: !is_clean,
        unpushed,
        notes: staged.notes,
    })
}

/// What the working tree follows: `HEAD` as the agent left it, and the branch if `HEAD` left
/// it behind. The tree is compared with the first.
fn parents(scratch: &Scratch, branch: Option<Oid>) -> Result<Vec<Oid>> {
    let ancestor = |one, other| {
        history::is_ancestor(&scratch.repo, one, &[other]).context("read the branch's history")
    };
    Ok(match (branch, scratch.head()?) {
        (None, None) => Vec::new(),
        (Some(only), None) | (None, Some(only)) => vec![only],
        (Some(branch), Some(head)) if ancestor(branch, head)? => vec![head],
        (Some(branch), Some(head)) if ancestor(head, branch)? => vec![branch],
        (Some(branch), Some(head)) => vec![branch, head],
    })
}

fn is_unpushed(scratch: &Scratch, tip: Oid) -> Result<bool> {
    let known = scratch.known_to_remote()?;
    let pushed = history::is_ancestor(&scratch.repo, tip, &known);
    Ok(!pushed.context("read the branch's history")?)
}
