//! Pull requests and webhooks, with a scripted GitHub.

mod limits;
mod pulls;
mod tasks;
mod webhooks;

use std::time::Duration;

use clawlink::config::Settings;
use clawlink_fixtures::github::Github;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::{Submitted, log};
use crate::worker::{Held, Worker};

/// The repository of all tests here.
const REPO: &str = "acme/app";
/// The branch that all work is on.
const BRANCH: &str = "work";

/// An installation and the GitHub that it knows.
struct Hub {
    github: Github,
    test: TestApp,
}

impl Hub {
    async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    /// Starts with settings that may name the GitHub.
    async fn start_with(change: impl FnOnce(&mut Settings, &Github)) -> Self {
        let github = Github::start().await.unwrap();
        github.create_repo(REPO, "main");
        github.add_branch(REPO, BRANCH);
        let test = TestApp::start_with(|settings| {
            settings.github.github_api = github.api();
            settings.github.github_timeout = Duration::from_secs(5);
            change(settings, &github);
        })
        .await;
        Self { github, test }
    }

    /// A request on the repository; `fields` are put over it.
    fn request(&self, fields: &Value) -> Value {
        let mut request = json!({
            "userRequest": "true",
            "codingAssistantProvider": "shell",
            "sessionName": "Mend the fence",
            "branchName": BRANCH,
            "createPullRequest": true,
            "github": {
                "repoUrl": format!("http://{}/{REPO}.git", self.github.host()),
                "accessToken": self.github.token(),
            },
        });
        for (key, value) in fields.as_object().unwrap() {
            request[key] = value.clone();
        }
        request
    }

    /// Submits that request; a worker holds it and is running.
    async fn running(&self, fields: &Value) -> (Submitted, Held) {
        let made = self.test.accepted(&self.request(fields)).await;
        let held = Worker::new(&self.test.dispatcher).run().await;
        assert_eq!(held.id(), made.execution_id.0);
        (made, held)
    }

    /// The same, and the worker asks for the pull request; answers what it hears.
    async fn asked(&self, fields: &Value) -> Value {
        let (made, held) = self.running(fields).await;
        let answer = held.must("pull-request", &json!({})).await;
        held.complete(0).await;
        let shown = self.shown(made).await;
        assert_eq!(shown["status"], "completed");
        assert_eq!(shown["prUrl"], answer["pullRequest"]["url"]);
        assert!(!answer.to_string().contains(&self.github.token()));
        answer
    }

    /// The sentence that such a request gets instead of a pull request.
    async fn reason(&self, fields: &Value) -> String {
        let answer = self.asked(fields).await;
        assert!(answer.get("pullRequest").is_none(), "{answer}");
        answer["reason"].as_str().unwrap().to_owned()
    }

    async fn shown(&self, made: Submitted) -> Value {
        let path = format!("/executions/{}", made.execution_id);
        self.test
            .get(&path)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// The events of a type in an execution's log.
    async fn events(&self, made: Submitted, kind: &str) -> Vec<Value> {
        let lines = log(self.test.db(), made.execution_id).await;
        let events = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &Value| event["type"] == kind)
            .collect()
    }
}
