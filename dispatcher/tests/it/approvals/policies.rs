//! Rules of workspaces, and what is allowed for a session.

use clawlink_shared::approval::Decision;
use reqwest::Method;
use serde_json::{Value, json};

use super::Agent;
use crate::app::TestApp;

async fn rule(test: &TestApp, body: Value) -> i64 {
    let admin = test.admin().await;
    let path = "/api/approval-policies";
    let (status, shown) = test.call_as(&admin, Method::POST, path, body).await;
    assert_eq!(status, 201, "{shown}");
    shown["id"].as_i64().unwrap()
}

#[tokio::test]
async fn what_rules_answer_never_waits() {
    let test = TestApp::start().await;
    let allowing = json!({"tool": "Bash", "input": "git status*", "decision": "allow"});
    let allowing = rule(&test, allowing).await;
    rule(
        &test,
        json!({"tool": "Bash", "input": "rm *", "decision": "deny"}),
    )
    .await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let allowed = agent.ask_bash("git status -s").await;
    let denied = agent.ask_bash("rm -rf x").await;
    assert_eq!(agent.answer_to(allowed).await, Some(Decision::Allow));
    assert_eq!(agent.answer_to(denied).await, Some(Decision::Deny));
    assert_eq!(test.state_of(&job).await, "running");
    let resolved = test.told(&job, "approval_resolved").await;
    assert_eq!(resolved[0]["by"], "policy");
    assert_eq!(resolved[0]["policyId"], allowing);
    assert!(
        test.told(&job, "state_changed")
            .await
            .iter()
            .all(|event| event["to"] != "waiting")
    );
    let log = test.types(&job).await;
    let at = |kind: &str| log.iter().position(|found| found == kind).unwrap();
    assert!(at("approval_requested") < at("approval_resolved"));
    let late = test
        .answer(&job, allowed, json!({"decision": "deny"}))
        .await;
    assert_eq!(late.1["error"], "approval_decided");
}

#[tokio::test]
async fn no_second_command_slips_through_a_rule() {
    let test = TestApp::start().await;
    rule(
        &test,
        json!({"tool": "Bash", "input": "git status*", "decision": "allow"}),
    )
    .await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    for command in [
        "git status; rm -rf x",
        "git status && rm -rf x",
        "git status | sh",
        "git status\nrm -rf x",
        "git status $(rm -rf x)",
        "git status `rm -rf x`",
        "git status & rm -rf x",
        "git status > /etc/x",
    ] {
        let id = agent.ask_bash(command).await;
        assert_eq!(test.state_of(&job).await, "waiting", "{command}");
        assert_eq!(agent.answer_to(id).await, None, "{command}");
        test.answer(&job, id, json!({"decision": "deny"})).await;
    }
    let id = agent.ask_bash("git status && git status -s").await;
    assert_eq!(agent.answer_to(id).await, Some(Decision::Allow));
    let hidden = uuid::Uuid::new_v4();
    let fields = json!({"approvalId": hidden, "kind": "tool", "tool": "Bash",
        "input": {"command": "git status ***"}, "partial": true});
    agent.tell("approval_requested", fields).await;
    assert_eq!(
        agent.answer_to(hidden).await,
        None,
        "what is masked is asked"
    );
}

#[tokio::test]
async fn what_is_allowed_for_the_session_is_not_asked_in_the_next_turn() {
    let test = TestApp::start().await;
    let first = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let lasting = json!({"decision": "allow_for_session"});
    for (tool, input) in [
        ("Bash", json!({"command": "make"})),
        ("Write", json!({"file_path": "/a", "content": "x"})),
    ] {
        let id = agent.ask(tool, input).await;
        assert_eq!(test.answer(&first, id, lasting.clone()).await.0, 200);
    }
    agent.complete().await;
    let next = test.resume(&first).await;
    let mut agent = Agent::start(&test).await;
    let again = agent.ask_bash("make").await;
    let other_file = agent
        .ask("Write", json!({"file_path": "/b", "content": "y"}))
        .await;
    for id in [again, other_file] {
        assert_eq!(agent.answer_to(id).await, Some(Decision::Allow));
    }
    assert_eq!(
        test.told(&next, "approval_resolved").await[0]["by"],
        "session"
    );
    let other = agent.ask_bash("make; rm -rf x").await;
    assert_eq!(agent.answer_to(other).await, None, "another command");
    assert_eq!(test.state_of(&next).await, "waiting");
    test.answer(&next, other, json!({"decision": "deny"})).await;
    rule(&test, json!({"tool": "Write", "decision": "deny"})).await;
    let denied = agent.ask("Write", json!({"file_path": "/a"})).await;
    assert_eq!(
        agent.answer_to(denied).await,
        Some(Decision::Deny),
        "rules win"
    );
    agent.complete().await;
    let elsewhere = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    assert_eq!(agent.answer_to(id).await, None, "another session");
    assert_eq!(test.state_of(&elsewhere).await, "waiting");
}

#[tokio::test]
async fn rules_are_written_by_managers_and_belong_to_one_workspace() {
    let test = TestApp::start().await;
    let admin = test.admin().await;
    let path = "/api/approval-policies";
    let developer = test.key.expose().to_owned();
    let body = json!({"agent": "claude-code", "tool": "Bash", "input": "ls*", "decision": "ask"});
    let (status, _) = test
        .call_as(&developer, Method::POST, path, body.clone())
        .await;
    assert_eq!(status, 403);
    let id = rule(&test, body).await;
    let one = format!("{path}/{id}");
    let (_, shown) = test
        .call_as(&developer, Method::GET, &one, Value::Null)
        .await;
    assert_eq!(
        (&shown["agent"], &shown["decision"]),
        (&json!("claude"), &json!("ask"))
    );
    let change = json!({"tool": "*", "decision": "deny"});
    let (status, shown) = test
        .call_as(&admin, Method::PUT, &one, change.clone())
        .await;
    assert_eq!(
        (status, &shown["agent"], &shown["input"]),
        (200, &Value::Null, &Value::Null)
    );
    let (_, foreign) = test
        .key_for("other", clawlink::auth::principal::KeyRole::Admin)
        .await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (status, _) = test
            .call_as(foreign.expose(), method, &one, change.clone())
            .await;
        assert_eq!(status, 404);
    }
    for bad in [
        json!({"tool": "", "decision": "ask"}),
        json!({"tool": "x", "decision": "ask", "agent": "nobody"}),
        json!({"tool": "x", "decision": "ask", "input": "a\nb"}),
    ] {
        let (status, _) = test.call_as(&admin, Method::POST, path, bad).await;
        assert_eq!(status, 400);
    }
    let (status, _) = test
        .call_as(&admin, Method::DELETE, &one, Value::Null)
        .await;
    assert_eq!(status, 204);
    let (_, left) = test.call_as(&admin, Method::GET, path, Value::Null).await;
    assert_eq!(left["policies"], json!([]));
}
