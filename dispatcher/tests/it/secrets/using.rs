//! Using secrets by their names: by whom they allow, with the value of the moment.

use clawlink::auth::principal::KeyRole;
use clawlink::secrets;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Desk, agent, claim_claude, claude, env, named, with_env};
use crate::app::TestApp;
use crate::client::{refusal, script};
use crate::worker::Worker;

#[tokio::test]
async fn the_lease_holder_alone_gets_the_value_of_now() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    desk.put("TOKEN", "before").await;
    test.accepted(&with_env(named("TOKEN"))).await;
    desk.put("TOKEN", "canary-after").await;
    let sealed: Vec<u8> = sqlx::query_scalar("select sealed from credentials")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert!(!sealed.windows(5).any(|part| part == b"TOKEN"));
    let (worker, claim) = (Worker::new(&test.dispatcher), Uuid::new_v4());
    let held = worker.claim_as(claim, &["shell"], 20).await.unwrap();
    assert_eq!(env(&held), [("SECRET", "canary-after")].into());
    assert_eq!(desk.uses().await, 1);
    // The answer was lost: it is the same hand-out.
    let again = worker.claim_as(claim, &["shell"], 0).await.unwrap();
    assert_eq!(env(&again), env(&held));
    assert_eq!(desk.uses().await, 1);
    let audited = desk.audited().await;
    let (_, _, actor, details) = audited.last().unwrap();
    assert!(actor.starts_with("key:"), "{actor}");
    assert_eq!(details["execution"], held.id());
    assert_eq!(details["place"], "env:SECRET");
    assert_eq!(details["version"], 2);
    assert!(!format!("{audited:?}").contains("canary"));
    assert!(desk.list().await["secrets"][0]["lastUsedAt"].is_string());
    held.ack().await;
    held.state("running").await;
    held.complete(0).await;
    secrets::round(test.app()).await.unwrap();
    let kept: i64 = sqlx::query_scalar("select count(*) from secret_uses")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(kept, 0, "what an ended execution was given is forgotten");
}

#[tokio::test]
async fn only_whom_a_secret_allows_may_use_it() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let (_, ci) = test.key_for("default", KeyRole::Ci).await;
    let narrow = json!({"value": "canary", "allowedRoles": ["ci"], "allowedAgents": ["shell"]});
    assert_eq!(desk.try_put("NARROW", &narrow).await.0, 201);
    let (status, problem) = refusal(test.execute(&with_env(named("NARROW")))).await;
    assert_eq!((status, &problem["error"]), (403, &json!("forbidden")));
    let message = "the secret NARROW may not be used with your role";
    assert_eq!(problem["message"], message);
    let mut as_claude = claude();
    as_claude["codingAssistantAuthentication"] = json!({"secret": "NARROW"});
    let request = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(ci.expose());
    let (status, problem) = refusal(request.json(&as_claude)).await;
    assert_eq!(status, 403, "{problem}");
    let denied: Vec<_> = desk.audited().await;
    let denied: Vec<_> = denied.iter().filter(|entry| entry.1 == "denied").collect();
    assert_eq!(denied.len(), 2);
    let request = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(ci.expose());
    let request = request.header("accept", "application/json");
    let answer = request
        .json(&with_env(named("NARROW")))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    let held = Worker::new(&test.dispatcher).claim().await;
    assert_eq!(env(&held)["SECRET"], "canary");
}

#[tokio::test]
async fn another_workspace_has_no_such_secret() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    desk.put("TOKEN", "canary").await;
    let (_, foreign) = test.key_for("other", KeyRole::Admin).await;
    let request = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(foreign.expose());
    let (status, problem) = refusal(request.json(&with_env(named("TOKEN")))).await;
    assert_eq!(
        (status, &problem["field"]),
        (400, &json!("providerOptions.env.SECRET"))
    );
    let list = test
        .http
        .get(test.url("/api/secrets"))
        .bearer_auth(foreign.expose());
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    assert_eq!(list["count"], 0);
    let delete = test.http.delete(test.url("/api/secrets/TOKEN"));
    let (status, _) = refusal(delete.bearer_auth(foreign.expose())).await;
    assert_eq!(status, 404);
    // A row that was moved does not open.
    sqlx::query(
        "update secrets set workspace_id = (select id from workspaces where slug = 'other')",
    )
    .execute(test.db())
    .await
    .unwrap();
    let request = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(foreign.expose());
    let request = request.header("accept", "application/json");
    let submitted = request
        .json(&with_env(named("TOKEN")))
        .send()
        .await
        .unwrap();
    let id = submitted.json::<Value>().await.unwrap()["executionId"].clone();
    test.queued().await;
    assert!(Worker::new(&test.dispatcher).claim_now().await.is_none());
    let shown = test.http.get(test.url(&format!("/executions/{id}")));
    let shown = shown.bearer_auth(foreign.expose()).send().await.unwrap();
    let shown: Value = shown.json().await.unwrap();
    assert_eq!(shown["status"], "failed", "{shown}");
}

#[tokio::test]
async fn what_was_taken_back_ends_the_execution_and_says_so() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let worker = Worker::new(&test.dispatcher);
    for (narrower, why) in [
        (
            Some(json!({"allowedRoles": ["ci"]})),
            "may not be used with your role",
        ),
        (
            Some(json!({"allowedAgents": []})),
            "may not be used by this agent",
        ),
        (None, "does not exist in this workspace"),
    ] {
        let wide = json!({"value": "canary", "allowedRoles": null, "allowedAgents": null});
        desk.try_put("TOKEN", &wide).await;
        let id = test.accepted(&with_env(named("TOKEN"))).await.execution_id;
        match narrower {
            Some(narrower) => assert_eq!(desk.try_put("TOKEN", &narrower).await.0, 200),
            None => assert_eq!(desk.delete("TOKEN").await, 204),
        }
        assert!(
            worker
                .claim_as(Uuid::new_v4(), &["shell"], 1)
                .await
                .is_none()
        );
        let shown = test.get(&format!("/executions/{id}")).send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        assert_eq!(shown["status"], "failed", "{shown}");
        let said = shown["error"].to_string();
        assert!(said.contains(&format!("the secret TOKEN {why}")), "{shown}");
    }
    assert_eq!(desk.uses().await, 0);
}

#[tokio::test]
async fn a_policy_that_was_made_meanwhile_counts() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    for name in ["TOKEN", "GITHUB_TOKEN"] {
        desk.put(name, "canary").await;
    }
    let worker = Worker::new(&test.dispatcher);
    let denies = |resource: &str, role: &str| json!({"resourceKind": "secret", "resource": resource, "deniedRoles": [role]});
    // One that means somebody else changes nothing.
    let first = test.accepted(&with_env(named("TOKEN"))).await.execution_id;
    desk.policy(denies("*", "viewer")).await;
    let held = worker.claim().await;
    assert_eq!((held.id(), env(&held)["SECRET"]), (first.0, "canary"));
    held.ack().await;
    held.state("running").await;
    held.complete(0).await;

    let mut body = with_env(named("TOKEN"));
    body["github"] = json!({"repoUrl": "https://github.com/a/b"});
    let id = test.accepted(&body).await.execution_id;
    let policy = desk.policy(denies("TOKEN", "key:developer")).await;
    let claimed = worker.claim_as(Uuid::new_v4(), &["shell"], 1).await;
    assert!(claimed.is_none());
    let shown = test.get(&format!("/executions/{id}")).send().await.unwrap();
    let shown: Value = shown.json().await.unwrap();
    assert_eq!(shown["status"], "failed", "{shown}");
    assert_eq!(shown["error"]["code"], "validation_error", "{shown}");
    let said = shown["error"]["message"].as_str().unwrap();
    let why = format!("the secret TOKEN may not be used any more: policy {policy} denies it");
    assert!(
        said.starts_with(&why) && said.contains("submit again"),
        "{said}"
    );
    let audited = desk.audited().await;
    let (action, outcome, actor, details) = audited.last().unwrap();
    assert_eq!(
        (action.as_str(), outcome.as_str()),
        ("secret.used", "denied")
    );
    assert!(actor.starts_with("key:"), "{actor}");
    assert_eq!(details["execution"], id.0);

    // A usual one that is denied by now is left out, as it is when a request is accepted.
    let mut body = script("true");
    body["github"] = json!({"repoUrl": "https://github.com/a/b"});
    test.accepted(&body).await;
    desk.policy(denies("GITHUB_TOKEN", "key:developer")).await;
    let held = worker.claim().await;
    assert!(held.assignment.credentials.git_token.is_none());
}

#[tokio::test]
async fn what_a_request_leaves_out_comes_from_the_usual_secrets() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let (status, problem) = refusal(test.execute(&claude())).await;
    assert_eq!(
        (status, &problem["field"]),
        (400, &json!("codingAssistantAuthentication"))
    );
    desk.put("CLAUDE_CODE_OAUTH_TOKEN", "oauth").await;
    desk.put("GITHUB_TOKEN", "for-github\n").await;
    desk.put("GIT_TOKEN_git.example.com", "for-example").await;
    let claimed = async |extra: Value| {
        let mut body = claude();
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        test.accepted(&body).await;
        let held = claim_claude(&test.dispatcher).await;
        let git = held.assignment.credentials.git_token.clone();
        (
            agent(&held).map(str::to_owned),
            git.map(|git| git.expose().to_owned()),
        )
    };
    let oauth = Some(r#"{"oauthToken":"oauth"}"#.to_owned());
    for (repository, token) in [
        ("https://github.com/a/b", Some("for-github")),
        ("https://git.example.com/a/b.git", Some("for-example")),
        ("https://github.com.evil.example/a/b", None),
    ] {
        let given = claimed(json!({"github": {"repoUrl": repository}})).await;
        assert_eq!(
            given,
            (oauth.clone(), token.map(str::to_owned)),
            "{repository}"
        );
    }
    desk.try_put(
        "ANTHROPIC_API_KEY?agent=claude",
        &json!({"value": "of-the-agent"}),
    )
    .await;
    desk.put("ANTHROPIC_API_KEY", "of-the-workspace").await;
    assert_eq!(claimed(json!({})).await.0.as_deref(), Some("of-the-agent"));
    let sent = claimed(json!({
        "codingAssistantAuthentication": "its-own",
        "github": {"repoUrl": "https://github.com/a/b", "accessToken": "own-token"},
    }));
    assert_eq!(
        sent.await,
        (Some("its-own".into()), Some("own-token".into()))
    );
    // A usual one that is gone is no reason to fail; a named one would be.
    let mut body = claude();
    body["codingAssistantAuthentication"] = json!("its-own");
    body["github"] = json!({"repoUrl": "https://github.com/a/b"});
    test.accepted(&body).await;
    desk.delete("GITHUB_TOKEN").await;
    let held = claim_claude(&test.dispatcher).await;
    assert!(held.assignment.credentials.git_token.is_none());
}

#[tokio::test]
async fn a_turn_takes_its_credentials_from_the_workspace() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let mut first = script("true");
    first["github"] = json!({"repoUrl": "https://github.com/a/b", "accessToken": "of-the-request"});
    let session = test.accepted(&first).await.session_id;
    let held = Worker::new(&test.dispatcher).run().await;
    held.complete(0).await;
    desk.put("GITHUB_TOKEN", "of-the-workspace").await;
    let next = json!({"userRequest": "true", "websiteSessionId": session});
    test.accepted(&next).await;
    let held = Worker::new(&test.dispatcher).claim().await;
    let token = held.assignment.credentials.git_token.as_ref().unwrap();
    assert_eq!(token.expose(), "of-the-workspace");
}
