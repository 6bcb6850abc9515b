//! Going on with a session on another worker with an empty disk.

use serde_json::json;

use super::world::{World, event, outline, said};

#[tokio::test]
async fn the_model_sees_the_earlier_turn_and_the_branch_continues() {
    let world = World::start().await;
    world
        .git
        .create_repo("app", &[(".gitignore", "*.log\n")])
        .await
        .unwrap();
    let first = world.on_repository("app", "claude", "[[write]] first");
    let (submitted, events) = world.run(first).await;
    let branch = event(&events, "completed")["branch"]
        .as_str()
        .unwrap()
        .to_owned();
    let tip = world.git.tip("app", &branch).await.unwrap();

    let second = json!({
        "websiteSessionId": submitted.session,
        "userRequest": "[[text]] second",
        "codingAssistantAuthentication": "sk-ant-api-other-credential",
        "github": {"repoUrl": world.git.url("app"), "accessToken": world.git.token()},
    });
    let (again, events) = world.run(second).await;
    assert_eq!(again.session, submitted.session);
    let connected = event(&events, "connected");
    assert_eq!(connected["resuming"], true);
    assert_eq!(connected["resumedFrom"], json!(submitted.session));
    assert!(
        !outline(&events).contains(&"github_pull_progress"),
        "a resumed turn clones nothing"
    );
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert!(result.contains("2 marked user turns"), "{result}");
    assert_eq!(
        world.git.tip("app", &branch).await.unwrap(),
        tip,
        "nothing new to push"
    );
    let last = world.model.messages().pop().expect("a call of the model");
    assert_eq!(
        last.headers.get("x-api-key").map(String::as_str),
        Some("sk-ant-api-other-credential")
    );
}

#[tokio::test]
async fn the_working_tree_is_as_it_was_without_ignored_files() {
    let world = World::start().await;
    world
        .git
        .create_repo("app", &[(".gitignore", "*.log\n")])
        .await
        .unwrap();
    let script = "echo kept > kept.txt; echo gone > gone.log; chmod +x kept.txt";
    let (submitted, _) = world.run(world.on_repository("app", "shell", script)).await;

    let second = json!({"websiteSessionId": submitted.session, "userRequest": "ls; test -x kept.txt && echo executable"});
    let (_, events) = world.run(second).await;
    assert_eq!(said(&events), ["kept.txt", "executable"]);
}

#[tokio::test]
async fn a_session_of_many_parts_comes_back_whole() {
    let world = World::start().await;
    let script = "head -c 25000000 /dev/urandom > noise; sha256sum noise";
    let request = json!({"codingAssistantProvider": "shell", "userRequest": script});
    let (submitted, events) = world.run(request).await;
    let sum = said(&events)[0].to_owned();
    let second = json!({"websiteSessionId": submitted.session, "userRequest": "sha256sum noise"});
    let (_, events) = world.run(second).await;
    assert_eq!(said(&events), [sum]);
}

#[tokio::test]
async fn credentials_are_not_inherited() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1\n")]).await.unwrap();
    let (submitted, _) = world.run(world.on_repository("app", "shell", "true")).await;
    let second = json!({"websiteSessionId": submitted.session, "userRequest": "echo 2 > a"});
    let (_, events) = world.run(second).await;
    let error = event(&events, "error");
    assert!(
        ["push_failed", "repo_auth_failed"].contains(&error["code"].as_str().unwrap()),
        "{error}"
    );
    assert!(
        error["commitHash"].is_string(),
        "the commit is kept in the session: {error}"
    );
}

#[tokio::test]
async fn two_turns_of_one_session_run_one_after_the_other() {
    let world = World::start().await;
    let request = json!({"codingAssistantProvider": "shell", "userRequest": "echo one >> log.txt"});
    let first = world.submit(request).await;
    let second = world
        .submit(json!({"websiteSessionId": first.session, "userRequest": "echo two >> log.txt; cat log.txt"}))
        .await;
    let workers = [world.worker(), world.worker()];
    let events = world.events(second.execution).await;
    assert_eq!(event(&events, "queued")["waitReason"], "session_busy");
    assert_eq!(said(&events), ["one", "two"]);
    for worker in workers {
        assert_eq!(worker.exit_code().await, Some(0));
    }
}
