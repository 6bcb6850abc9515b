//! Questions of agents, asked by a scripted worker over the real worker API.

mod answers;
mod endings;
mod policies;

use clawlink::auth::principal::KeyRole;
use clawlink_shared::approval::Decision;
use clawlink_shared::control::Order;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::TestApp;
use crate::jobs::Job;
use crate::worker::{Held, Worker};

/// An agent that runs, and how far its events are numbered.
pub(crate) struct Agent {
    pub(crate) held: Held,
    n: u64,
}

impl Agent {
    /// A worker takes the next shell execution and starts its agent.
    pub(crate) async fn start(test: &TestApp) -> Self {
        Self::of(Worker::new(&test.dispatcher).run().await)
    }

    pub(crate) fn of(held: Held) -> Self {
        Self { held, n: 0 }
    }

    /// Sends one event; the line can be sent again.
    pub(crate) async fn tell(&mut self, kind: &str, fields: Value) -> String {
        self.n += 1;
        let line = format!("{}\n", json!({"n": self.n, "type": kind, "fields": fields}));
        let (status, answer) = self.held.try_lines(line.clone()).await;
        assert_eq!(status, 200, "{answer}");
        line
    }

    /// Asks for a tool; answers the question's id.
    pub(crate) async fn ask(&mut self, tool: &str, input: Value) -> Uuid {
        let id = Uuid::new_v4();
        let fields = json!({"approvalId": id, "kind": "tool", "tool": tool, "input": input});
        self.tell("approval_requested", fields).await;
        id
    }

    /// Asks for a shell command.
    pub(crate) async fn ask_bash(&mut self, command: &str) -> Uuid {
        self.ask("Bash", json!({ "command": command })).await
    }

    /// Answers that its worker hears now, by question.
    pub(crate) async fn heard(&self) -> Vec<(Uuid, Decision, Option<String>)> {
        let (status, orders) = self.held.control(0, 0).await;
        assert_eq!(status, 200);
        let items = orders.items.into_iter();
        items
            .filter_map(|item| match item.order {
                Order::Approval {
                    approval_id,
                    decision,
                    message,
                } => Some((approval_id, decision, message)),
                Order::Cancel { .. } | Order::Message { .. } | Order::Stop { .. } => None,
            })
            .collect()
    }

    /// What its worker hears about one question.
    pub(crate) async fn answer_to(&self, id: Uuid) -> Option<Decision> {
        let heard = self.heard().await.into_iter();
        let mut answers = heard.filter(|(of, ..)| *of == id);
        answers.next().map(|(_, decision, _)| decision)
    }

    /// Reports success.
    pub(crate) async fn complete(&self) {
        self.held.complete(self.n).await;
    }
}

impl TestApp {
    /// Answers a question; status and body.
    pub(crate) async fn answer(&self, job: &Job, id: Uuid, body: Value) -> (u16, Value) {
        let key = self.key.expose().to_owned();
        self.answer_as(&key, job, id, body).await
    }

    /// The same with another key.
    pub(crate) async fn answer_as(
        &self,
        key: &str,
        job: &Job,
        id: Uuid,
        body: Value,
    ) -> (u16, Value) {
        let path = format!("/executions/{}/approvals/{id}", job.id);
        self.call_as(key, Method::POST, &path, body).await
    }

    /// One call with JSON; status and body.
    pub(crate) async fn call_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let call = self.http.request(method, self.url(path)).bearer_auth(key);
        let answer = call.json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// An admin's key.
    pub(crate) async fn admin(&self) -> String {
        let (_, key) = self.key_for("default", KeyRole::Admin).await;
        key.expose().to_owned()
    }

    /// The events of a type in an execution's log.
    pub(crate) async fn told(&self, job: &Job, kind: &str) -> Vec<Value> {
        let mut log = self.log(job).await;
        log.retain(|event| event["type"] == kind);
        log
    }
}
