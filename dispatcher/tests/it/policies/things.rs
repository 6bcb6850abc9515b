//! Policies on stored agents, skills and secrets, and on what is read of sessions elsewhere than
//! at their own routes.

use clawlink::auth::principal::KeyRole;
use clawlink_shared::secret::Secret;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::policy;
use crate::app::TestApp;
use crate::client::{refusal, script};
use crate::members::call;
use crate::worker::Worker;

/// An installation with an admin's key, who makes policies, and a developer's.
struct Desk {
    test: TestApp,
    admin: Secret,
}

impl Desk {
    async fn start() -> Self {
        let test = TestApp::start().await;
        let (_, admin) = test.key_for("default", KeyRole::Admin).await;
        Self { test, admin }
    }

    fn as_admin(&self, method: Method, path: &str, body: &Value) -> RequestBuilder {
        call(&self.test, &self.admin, method, path).json(body)
    }

    async fn made(&self, path: &str, body: Value) -> i64 {
        let answer = self.as_admin(Method::POST, path, &body).send().await;
        let answer: Value = answer.unwrap().json().await.unwrap();
        let id = answer["id"].as_i64();
        id.unwrap_or_else(|| panic!("{path}: {answer}"))
    }

    /// A stored agent that runs scripts, and a task.
    async fn agent_and_task(&self, name: &str) -> (i64, i64) {
        let agent = json!({"name": name, "type": "shell"});
        let agent = self.made("/api/agents", agent).await;
        let project = self.made("/api/projects", json!({"name": name})).await;
        let task = json!({"projectId": project, "title": "true"});
        (agent, self.made("/api/tasks", task).await)
    }

    fn run(&self, key: &Secret, task: i64, agent: &Value) -> RequestBuilder {
        let body = json!({"taskId": task, "agentId": agent});
        call(&self.test, key, Method::POST, "/api/runtime/executions").json(&body)
    }

    async fn denies(&self, kind: &str, resource: &str, role: &str) -> i64 {
        let body = json!({"resourceKind": kind, "resource": resource, "deniedRoles": [role]});
        policy(&self.test, &self.admin, body).await
    }

    /// What policies refused, as the audit log has it.
    async fn denied(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select resource_type || ' ' || resource_id from audit_entries
             where action = 'policy.denied' and outcome = 'denied' order by id",
        )
        .fetch_all(self.test.db())
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_stored_agent_is_denied_by_number_name_and_kind() {
    let desk = Desk::start().await;
    let (agent, task) = desk.agent_and_task("Release Bot").await;
    let stored = json!(agent);
    for resource in [
        agent.to_string(),
        "release bot".to_owned(),
        "bash".to_owned(),
    ] {
        let id = desk.denies("agent", &resource, "key:developer").await;
        let (status, problem) = refusal(desk.run(&desk.test.key, task, &stored)).await;
        assert_eq!(status, 403, "{resource}");
        assert!(
            problem["message"]
                .as_str()
                .unwrap()
                .contains(&format!("policy {id}"))
        );
        let by_admin = desk.run(&desk.admin, task, &stored).send().await.unwrap();
        assert_eq!(by_admin.status(), 201, "{resource}");
        let path = format!("/api/policies/{id}");
        let removed = desk
            .as_admin(Method::DELETE, &path, &json!({}))
            .send()
            .await;
        assert_eq!(removed.unwrap().status(), 204);
    }
    // Another stored agent of the kind, and the kind itself, are not meant by a number.
    desk.denies("agent", &agent.to_string(), "key:developer")
        .await;
    let allowed = desk.run(&desk.test.key, task, &json!("shell")).send().await;
    assert_eq!(allowed.unwrap().status(), 201);
    assert_eq!(desk.denied().await.len(), 3);
}

#[tokio::test]
async fn agents_and_skills_that_are_denied_are_not_changed() {
    let desk = Desk::start().await;
    let (agent, _) = desk.agent_and_task("bot").await;
    desk.denies("agent", "bot", "key:admin").await;
    desk.denies("skill", "deploy*", "key:admin").await;
    let one = format!("/api/agents/{agent}");
    let other = desk
        .made("/api/agents", json!({"name": "other", "type": "shell"}))
        .await;
    let skills = "/api/skill-assignments/tenant";
    let refused = [
        (Method::PATCH, one.clone(), json!({"description": "mine"})),
        (
            Method::POST,
            format!("{one}/skills"),
            json!({"name": "read"}),
        ),
        (Method::DELETE, one.clone(), json!({})),
        (
            Method::POST,
            format!("/api/agents/{other}/skills"),
            json!({"name": "deploy"}),
        ),
        (
            Method::POST,
            skills.to_owned(),
            json!({"skillSlug": "Deploy-Now"}),
        ),
        (Method::DELETE, format!("{skills}/deploy-now"), json!({})),
    ];
    for (method, path, body) in &refused {
        let (status, _) = refusal(desk.as_admin(method.clone(), path, body)).await;
        assert_eq!(status, 403, "{method} {path}");
    }
    assert_eq!(desk.denied().await.len(), refused.len());
    let shown = desk
        .as_admin(Method::GET, &one, &json!({}))
        .send()
        .await
        .unwrap();
    let shown: Value = shown.json().await.unwrap();
    assert_eq!(
        (&shown["isActive"], &shown["description"]),
        (&json!(true), &Value::Null)
    );
    desk.made(
        &format!("/api/agents/{other}/skills"),
        json!({"name": "read"}),
    )
    .await;
    let taken = desk.as_admin(Method::POST, skills, &json!({"skillSlug": "read"}));
    assert_eq!(taken.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_denied_secret_is_neither_used_nor_written() {
    let desk = Desk::start().await;
    for name in ["OPEN", "DEPLOY_KEY"] {
        let path = format!("/api/secrets/{name}");
        let put = desk.as_admin(Method::PUT, &path, &json!({"value": "canary"}));
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    desk.denies("secret", "DEPLOY_*", "key:developer").await;
    desk.denies("secret", "DEPLOY_*", "key:admin").await;
    let with = |name: &str| {
        let mut body = script("true");
        body["providerOptions"] = json!({"env": {"SECRET": {"secret": name}}});
        desk.test.execute(&body)
    };
    let (status, problem) = refusal(with("DEPLOY_KEY")).await;
    assert_eq!((status, &problem["error"]), (403, &json!("forbidden")));
    assert!(!problem.to_string().contains("canary"));
    assert_eq!(with("OPEN").send().await.unwrap().status(), 202);
    for (method, body) in [
        (Method::PUT, json!({"value": "other"})),
        (Method::DELETE, json!({})),
    ] {
        let request = desk.as_admin(method, "/api/secrets/DEPLOY_KEY", &body);
        assert_eq!(refusal(request).await.0, 403);
    }
    assert_eq!(desk.denied().await, ["secret DEPLOY_KEY"; 3]);
}

#[tokio::test]
async fn a_usual_secret_that_is_denied_is_not_used() {
    let desk = Desk::start().await;
    let put = desk.as_admin(
        Method::PUT,
        "/api/secrets/GITHUB_TOKEN",
        &json!({"value": "for-github"}),
    );
    assert_eq!(put.send().await.unwrap().status(), 201);
    desk.denies("secret", "GITHUB_TOKEN", "key:developer").await;
    let mut body = script("true");
    body["github"] = json!({"repoUrl": "https://github.com/a/b"});
    desk.test.accepted(&body).await;
    let held = Worker::new(&desk.test.dispatcher).claim().await;
    assert!(held.assignment.credentials.git_token.is_none());
}

#[tokio::test]
async fn a_secret_for_one_stored_agent_is_used_by_its_executions_alone() {
    let desk = Desk::start().await;
    let (agent, task) = desk.agent_and_task("bot").await;
    let path = "/api/projects/1";
    let repository = json!({"githubRepoUrl": "https://github.com/a/b"});
    let changed = desk.as_admin(Method::PATCH, path, &repository).send().await;
    assert_eq!(changed.unwrap().status(), 200);
    for (query, value) in [
        (format!("?agent={agent}"), "of-the-bot"),
        (String::new(), "of-all"),
    ] {
        let path = format!("/api/secrets/GITHUB_TOKEN{query}");
        let put = desk.as_admin(Method::PUT, &path, &json!({"value": value}));
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    for (asked, token) in [(json!(agent), "of-the-bot"), (json!("shell"), "of-all")] {
        let made = desk.run(&desk.test.key, task, &asked).send().await.unwrap();
        assert_eq!(made.status(), 201);
        let held = Worker::new(&desk.test.dispatcher).run().await;
        let given = held.assignment.credentials.git_token.as_ref().unwrap();
        assert_eq!(given.expose(), token, "{asked}");
        held.complete(0).await;
    }
    // And one that allows only this agent.
    let narrow = json!({"value": "narrow", "allowedAgents": [agent.to_string()]});
    let put = desk.as_admin(Method::PUT, "/api/secrets/GITHUB_TOKEN", &narrow);
    assert_eq!(put.send().await.unwrap().status(), 200);
    let made = desk
        .run(&desk.test.key, task, &json!("shell"))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    let held = Worker::new(&desk.test.dispatcher).claim().await;
    assert!(held.assignment.credentials.git_token.is_none());
}

#[tokio::test]
async fn what_a_hidden_session_did_is_not_shown_by_the_portals_and_older_calls() {
    let desk = Desk::start().await;
    let (_, task) = desk.agent_and_task("bot").await;
    let made = async || {
        let made = desk
            .run(&desk.test.key, task, &json!("shell"))
            .send()
            .await
            .unwrap();
        let made: Value = made.json().await.unwrap();
        made["id"].as_i64().unwrap()
    };
    let (hidden, open) = (made().await, made().await);
    let (session, uuid): (uuid::Uuid, uuid::Uuid) =
        sqlx::query_as("select session_id, uuid from executions where id = $1")
            .bind(hidden)
            .fetch_one(desk.test.db())
            .await
            .unwrap();
    desk.denies("session", &session.to_string(), "key:developer")
        .await;
    let execution = format!("/api/runtime/executions/{hidden}");
    let report = |request: RequestBuilder| request.json(&json!({"status": "running"}));
    let patch = |key: &Secret| {
        report(call(
            &desk.test,
            key,
            Method::PATCH,
            &format!("{execution}/state"),
        ))
    };
    for request in [
        desk.test.get(&execution),
        desk.test.post(&format!("{execution}/cancel")),
        patch(&desk.test.key),
        desk.test.get(&format!("/api/runtime/tasks/{uuid}/state")),
        desk.test.post(&format!("/api/runtime/tasks/{uuid}/cancel")),
    ] {
        let (status, problem) = refusal(request).await;
        assert_eq!(
            (status, &problem["error"]),
            (404, &json!("execution_not_found"))
        );
    }
    for path in [
        "/api/runtime/executions".to_owned(),
        "/api/runtime/executions?limit=1&before=".to_owned() + &(open + 1).to_string(),
        format!("/api/tasks/{task}/executions"),
        format!("/api/runtime/tasks/{task}/executions"),
    ] {
        let list: Value = desk
            .test
            .get(&path)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let ids: Vec<&Value> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["id"])
            .collect();
        assert_eq!(ids, [&json!(open)], "{path}");
    }
    let seen = call(&desk.test, &desk.admin, Method::GET, &execution)
        .send()
        .await;
    assert_eq!(seen.unwrap().status(), 200);
    assert_eq!(patch(&desk.admin).send().await.unwrap().status(), 200);
    let state: String = sqlx::query_scalar("select state from executions where id = $1")
        .bind(hidden)
        .fetch_one(desk.test.db())
        .await
        .unwrap();
    assert_eq!(state, "running", "only who may see it changed it");
}
