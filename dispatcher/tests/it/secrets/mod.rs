//! Secrets of workspaces: written, never read back, used by name, by whom they allow.

mod keys;
mod renewing;
mod using;
mod writing;

use std::collections::BTreeMap;

use clawlink::auth::principal::KeyRole;
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{Dispatcher, TestApp};
use crate::client::script;
use crate::worker::{Held, Worker};

/// What people do with secrets, as an administrator of the first workspace.
struct Desk<'a> {
    test: &'a TestApp,
    admin: Secret,
}

impl<'a> Desk<'a> {
    async fn of(test: &'a TestApp) -> Self {
        let (_, admin) = test.key_for("default", KeyRole::Admin).await;
        Self { test, admin }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        let request = self.test.http.request(method, self.test.url(path));
        request.bearer_auth(self.admin.expose())
    }

    /// Writes; answers status and body.
    async fn try_put(&self, name: &str, body: &Value) -> (u16, Value) {
        let request = self.request("PUT", &format!("/api/secrets/{name}"));
        let answer = request.json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn put(&self, name: &str, value: &str) {
        let (status, answer) = self.try_put(name, &json!({ "value": value })).await;
        assert!(status < 300, "{answer}");
    }

    /// Makes a policy; its number.
    async fn policy(&self, body: Value) -> i64 {
        let answer = self
            .request("POST", "/api/policies")
            .json(&body)
            .send()
            .await;
        let answer: Value = answer.unwrap().json().await.unwrap();
        answer["id"].as_i64().unwrap_or_else(|| panic!("{answer}"))
    }

    async fn list(&self) -> Value {
        let request = self.request("GET", "/api/secrets");
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn delete(&self, name: &str) -> u16 {
        let request = self.request("DELETE", &format!("/api/secrets/{name}"));
        request.send().await.unwrap().status().as_u16()
    }

    /// Action, outcome, actor and details of all entries about secrets.
    async fn audited(&self) -> Vec<(String, String, String, Value)> {
        sqlx::query_as(
            "select action, outcome, actor, details from audit_entries
             where action like 'secret.%' order by id",
        )
        .fetch_all(self.test.db())
        .await
        .unwrap()
    }

    /// How often a secret was handed out.
    async fn uses(&self) -> usize {
        let is_use = |entry: &&(String, String, String, Value)| {
            entry.0 == "secret.used" && entry.1 == "allowed"
        };
        self.audited().await.iter().filter(is_use).count()
    }
}

/// A script with secrets in its environment.
fn with_env(env: Value) -> Value {
    let mut request = script("true");
    request["providerOptions"] = json!({ "env": env });
    request
}

fn named(name: &str) -> Value {
    json!({ "SECRET": { "secret": name } })
}

fn claude() -> Value {
    json!({"userRequest": "hello", "codingAssistantProvider": "claude"})
}

fn env(held: &Held) -> BTreeMap<&str, &str> {
    let env = &held.assignment.credentials.env;
    env.iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect()
}

fn agent(held: &Held) -> Option<&str> {
    held.assignment
        .credentials
        .agent
        .as_ref()
        .map(Secret::expose)
}

async fn claim_claude(dispatcher: &Dispatcher) -> Held {
    let worker = Worker::new(dispatcher);
    let held = worker.claim_as(Uuid::new_v4(), &["claude"], 20).await;
    held.expect("there is work")
}
