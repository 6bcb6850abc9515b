//! The LFS batch API: which objects a host has or wants, and where they go.
//!
//! An answer names addresses and headers for each object. Addresses pass the same checks as
//! the repository's own; the headers go to that address alone; the token goes along only where
//! the repository is, and only if the answer brings no authorization of its own.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::time::Instant;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use reqwest::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, LOCATION, TRANSFER_ENCODING,
};
use reqwest::{Method, RequestBuilder, Url};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::super::http::{
    self, ANSWER_TIMEOUT, Body, GitAccess, MAX_REDIRECTS, PUSH_ANSWER_TIMEOUT,
};
use super::super::{address, broken, host_words};
use super::{MAX_DURATION, Pointer};

/// Objects of one question.
pub(super) const BATCH: usize = 100;

/// Largest answer to one, in bytes.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// Longest error page that is read, in bytes.
const MAX_ERROR: u64 = 16 * 1024;

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// The right to talk about one repository's objects, for a limited time.
pub(super) struct Api<'a> {
    access: &'a GitAccess,
    batch: Url,
    cancel: &'a CancellationToken,
    deadline: Instant,
}

/// What to do about an object.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Actions {
    pub(super) download: Option<Action>,
    pub(super) upload: Option<Action>,
    pub(super) verify: Option<Action>,
}

/// One request that the host asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Action {
    href: String,
    #[serde(default)]
    header: HashMap<String, String>,
}

#[derive(Serialize)]
struct Question<'a> {
    operation: &'a str,
    transfers: [&'a str; 1],
    hash_algo: &'a str,
    objects: Vec<Object<'a>>,
}

#[derive(Serialize)]
struct Object<'a> {
    oid: &'a str,
    size: u64,
}

#[derive(Deserialize)]
struct Answer {
    transfer: Option<String>,
    objects: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    oid: String,
    actions: Option<Actions>,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

impl<'a> Api<'a> {
    pub(super) fn new(
        access: &'a GitAccess,
        repository: &Url,
        cancel: &'a CancellationToken,
    ) -> Result<Self, Failure> {
        let path = repository.as_str().trim_end_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let batch = Url::parse(&format!("{path}.git/info/lfs/objects/batch"))
            .map_err(|error| broken("build the LFS URL", error))?;
        Ok(Self {
            access,
            batch,
            cancel,
            deadline: Instant::now() + MAX_DURATION,
        })
    }

    /// Fails once the transfers took too long together, or shall stop.
    pub(super) fn check_time(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(super::super::stopped());
        }
        match Instant::now() < self.deadline {
            true => Ok(()),
            false => Err(failed("the LFS transfers took too long")),
        }
    }

    /// Asks about at most [`BATCH`] objects; answers by oid what to do, or why nothing can be.
    pub(super) fn ask<'p>(
        &self,
        operation: &str,
        pointers: impl IntoIterator<Item = &'p Pointer>,
    ) -> Result<BTreeMap<String, Result<Actions, Failure>>, Failure> {
        self.check_time()?;
        let object = |pointer: &'p Pointer| Object {
            oid: &pointer.oid,
            size: pointer.size,
        };
        let question = Question {
            operation,
            transfers: ["basic"],
            hash_algo: "sha256",
            objects: pointers.into_iter().map(object).collect(),
        };
        let question =
            serde_json::to_vec(&question).map_err(|error| broken("ask for LFS objects", error))?;
        let answer = self.send(Method::POST, &self.batch, &HeaderMap::new(), |request| {
            Ok(json(request).body(question.clone()))
        })?;
        let answer: Answer = serde_json::from_reader(answer.take(MAX_ANSWER))
            .map_err(|error| failed(format!("the git host answered no LFS batch: {error}")))?;
        if answer.transfer.is_some_and(|transfer| transfer != "basic") {
            return Err(failed(
                "the git host wants an LFS transfer that is not supported",
            ));
        }
        let judged = |object: Answered| match object.error {
            Some(error) => (object.oid, Err(failed(host_words(&error.message)))),
            None => (object.oid, Ok(object.actions.unwrap_or_default())),
        };
        Ok(answer.objects.into_iter().map(judged).collect())
    }

    /// Does what an answer asked for; `fill` adds the body, again after each redirect.
    pub(super) fn act(
        &self,
        method: Method,
        action: &Action,
        fill: impl Fn(RequestBuilder) -> Result<RequestBuilder, Failure>,
    ) -> Result<Body<'a>, Failure> {
        self.check_time()?;
        let target = self.access.check_transfer(&self.batch, &action.href)?;
        let mut headers = HeaderMap::try_from(&action.header)
            .map_err(|_| failed("the git host gave headers that are not valid"))?;
        for ours in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(ours);
        }
        self.send(method, &target, &headers, fill)
    }

    /// Tells the host that an object was uploaded.
    pub(super) fn verify(&self, action: &Action, pointer: &Pointer) -> Result<(), Failure> {
        let object = Object {
            oid: &pointer.oid,
            size: pointer.size,
        };
        let object =
            serde_json::to_vec(&object).map_err(|error| broken("name an LFS object", error))?;
        self.act(Method::POST, action, |request| {
            Ok(json(request).body(object.clone()))
        })?;
        Ok(())
    }

    fn send(
        &self,
        method: Method,
        target: &Url,
        headers: &HeaderMap,
        fill: impl Fn(RequestBuilder) -> Result<RequestBuilder, Failure>,
    ) -> Result<Body<'a>, Failure> {
        let timeout = match method {
            Method::PUT => PUSH_ANSWER_TIMEOUT,
            _ => ANSWER_TIMEOUT,
        };
        let mut at = target.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = fill(self.access.request(method.clone(), &at))?;
            if address::same_origin(&at, target) {
                request = request.headers(headers.clone());
            }
            let response = http::send(self.access, request, &at, timeout, self.cancel)?;
            let status = response.status();
            if status.is_redirection() {
                let location = response.headers().get(LOCATION);
                let location = location.and_then(|value| value.to_str().ok());
                at = self
                    .access
                    .check_transfer(&at, location.unwrap_or_default())?;
                continue;
            }
            let body = Body::new(response, self.access, self.cancel);
            if status.is_success() {
                return Ok(body);
            }
            let host = at.host_str().unwrap_or_default();
            let status = status.as_u16();
            return Err(failed(format!(
                "{host} answered HTTP {status}{}",
                words(body)
            )));
        }
        Err(failed("the git host redirects LFS requests too often"))
    }
}

fn json(request: RequestBuilder) -> RequestBuilder {
    request
        .header(ACCEPT, MEDIA_TYPE)
        .header(CONTENT_TYPE, MEDIA_TYPE)
}

/// What the host says about a refusal, if it says so in the way of the API.
fn words(body: Body<'_>) -> String {
    let said: Result<Complaint, _> = serde_json::from_reader(body.take(MAX_ERROR));
    said.map_or_else(
        |_| String::new(),
        |said| format!(": {}", host_words(&said.message)),
    )
}

pub(super) fn failed(why: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InternalError, why)
}
