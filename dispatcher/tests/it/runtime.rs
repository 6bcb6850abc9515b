//! The older runtime API: with a credential, and without one where the operator allows it.

use clawlink::auth::principal::KeyRole;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::refusal;
use super::worker::Worker;

/// A client that sends JSON's content type and no credential.
struct Client {
    test: TestApp,
}

impl Client {
    async fn start(role: KeyRole) -> Self {
        let test = TestApp::start_with(|settings| {
            settings.tuning.anonymous_workspace = Some("default".to_owned());
            settings.tuning.anonymous_role = Some(role);
            settings.tuning.default_agent = Some("shell".to_owned());
        })
        .await;
        Self { test }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let call = self.test.http.post(self.test.url(path));
        call.header("content-type", "application/json")
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        let call = self.test.http.get(self.test.url(path));
        call.header("content-type", "application/json")
    }

    async fn session(&self) -> String {
        let opened = json(self.post("/api/runtime/sessions?user_id=u&device_id=d")).await;
        assert_eq!(opened["user_id"], "u");
        opened["session_id"].as_str().unwrap().to_owned()
    }
}

async fn json(call: reqwest::RequestBuilder) -> Value {
    let answer = call.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status} {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_client_without_a_credential_submits_looks_and_cancels() {
    let client = Client::start(KeyRole::Ci).await;
    let session = client.session().await;
    let body = json!({"agent_type": "general-purpose", "prompt": "true", "session_id": session});
    let submitted = json(client.post("/api/runtime/tasks/submit").json(&body)).await;
    assert_eq!(
        (&submitted["state"], &submitted["success"]),
        (&json!("pending"), &json!(true))
    );
    assert_eq!(submitted["task_id"], submitted["execution_uuid"]);
    let id = submitted["task_id"].as_str().unwrap();

    let held = Worker::new(&client.test.dispatcher).run().await;
    held.complete(0).await;
    let path = format!("/api/runtime/tasks/{id}/state?session_id={session}");
    let ended = json(client.get(&path)).await;
    assert_eq!(
        (&ended["state"], &ended["result"], &ended["error"]),
        (&json!("completed"), &json!("done"), &Value::Null)
    );
    assert!(ended["execution_time"].is_f64());

    let second = json(client.post("/api/runtime/tasks/submit").json(&body)).await;
    let path = format!(
        "/api/runtime/tasks/{}/cancel",
        second["task_id"].as_str().unwrap()
    );
    let cancelled = client.post(&path).json(&json!({"session_id": session}));
    assert_eq!(json(cancelled).await["success"], true);
}

#[tokio::test]
async fn without_the_operators_leave_there_are_no_anonymous_clients() {
    let test = TestApp::start_with(|settings| settings.tuning.max_body_bytes = 1000).await;
    let client = Client { test };
    let large = "x".repeat(2000);
    for call in [
        // Not a byte of it is read.
        client.post("/api/projects?tenant_id=1").body(large),
        client.post("/api/runtime/sessions"),
        client.get("/api/runtime/agents?session_id=6f2c1f0e-9c7f-4a55-8a0b-0a7d8f9f1d11"),
        client.get("/api/audit/events?session_id=6f2c1f0e-9c7f-4a55-8a0b-0a7d8f9f1d11"),
    ] {
        assert_eq!(refusal(call).await.0, 401);
    }
}

#[tokio::test]
async fn an_anonymous_client_may_what_its_role_may_and_no_more() {
    let client = Client::start(KeyRole::Readonly).await;
    let session = client.session().await;
    let body = json!({"prompt": "true", "session_id": session});
    let (status, _) = refusal(client.post("/api/runtime/tasks/submit").json(&body)).await;
    assert_eq!(status, 403);
    let (status, _) = refusal(client.get(&format!("/api/audit/events?session_id={session}"))).await;
    assert_eq!(status, 403, "an anonymous session reads no audit");
    let agents = json(client.get(&format!("/api/runtime/agents?session_id={session}"))).await;
    assert_eq!(agents[0]["agent_type"], "general-purpose");
    let skills = json(client.get(&format!("/api/runtime/skills?session_id={session}"))).await;
    assert_eq!(skills[0]["skill_id"], "code_generation");
}

#[tokio::test]
async fn an_idle_session_and_one_of_somebody_else_are_refused() {
    let client = Client::start(KeyRole::Ci).await;
    let session = client.session().await;
    let path = format!("/api/runtime/agents?session_id={session}");
    json(client.get(&path)).await;
    sqlx::query("update client_sessions set last_activity = now() - interval '25 hours'")
        .execute(client.test.db())
        .await
        .unwrap();
    assert_eq!(refusal(client.get(&path)).await.0, 401);

    let opened = json(client.test.post("/api/runtime/sessions").json(&json!({}))).await;
    let of_key = opened["session_id"].as_str().unwrap();
    let path = format!("/api/runtime/agents?session_id={of_key}");
    assert_eq!(
        refusal(client.get(&path)).await.0,
        401,
        "what a credential opened is nothing without it"
    );
    let (_, other) = client.test.key_for("other", KeyRole::Admin).await;
    let path = format!("/api/runtime/sessions/{of_key}");
    let foreign = client.get(&path).bearer_auth(other.expose());
    assert_eq!(refusal(foreign).await.0, 404);
}

#[tokio::test]
async fn shared_paths_answer_each_generation_in_its_words() {
    let client = Client::start(KeyRole::Developer).await;
    let session = client.session().await;
    let path = format!("/api/projects?session_id={session}");
    let project = json!({"key": "demo", "name": "Demo", "default_branch": "main"});
    let made = json(client.post(&path).json(&project)).await;
    assert_eq!(
        (&made["key"], &made["default_branch"]),
        (&json!("DEMO"), &json!("main"))
    );
    assert!(made["created_at"].is_string() && made["createdAt"].is_null());
    let older = json(client.get(&path)).await;
    assert_eq!(older[0]["key"], "DEMO", "a list without an envelope");
    let newer = json(client.test.get(&path)).await;
    assert_eq!(
        newer["projects"][0]["key"], "DEMO",
        "newer by its credential"
    );
    assert!(newer["projects"][0]["createdAt"].is_string());
}

#[tokio::test]
async fn an_address_opens_a_few_sessions_a_minute() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.anonymous_workspace = Some("default".to_owned());
        settings.tuning.anonymous_role = Some(KeyRole::Readonly);
        settings.sign_in.attempts_per_address = 3;
    })
    .await;
    let client = Client { test };
    for _ in 0..3 {
        client.session().await;
    }
    let refused = client.post("/api/runtime/sessions").send().await.unwrap();
    assert_eq!(refused.status(), 429);
}
