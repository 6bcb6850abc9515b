//! Where an agent works: its branch, and its directory inside the working tree.

use std::path::{Component, Path, PathBuf};

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use git2::{Reference, Repository};

use super::broken;

/// Creates the working branch in a fresh clone and makes it current; in an empty repository
/// it comes to exist with the first commit. Never called on what an agent has touched.
pub fn start_branch(work: &Path, name: &str) -> Result<(), Failure> {
    let reference = reference_name(name)?;
    let create = || -> Result<(), git2::Error> {
        let repo = Repository::open(work)?;
        if let Ok(head) = repo.head()
            && repo.find_reference(&reference).is_err()
        {
            repo.branch(name, &head.peel_to_commit()?, false)?;
        }
        repo.set_head(&reference)
    };
    create().map_err(|error| broken("create the working branch", error.message()))
}

/// `refs/heads/{branch}`, if that is a valid name.
pub(super) fn reference_name(branch: &str) -> Result<String, Failure> {
    let name = format!("refs/heads/{branch}");
    if Reference::is_valid_name(&name) && !branch.starts_with('-') {
        return Ok(name);
    }
    Err(Failure::new(
        ErrorCode::ValidationError,
        "the branch name is not one that git accepts",
    ))
}

/// The directory in which the agent starts: `directory` below `work`, reached without `..`
/// and without following a link.
pub fn working_directory(work: &Path, directory: Option<&str>) -> Result<PathBuf, Failure> {
    let mut at = work.to_owned();
    for component in Path::new(directory.unwrap_or_default()).components() {
        match component {
            Component::CurDir => continue,
            Component::Normal(name) => at.push(name),
            _ => return Err(no_directory("may not be absolute and may not hold `..`")),
        }
        if !at.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Err(no_directory("is not a directory of the repository"));
        }
    }
    Ok(at)
}

fn no_directory(why: &str) -> Failure {
    Failure::new(
        ErrorCode::ValidationError,
        format!("github.directory {why}"),
    )
}
