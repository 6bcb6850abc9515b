//! The `http` agent: the request goes to an address that the workspace defined, the answer is a
//! stream of events.
//!
//! Nothing runs here and nothing of the session's directory goes there. The address obeys the
//! same rule as a repository's: private ones are refused unless the operator allows them, and the
//! checked address is the one that is dialled. Redirects are not followed: the credential goes
//! where the workspace said.

mod answer;
mod record;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clawlink_shared::agent::{AgentKind, Definition, EndpointDefinition};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use clawlink_shared::prompt::{PromptPart, text_of};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use self::answer::{Format, Records};
use self::record::Reader;
use super::dialogue::{message_of_cut, tell};
use super::discovery::{Program, Source};
use super::{Agent, AgentEnd, AgentEnvironment, AgentJob, stopped};
use crate::proxy;
use crate::workspace::git::address::{self, Checked, RefusedAddress};

/// How long the address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest silence within an answer, unless the definition says otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest part of a refusal's body that is shown, in bytes.
const MAX_REFUSAL_BYTES: usize = 2000;

/// What both kinds of answer are called.
const ANSWERS: &str = "text/event-stream, application/x-ndjson";

/// Needs nothing that could be missing.
pub(super) fn source() -> Source {
    Source {
        kind: AgentKind::Http,
        program: Program::Nothing,
        make: |found| {
            Arc::new(Http {
                environment: found.environment,
            })
        },
    }
}

/// Sends requests to addresses.
struct Http {
    environment: Arc<AgentEnvironment>,
}

/// The body of the one request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    prompt: &'a [PromptPart],
    /// The prompt's text alone.
    text: String,
    /// The conversation to continue, under the name that an earlier answer gave it.
    conversation: Option<&'a str>,
    model: Option<&'a str>,
    permission_mode: PermissionMode,
    max_turns: Option<u32>,
    max_budget_usd: Option<f64>,
}

impl Agent for Http {
    fn kind(&self) -> AgentKind {
        AgentKind::Http
    }

    /// There is no state here.
    fn relocate(&self, _from: &Path, _to: &Path) -> Result<()> {
        Ok(())
    }

    fn run(&self, job: AgentJob) -> BoxFuture<'_, AgentEnd> {
        Box::pin(self.run_remotely(job))
    }
}

impl Http {
    async fn run_remotely(&self, job: AgentJob) -> AgentEnd {
        let Some(Definition::Endpoint(endpoint)) = &job.definition else {
            return AgentEnd::failed(
                ErrorCode::ValidationError,
                "an http agent needs a stored definition: send its agentId",
            );
        };
        let mut reader = Reader::new(job.resume.clone());
        let mut stop = job.stop.clone();
        // Dropping the exchange closes the connection, which tells the other side.
        let (failure, is_stopped) = tokio::select! {
            biased;
            _ = stopped(&mut stop) => (None, true),
            failure = self.exchange(endpoint, &job, &mut reader) => (failure, false),
        };
        let mut end = reader.end();
        if is_stopped {
            end.failure = None;
        } else if failure.is_some() {
            end.failure = failure;
        }
        end
    }

    /// Sends the request and reads the answer to its end; the failure, if there is no such end.
    async fn exchange(
        &self,
        endpoint: &EndpointDefinition,
        job: &AgentJob,
        reader: &mut Reader,
    ) -> Option<Failure> {
        let response = match self.send(endpoint, job).await {
            Ok(response) => response,
            Err(failure) => return Some(failure),
        };
        let format = Format::of(response.headers());
        let idle = endpoint
            .idle_seconds
            .map_or(IDLE_TIMEOUT, Duration::from_secs);
        let body = response.bytes_stream().map_err(std::io::Error::other);
        let mut records = Records::new(StreamReader::new(Box::pin(body)), format);
        loop {
            let Ok(record) = timeout(idle, records.next()).await else {
                let message = format!("the agent was silent for {} s", idle.as_secs());
                return Some(Failure::new(ErrorCode::Timeout, message));
            };
            let Some(record) = record else {
                return Some(Failure::new(
                    ErrorCode::AgentError,
                    "the agent's answer ended without `completed` or `error`",
                ));
            };
            if !record.text.trim().is_empty() {
                tell(&job.events, reader.record(&record.text).as_ref()).await;
            }
            if record.dropped > 0 {
                tell(&job.events, Some(&message_of_cut(record.dropped))).await;
            }
            if reader.is_over() {
                return None;
            }
        }
    }

    async fn send(
        &self,
        endpoint: &EndpointDefinition,
        job: &AgentJob,
    ) -> Result<Response, Failure> {
        let allow_private_hosts = self.environment.allow_private_hosts;
        let refuse = |why: String| {
            let message = format!("the agent's address cannot be used: {why}");
            Failure::new(ErrorCode::ValidationError, message)
        };
        let url = Url::parse(&endpoint.url).map_err(|error| refuse(error.to_string()))?;
        if let Some(fault) = address::fault(&url, allow_private_hosts) {
            return Err(refuse(fault));
        }
        let proxies = &self.environment.proxies;
        if let Some(why) = proxy::refused(proxies, &url, allow_private_hosts).await {
            return Err(refuse(why));
        }
        let client = proxies
            .apply(Client::builder())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("clawlink/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Checked {
                allow_private_hosts,
                proxies: proxies.clone(),
            })
            .build()
            .map_err(|error| unreachable(&error))?;
        let body = Request {
            prompt: &job.prompt,
            text: text_of(&job.prompt),
            conversation: job.resume.as_deref(),
            model: job.options.model.as_deref(),
            permission_mode: job.options.permission_mode,
            max_turns: job.options.max_turns,
            max_budget_usd: job.options.max_budget_usd,
        };
        let mut request = client.post(url).header(ACCEPT, ANSWERS).json(&body);
        if let Some(credential) = &job.credential {
            request = request.bearer_auth(credential.expose().trim());
        }
        let Ok(sent) = timeout(HEAD_TIMEOUT, request.send()).await else {
            let seconds = HEAD_TIMEOUT.as_secs();
            let message = format!("the agent did not begin to answer within {seconds} s");
            return Err(Failure::new(ErrorCode::Timeout, message));
        };
        let response = sent.map_err(|error| unreachable(&error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(refused(status, response).await),
        }
    }
}

/// Without the address, which may hold a secret in its query.
fn unreachable(error: &reqwest::Error) -> Failure {
    let mut message = "the agent cannot be reached".to_owned();
    let mut code = ErrorCode::AgentError;
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<RefusedAddress>() {
            code = ErrorCode::ValidationError;
        }
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure::new(code, message)
}

async fn refused(status: StatusCode, response: Response) -> Failure {
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorCode::AuthError,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
        _ => ErrorCode::AgentError,
    };
    let is_text = response.headers().contains_key(CONTENT_TYPE);
    let body = if is_text {
        beginning(response).await
    } else {
        String::new()
    };
    let said = if body.is_empty() { "" } else { ": " };
    Failure::new(code, format!("the agent answered {status}{said}{body}"))
}

/// The first bytes of a body, as text; what comes late is left out.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < MAX_REFUSAL_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                _ => return,
            }
        }
    };
    let _late = timeout(CONNECT_TIMEOUT, read).await;
    bytes.truncate(MAX_REFUSAL_BYTES);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
