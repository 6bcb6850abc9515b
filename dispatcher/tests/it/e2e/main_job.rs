//! A new session with a repository: events, branch, archive, exit.

use serde_json::json;

use super::world::{World, event, outline};

#[tokio::test]
async fn a_shell_request_becomes_a_branch_and_a_session() {
    let world = World::start().await;
    world
        .git
        .create_repo("app", &[("README.md", "hello\n")])
        .await
        .unwrap();
    let request = world.on_repository(
        "app",
        "shell",
        "echo new > added.txt && echo more >> README.md && echo done",
    );
    let (submitted, events) = world.run(request).await;

    let outline = outline(&events);
    assert_eq!(outline.first(), Some(&"connected"));
    assert_eq!(outline.last(), Some(&"completed"), "{events:#?}");
    let order = [
        "connected",
        "queued",
        "state_changed",
        "session_name",
        "github_pull_progress",
        "branch_created",
        "agent_text",
        "commit_progress",
        "completed",
    ];
    let positions: Vec<_> = order
        .iter()
        .map(|kind| outline.iter().position(|found| found == kind))
        .collect();
    assert!(
        positions.iter().all(Option::is_some),
        "missing of {order:?}: {outline:?}"
    );
    assert!(positions.is_sorted(), "{outline:?}");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], json!(number + 1));
        assert_eq!(event["executionId"], json!(submitted.execution));
        assert_eq!(event["sessionId"], json!(submitted.session));
    }

    let branch = event(&events, "branch_created")["branchName"]
        .as_str()
        .unwrap();
    assert!(branch.starts_with("clawlink/"), "{branch}");
    let host = &world.git;
    assert_eq!(
        host.tree("app", branch).await.unwrap(),
        ["100644 README.md", "100644 added.txt"]
    );
    assert_eq!(
        host.file("app", branch, "README.md").await.unwrap(),
        "hello\nmore\n"
    );
    let message = host.message("app", branch).await.unwrap();
    assert!(
        message.contains(&format!("Clawlink-Session: {}", submitted.session)),
        "{message}"
    );
    assert!(message.contains("Clawlink-Execution: "), "{message}");
    let completed = event(&events, "completed");
    assert_eq!(completed["branch"], branch);
    assert_eq!(
        completed["commitHash"].as_str(),
        host.tip("app", branch).await.unwrap().as_deref()
    );

    let prefix = format!("session-{}/turns/1-", submitted.session);
    let keys = world.app.app().blobs.list(&prefix).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[tokio::test]
async fn the_real_claude_changes_a_repository() {
    let world = World::start().await;
    world
        .git
        .create_repo("app", &[("README.md", "hello\n")])
        .await
        .unwrap();
    let request = world.on_repository("app", "ClaudeAgentSDK", "[[write]] add a file");
    let (_, events) = world.run(request).await;

    let branch = event(&events, "completed")["branch"]
        .as_str()
        .expect("a branch");
    assert_eq!(
        world.git.tree("app", branch).await.unwrap(),
        ["100644 README.md", "100644 hello.txt"]
    );
    assert_eq!(event(&events, "agent_tool_call")["tool"], "Write");
    assert_eq!(event(&events, "agent_tool_result")["ok"], true);
    assert_eq!(
        event(&events, "usage")["inputTokens"]
            .as_u64()
            .map(|n| n > 0),
        Some(true)
    );
    assert!(event(&events, "agent_text")["delta"].as_bool().unwrap());
    let texts = serde_json::to_string(&events).unwrap();
    assert!(!texts.contains("sk-ant-api-test-credential"));
    assert!(!texts.contains(&world.git.token()));
}
