//! Stored agents, their skills, and the skills that a workspace has taken.

use clawlink::auth::principal::KeyRole;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::TestApp;
use super::client::refusal;
use super::worker::Worker;
use crate::wait::eventually;

/// An installation seen by someone who may manage agents.
struct Manager {
    test: TestApp,
    key: String,
}

impl Manager {
    async fn start() -> Self {
        let test = TestApp::start().await;
        let (_, key) = test.key_for("default", KeyRole::Admin).await;
        let key = key.expose().to_owned();
        Self { test, key }
    }

    fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.test.http.request(method, self.test.url(path));
        request.bearer_auth(&self.key)
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.call(method, path).json(&body).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
        answer.json().await.unwrap()
    }
}

#[tokio::test]
async fn an_agent_is_made_changed_and_deactivated() {
    let manager = Manager::start().await;
    let new = json!({"name": " reviewer ", "type": "claude", "endpoint": "https://a.example",
        "config": {"model": "opus"}, "apiKey": "very-secret-value"});
    let made = manager.json(Method::POST, "/api/agents", new).await;
    let path = format!("/api/agents/{}", made["id"]);
    assert_eq!(made["name"], "reviewer");
    assert_eq!(
        (&made["type"], &made["agent_type"]),
        (&json!("claude"), &json!("claude"))
    );
    assert_eq!(
        (&made["apiKeyHash"], &made["hasApiKey"]),
        (&Value::Null, &json!(true))
    );

    let changed = json!({"endpoint": null, "apiKey": null, "description": "reads diffs"});
    let changed = manager.json(Method::PATCH, &path, changed).await;
    assert_eq!(
        (&changed["endpoint"], &changed["hasApiKey"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(
        (
            &changed["name"],
            &changed["description"],
            &changed["config"]["model"]
        ),
        (&json!("reviewer"), &json!("reads diffs"), &json!("opus")),
        "what is absent stays"
    );

    let gone = manager.json(Method::DELETE, &path, json!({})).await;
    assert_eq!(gone["isActive"], false);
    let list = manager.json(Method::GET, "/api/agents", json!({})).await;
    assert_eq!(list.as_array().unwrap().len(), 1, "it can still be named");
}

#[tokio::test]
async fn a_credential_goes_in_and_never_comes_out() {
    let manager = Manager::start().await;
    let new = json!({"name": "a", "type": "http", "apiKey": "very-secret-value"});
    let made = manager.json(Method::POST, "/api/agents", new).await;
    let list = manager.json(Method::GET, "/api/agents", json!({})).await;
    let audit: Vec<Value> = sqlx::query_scalar("select to_jsonb(e) from audit_entries e")
        .fetch_all(manager.test.db())
        .await
        .unwrap();
    let stored: Value = sqlx::query_scalar("select to_jsonb(a) from agents a")
        .fetch_one(manager.test.db())
        .await
        .unwrap();
    let all = format!("{made}{list}{audit:?}{stored}");
    assert!(!all.contains("very-secret-value"), "{all}");
    // As `to_jsonb` shows bytes.
    assert!(!all.contains(&hex(b"very-secret-value")), "{all}");
    assert!(all.contains("agent.created"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn skills_belong_to_their_agent_and_workspace() {
    let manager = Manager::start().await;
    let agent = json!({"name": "a", "agentType": "claude"});
    let agent = manager.json(Method::POST, "/api/agents", agent).await;
    let path = format!("/api/agents/{}/skills", agent["id"]);
    let skill = json!({"name": "review", "inputSchema": {"type": "object"}});
    let made = manager.json(Method::POST, &path, skill.clone()).await;
    assert_eq!(made["skill_id"], made["id"].to_string());
    let (status, problem) = refusal(manager.call(Method::POST, &path).json(&skill)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("skill_exists")));
    let listed = manager.json(Method::GET, "/api/agents", json!({})).await;
    assert_eq!(listed[0]["capabilities"], json!(["review"]));

    let (_, foreign) = manager.test.key_for("other", KeyRole::Admin).await;
    let foreigner = Manager {
        key: foreign.expose().to_owned(),
        test: manager.test,
    };
    let nothing = foreigner.json(Method::GET, "/api/skills", json!({})).await;
    assert_eq!(nothing, json!([]), "skills are not global");
    let agent = format!("/api/agents/{}", agent["id"]);
    for (method, path, body) in [
        (Method::GET, &agent, json!({})),
        (Method::PATCH, &agent, json!({"name": "mine"})),
        (Method::DELETE, &agent, json!({})),
        (Method::GET, &path, json!({})),
        (Method::POST, &path, skill),
    ] {
        let (status, _) = refusal(foreigner.call(method, path).json(&body)).await;
        assert_eq!(status, 404);
    }
}

#[tokio::test]
async fn a_workspace_takes_skills_and_gives_them_back() {
    let manager = Manager::start().await;
    let path = "/api/skill-assignments/tenant";
    for spelling in ["skillSlug", "slug", "skill_slug"] {
        let taken = manager
            .json(Method::POST, path, json!({spelling: "lint"}))
            .await;
        assert_eq!(
            (&taken["ok"], &taken["skillSlug"]),
            (&json!(true), &json!("lint"))
        );
    }
    let list = manager.json(Method::GET, path, json!({})).await;
    assert_eq!(list["assignments"].as_array().unwrap().len(), 1);
    let one = format!("{path}/lint");
    let gone = manager.call(Method::DELETE, &one).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let (status, _) = refusal(manager.call(Method::DELETE, &one)).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused() {
    let manager = Manager::start().await;
    for body in [
        json!({"name": "", "type": "claude"}),
        json!({"name": "a\u{0}b", "type": "claude"}),
        json!({"name": "a", "type": "claude", "config": {"a": "\u{0}"}}),
        json!({"name": "a", "type": "claude", "config": {"a": "x".repeat(70_000)}}),
        json!({"name": "a".repeat(201), "type": "claude"}),
        json!({"name": 7, "type": "claude"}),
    ] {
        let call = manager.call(Method::POST, "/api/agents").json(&body);
        let (status, problem) = refusal(call).await;
        assert_eq!(
            (status, &problem["error"]),
            (400, &json!("invalid_request"))
        );
    }
}

impl Manager {
    /// What is said of a kind.
    async fn kind(&self, kind: &str) -> Value {
        let list = self.json(Method::GET, "/api/agents/available", json!({}));
        let list = list.await;
        let mut kinds = list.as_array().unwrap().iter();
        kinds.find(|one| one["type"] == kind).unwrap().clone()
    }
}

#[tokio::test]
async fn what_can_run_is_what_live_workers_offer_and_what_can_be_paid_for() {
    let manager = Manager::start().await;
    let nobody = manager.kind("codex").await;
    assert_eq!(
        (&nobody["available"], &nobody["reason"], &nobody["versions"]),
        (&json!(false), &json!("no_worker_offers_agent"), &json!([]))
    );
    let of_type = |kind: &str| json!({"name": kind, "type": kind});
    for kind in ["codex", "goose", "of-an-earlier-system"] {
        manager
            .json(Method::POST, "/api/agents", of_type(kind))
            .await;
    }

    let worker = Worker::new(&manager.test.dispatcher);
    let call = tokio::spawn(async move {
        let claim = Uuid::new_v4();
        worker.claim_call(claim, &["codex", "shell"], 30).await
    });
    let unpaid = eventually("a worker offers codex", async || {
        let codex = manager.kind("codex").await;
        (codex["available"] == true).then_some(codex)
    })
    .await;
    assert_eq!(
        (&unpaid["ready"], &unpaid["reason"], &unpaid["versions"]),
        (&json!(false), &json!("no_credential"), &json!(["1"]))
    );
    assert_eq!(
        (&unpaid["workers"], &unpaid["idleWorkers"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(unpaid["credential"]["secrets"][0], "OPENAI_API_KEY");
    let shell = manager.kind("shell").await;
    assert_eq!(
        (&shell["ready"], &shell["takesImages"], &shell["reason"]),
        (&json!(true), &json!(false), &Value::Null)
    );

    let secret = json!({"value": "sk-of-this-workspace"});
    manager
        .json(Method::PUT, "/api/secrets/OPENAI_API_KEY", secret)
        .await;
    assert_eq!(manager.kind("codex").await["ready"], true);

    let stored = manager.json(Method::GET, "/api/agents", json!({})).await;
    let reasons: Vec<&Value> = stored
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| &agent["unavailableReason"])
        .collect();
    assert_eq!(
        reasons,
        [
            &Value::Null,
            &json!("no_worker_offers_agent"),
            &json!("unknown_type")
        ]
    );
    call.abort();
}

#[tokio::test]
async fn an_agent_that_no_worker_offers_is_waited_for_or_refused_at_once() {
    let test = TestApp::start().await;
    let mut body = super::client::script("x");
    body["codingAssistantProvider"] = json!("goose");
    body["codingAssistantAuthentication"] = json!("a-credential");
    let call = test.post("/execute?queue=false").json(&body);
    let (status, problem) = refusal(call).await;
    assert_eq!(status, 429, "{problem}");
    assert!(
        problem.to_string().contains("no worker offers this agent"),
        "{problem}"
    );
    let call = test.execute(&body).header("accept", "application/json");
    let accepted: Value = call.send().await.unwrap().json().await.unwrap();
    assert_eq!(accepted["queue"]["waitReason"], "no_worker_offers_agent");
}

#[tokio::test]
async fn skills_come_in_pages_and_lists_of_agents_name_them() {
    let manager = Manager::start().await;
    let new = json!({"name": "one", "type": "shell"});
    let first = manager.json(Method::POST, "/api/agents", new.clone()).await;
    let second = manager.json(Method::POST, "/api/agents", new).await;
    for (agent, skill) in [(&first, "a"), (&second, "b"), (&first, "c")] {
        let path = format!("/api/agents/{}/skills", agent["id"]);
        manager
            .json(Method::POST, &path, json!({"name": skill}))
            .await;
    }
    let listed = manager.json(Method::GET, "/api/agents", json!({})).await;
    let names = |agent: &Value| agent["capabilities"].clone();
    assert_eq!(names(&listed[0]), json!(["a", "c"]));
    assert_eq!(names(&listed[1]), json!(["b"]));
    let mut after = 0;
    for skill in ["a", "b", "c"] {
        let path = format!("/api/skills?limit=1&after={after}");
        let page = manager.json(Method::GET, &path, json!({})).await;
        assert_eq!(page[0]["name"], skill);
        assert_eq!(page.as_array().unwrap().len(), 1);
        after = page[0]["id"].as_i64().unwrap();
    }
    let path = format!("/api/agents/{}/skills?after={after}", first["id"]);
    assert_eq!(manager.json(Method::GET, &path, json!({})).await, json!([]));
}
