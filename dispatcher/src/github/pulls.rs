//! Opening pull requests. Doing it twice opens one.

use clawlink_shared::control::PullRequest;
use clawlink_shared::secret::Secret;
use octocrab::Octocrab;
use serde::{Deserialize, Serialize};

use super::client::{Github, repeat};
use super::error::GithubError;
use super::repository::Repository;

/// Longest title that GitHub takes, in characters.
pub const MAX_TITLE: usize = 256;
/// Longest text that GitHub takes, in characters.
pub const MAX_BODY: usize = 65_536;
/// Longest address that we keep, in bytes.
const MAX_URL: usize = 2048;

/// A pull request that is wanted. Branches are in the repository itself, not in a fork.
#[derive(Debug, Clone)]
pub struct NewPull<'a> {
    /// One line; cut to [`MAX_TITLE`].
    pub title: &'a str,
    /// Markdown; cut to [`MAX_BODY`].
    pub body: &'a str,
    /// The branch that holds the work.
    pub head: &'a str,
    /// The branch that it is for.
    pub base: Base<'a>,
    /// Whether it is a draft.
    pub draft: bool,
}

/// The branch that a pull request is for.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// This one, or none.
    Exactly(&'a str),
    /// This one if it exists, else the default branch.
    Preferably(&'a str),
    /// The repository's default branch.
    Default,
}

#[derive(Serialize)]
struct Create<'a> {
    title: String,
    body: String,
    head: &'a str,
    base: &'a str,
    draft: bool,
}

#[derive(Serialize)]
struct Search<'a> {
    state: &'a str,
    head: String,
    base: &'a str,
    per_page: u8,
}

#[derive(Deserialize)]
struct Found {
    html_url: String,
    number: u64,
    head: End,
}

#[derive(Deserialize)]
struct End {
    #[serde(rename = "ref")]
    branch: String,
}

#[derive(Deserialize)]
struct Home {
    default_branch: String,
}

/// Opens a pull request, or finds the open one from the same branch to the same base.
pub(super) async fn open(
    github: &Github,
    token: &Secret,
    repository: &Repository,
    new: &NewPull<'_>,
) -> Result<PullRequest, GithubError> {
    github.require(repository)?;
    let octocrab = github.with_token(token);
    let wanted = match new.base {
        Base::Exactly(base) => Some(base),
        // Nothing can be merged into itself: then the work began on its own branch.
        Base::Preferably(base) => Some(base).filter(|base| *base != new.head),
        Base::Default => None,
    };
    if let Some(base) = wanted {
        let opened = open_to(&octocrab, repository, new, base).await;
        let is_missing = matches!(&opened, Err(GithubError::Invalid { fields, .. })
            if fields.iter().any(|field| field == "base"));
        if !is_missing || matches!(new.base, Base::Exactly(_)) {
            return opened;
        }
    }
    let path = path(repository, "");
    let home: Home = repeat(|| octocrab.get(&path, None::<&()>)).await?;
    open_to(&octocrab, repository, new, &home.default_branch).await
}

async fn open_to(
    octocrab: &Octocrab,
    repository: &Repository,
    new: &NewPull<'_>,
    base: &str,
) -> Result<PullRequest, GithubError> {
    let create = Create {
        title: new.title.chars().take(MAX_TITLE).collect(),
        body: new.body.chars().take(MAX_BODY).collect(),
        head: new.head,
        base,
        draft: new.draft,
    };
    let path = path(repository, "/pulls");
    // Repeated after an answer that was lost, it says that there is one already.
    let created = repeat(|| octocrab.post::<_, Found>(&path, Some(&create))).await;
    match created {
        Ok(found) => checked(found),
        Err(GithubError::Invalid { said, fields }) if is_there(&said) => {
            let search = Search {
                state: "open",
                head: format!("{}:{}", repository.owner, new.head),
                base,
                per_page: 10,
            };
            let open = || octocrab.get::<Vec<Found>, _, _>(&path, Some(&search));
            let mut found = repeat(open).await?.into_iter();
            match found.find(|pull| pull.head.branch == new.head) {
                Some(found) => checked(found),
                None => Err(GithubError::Invalid { said, fields }),
            }
        }
        Err(error) => Err(error),
    }
}

/// GitHub has no code of its own for this.
fn is_there(said: &str) -> bool {
    said.to_lowercase().contains("pull request already exists")
}

fn path(repository: &Repository, rest: &str) -> String {
    format!("/repos/{}/{}{rest}", repository.owner, repository.name)
}

/// People will click on it.
fn checked(found: Found) -> Result<PullRequest, GithubError> {
    let url = found.html_url;
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    if !is_web || url.len() > MAX_URL || url.contains(|c: char| c.is_control() || c == ' ') {
        return Err(GithubError::Unexpected("html_url".to_owned()));
    }
    Ok(PullRequest {
        url,
        number: found.number,
    })
}
