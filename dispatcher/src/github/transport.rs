//! How requests of octocrab's travel: to the API's origin and nowhere else, over our client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{Request, Response, header};
use bytes::{Bytes, BytesMut};
use clawlink_shared::secret::Secret;
use http_body_util::{BodyExt, Full};
use octocrab::OctoBody;
use reqwest::Url;
use tower::{BoxError, Service};

use super::error::GithubError;

/// How often an answer may point to another place of the same origin.
const MAX_REDIRECTS: usize = 3;
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// What octocrab sends its requests through.
#[derive(Clone)]
pub(super) struct Transport {
    pub(super) http: reqwest::Client,
    /// Without a slash at the end.
    pub(super) api: Url,
    pub(super) token: Secret,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("{0}")]
    Failed(String),
    #[error("an answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    #[error("it points to another host")]
    LeadsElsewhere,
    #[error("it points from place to place")]
    LeadsNowhere,
}

impl From<TransportError> for GithubError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Failed(reason) => Self::Unavailable(reason),
            other => Self::Unexpected(other.to_string()),
        }
    }
}

/// Without the URL, whose query may say more than a log should.
fn failed(error: reqwest::Error) -> TransportError {
    let kind = match &error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "no connection",
        _ => "the connection broke",
    };
    TransportError::Failed(kind.to_owned())
}

impl Transport {
    async fn send(self, request: Request<OctoBody>) -> Result<Response<Full<Bytes>>, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut url = Url::parse(&format!(
            "{}{path}",
            self.api.as_str().trim_end_matches('/')
        ))?;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.http.request(head.method.clone(), url.clone());
            let request = request
                .headers(head.headers.clone())
                .bearer_auth(self.token.expose())
                .body(body.clone());
            let answer = request.send().await.map_err(failed)?;
            if !answer.status().is_redirection() {
                return read(answer).await;
            }
            let location = answer.headers().get(header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            url = url.join(location.ok_or(TransportError::LeadsNowhere)?)?;
            if url.origin() != self.api.origin() {
                return Err(TransportError::LeadsElsewhere.into());
            }
        }
        Err(TransportError::LeadsNowhere.into())
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Response<Full<Bytes>>, BoxError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(TransportError::TooLarge.into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Full::new(body.freeze()));
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

impl Service<Request<OctoBody>> for Transport {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
