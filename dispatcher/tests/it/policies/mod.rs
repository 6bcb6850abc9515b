//! Policies narrow, devices prove themselves.

mod devices;
mod streams;
mod things;

use clawlink::auth::principal::KeyRole;
use clawlink_shared::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::{refusal, script};
use crate::members::call;

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
