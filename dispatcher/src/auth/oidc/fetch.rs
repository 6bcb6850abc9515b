//! Calls to providers: bounded in time and size, no redirects followed.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::redirect::Policy;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the largest answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a provider could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("call the provider")]
    Call(#[from] reqwest::Error),
    #[error("the provider's answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    #[error("make an answer of what the provider sent")]
    Malformed(#[from] openidconnect::http::Error),
}

/// Calls providers.
pub(super) struct Http(reqwest::Client);

impl Http {
    /// A client for them.
    pub(super) fn new() -> reqwest::Result<Self> {
        reqwest::Client::builder()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            // GitHub refuses callers without a name.
            .user_agent(concat!("clawlink/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = FetchError;
    type Future = BoxFuture<'c, Result<HttpResponse, FetchError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        fetch(&self.0, request).boxed()
    }
}

/// One call.
async fn fetch(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let mut answer = client.execute(request.try_into()?).await?;
    let mut made = openidconnect::http::Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        made = made.header(name, value);
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(made.body(body)?)
}
