//! A worker that speaks the worker API and runs nothing: tests decide what it says.

use std::time::Duration;

use clawlink_shared::control::{
    ArchiveDone, ArchiveGrant, Assignment, ControlItems, PROTOCOL, PROTOCOL_HEADER, PartDone,
    PartUrl,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{Dispatcher, POOL_TOKEN};

/// A process that asks for work.
#[derive(Clone)]
pub(crate) struct Worker {
    http: reqwest::Client,
    url: String,
    /// Its name.
    pub(crate) id: String,
}

/// An execution that it holds.
#[derive(Clone)]
pub(crate) struct Held {
    worker: Worker,
    /// What it got.
    pub(crate) assignment: Assignment,
}

impl Worker {
    /// A worker that speaks to one dispatcher.
    pub(crate) fn new(dispatcher: &Dispatcher) -> Self {
        Self::at(&dispatcher.url)
    }

    /// The same by the dispatcher's address.
    pub(crate) fn at(url: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            id: format!("test-{}", &Uuid::new_v4().simple().to_string()[..8]),
        }
    }

    /// One `claim` call as it is.
    pub(crate) async fn claim_call(&self, claim: Uuid, kinds: &[&str], wait: u64) -> Response {
        let agents: Vec<Value> = kinds
            .iter()
            .map(|kind| json!({"kind": kind, "version": "1"}))
            .collect();
        let body = json!({
            "claimId": claim, "workerId": self.id, "host": "test", "version": "1",
            "root": "/workspace", "agents": agents, "labels": {}, "waitSeconds": wait,
        });
        let call = self.http.post(format!("{}/worker/claim", self.url));
        call.bearer_auth(POOL_TOKEN)
            .header(PROTOCOL_HEADER, PROTOCOL)
            .json(&body)
            .timeout(Duration::from_secs(40))
            .send()
            .await
            .unwrap()
    }

    /// Waits for work under a claim id.
    pub(crate) async fn claim_as(&self, claim: Uuid, kinds: &[&str], wait: u64) -> Option<Held> {
        let answer = self.claim_call(claim, kinds, wait).await;
        if answer.status() == StatusCode::NO_CONTENT {
            return None;
        }
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        Some(Held {
            worker: self.clone(),
            assignment: answer.json().await.unwrap(),
        })
    }

    /// Waits long for a shell execution.
    pub(crate) async fn claim(&self) -> Held {
        let held = self.claim_as(Uuid::new_v4(), &["shell"], 20).await;
        held.expect("there is work")
    }

    /// Looks once.
    pub(crate) async fn claim_now(&self) -> Option<Held> {
        self.claim_as(Uuid::new_v4(), &["shell"], 0).await
    }

    /// Claims, acknowledges, and is running.
    pub(crate) async fn run(&self) -> Held {
        let held = self.claim().await;
        held.ack().await;
        held.state("running").await;
        held
    }
}

impl Held {
    /// The execution's number.
    pub(crate) fn id(&self) -> i64 {
        self.assignment.execution.id.0
    }

    /// The same lease at another dispatcher.
    pub(crate) fn at(&self, dispatcher: &Dispatcher) -> Self {
        self.at_url(&dispatcher.url)
    }

    /// The same by the dispatcher's address.
    pub(crate) fn at_url(&self, url: &str) -> Self {
        let mut moved = self.clone();
        moved.worker.url = url.to_owned();
        moved
    }

    /// Any request, with this lease's token.
    pub(crate) fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .bearer_auth(self.assignment.lease.token.expose())
            .header(PROTOCOL_HEADER, PROTOCOL)
    }

    /// A `POST` of this lease.
    pub(crate) fn post(&self, call: &str) -> RequestBuilder {
        let url = format!("{}/worker/executions/{}/{call}", self.worker.url, self.id());
        self.authorized(self.worker.http.post(url))
    }

    /// Posts JSON; answers status and body.
    pub(crate) async fn try_post(&self, call: &str, body: &Value) -> (u16, Value) {
        answer(self.post(call).json(body).send().await.unwrap()).await
    }

    /// The same, which succeeds.
    pub(crate) async fn must(&self, call: &str, body: &Value) -> Value {
        let (status, answer) = self.try_post(call, body).await;
        assert_eq!(status, 200, "{call}: {answer}");
        answer
    }

    /// The assignment has arrived.
    pub(crate) async fn ack(&self) {
        self.must("ack", &json!({})).await;
    }

    /// Asks for a state.
    pub(crate) async fn state(&self, to: &str) {
        self.must("state", &json!({ "to": to })).await;
    }

    /// Sends `message` events numbered `range`; answers status and body.
    pub(crate) async fn try_events(&self, range: std::ops::RangeInclusive<u64>) -> (u16, Value) {
        let lines: String = range
            .map(|n| {
                let fields = json!({ "message": format!("event {n}") });
                format!("{}\n", json!({"n": n, "type": "message", "fields": fields}))
            })
            .collect();
        self.try_lines(lines).await
    }

    /// Sends lines as they are.
    pub(crate) async fn try_lines(&self, lines: String) -> (u16, Value) {
        let call = self.post("events");
        let call = call.header("content-type", "application/x-ndjson");
        answer(call.body(lines).send().await.unwrap()).await
    }

    /// Sends events that are accepted; answers the acknowledged number.
    pub(crate) async fn events(&self, range: std::ops::RangeInclusive<u64>) -> u64 {
        let (status, answer) = self.try_events(range).await;
        assert_eq!(status, 200, "{answer}");
        answer["ackedN"].as_u64().unwrap()
    }

    /// Listens for orders.
    pub(crate) async fn control(&self, after: u64, wait: u64) -> (u16, ControlItems) {
        let path = format!("control?after={after}&waitSeconds={wait}");
        let url = format!("{}/worker/executions/{}/{path}", self.worker.url, self.id());
        let answer = self
            .authorized(self.worker.http.get(url))
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Uploads an archive in one piece; it is not accepted before `complete`.
    pub(crate) async fn upload(&self, bytes: &'static [u8]) -> ArchiveDone {
        let grant = self.must("archive", &json!({ "size": bytes.len() })).await;
        let grant: ArchiveGrant = serde_json::from_value(grant).unwrap();
        let url = grant.url.expect("one URL for a small archive");
        let put = self.worker.http.put(url.expose()).body(bytes);
        assert_eq!(put.send().await.unwrap().status(), 200);
        ArchiveDone {
            key: grant.key,
            size: bytes.len() as u64,
            sha256: "0".repeat(64),
        }
    }

    /// Begins an upload in parts.
    pub(crate) async fn begin_parts(&self) -> ArchiveGrant {
        let grant = self.must("archive", &json!({})).await;
        serde_json::from_value(grant).unwrap()
    }

    /// Uploads one part.
    pub(crate) async fn put_part(&self, part: &PartUrl, bytes: Vec<u8>) -> PartDone {
        let put = self.worker.http.put(part.url.expose()).body(bytes);
        let answer = put.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        PartDone {
            number: part.number,
            etag: answer.headers()["etag"].to_str().unwrap().to_owned(),
        }
    }

    /// Reports an end.
    pub(crate) async fn try_complete(&self, report: &Value) -> (u16, Value) {
        self.try_post("complete", report).await
    }

    /// Reports success after `last_n` events.
    pub(crate) async fn complete(&self, last_n: u64) {
        let report = json!({"outcome": "completed", "lastN": last_n, "result": "done"});
        self.must("complete", &report).await;
    }
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}
