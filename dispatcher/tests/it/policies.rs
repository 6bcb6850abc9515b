//! Policies narrow, devices prove themselves.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clawlink::auth::principal::KeyRole;
use clawlink::devices::proof::message;
use clawlink_shared::secret::Secret;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::app::TestApp;
use super::client::{refusal, script};
use super::members::call;

async fn policy(test: &TestApp, admin: &Secret, body: Value) -> i64 {
    let answer = call(test, admin, Method::POST, "/api/policies").json(&body);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    let made: Value = answer.json().await.unwrap();
    made["id"].as_i64().unwrap()
}

#[tokio::test]
async fn agents_and_repositories_are_denied_by_role_and_by_any_spelling() {
    let test = TestApp::start().await;
    let (workspace, admin) = test.key_for("default", KeyRole::Admin).await;
    let submit = |key: &Secret, body: &Value| {
        call(&test, key, Method::POST, "/execute")
            .header("accept", "application/json")
            .json(body)
    };
    let denies = json!({"resourceKind": "agent", "resource": "Bash",
        "deniedRoles": ["key:developer"]});
    let id = policy(&test, &admin, denies).await;
    let (status, problem) = refusal(submit(&test.key, &script("true"))).await;
    assert_eq!(status, 403);
    assert!(
        problem["message"]
            .as_str()
            .unwrap()
            .contains(&format!("policy {id}"))
    );
    let allowed = submit(&admin, &script("true")).send().await.unwrap();
    assert_eq!(allowed.status(), 202);
    let one = format!("/api/policies/{id}");
    let removed = call(&test, &admin, Method::DELETE, &one).send().await;
    assert_eq!(removed.unwrap().status(), 204);
    test.accepted(&script("true")).await;

    let only = json!({"resourceKind": "repository", "resource": "https://github.com/acme/*",
        "allowedRoles": ["owner"], "allowedUsers": ["key:999"]});
    policy(&test, &admin, only).await;
    for url in [
        "https://github.com/acme/secret",
        "https://GitHub.com/Acme/secret.git",
        "https://github.com//acme/secret",
        "https://github.com./acme/secret",
    ] {
        let mut body = script("true");
        body["github"] = json!({"repoUrl": url});
        assert_eq!(refusal(submit(&test.key, &body)).await.0, 403, "{url}");
    }
    let mut body = script("true");
    body["github"] = json!({"repoUrl": "https://github.com/other/one"});
    test.accepted(&body).await;
    let denials: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries
         where workspace_id = $1 and action = 'policy.denied' and outcome = 'denied'",
    )
    .bind(workspace.0)
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!(denials, 5);
}

#[tokio::test]
async fn a_hidden_session_is_not_there() {
    let test = TestApp::start().await;
    let (_, admin) = test.key_for("default", KeyRole::Admin).await;
    let hidden = test.accepted(&script("true")).await;
    let shown = test.accepted(&script("true")).await;
    let hides = json!({"resourceKind": "session", "resource": hidden.session_id.to_string(),
        "allowedRoles": ["key:admin"]});
    let id = policy(&test, &admin, hides).await;
    let session = format!("/sessions/{}", hidden.session_id);
    let execution = format!("/executions/{}", hidden.execution_id);
    let resume = json!({"userRequest": "x", "websiteSessionId": hidden.session_id.to_string(),
        "github": {"repoUrl": "https://github.com/a/b"}});
    let attempts = || {
        [
            (test.get(&session), "session_not_found"),
            (test.get(&format!("{session}/stream")), "session_not_found"),
            (test.delete(&session), "session_not_found"),
            (test.execute(&resume), "session_not_found"),
            (test.get(&execution), "execution_not_found"),
            (
                test.get(&format!("{execution}/events")),
                "execution_not_found",
            ),
            (
                test.post(&format!("{execution}/cancel")),
                "execution_not_found",
            ),
        ]
    };
    for (request, code) in attempts() {
        let (status, problem) = refusal(request).await;
        assert_eq!((status, &problem["error"]), (404, &json!(code)));
    }
    let list: Value = test
        .get("/sessions")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let ids: Vec<&Value> = list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| &session["sessionId"])
        .collect();
    assert_eq!(ids, [&json!(shown.session_id)]);
    let seen = call(&test, &admin, Method::GET, &session).send().await;
    assert_eq!(seen.unwrap().status(), 200);
    // A policy that has expired hides nothing.
    let expired = json!({"resourceKind": "session", "resource": hidden.session_id.to_string(),
        "allowedRoles": ["key:admin"], "expiresAt": "2000-01-01T00:00:00Z"});
    let path = format!("/api/policies/{id}");
    let replaced = call(&test, &admin, Method::PUT, &path)
        .json(&expired)
        .send();
    assert_eq!(replaced.await.unwrap().status(), 200);
    assert_eq!(test.get(&session).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn bad_policies_are_refused_with_all_faults() {
    let test = TestApp::start().await;
    let (_, admin) = test.key_for("default", KeyRole::Admin).await;
    let bad = json!({"resourceKind": "agent", "resource": " ", "allowedRoles": ["king"],
        "deniedUsers": ["me"]});
    let request = call(&test, &admin, Method::POST, "/api/policies").json(&bad);
    let (status, problem) = refusal(request).await;
    assert_eq!(status, 400);
    let fields: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| &fault["field"])
        .collect();
    assert_eq!(fields, ["resource", "allowedRoles", "deniedUsers"]);
}

/// A machine with a key.
struct Machine {
    id: String,
    key: Ed25519KeyPair,
}

impl Machine {
    async fn register(test: &TestApp, owner: &Secret) -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let public = BASE64_STANDARD.encode(key.public_key().as_ref());
        let body = json!({"name": "laptop", "publicKey": public});
        let answer = call(test, owner, Method::POST, "/api/devices").json(&body);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let device: Value = answer.json().await.unwrap();
        assert_eq!(device["trust"], "untrusted");
        let (status, problem) =
            refusal(call(test, owner, Method::POST, "/api/devices").json(&body)).await;
        assert_eq!((status, &problem["error"]), (409, &json!("device_exists")));
        let id = device["id"].as_str().unwrap().to_owned();
        Self { id, key }
    }

    /// A `GET` that shows this machine.
    fn get(&self, test: &TestApp, key: &Secret, path: &str, proof: &Shown) -> RequestBuilder {
        let text = message("GET", &proof.target, proof.timestamp, &proof.nonce);
        let signature = BASE64_STANDARD.encode(self.key.sign(text.as_bytes()).as_ref());
        call(test, key, Method::GET, path)
            .header("x-device-id", &self.id)
            .header("x-device-timestamp", proof.timestamp)
            .header("x-device-nonce", &proof.nonce)
            .header("x-device-signature", signature)
    }
}

/// What a proof says.
#[derive(Clone)]
struct Shown {
    target: String,
    timestamp: i64,
    nonce: String,
}

impl Shown {
    fn now(target: &str, nonce: &str) -> Self {
        Self {
            target: target.to_owned(),
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            nonce: nonce.to_owned(),
        }
    }
}

#[tokio::test]
async fn a_proof_holds_once_for_its_request_its_time_and_its_owner() {
    let test = TestApp::start().await;
    let (_, other) = test.key_for("default", KeyRole::Developer).await;
    let machine = Machine::register(&test, &test.key).await;
    let path = "/sessions?limit=1";
    let good = Shown::now(path, "n1");
    let first = machine.get(&test, &test.key, path, &good).send().await;
    assert_eq!(first.unwrap().status(), 200);
    let mut old = Shown::now(path, "n2");
    old.timestamp -= 120;
    let mut early = Shown::now(path, "n3");
    early.timestamp += 120;
    let elsewhere = Shown::now("/sessions?limit=2", "n4");
    for (key, proof, why) in [
        (&test.key, &good, "used before"),
        (&test.key, &old, "a minute off"),
        (&test.key, &early, "a minute off"),
        (&test.key, &elsewhere, "signature is wrong"),
        (&other, &Shown::now(path, "n5"), "device is unknown"),
    ] {
        let (status, problem) = refusal(machine.get(&test, key, path, proof)).await;
        assert_eq!(status, 401);
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
    let half = test.get(path).header("x-device-id", &machine.id);
    assert_eq!(refusal(half).await.0, 401);
}

#[tokio::test]
async fn a_policy_can_demand_a_trusted_device() {
    let test = TestApp::start().await;
    let (_, admin) = test.key_for("default", KeyRole::Admin).await;
    let machine = Machine::register(&test, &test.key).await;
    let made = test.accepted(&script("true")).await;
    let demands = json!({"resourceKind": "session", "resource": "*", "minimumTrust": "verified"});
    policy(&test, &admin, demands).await;
    let path = format!("/sessions/{}", made.session_id);
    assert_eq!(refusal(test.get(&path)).await.0, 404);
    let request = machine.get(&test, &test.key, &path, &Shown::now(&path, "a"));
    assert_eq!(refusal(request).await.0, 404);
    // A key cannot raise trust, a person did.
    let device = format!("/api/devices/{}", machine.id);
    let raise = call(&test, &admin, Method::PATCH, &device).json(&json!({"trust": "trusted"}));
    assert_eq!(refusal(raise).await.0, 403);
    sqlx::query("update devices set trust = 'trusted'")
        .execute(test.db())
        .await
        .unwrap();
    let request = machine.get(&test, &test.key, &path, &Shown::now(&path, "b"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    // Lowering it is for keys, too.
    let lower = call(&test, &admin, Method::PATCH, &device).json(&json!({"trust": "untrusted"}));
    assert_eq!(lower.send().await.unwrap().status(), 200);
    let request = machine.get(&test, &test.key, &path, &Shown::now(&path, "c"));
    assert_eq!(refusal(request).await.0, 404);
}
