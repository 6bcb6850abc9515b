//! The log as clients of the older runtime API read it: without a credential, with a session.

use clawlink::auth::principal::KeyRole;
use serde_json::{Value, json};
use uuid::Uuid;

use super::workspace;
use crate::app::TestApp;
use crate::client::refusal;

/// An installation where whoever comes without a credential acts with this role.
async fn start(role: KeyRole) -> TestApp {
    TestApp::start_with(|settings| {
        settings.tuning.anonymous_workspace = Some("default".to_owned());
        settings.tuning.anonymous_role = Some(role);
        settings.tuning.default_agent = Some("shell".to_owned());
    })
    .await
}

async fn post(test: &TestApp, path: &str, body: Value) -> Value {
    let answer = test.http.post(test.url(path)).json(&body).send().await;
    answer.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn the_older_generation_reads_the_log_in_its_own_shape() {
    let test = start(KeyRole::Admin).await;
    let opened = post(&test, "/api/runtime/sessions", json!({"user_id": "u"})).await;
    let session = opened["session_id"].as_str().unwrap();
    let submission = json!({"prompt": "true", "session_id": session});
    let submitted = post(&test, "/api/runtime/tasks/submit", submission).await;
    let execution = submitted["metadata"]["executionId"].to_string();
    // The session itself was opened before.
    for (path, count) in [
        (
            format!("/api/audit/events?session_id={session}&event_type=task.submitted&limit=5"),
            1,
        ),
        (
            format!("/api/audit/sessions/{session}/activity?auth_session_id={session}"),
            2,
        ),
    ] {
        let answer = test.http.get(test.url(&path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let events: Value = answer.json().await.unwrap();
        let events = events.as_array().unwrap();
        assert_eq!(events.len(), count, "{path}: {events:?}");
        let event = &events[0];
        let expected = json!({
            "event_id": event["event_id"], "event_type": "task.submitted",
            "timestamp": event["timestamp"], "user_id": null, "session_id": session,
            "resource_type": "execution", "resource_id": execution, "action": "submitted",
            "status": "success", "details": event["details"],
        });
        assert_eq!(*event, expected);
        let time = event["timestamp"].as_str().unwrap();
        assert!(!time.ends_with('Z') && time.contains('T'), "naive: {time}");
        assert_eq!(event["details"]["agent"], "shell");
        let opened = events.get(1).map(|event| event["event_type"].clone());
        assert!(opened.is_none_or(|kind| kind == "client_session.opened"));
    }
    // The same entries for a newer client, in its shape.
    let (_, key) = test.key_for("default", KeyRole::Admin).await;
    let newer = test
        .http
        .get(test.url("/api/audit/events?eventType=execution_submitted"));
    let newer = newer.bearer_auth(key.expose()).send().await.unwrap();
    let newer: Value = newer.json().await.unwrap();
    assert_eq!(newer[0]["eventType"], "execution_submitted");
    assert_eq!(newer[0]["actor"], format!("client:{session}"));
}

#[tokio::test]
async fn a_session_reads_no_log_that_its_role_may_not() {
    let test = start(KeyRole::Developer).await;
    let opened = post(&test, "/api/runtime/sessions", json!({})).await;
    let session = opened["session_id"].as_str().unwrap();
    let stranger = Uuid::new_v4();
    for (path, status) in [
        (format!("/api/audit/events?session_id={session}"), 403),
        (
            format!("/api/audit/users/{stranger}/activity?session_id={session}"),
            403,
        ),
        (format!("/api/audit/events?session_id={stranger}"), 401),
    ] {
        let (refused, _) = refusal(test.http.get(test.url(&path))).await;
        assert_eq!(refused, status, "{path}");
    }
    let denied: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries
         where workspace_id = $1 and action = 'access.denied' and actor = 'client:' || $2",
    )
    .bind(workspace(test.db()).await.0)
    .bind(session)
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!(denied, 2);
}
