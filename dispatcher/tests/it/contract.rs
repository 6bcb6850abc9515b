//! Requests as clients of earlier systems send them keep working.

use clawlink_shared::agent::AgentKind;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{Stream, refusal, script};

#[tokio::test]
async fn every_known_spelling_of_an_agent_is_taken() {
    let test = TestApp::start().await;
    for (spelling, kind) in [
        ("ClaudeAgentSDK", AgentKind::Claude),
        ("claude-code", AgentKind::Claude),
        ("CLAUDE", AgentKind::Claude),
        ("Shell", AgentKind::Shell),
    ] {
        let body = json!({
            "userRequest": "hello",
            "codingAssistantProvider": spelling,
            "codingAssistantAuthentication": "key",
        });
        let id = test.accepted(&body).await.execution_id;
        let shown = test.get(&format!("/executions/{id}")).send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        assert_eq!(shown["provider"], kind.as_str());
    }
}

#[tokio::test]
async fn the_shapes_of_old_clients_are_taken() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.default_agent_credential = Some("configured".to_owned().into());
        settings.tuning.default_git_token = Some("configured".to_owned().into());
    })
    .await;
    let claude = |extra: Value| {
        let mut body = json!({
            "userRequest": "hello",
            "codingAssistantProvider": "ClaudeAgentSDK",
            "codingAssistantAuthentication": "{\"claudeAiOauth\":{\"accessToken\":\"x\"}}",
        });
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    for extra in [
        json!({"codingAssistantAuthentication": {"claudeAiOauth": {"accessToken": "x"}}}),
        json!({"codingAssistantAuthentication": "FROM_ENV"}),
        json!({"userRequest": [{"type": "text", "text": "look"}, {"type": "image", "source":
            {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]}),
        json!({"github": {"repoUrl": "https://github.com/a/b", "branch": "main",
            "accessToken": "FROM_ENV"}, "autoCommit": true}),
        json!({"github": null, "resumeSessionId": null, "providerOptions": null}),
        json!({"providerOptions": {"model": "claude-opus-4", "skipPermissions": true}}),
        json!({"database": {"sessionId": "s", "accessToken": "t"}}),
        json!({"autoCommit": true}),
    ] {
        test.accepted(&claude(extra)).await;
    }
    let session = test.accepted(&claude(json!({}))).await.session_id;
    for alias in ["websiteSessionId", "resumeSessionId"] {
        let resumed = test.accepted(&claude(json!({alias: session}))).await;
        assert_eq!(resumed.session_id, session);
    }
}

#[tokio::test]
async fn http_libraries_that_take_anything_get_a_stream() {
    let test = TestApp::start().await;
    for accept in [
        "application/json, text/plain, */*",
        "*/*",
        "text/event-stream",
    ] {
        let request = test.post("/execute").header("accept", accept);
        let mut stream = Stream::open(request.json(&script("true"))).await;
        let frame = stream.frame().await.unwrap();
        // Old clients read `data:` lines and listen for messages without a name.
        assert!(
            frame.starts_with("id: 1\ndata: {\"type\":\"connected\""),
            "{frame}"
        );
        assert!(!frame.contains("event:"));
    }
}

#[tokio::test]
async fn a_client_that_will_not_queue_is_told_that_all_is_busy() {
    let test = TestApp::start().await;
    let request = test.post("/execute?queue=false").json(&script("true"));
    let (status, problem) = refusal(request).await;
    assert_eq!((status, problem["error"].as_str()), (429, Some("busy")));
    assert!(problem["retryAfter"].is_u64() && problem["message"].is_string());
    let status = test.get("/status").send().await.unwrap();
    assert_eq!(status.status(), 429);
}

#[tokio::test]
async fn what_old_systems_answered_late_is_refused_at_once() {
    let test = TestApp::start().await;
    let mut body = script("true");
    body["codingAssistantProvider"] = json!("NoSuchAgent");
    let (status, problem) = refusal(test.post("/execute").json(&body)).await;
    assert_eq!(status, 400);
    assert_eq!(problem["field"], "codingAssistantProvider");
    let missing = json!({"userRequest": "x", "codingAssistantProvider": "claude"});
    let (status, problem) = refusal(test.post("/execute").json(&missing)).await;
    assert_eq!(status, 400);
    assert_eq!(problem["field"], "codingAssistantAuthentication");
}

#[tokio::test]
async fn every_route_stands_in_the_documentation() {
    let test = TestApp::start().await;
    let (_, routes) = clawlink::http::service(test.app());
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../API.md");
    let text = std::fs::read_to_string(file).unwrap();
    let is_named = |line: &str| {
        text.match_indices(line).any(|(at, _)| {
            let next = text[at + line.len()..].chars().next();
            next.is_none_or(|next| !next.is_alphanumeric() && !"/{_-".contains(next))
        })
    };
    let missing: Vec<String> = routes
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .filter(|line| !is_named(line))
        .collect();
    assert!(!routes.is_empty());
    assert!(missing.is_empty(), "API.md does not name {missing:?}");
}

#[tokio::test]
async fn the_openapi_document_has_every_route() {
    let test = TestApp::start().await;
    let (_, routes) = clawlink::http::service(test.app());
    let document: Value = test
        .get("/openapi.json")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for route in &routes {
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &document["paths"][route.path][&method];
        assert!(operation["summary"].is_string(), "{method} {}", route.path);
    }
}

#[test]
fn the_documentation_prints_the_table_of_roles() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../API.md");
    let text = std::fs::read_to_string(file).unwrap();
    let table = clawlink::workspaces::role::markdown();
    let printed = format!("<!-- roles -->\n{table}<!-- /roles -->");
    assert!(text.contains(&printed), "API.md should hold:\n{printed}");
}
