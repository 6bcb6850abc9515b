//! GitHub: pull requests opened with a request's own token, and webhooks that say what became
//! of them.
//!
//! Nobody calls GitHub but this module. A request's token is sent to the API that belongs to
//! its repository's host, or not at all; a webhook is believed only with a signature, and once.

mod client;
mod error;
mod http;
mod pulls;
mod repository;
mod store;
mod transport;
pub mod webhook;

use std::time::Duration;

use clawlink_shared::control::PullRequest;
use clawlink_shared::secret::Secret;

pub use client::Github;
pub use error::GithubError;
pub use pulls::{Base, MAX_BODY, MAX_TITLE, NewPull};
pub use repository::Repository;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};

/// Bound of opening one pull request, with all calls and pauses.
const OPEN_PATIENCE: Duration = Duration::from_secs(45);
/// How long deliveries are remembered; GitHub sends one again for three days at most.
const KEEP_DELIVERIES: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Deliveries forgotten in one round.
const FORGET_BATCH: i64 = 1000;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    let problem = clawlink_shared::problem::MEDIA_TYPE;
    Routes::new(app).post(
        "/api/webhooks/github",
        Access::Public,
        http::webhook,
        Doc::new("Take a signed webhook of GitHub's; 404 where no secret is configured")
            .any_body()
            .gives::<http::Taken>(200)
            .gives_as(401, problem)
            .gives_as(404, problem),
    )
}

/// Opens a pull request in the repository at `repository_url`, or finds the open one from the
/// same branch to the same base: doing it twice opens one. Takes at most 45 seconds. No
/// transaction may be open meanwhile.
///
/// # Errors
///
/// Texts are for people and hold no token; [`GithubError::Unavailable`] and
/// [`GithubError::RateLimited`] may pass.
pub async fn open_pull(
    app: &App,
    token: &Secret,
    repository_url: &str,
    new: &NewPull<'_>,
) -> Result<PullRequest, GithubError> {
    let Some(repository) = Repository::from_url(repository_url) else {
        return Err(app.github.other_host());
    };
    let opening = pulls::open(&app.github, token, &repository, new);
    match tokio::time::timeout(OPEN_PATIENCE, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(GithubError::Unavailable("no answer in time".to_owned())),
    }
}

/// Forgets deliveries that cannot come again.
pub async fn clean(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    store::forget(&mut db, KEEP_DELIVERIES, FORGET_BATCH).await
}
