//! What can go wrong with GitHub, and what an answer of its means.

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;

use super::transport::TransportError;

/// Longest sentence of GitHub's that is repeated, in characters.
const MAX_SAID: usize = 300;

/// Why GitHub did not do what was asked. Texts are for people and hold no token.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// The repository is on a host that this installation has no API for.
    #[error("pull requests can be opened on {0} only")]
    OtherHost(String),
    /// 401: the token is unknown or expired.
    #[error("GitHub does not know the token")]
    Unauthorized,
    /// 403: the token may not do this.
    #[error("GitHub refuses this to the token: {0}")]
    Forbidden(String),
    /// 404: no such repository, or none that the token may see.
    #[error("GitHub does not show this repository to the token")]
    NotFound,
    /// 403 or 429 with a limit that lasts longer than we wait.
    #[error("GitHub's rate limit is used up")]
    RateLimited {
        /// How long it lasts, in seconds, if GitHub says.
        retry_after: Option<u64>,
    },
    /// 409 or 422: it contradicts what is there.
    #[error("GitHub refuses it: {said}")]
    Invalid {
        /// GitHub's own words.
        said: String,
        /// The fields that it names.
        fields: Vec<String>,
    },
    /// It does not answer, or with an error of its own, also when asked again.
    #[error("GitHub cannot be reached: {0}")]
    Unavailable(String),
    /// An answer that makes no sense to us.
    #[error("GitHub's answer is not understood: {0}")]
    Unexpected(String),
}

/// What an error means, and how long a limit lasts.
pub(super) fn judge(error: octocrab::Error) -> (GithubError, Option<Duration>) {
    let error = match error {
        octocrab::Error::GitHub { source, .. } => *source,
        octocrab::Error::Service { source, .. } => {
            let reason = match source.downcast::<TransportError>() {
                Ok(error) => return ((*error).into(), None),
                Err(source) => source.to_string(),
            };
            return (GithubError::Unexpected(reason), None);
        }
        octocrab::Error::Json { source, .. } => {
            let reason = format!("field {}", source.path());
            return (GithubError::Unexpected(reason), None);
        }
        other => return (GithubError::Unexpected(bounded(&other.to_string())), None),
    };
    let status = error.status_code;
    if let Some(wait) = limit(&error) {
        let retry_after = wait.map(|wait| wait.as_secs());
        return (GithubError::RateLimited { retry_after }, wait);
    }
    let said = said(&error);
    let meaning = match status {
        StatusCode::UNAUTHORIZED => GithubError::Unauthorized,
        StatusCode::FORBIDDEN => GithubError::Forbidden(said),
        StatusCode::NOT_FOUND => GithubError::NotFound,
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => GithubError::Invalid {
            said,
            fields: entries(&error, "field").map(str::to_owned).collect(),
        },
        status if status.is_server_error() => GithubError::Unavailable(status.to_string()),
        status => GithubError::Unexpected(format!("{status}: {said}")),
    };
    (meaning, None)
}

/// Whether a refusal is a rate limit, and how long that lasts.
fn limit(error: &octocrab::GitHubError) -> Option<Option<Duration>> {
    let header = |name: &str| -> Option<u64> {
        let value = error.headers.as_ref()?.get(name)?;
        value.to_str().ok()?.trim().parse().ok()
    };
    let retry_after = header("retry-after").map(Duration::from_secs);
    let is_used_up = header("x-ratelimit-remaining") == Some(0);
    match error.status_code {
        StatusCode::TOO_MANY_REQUESTS => {}
        StatusCode::FORBIDDEN if retry_after.is_some() || is_used_up => {}
        _ => return None,
    }
    let until_reset = || {
        let reset = SystemTime::UNIX_EPOCH + Duration::from_secs(header("x-ratelimit-reset")?);
        reset.duration_since(SystemTime::now()).ok()
    };
    Some(retry_after.or_else(until_reset))
}

/// GitHub's words: its message, and those of the errors behind it.
fn said(error: &octocrab::GitHubError) -> String {
    let messages: Vec<&str> = entries(error, "message").collect();
    let fields: Vec<String> = entries(error, "field")
        .map(|field| format!("{field} is not accepted"))
        .collect();
    let fields = fields.iter().map(String::as_str);
    let all: Vec<&str> = messages.into_iter().chain(fields).collect();
    bounded(&match all.is_empty() {
        true => error.message.clone(),
        false => all.join("; "),
    })
}

fn entries<'a>(error: &'a octocrab::GitHubError, key: &'a str) -> impl Iterator<Item = &'a str> {
    let errors = error.errors.as_deref().unwrap_or_default().iter();
    errors.filter_map(move |entry| entry.get(key)?.as_str())
}

/// One line of bounded length.
fn bounded(text: &str) -> String {
    text.chars()
        .take(MAX_SAID)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
