//! A simulated worker: the real worker API, without an agent.
//!
//! It must never do anybody else's work: an execution whose script does not begin with the
//! bench's tag is not acknowledged, so the dispatcher hands it out again, uncounted.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clawlink_shared::agent::{AgentKind, AgentOffer};
use clawlink_shared::control::{
    Assignment, ClaimRequest, Complete, EventsAck, PROTOCOL, PROTOCOL_HEADER, StateChange,
};
use clawlink_shared::event::{EventType, WorkerEvent};
use clawlink_shared::execution::{Outcome, State};
use clawlink_shared::id::ClaimId;
use clawlink_shared::prompt::text_of;
use clawlink_shared::secret::Secret;
use reqwest::{Response, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use super::client::{Client, checked, http_client};

/// Beyond the longest long-poll.
const CALL: Duration = Duration::from_secs(45);

/// One simulated worker; it has connections of its own, as a real one.
pub(super) struct Worker {
    http: reqwest::Client,
    base: String,
    pool: Secret,
    tag: String,
    id: String,
}

/// An execution that a simulated worker holds.
pub(super) struct Held {
    /// What the dispatcher said.
    pub(super) assignment: Assignment,
    last_n: u64,
}

impl Worker {
    /// A worker that takes the executions of this client.
    pub(super) fn new(client: &Client, pool: &Secret) -> anyhow::Result<Self> {
        Ok(Self {
            http: http_client(None)?,
            base: client.base().to_owned(),
            pool: pool.clone(),
            tag: client.tag().to_owned(),
            id: format!("bench-{:08x}", rand::random::<u32>()),
        })
    }

    /// Waits for work; none when nothing came in time.
    pub(super) async fn claim(&self, wait: Duration) -> anyhow::Result<Option<Held>> {
        let request = ClaimRequest {
            claim_id: ClaimId(Uuid::new_v4()),
            worker_id: self.id.clone(),
            host: "bench".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            root: "/workspace".to_owned(),
            agents: vec![AgentOffer {
                kind: AgentKind::Shell,
                version: "bench".to_owned(),
            }],
            labels: Default::default(),
            wait_seconds: wait.as_secs(),
        };
        let url = format!("{}/worker/claim", self.base);
        let response = self.post(url, &self.pool).json(&request).send().await;
        let response = checked("claim", response.context("claim")?).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let assignment: Assignment = response.json().await.context("read the assignment")?;
        ensure!(
            text_of(&assignment.request.prompt).starts_with(&self.tag),
            "somebody else's execution was offered and left alone; \
             run the bench while nobody else submits"
        );
        Ok(Some(Held {
            assignment,
            last_n: 0,
        }))
    }

    /// Accepts the lease.
    pub(super) async fn acknowledge(&self, held: &Held) -> anyhow::Result<()> {
        let request = self.lease(held, "ack");
        finished("acknowledge", request.send().await).await
    }

    /// Says that the agent may start.
    pub(super) async fn running(&self, held: &Held) -> anyhow::Result<()> {
        let change = StateChange { to: State::Running };
        let request = self.lease(held, "state").json(&change);
        finished("change state", request.send().await).await
    }

    /// Sends one batch of events with these fields.
    pub(super) async fn events(
        &self,
        held: &mut Held,
        all: &[impl Serialize],
    ) -> anyhow::Result<()> {
        let mut body = Vec::new();
        for fields in all {
            held.last_n += 1;
            let event = WorkerEvent {
                n: held.last_n,
                kind: EventType::AssistantMessage,
                fields: serde_json::value::to_raw_value(fields)?,
            };
            serde_json::to_writer(&mut body, &event)?;
            body.push(b'\n');
        }
        let request = self.lease(held, "events");
        let request = request.header("content-type", "application/x-ndjson");
        let response = request.body(body).send().await.context("send events")?;
        let response = checked("send events", response).await?;
        let ack: EventsAck = response.json().await.context("read acknowledgement")?;
        ensure!(
            ack.acked_n == held.last_n,
            "{} events were sent, {} are acknowledged",
            held.last_n,
            ack.acked_n
        );
        Ok(())
    }

    /// Reports the end, without an archive.
    pub(super) async fn complete(&self, held: &Held) -> anyhow::Result<()> {
        let complete = Complete {
            outcome: Outcome::Completed,
            error: None,
            last_n: held.last_n,
            archive: None,
            branch: None,
            commit_hash: None,
            pushed: false,
            usage: None,
            result: None,
            provider_session_id: None,
        };
        let request = self.lease(held, "complete").json(&complete);
        finished("complete", request.send().await).await
    }

    fn lease(&self, held: &Held, call: &str) -> reqwest::RequestBuilder {
        let id = held.assignment.execution.id;
        let url = format!("{}/worker/executions/{id}/{call}", self.base);
        self.post(url, &held.assignment.lease.token)
    }

    fn post(&self, url: String, token: &Secret) -> reqwest::RequestBuilder {
        self.http
            .post(url)
            .timeout(CALL)
            .bearer_auth(token.expose())
            .header(PROTOCOL_HEADER, PROTOCOL)
    }
}

async fn finished(what: &str, response: reqwest::Result<Response>) -> anyhow::Result<()> {
    let response = checked(what, response.with_context(|| what.to_owned())?).await?;
    response.bytes().await.with_context(|| what.to_owned())?;
    Ok(())
}

/// Does something and says how long it took.
pub(super) async fn timed<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    let value = work.await?;
    Ok((value, start.elapsed()))
}
