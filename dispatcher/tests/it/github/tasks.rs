//! `POST /api/tasks/{id}/create_pr`: a pull request for what a task's last execution pushed.

use clawlink::auth::principal::KeyRole;
use clawlink_fixtures::github::Mishap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{BRANCH, Hub, REPO};
use crate::client::refusal;
use crate::worker::Worker;

/// A task in a project with the hub's repository, and who may do everything about it.
struct Board {
    hub: Hub,
    admin: String,
    task: i64,
}

impl Board {
    async fn start() -> Self {
        let hub = Hub::start().await;
        let (_, admin) = hub.test.key_for("default", KeyRole::Admin).await;
        let mut board = Self {
            hub,
            admin: admin.expose().to_owned(),
            task: 0,
        };
        let url = format!("http://{}/{REPO}.git", board.hub.github.host());
        board.task = board.task_in(Some(&url)).await;
        board
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.hub.test.as_(&self.admin, method, path)
    }

    async fn made(&self, path: &str, body: Value) -> i64 {
        let answer = self.call(Method::POST, path).json(&body).send().await;
        let answer: Value = answer.unwrap().json().await.unwrap();
        let id = answer["id"].as_i64();
        id.unwrap_or_else(|| panic!("{path}: {answer}"))
    }

    /// A task of a new project with this repository.
    async fn task_in(&self, url: Option<&str>) -> i64 {
        let project = json!({"name": "App", "defaultAgent": "shell", "githubRepoUrl": url,
            "key": format!("K{}", url.map_or(0, str::len))});
        let project = self.made("/api/projects", project).await;
        let task = json!({"projectId": project, "title": "Mend it", "description": "All of it"});
        self.made("/api/tasks", task).await
    }

    /// The workspace's token for the hub's host.
    async fn token(&self, value: &str) {
        let name = self.hub.github.host().replace(':', "_");
        let path = format!("/api/secrets/GIT_TOKEN_{name}");
        let put = self.call(Method::PUT, &path).json(&json!({"value": value}));
        assert!(put.send().await.unwrap().status().is_success());
    }

    /// Runs a task to its end; a worker says that it pushed this branch.
    async fn push(&self, task: i64, branch: &str) {
        self.made("/api/runtime/executions", json!({"taskId": task}))
            .await;
        let held = Worker::new(&self.hub.test.dispatcher).run().await;
        let report = json!({"outcome": "completed", "lastN": 0, "branch": branch,
            "commitHash": "0".repeat(40), "pushed": true});
        held.must("complete", &report).await;
    }

    fn create_pr(&self, body: Value) -> RequestBuilder {
        let path = format!("/api/tasks/{}/create_pr", self.task);
        self.call(Method::POST, &path).json(&body)
    }

    async fn opened(&self, body: Value) -> Value {
        let answer = self.create_pr(body).send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[tokio::test]
async fn what_a_task_pushed_becomes_a_pull_request_once() {
    let board = Board::start().await;
    board.token(&board.hub.github.token()).await;
    board.push(board.task, BRANCH).await;
    let opened = board.opened(json!({"draft": true})).await;
    let url = format!("{}/{REPO}/pull/1", board.hub.github.api());
    assert_eq!(
        opened,
        json!({"prUrl": url, "prNumber": 1, "branch": BRANCH})
    );
    let pull = &board.hub.github.pulls(REPO)[0];
    assert!(pull.title.ends_with("-001 Mend it"), "{}", pull.title);
    assert_eq!(
        (pull.body.as_deref(), &*pull.head, &*pull.base, pull.draft),
        (Some("All of it"), BRANCH, "main", true)
    );
    let path = format!("/api/tasks/{}", board.task);
    let task = board.call(Method::GET, &path).send().await.unwrap();
    let task: Value = task.json().await.unwrap();
    assert_eq!(
        (
            &task["status"],
            &task["githubPrUrl"],
            &task["githubPrNumber"]
        ),
        (&json!("in_review"), &json!(url), &json!(1))
    );
    // The open one is found again.
    assert_eq!(board.opened(json!({"title": "Another"})).await, opened);
    assert_eq!(board.hub.github.pulls(REPO).len(), 1);
    let deeds: Vec<(String, String)> = sqlx::query_as(
        "select action, details ->> 'task' from audit_entries
         where action = 'pull_request.opened' order by id",
    )
    .fetch_all(board.hub.test.db())
    .await
    .unwrap();
    let deed = ("pull_request.opened".to_owned(), board.task.to_string());
    assert_eq!(deeds, [deed.clone(), deed]);
}

#[tokio::test]
async fn what_is_missing_is_said_and_nothing_is_asked_of_the_host() {
    let mut board = Board::start().await;
    let code = async |board: &Board| {
        let (status, problem) = refusal(board.create_pr(json!({}))).await;
        (status, problem["error"].as_str().unwrap().to_owned())
    };
    assert_eq!(code(&board).await, (409, "nothing_pushed".to_owned()));
    board.push(board.task, BRANCH).await;
    assert_eq!(code(&board).await, (409, "no_git_token".to_owned()));
    let other = board.task_in(None).await;
    board.push(other, BRANCH).await;
    let with = std::mem::replace(&mut board.task, other);
    assert_eq!(code(&board).await, (409, "no_repository".to_owned()));
    board.task = with;
    // Another workspace's admin knows no such task.
    let (_, foreign) = board.hub.test.key_for("other", KeyRole::Admin).await;
    board.admin = foreign.expose().to_owned();
    assert_eq!(code(&board).await, (404, "task_not_found".to_owned()));
    assert!(board.hub.github.log().is_empty());
}

#[tokio::test]
async fn what_the_host_refuses_is_said_without_the_token() {
    let board = Board::start().await;
    let reader = board.hub.github.read_only_token();
    board.push(board.task, BRANCH).await;
    board.token(&reader).await;
    let refused = async |words: &str| {
        let (status, problem) = refusal(board.create_pr(json!({}))).await;
        let text = problem.to_string();
        assert_eq!(
            (status, &problem["error"]),
            (409, &json!("pull_request_refused"))
        );
        assert!(text.contains(words), "{text}");
        assert!(!text.contains(&reader) && !text.contains(&board.hub.github.token()));
    };
    refused("not accessible by personal access token").await;
    board.token("ghp_expired").await;
    refused("does not know the token").await;
    board.token(&board.hub.github.token()).await;
    let moved = Mishap::MovedTo("http://127.0.0.1:1/repositories/1/pulls".to_owned());
    board.hub.github.next([moved]);
    refused("another host").await;
    board.push(board.task, "never-pushed").await;
    refused("head is not accepted").await;
    assert!(board.hub.github.pulls(REPO).is_empty());
}
