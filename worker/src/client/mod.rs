//! The worker's calls to its dispatchers: one HTTP client, bounded in time, repeated with
//! backoff and jitter, going on to the next URL when one does not answer.
//!
//! [`Client`] asks for work with the pool token; [`Held`] speaks for one lease. A call is
//! repeated only for failures that another try may cure; refusals are typed, because the run
//! branches on them. What must never happen: a claim answer is lost (the claim id is kept
//! until an answer was read), or a token reaches a log line.

mod archive;
mod http;

use std::sync::Arc;
use std::time::Duration;

use clawlink_shared::control::{
    ARCHIVE_JOIN_SECONDS, ArchiveFinish, ArchiveGrant, ArchiveRequest, ArchiveSource, Assignment,
    ClaimRequest, Complete, ControlItem, CredentialStored, EventsAck, LeaseRenewed,
    MAX_WAIT_SECONDS, Order, PartUrls, PartsRequest, PullRequestAnswer, RenewedCredential,
    StateChange,
};
use clawlink_shared::execution::State;
use clawlink_shared::id::ExecutionId;
use clawlink_shared::secret::Secret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use http::{Backoff, Body, Call, Tried};
pub use http::{CallError, Client};

use crate::lease::Lease;

/// Bound of a call that the dispatcher answers at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Bound of opening a pull request; the dispatcher asks GitHub meanwhile, for 45 s at most.
const PULL_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Added to a long-poll's own length, and to the bound of what a dispatcher itself waits for.
const POLL_MARGIN: Duration = Duration::from_secs(10);

/// Longest pause between tries.
const RETRY_CAP: Duration = Duration::from_secs(5);

/// Longest pause after the pool token was refused: somebody has to mend it.
const REFUSED_CAP: Duration = Duration::from_secs(30);

impl Client {
    /// Asks for work and waits for it; `None` when none came in time. Repeats until an answer
    /// was read. The instant is from before the answered request was sent: leases count from it.
    ///
    /// # Errors
    ///
    /// [`CallError::Protocol`] when no dispatcher serves this version, [`CallError::Garbled`]
    /// when the answer is not understood.
    pub async fn claim(
        &self,
        request: &ClaimRequest,
    ) -> Result<Option<(Assignment, Instant)>, CallError> {
        let call = Call {
            path: "/worker/claim",
            token: self.pool_token(),
            body: Body::json(request),
            timeout: Duration::from_secs(request.wait_seconds) + POLL_MARGIN,
        };
        let mut backoff = Backoff::new(RETRY_CAP);
        let mut refused = Backoff::new(REFUSED_CAP);
        loop {
            let sent = Instant::now();
            match self.attempt(&call).await {
                Tried::Answer(bytes) if bytes.is_empty() => return Ok(None),
                Tried::Answer(bytes) => {
                    return serde_json::from_slice(&bytes)
                        .map(|assignment| Some((assignment, sent)))
                        .map_err(|error| CallError::Garbled(error.to_string()));
                }
                Tried::Refusal(CallError::LeaseLost) => return Ok(None),
                Tried::Refusal(error @ CallError::Protocol(_)) => return Err(error),
                Tried::Refusal(error) => {
                    tracing::error!(%error, "claim refused; check the pool token");
                    refused.pause(None).await;
                }
                Tried::Failure { reason, wait } => {
                    tracing::warn!(%reason, "no dispatcher answers the claim");
                    backoff.pause(wait).await;
                }
            }
        }
    }
}

/// Calls in the name of one lease; clones share it.
#[derive(Debug, Clone)]
pub struct Held {
    client: Arc<Client>,
    execution: ExecutionId,
    token: Secret,
    lease: Lease,
}

impl Held {
    /// Speaks for this lease.
    pub fn new(client: Arc<Client>, execution: ExecutionId, token: Secret, lease: Lease) -> Self {
        Self {
            client,
            execution,
            token,
            lease,
        }
    }

    /// The lease it speaks for.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Says that the assignment has arrived.
    pub async fn ack(&self) -> Result<(), CallError> {
        self.renewing("ack", &Empty {}).await
    }

    /// Asks for `planning → running` and the like; returns when it is committed.
    pub async fn state(&self, to: State) -> Result<(), CallError> {
        self.renewing("state", &StateChange { to }).await
    }

    /// Renews the lease.
    pub async fn heartbeat(&self) -> Result<(), CallError> {
        self.renewing("heartbeat", &Empty {}).await
    }

    /// Sends event lines; answers up to which number all are committed.
    pub async fn events(&self, lines: bytes::Bytes) -> Result<u64, CallError> {
        let sent = Instant::now();
        let answer = self
            .call("events", Body::Lines(lines), CALL_TIMEOUT)
            .await?;
        let ack: EventsAck = read(&answer)?;
        self.lease.renewed(sent, ack.lease_expires_in_ms);
        Ok(ack.acked_n)
    }

    /// Waits for orders after number `after`. Unknown ones are numbered, but `None`.
    pub async fn control(&self, after: u64) -> Result<Vec<(u64, Option<Order>)>, CallError> {
        #[derive(serde::Deserialize)]
        struct Items {
            items: Vec<serde_json::Value>,
        }
        let path = format!("control?after={after}&waitSeconds={MAX_WAIT_SECONDS}");
        let timeout = Duration::from_secs(MAX_WAIT_SECONDS) + POLL_MARGIN;
        let answer = self.call(&path, Body::None, timeout).await?;
        let Items { items } = read(&answer)?;
        Ok(items
            .into_iter()
            .filter_map(|item| {
                let k = item.get("k")?.as_u64()?;
                let known: Option<ControlItem> = serde_json::from_value(item).ok();
                Some((k, known.map(|item| item.order)))
            })
            .collect())
    }

    /// Asks where to upload the session's archive.
    pub async fn archive(&self, request: &ArchiveRequest) -> Result<ArchiveGrant, CallError> {
        self.post("archive", request).await
    }

    /// Asks for more part URLs, or for renewed ones.
    pub async fn archive_parts(&self, request: &PartsRequest) -> Result<PartUrls, CallError> {
        self.post("archive/parts", request).await
    }

    /// Joins the uploaded parts.
    pub async fn archive_finish(&self, request: &ArchiveFinish) -> Result<(), CallError> {
        let body = Body::json(request);
        let timeout = Duration::from_secs(ARCHIVE_JOIN_SECONDS) + POLL_MARGIN;
        self.call("archive/finish", body, timeout).await?;
        Ok(())
    }

    /// Asks again where the session's current archive can be read.
    pub async fn archive_source(&self) -> Result<ArchiveSource, CallError> {
        self.post("archive/source", &Empty {}).await
    }

    /// Has the pull request opened that the request asks for.
    pub async fn pull_request(&self) -> Result<PullRequestAnswer, CallError> {
        let body = Body::json(&Empty {});
        let answer = self
            .call("pull-request", body, PULL_REQUEST_TIMEOUT)
            .await?;
        read(&answer)
    }

    /// Hands back the agent's credential as its program renewed it; answers whether it was
    /// stored in the secret that it came from.
    pub async fn credentials(&self, renewed: &Secret) -> Result<bool, CallError> {
        let renewed = RenewedCredential {
            agent: renewed.clone(),
        };
        let answer: CredentialStored = self.post("credentials", &renewed).await?;
        Ok(answer.stored)
    }

    /// Reports the end; returns when it is recorded.
    pub async fn complete(&self, report: &Complete) -> Result<(), CallError> {
        self.call("complete", Body::json(report), CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    async fn renewing(&self, call: &str, body: &impl Serialize) -> Result<(), CallError> {
        let sent = Instant::now();
        let answer: LeaseRenewed = self.post(call, body).await?;
        self.lease.renewed(sent, answer.lease_expires_in_ms);
        Ok(())
    }

    async fn post<A: DeserializeOwned>(
        &self,
        call: &str,
        body: &impl Serialize,
    ) -> Result<A, CallError> {
        let answer = self.call(call, Body::json(body), CALL_TIMEOUT).await?;
        read(&answer)
    }

    /// Repeats one call until it is answered, refused, or the lease is gone; at most for the
    /// outage grace, also if other calls are answered meanwhile, but for one whole try.
    async fn call(&self, call: &str, body: Body, timeout: Duration) -> Result<Vec<u8>, CallError> {
        let path = format!("/worker/executions/{}/{call}", self.execution);
        let call = Call {
            path: &path,
            token: &self.token,
            body,
            timeout,
        };
        // A dispatcher that is back is found before it judges leases, however short they are.
        let mut backoff = Backoff::new(RETRY_CAP.min(self.lease.beat()));
        let patience = self.lease.outage_grace().max(timeout);
        let repeated = async {
            loop {
                match self.client.attempt(&call).await {
                    Tried::Answer(bytes) => {
                        self.lease.answered();
                        return Ok(bytes);
                    }
                    Tried::Refusal(error) => {
                        self.lease.answered();
                        if matches!(error, CallError::LeaseLost) {
                            self.lease.lose();
                        }
                        return Err(error);
                    }
                    Tried::Failure { reason, wait } => {
                        tracing::warn!(call = path, %reason, "dispatcher does not answer");
                        backoff.pause(wait).await;
                    }
                }
            }
        };
        tokio::select! {
            answer = repeated => answer,
            gone = self.lease.gone() => Err(gone.into()),
            () = tokio::time::sleep(patience) => Err(CallError::Unreachable),
        }
    }
}

/// An empty JSON object.
#[derive(Serialize)]
struct Empty {}

fn read<A: DeserializeOwned>(answer: &[u8]) -> Result<A, CallError> {
    serde_json::from_slice(answer).map_err(|error| CallError::Garbled(error.to_string()))
}
