//! Submodules: of a fresh clone here, what an agent did in them in `deliver`.
//!
//! `.gitmodules` is hostile: a submodule's place is where the tree has its link, never what a
//! name says; its URL passes the same checks as the repository's own; only the same host
//! gets the token. A submodule that cannot be had is a note, not a failure.

mod deliver;

use std::path::Path;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use git2::{ObjectType, Oid, Repository};
use reqwest::Url;

use super::clone::{Cloning, init};
use super::{Progress, branch, tree};

pub(super) use deliver::Links;
pub use deliver::{Submodules, SubmodulesRequest, deliver_submodules, may_have_submodules};

/// Most submodules of one clone, nested ones included.
const MAX_SUBMODULES: usize = 64;

/// Deepest nesting.
const MAX_DEPTH: usize = 4;

/// A larger `.gitmodules` is not read, in bytes.
const MAX_GITMODULES: usize = 256 * 1024;

/// Clones every submodule that `tip` links to, and theirs.
pub(super) fn clone_all(
    cloning: &mut Cloning<'_>,
    repo: &Repository,
    url: &Url,
    tip: Oid,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let Some(root) = repo.workdir().map(Path::to_owned) else {
        return Ok(());
    };
    let (mut left, mut passed_over) = (MAX_SUBMODULES, 0_usize);
    let mut waiting = vec![(root.clone(), url.clone(), tip, 0)];
    while let Some((work, url, tip, depth)) = waiting.pop() {
        for (path, link, target) in links(&work, tip) {
            if left == 0 || depth == MAX_DEPTH {
                passed_over += 1;
                continue;
            }
            let place = work.join(&path);
            let shown = place
                .strip_prefix(&root)
                .unwrap_or(&place)
                .display()
                .to_string();
            left -= 1;
            match clone_one(cloning, &work, &path, &url, target.as_deref(), link) {
                Ok(url) => waiting.push((place, url, link, depth + 1)),
                Err(failure) if is_fatal(&failure) => return Err(failure),
                Err(failure) => {
                    notes.push(format!(
                        "Submodule {shown} was left out: {}.",
                        failure.message
                    ));
                }
            }
        }
    }
    if passed_over > 0 {
        notes.push(format!(
            "{passed_over} more submodules were left out: a clone may have {MAX_SUBMODULES}, nested \
             {MAX_DEPTH} deep."
        ));
    }
    Ok(())
}

fn is_fatal(failure: &Failure) -> bool {
    matches!(
        failure.code,
        ErrorCode::Interrupted | ErrorCode::RepoTooLarge
    )
}

/// The links of a commit's tree: where, to which commit, and the URL that `.gitmodules` gives.
fn links(work: &Path, tip: Oid) -> Vec<(String, Oid, Option<String>)> {
    let read = || links_of(&Repository::open(work)?, tip);
    read().unwrap_or_default()
}

/// The same in a repository that is open.
fn links_of(
    repo: &Repository,
    tip: Oid,
) -> Result<Vec<(String, Oid, Option<String>)>, git2::Error> {
    let tree = repo.find_commit(tip)?.tree()?;
    let text = match tree.get_name(".gitmodules") {
        Some(entry) if entry.filemode() & 0o170_000 == 0o100_000 => {
            repo.find_blob(entry.id())?.content().to_vec()
        }
        _ => Vec::new(),
    };
    let urls = match text.len() {
        0..=MAX_GITMODULES => parse(&String::from_utf8_lossy(&text)),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    tree::walk(repo, tip, |path, entry| {
        if entry.kind() == Some(ObjectType::Commit) {
            let path = String::from_utf8_lossy(path).into_owned();
            let url = urls.iter().find(|(place, _)| *place == path);
            let url = url.map(|(_, url)| url.clone());
            found.push((path, entry.id(), url));
        }
        Ok(())
    })?;
    Ok(found)
}

/// `(path, url)` of each section; whatever is not understood is skipped.
fn parse(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut path, mut url) = (None, None);
    for line in text.lines().map(str::trim).chain(["["]) {
        if line.starts_with('[') {
            if let (Some(path), Some(url)) = (path.take(), url.take()) {
                found.push((path, url));
            }
            (path, url) = (None, None);
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"').to_owned();
            match key.trim().to_ascii_lowercase().as_str() {
                "path" => path = Some(value),
                "url" => url = Some(value),
                _ => {}
            }
        }
    }
    found
}

fn clone_one(
    cloning: &mut Cloning<'_>,
    work: &Path,
    path: &str,
    parent: &Url,
    target: Option<&str>,
    link: Oid,
) -> Result<Url, Failure> {
    let Some(target) = target else {
        return Err(Failure::new(
            ErrorCode::ValidationError,
            ".gitmodules does not say where it is",
        ));
    };
    let url = cloning.access.check(parent, target)?;
    if path
        .split('/')
        .any(|name| name.eq_ignore_ascii_case(".git"))
    {
        return Err(Failure::new(
            ErrorCode::ValidationError,
            "its path is not allowed",
        ));
    }
    let place = branch::working_directory(work, Some(path))?;
    (cloning.progress)(Progress::Message(format!("Pulling submodule {path}")));
    let (conversation, advert) = cloning.open(&url)?;
    let mut wants = vec![("refs/remotes/origin/pinned".to_owned(), link)];
    let is_tip = advert.refs.iter().any(|(_, tip)| *tip == link);
    let gives_any =
        advert.has("allow-reachable-sha1-in-want") || advert.has("allow-tip-sha1-in-want");
    let depth = u32::from(is_tip || gives_any);
    if depth == 0 {
        wants = advert
            .refs
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| name.starts_with("refs/heads/"))
            .map(|(n, (_, tip))| (format!("refs/remotes/origin/branch-{n}"), *tip))
            .collect();
    }
    let fetched = init(&place, &url)
        .and_then(|repo| cloning.fetch(&conversation, &advert, repo, &wants, depth))
        .and_then(|repo| cloning.check_out(&repo, "pinned", link));
    if fetched.is_err() {
        // Half a repository would look like one of the agent's own; what is left is harmless.
        let _left_behind = std::fs::remove_dir_all(place.join(".git"));
    }
    fetched.map(|()| url)
}
