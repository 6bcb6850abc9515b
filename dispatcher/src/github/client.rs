//! Calls to GitHub's REST API: octocrab over this installation's one HTTP client.
//!
//! The API's address is the operator's, never a request's. A token travels to that origin only,
//! also when an answer points elsewhere, and stands in no error. Every call, its answer and its
//! repetitions are bounded.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use clawlink_shared::secret::Secret;
use octocrab::{AuthState, Octocrab, OctocrabBuilder};
use rand::RngExt;
use reqwest::Url;

use super::error::{GithubError, judge};
use super::repository::Repository;
use super::transport::Transport;
use crate::config::GithubSettings;

/// Bound of reaching GitHub at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Times that one call is tried.
const MAX_TRIES: u32 = 3;
/// First pause between tries; the next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A limit that lasts longer is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// GitHub as this installation reaches it; clones share connections.
#[derive(Clone)]
pub struct Github {
    http: reqwest::Client,
    /// Without a slash at the end.
    api: Url,
    /// The host of repositories that this API knows.
    host: String,
    pub(super) webhook_secret: Option<Secret>,
}

impl Github {
    /// Reads the settings; dials nothing.
    pub fn new(settings: &GithubSettings) -> anyhow::Result<Self> {
        let api = settings.github_api.trim_end_matches('/');
        let api = Url::parse(api).context("read CLAWLINK_GITHUB_API")?;
        let authority = match (api.scheme(), api.host_str(), api.port()) {
            ("http" | "https", Some(host), Some(port)) => format!("{host}:{port}"),
            ("http" | "https", Some(host), None) => host.to_owned(),
            _ => anyhow::bail!("CLAWLINK_GITHUB_API must be an http or https URL"),
        };
        // api.github.com serves github.com, api.NAME.ghe.com NAME.ghe.com; a server of one's own
        // has both on one host.
        let host = match &settings.github_host {
            Some(host) => host.to_lowercase(),
            None => authority
                .strip_prefix("api.")
                .unwrap_or(&authority)
                .to_owned(),
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(settings.github_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("clawlink/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("build the client for GitHub")?;
        let webhook_secret = settings.github_webhook_secret.clone();
        Ok(Self {
            http,
            api,
            host,
            webhook_secret: webhook_secret.filter(|secret| !secret.expose().is_empty()),
        })
    }

    /// Why a repository is not ours to speak about.
    pub(super) fn other_host(&self) -> GithubError {
        GithubError::OtherHost(self.host.clone())
    }

    /// Refuses repositories on hosts whose API this is not: a token is for its own host.
    pub(super) fn require(&self, repository: &Repository) -> Result<(), GithubError> {
        if repository.host == self.host {
            Ok(())
        } else {
            Err(self.other_host())
        }
    }

    /// A speaker for one token.
    pub(super) fn with_token(&self, token: &Secret) -> Octocrab {
        let transport = Transport {
            http: self.http.clone(),
            api: self.api.clone(),
            token: token.clone(),
        };
        let built: Result<_, Infallible> = OctocrabBuilder::new_empty()
            .with_service(transport)
            .with_auth(AuthState::None)
            .build();
        match built {
            Ok(octocrab) => octocrab,
        }
    }
}

/// Makes one call until it is answered, refused, or has failed too often. GitHub has to bear
/// its repetition.
pub(super) async fn repeat<T, F>(mut call: impl FnMut() -> F) -> Result<T, GithubError>
where
    F: Future<Output = octocrab::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (error, wait) = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => judge(error),
        };
        let wait = match (&error, wait) {
            (GithubError::RateLimited { .. }, wait) => wait,
            (GithubError::Unavailable(_), _) => Some(pause),
            _ => None,
        };
        match wait {
            Some(wait) if attempt < MAX_TRIES && wait <= MAX_PAUSE => {
                tracing::debug!(%error, attempt, "GitHub is asked again");
                let jitter = rand::rng().random_range(1.0..1.25);
                tokio::time::sleep(wait.mul_f64(jitter)).await;
                pause *= 2;
            }
            _ => return Err(error),
        }
    }
}
