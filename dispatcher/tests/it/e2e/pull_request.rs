//! From a request to an open pull request: a real worker pushes, the dispatcher asks GitHub.

use clawlink_fixtures::github::{Github, Mishap};
use serde_json::{Value, json};

use super::world::{World, event};
use crate::app::Dispatcher;

const REPO: &str = "acme/app";

/// A GitHub that has the branches of the world's git host, and a dispatcher that knows it.
async fn github_of(world: &World) -> (Github, Dispatcher) {
    let files = [("README.md", "hello\n")];
    world.git.create_repo(REPO, &files).await.unwrap();
    let github = Github::start().await.unwrap();
    github.create_repo_of(REPO, "main", world.git.path(REPO));
    github.accept_token(&world.git.token());
    let dispatcher = world
        .app
        .dispatcher_with(|settings| {
            settings.github.github_api = github.api();
            let base_url = world.git.base_url();
            settings.github.github_host = Some(base_url.replace("http://", ""));
        })
        .await;
    (github, dispatcher)
}

async fn run(world: &World, dispatcher: &Dispatcher, prompt: &str, extra: Value) -> Vec<Value> {
    let mut request = world.on_repository(REPO, "shell", prompt);
    for (key, value) in extra.as_object().unwrap() {
        request[key] = value.clone();
    }
    let worker = world.worker_at(&dispatcher.url);
    let submitted = world.submit(request).await;
    let events = world.events(submitted.execution).await;
    assert_eq!(worker.exit_code().await, Some(0), "the worker's exit code");
    events
}

#[tokio::test]
async fn a_pushed_branch_becomes_a_pull_request() {
    let world = World::start().await;
    let (github, dispatcher) = github_of(&world).await;
    let wish = json!({"createPullRequest": {"title": "Add a file", "draft": true}});
    let events = run(&world, &dispatcher, "echo new > added.txt", wish.clone()).await;
    let pulls = github.pulls(REPO);
    assert_eq!(pulls.len(), 1, "{events:#?}");
    assert_eq!(
        (&*pulls[0].title, &*pulls[0].base, pulls[0].draft),
        ("Add a file", "main", true)
    );
    let completed = event(&events, "completed");
    assert_eq!(completed["branch"], *pulls[0].head);
    let created = event(&events, "pull_request_created");
    assert_eq!(created["number"], 1);
    assert_eq!(completed["prUrl"], created["url"]);
    let place = |wanted: &dyn Fn(&Value) -> bool| events.iter().position(wanted);
    let pushed = place(&|event| event["stage"] == "pushed").expect("a push");
    assert!(Some(pushed) < place(&|event| event["type"] == "pull_request_created"));
    let all = serde_json::to_string(&events).unwrap();
    assert!(!all.contains(&world.git.token()));

    // The session's next turn pushes to the same branch, and has the same pull request.
    let session = json!({"websiteSessionId": created["sessionId"], "createPullRequest": true});
    let events = run(&world, &dispatcher, "echo more >> added.txt", session).await;
    assert_eq!(event(&events, "completed")["prUrl"], created["url"]);
    assert_eq!(github.pulls(REPO).len(), 1);
    dispatcher.stop().await;
}

#[tokio::test]
async fn that_none_is_opened_is_said_and_fails_nothing() {
    let world = World::start().await;
    let (github, dispatcher) = github_of(&world).await;
    let wish = json!({"createPullRequest": true});
    let said = |events: &[Value]| {
        let texts = events.iter().filter(|event| event["type"] == "message");
        texts
            .map(|event| event["message"].to_string())
            .collect::<String>()
    };
    let events = run(&world, &dispatcher, "true", wish.clone()).await;
    assert!(
        said(&events).contains("No pull request was opened: nothing was pushed"),
        "{events:#?}"
    );
    assert!(github.log().is_empty());
    github.next([Mishap::HourlyLimit(3000)]);
    let events = run(&world, &dispatcher, "echo new > added.txt", wish).await;
    assert!(said(&events).contains("rate limit"), "{events:#?}");
    let completed = event(&events, "completed");
    assert!(completed["branch"].is_string() && completed.get("prUrl").is_none());
    assert!(github.pulls(REPO).is_empty());
    // Who does not ask gets none.
    let before = github.log().len();
    let events = run(&world, &dispatcher, "echo new > added.txt", json!({})).await;
    assert!(event(&events, "completed")["branch"].is_string());
    assert_eq!(github.log().len(), before);
    dispatcher.stop().await;
}
