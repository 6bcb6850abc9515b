//! Which of the git host's branches are cloned, and which one is worked on.

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use git2::Oid;

use crate::workspace::git::pkt::Advert;

/// The branch to work from and its tip; `None` in an empty repository.
pub(super) fn choose(
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

/// All branches and tags, each with the local reference that it gets.
pub(super) fn all_branches(advert: &Advert) -> Vec<(String, Oid)> {
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
