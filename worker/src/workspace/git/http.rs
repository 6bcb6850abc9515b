//! Requests to a git host.
//!
//! A token goes only to the scheme, host and port of the repository it was given for, also
//! across redirects. Only the operator's proxies are used. Every wait is bounded, and a
//! cancellation token ends each of them at once.

use std::error::Error;
use std::future::Future;
use std::io::{self, Read};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::address::{self, Checked, RefusedAddress};
use super::{broken, host_words, stopped};
use crate::proxy::{self, Proxies};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a host may take to begin its answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The same for a push, whose body must first be sent and checked by hooks.
pub(super) const PUSH_ANSWER_TIMEOUT: Duration = Duration::from_secs(900);

/// How long a host may be silent within an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

pub(super) const MAX_REDIRECTS: usize = 4;

/// Some hosts serve git only to programs that call themselves so.
const USER_AGENT: &str = concat!("git/2.47.0 (clawlink/", env!("CARGO_PKG_VERSION"), ")");

/// Fetching or pushing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    UploadPack,
    ReceivePack,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }
}

/// The right to one repository: its URL from the stored request, the token that came with
/// it, and the rules about addresses.
#[derive(Debug, Clone)]
pub struct GitAccess {
    url: Url,
    token: Option<Secret>,
    allow_private_hosts: bool,
    proxies: Proxies,
    client: Client,
    runtime: Handle,
}

impl GitAccess {
    /// Checks `url`; must be called within a tokio runtime. Hosts are reached through `proxies`.
    pub fn new(
        url: &str,
        token: Option<Secret>,
        allow_private_hosts: bool,
        proxies: &Proxies,
    ) -> Result<Self, Failure> {
        let url = address::parse(url, allow_private_hosts)?;
        let client = proxies
            .apply(Client::builder())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(USER_AGENT)
            .dns_resolver(Checked {
                allow_private_hosts,
                proxies: proxies.clone(),
            })
            .build()
            .map_err(|error| broken("prepare the HTTP client", error))?;
        Ok(Self {
            url,
            token,
            allow_private_hosts,
            proxies: proxies.clone(),
            client,
            runtime: Handle::current(),
        })
    }

    /// The repository's URL.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Reads another repository's URL, which may be relative to `parent`, under the same rules.
    pub(super) fn check(&self, parent: &Url, text: &str) -> Result<Url, Failure> {
        if text.starts_with("./") || text.starts_with("../") {
            let mut base = parent.clone();
            let path = format!("{}/", base.path().trim_end_matches('/'));
            base.set_path(&path);
            let joined = base
                .join(text)
                .map_err(|error| Failure::new(ErrorCode::ValidationError, error.to_string()))?;
            return address::parse(joined.as_str(), self.allow_private_hosts);
        }
        address::parse(text, self.allow_private_hosts)
    }

    /// Checks an address that a host named for a transfer, relative to `from`.
    pub(super) fn check_transfer(&self, from: &Url, text: &str) -> Result<Url, Failure> {
        let url = from.join(text).map_err(|_| {
            Failure::new(
                ErrorCode::ValidationError,
                "the git host named no valid URL",
            )
        })?;
        address::check(&url, self.allow_private_hosts).map(|()| url)
    }

    /// The right to a submodule's repository: without the token, unless its host is ours.
    pub(super) fn for_submodule(&self, url: &Url) -> Self {
        let token = self.token.clone();
        Self {
            token: token.filter(|_| address::same_origin(&self.url, url)),
            url: url.clone(),
            ..self.clone()
        }
    }

    /// Whether requests to the repository carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// A request without anything in it, for [`send`].
    pub(super) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.client.request(method, url.clone())
    }

    fn credential(&self, target: &Url) -> Option<HeaderValue> {
        let token = self.token.as_ref()?;
        if !address::same_origin(&self.url, target) {
            return None;
        }
        let pair = STANDARD.encode(format!("x-access-token:{}", token.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// A conversation with one repository.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    access: &'a GitAccess,
    base: Url,
    service: Service,
    cancel: &'a CancellationToken,
}

impl<'a> Conversation<'a> {
    /// Asks what the repository has; follows redirects, each target checked again.
    pub(super) fn open(
        access: &'a GitAccess,
        url: &Url,
        service: Service,
        cancel: &'a CancellationToken,
    ) -> Result<(Self, Body<'a>), Failure> {
        let suffix = format!("/info/refs?service={}", service.name());
        let mut target = format!("{}{suffix}", url.as_str().trim_end_matches('/'));
        for _ in 0..=MAX_REDIRECTS {
            let at = Url::parse(&target).map_err(|error| broken("build the git URL", error))?;
            let request = access.client.get(at.clone());
            let response = send(access, request, &at, ANSWER_TIMEOUT, cancel)?;
            if !response.status().is_redirection() {
                let base = target.strip_suffix(&suffix).unwrap_or(&target);
                let conversation = Self {
                    access,
                    base: Url::parse(base).map_err(|error| broken("read the git URL", error))?,
                    service,
                    cancel,
                };
                let body = conversation.body(response)?;
                return Ok((conversation, body));
            }
            target = redirect(access, &at, &response, &suffix)?;
        }
        Err(Failure::new(
            ErrorCode::RepoNotFound,
            "the git host redirects too often; use the repository's final URL",
        ))
    }

    /// Sends the request of the service; `length` is the body's size in bytes.
    pub(super) fn post(&self, body: reqwest::Body, length: u64) -> Result<Body<'a>, Failure> {
        let name = self.service.name();
        let url = format!("{}/{name}", self.base.as_str().trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| broken("build the git URL", error))?;
        let request = self
            .access
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, format!("application/x-{name}-request"))
            .header(ACCEPT, format!("application/x-{name}-result"))
            .header(CONTENT_LENGTH, length)
            .body(body);
        let timeout = match self.service {
            Service::UploadPack => ANSWER_TIMEOUT,
            Service::ReceivePack => PUSH_ANSWER_TIMEOUT,
        };
        let response = send(self.access, request, &url, timeout, self.cancel)?;
        self.body(response)
    }

    fn body(&self, response: Response) -> Result<Body<'a>, Failure> {
        let status = response.status();
        let mut body = Body::new(response, self.access, self.cancel);
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(refusal(status, &body.words(), self.access.token.is_some()))
    }
}

/// The answer of a git host, read by blocking.
#[derive(Debug)]
pub(super) struct Body<'a> {
    response: Response,
    chunk: Bytes,
    runtime: Handle,
    cancel: &'a CancellationToken,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        response: Response,
        access: &GitAccess,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self {
            response,
            chunk: Bytes::new(),
            runtime: access.runtime.clone(),
            cancel,
        }
    }

    /// The beginning of an error page, if it is meant for people who use git.
    fn words(&mut self) -> String {
        let is_text = self
            .response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/plain"));
        let mut text = Vec::new();
        if is_text {
            // Only a decoration of the failure that is being reported anyway.
            let _incomplete = self
                .by_ref()
                .take(super::MAX_HOST_WORDS as u64)
                .read_to_end(&mut text);
        }
        host_words(&String::from_utf8_lossy(&text))
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let next = wait(
                &self.runtime,
                self.cancel,
                IDLE_TIMEOUT,
                self.response.chunk(),
            );
            match next.map_err(|failure| io::Error::other(failure.message))? {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error.without_url())),
            }
        }
        let count = into.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Sends a request; the token goes along if the request is for the repository's own place and
/// does not bring an authorization.
pub(super) fn send(
    access: &GitAccess,
    request: RequestBuilder,
    url: &Url,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Result<Response, Failure> {
    let mut request = request
        .build()
        .map_err(|error| broken("build the request", error.without_url()))?;
    if !request.headers().contains_key(AUTHORIZATION)
        && let Some(credential) = access.credential(request.url())
    {
        request.headers_mut().insert(AUTHORIZATION, credential);
    }
    let (proxies, allow) = (&access.proxies, access.allow_private_hosts);
    let sent = async {
        match proxy::refused(proxies, request.url(), allow).await {
            Some(why) => Err(unusable_host(url, &why)),
            None => Ok(access.client.execute(request).await),
        }
    };
    let is_proxied = proxies.of(url).is_some();
    wait(&access.runtime, cancel, timeout, sent)??
        .map_err(|error| unreachable_host(url, is_proxied, &error))
}

/// Blocks until `work` is done, `cancel` is cancelled or `timeout` has passed.
fn wait<T>(
    runtime: &Handle,
    cancel: &CancellationToken,
    timeout: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(stopped()),
            done = tokio::time::timeout(timeout, work) => done.map_err(|_| {
                broken("talk to the git host", format_args!("silent for {} s", timeout.as_secs()))
            }),
        }
    })
}

fn redirect(
    access: &GitAccess,
    from: &Url,
    response: &Response,
    suffix: &str,
) -> Result<String, Failure> {
    let next = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|location| from.join(location).ok());
    let base = next
        .as_ref()
        .and_then(|next| next.as_str().strip_suffix(suffix));
    let Some(base) = base else {
        return Err(Failure::new(
            ErrorCode::RepoNotFound,
            "the git host redirects to something that is not a repository",
        ));
    };
    address::parse(base, access.allow_private_hosts)?;
    Ok(format!("{base}{suffix}"))
}

fn unusable_host(url: &Url, why: &str) -> Failure {
    let host = url.host_str().unwrap_or("the git host");
    Failure::new(
        ErrorCode::ValidationError,
        format!("{host} cannot be used: {why}"),
    )
}

fn unreachable_host(url: &Url, is_proxied: bool, error: &reqwest::Error) -> Failure {
    let mut source = error.source();
    let mut last = None;
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<RefusedAddress>() {
            return unusable_host(url, &refused.to_string());
        }
        last = Some(cause);
        source = cause.source();
    }
    let why = last.map_or_else(|| "no connection".to_owned(), ToString::to_string);
    let code = if error.is_connect() {
        ErrorCode::RepoNotFound
    } else {
        ErrorCode::InternalError
    };
    let host = url.host_str().unwrap_or("the git host");
    let way = if is_proxied {
        " through the operator's proxy"
    } else {
        ""
    };
    Failure::new(code, format!("cannot reach {host}{way}: {why}"))
}

fn refusal(status: StatusCode, words: &str, with_token: bool) -> Failure {
    let (code, what) = match status.as_u16() {
        401 | 403 if with_token => (
            ErrorCode::RepoAuthFailed,
            "the git host refused the access token; it may be expired or lack rights",
        ),
        401 | 403 => (
            ErrorCode::RepoAuthFailed,
            "the git host wants credentials; send an accessToken",
        ),
        404 | 410 => (
            ErrorCode::RepoNotFound,
            "the git host does not know the repository, or the token may not see it",
        ),
        407 => (
            ErrorCode::InternalError,
            "the worker's proxy wants credentials, which its operator sets in HTTP_PROXY",
        ),
        _ => (ErrorCode::InternalError, "the git host failed"),
    };
    let words = if words.is_empty() {
        String::new()
    } else {
        format!(": {words}")
    };
    Failure::new(code, format!("{what} (HTTP {}){words}", status.as_u16()))
}
