//! Submitting: what is answered, what is written, what is refused before it is queued.

use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink::executions::archive::clean;
use clawlink_shared::execution::Spec;
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{Stream, finish, log, refusal, script};

async fn count(test: &TestApp) -> i64 {
    let (count,) = sqlx::query_as("select count(*) from executions")
        .fetch_one(test.db())
        .await
        .unwrap();
    count
}

async fn spec(test: &TestApp, execution: clawlink_shared::id::ExecutionId) -> Spec {
    let (spec,): (Value,) = sqlx::query_as("select spec from executions where id = $1")
        .bind(execution.0)
        .fetch_one(test.db())
        .await
        .unwrap();
    serde_json::from_value(spec).unwrap()
}

#[tokio::test]
async fn json_clients_get_ids_and_the_execution_is_there() {
    let test = TestApp::start().await;
    let answer = test.execute(&script("true")).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let headers = answer.headers().clone();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], "pending");
    assert!(body["queue"]["position"].is_u64());
    assert_eq!(headers["x-execution-id"], body["executionId"].to_string());
    assert_eq!(headers["x-session-id"], body["sessionId"].as_str().unwrap());
    for name in [
        body["executionId"].to_string(),
        body["executionUuid"].as_str().unwrap().into(),
    ] {
        let shown = test
            .get(&format!("/executions/{name}"))
            .send()
            .await
            .unwrap();
        let shown: Value = shown.json().await.unwrap();
        assert_eq!(shown["executionId"], body["executionId"]);
        assert_eq!(shown["executionUuid"], body["executionUuid"]);
        assert_eq!(shown["provider"], "shell");
        assert_eq!(shown["turn"], 1);
        assert_eq!(shown["status"], "pending");
    }
}

#[tokio::test]
async fn a_stream_begins_with_connected_and_queued() {
    let test = TestApp::start().await;
    let mut request = script("true");
    request["database"] = json!({"sessionId": "a", "accessToken": "b"});
    request["createPullRequest"] = json!(true);
    request["taskId"] = json!("APP-001");
    let answer = test.post("/execute").json(&request).send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-cache");
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let id = answer.headers()["x-execution-id"].to_str().unwrap();
    let id = clawlink_shared::id::ExecutionId(id.parse().unwrap());
    drop(answer);
    finish(test.app(), id).await;
    let events = Stream::open(test.get(&format!("/executions/{id}/events"))).await;
    let events = events.rest().await;
    let kinds: Vec<String> = events.iter().map(|event| event.kind()).collect();
    assert_eq!(
        kinds,
        [
            "connected",
            "queued",
            "message",
            "message",
            "message",
            "completed"
        ]
    );
    let connected = events[0].json();
    assert_eq!(connected["resuming"], false);
    assert_eq!(connected["provider"], "shell");
    assert_eq!(connected["seq"], 1);
    assert_eq!(connected["executionId"], id.0);
    assert!(connected["timestamp"].as_str().unwrap().ends_with('Z'));
    let said = format!("{} {} {}", events[2].data, events[3].data, events[4].data);
    for word in ["database", "createPullRequest", "taskId"] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn the_own_stream_of_a_submission_follows_to_the_end() {
    let test = TestApp::start().await;
    let mut stream = Stream::open(test.post("/execute").json(&script("true"))).await;
    let first = stream.next().await.unwrap().json();
    let id = clawlink_shared::id::ExecutionId(first["executionId"].as_i64().unwrap());
    finish(test.app(), id).await;
    let rest = stream.rest().await;
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[1].kind(), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_one_execution() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let body = json!({"userRequest": "true", "codingAssistantProvider": "shell"});
    let urls = [test.url("/execute"), format!("{}/execute", second.url)];
    let send = |n: usize, text: String| {
        test.http
            .post(&urls[n % 2])
            .bearer_auth(test.key.expose())
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
            .body(text)
            .send()
    };
    // The order of keys and spacing do not make another body.
    let other_order = r#"{ "codingAssistantProvider": "shell",  "userRequest": "true" }"#;
    let tries = (0..20).map(|n| match n % 3 {
        0 => send(n, other_order.to_owned()),
        _ => send(n, body.to_string()),
    });
    let mut ids = Vec::new();
    for answer in futures::future::join_all(tries).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 202);
        let answer: Value = answer.json().await.unwrap();
        ids.push(answer["executionId"].as_i64().unwrap());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(count(&test).await, 1);

    let keyed = |body: &Value| test.execute(body).header("idempotency-key", "once");
    let (status, problem) = refusal(keyed(&script("false"))).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("idempotency_conflict"))
    );

    // As a stream it is the execution's stream, from the start or from where the client was.
    finish(test.app(), clawlink_shared::id::ExecutionId(ids[0])).await;
    let again = || {
        let request = test.post("/execute").json(&body);
        request.header("idempotency-key", "once")
    };
    let all = Stream::open(again()).await.rest().await;
    let stored = log(test.db(), clawlink_shared::id::ExecutionId(ids[0])).await;
    assert_eq!(
        all.iter().map(|event| &event.data).collect::<Vec<_>>(),
        stored.iter().collect::<Vec<_>>()
    );
    let tail = Stream::open(again().header("last-event-id", "2")).await;
    assert_eq!(tail.rest().await, all[2..]);

    // Another key's owner is another principal.
    let (_, other) = test.key_for("default", KeyRole::Ci).await;
    let answer = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(other.expose())
        .header("accept", "application/json")
        .header("idempotency-key", "once")
        .json(&body);
    assert_eq!(answer.send().await.unwrap().status(), 202);
    assert_eq!(count(&test).await, 2);
}

#[tokio::test]
async fn a_refusal_does_not_use_up_its_idempotency_key() {
    let test = TestApp::start().await;
    let keyed = |body: &Value| test.execute(body).header("idempotency-key", "k");
    let (status, _) = refusal(keyed(&json!({}))).await;
    assert_eq!(status, 400);
    assert_eq!(keyed(&script("true")).send().await.unwrap().status(), 202);
    let (status, _) = refusal(test.execute(&script("x")).header("idempotency-key", "")).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_full_queue_answers_429() {
    let test = TestApp::start_with(|settings| settings.tuning.queue_cap = 3).await;
    for _ in 0..3 {
        test.accepted(&script("true")).await;
    }
    let (status, problem) = refusal(test.execute(&script("true"))).await;
    assert_eq!((status, &problem["error"]), (429, &json!("busy")));
    assert!(problem["retryAfter"].as_u64().unwrap() > 0);
    assert_eq!(count(&test).await, 3);
}

#[tokio::test]
async fn a_workspace_at_its_pending_cap_answers_429_and_others_go_on() {
    let test = TestApp::start_with(|settings| settings.tuning.pending_cap = 2).await;
    for _ in 0..2 {
        test.accepted(&script("true")).await;
    }
    let answer = test.execute(&script("true")).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    let (_, other) = test.key_for("other", KeyRole::Developer).await;
    let request = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(other.expose());
    let request = request.header("accept", "application/json");
    let answer = request.json(&script("true")).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn names_and_branches_are_generated_or_taken() {
    let test = TestApp::start().await;
    let mut request = script("Add a   greeting\nto the readme");
    request["github"] = json!({"repoUrl": "https://github.com/a/b", "directory": "./docs/"});
    let made = test.accepted(&request).await;
    let made_spec = spec(&test, made.execution_id).await;
    assert_eq!(made_spec.session_name, "Add a greeting to the readme");
    let hex = &made.session_id.0.simple().to_string()[24..];
    let branch = format!("clawlink/add-a-greeting-to-the-readme-{hex}");
    assert_eq!(made_spec.working_branch, Some(branch));
    assert!(made_spec.auto_commit);
    assert_eq!(
        made_spec.repository.unwrap().directory.as_deref(),
        Some("docs")
    );

    request["branchName"] = json!("mine/x");
    request["sessionName"] = json!("Mine");
    let taken = spec(&test, test.accepted(&request).await.execution_id).await;
    assert_eq!(taken.working_branch.as_deref(), Some("mine/x"));
    assert_eq!(taken.session_name, "Mine");
}

#[tokio::test]
async fn credentials_are_sealed_and_nowhere_else() {
    let test = TestApp::start().await;
    let mut request = script("true");
    request["codingAssistantAuthentication"] = json!("sk-very-secret");
    request["github"] = json!({"repoUrl": "https://github.com/a/b", "accessToken": "ghp_secret"});
    request["providerOptions"] = json!({"env": {"DEPLOY_KEY": "env-secret"}});
    let id = test.accepted(&request).await.execution_id;
    let (row, sealed, uuid): (String, Vec<u8>, uuid::Uuid) = sqlx::query_as(
        "select to_jsonb(executions)::text || to_jsonb(sessions)::text, sealed, uuid
         from executions join sessions on sessions.id = session_id
         join credentials on execution_id = executions.id where executions.id = $1",
    )
    .bind(id.0)
    .fetch_one(test.db())
    .await
    .unwrap();
    assert!(!row.contains("secret"), "{row}");
    let opened = test.app().keys.open(uuid.as_bytes(), &sealed).unwrap();
    let opened: Value = serde_json::from_slice(&opened).unwrap();
    assert_eq!(
        opened,
        json!({
            "agent": "sk-very-secret",
            "gitToken": "ghp_secret",
            "env": {"DEPLOY_KEY": "env-secret"},
        })
    );
}

#[tokio::test]
async fn cancel_on_disconnect_asks_for_it() {
    let test = TestApp::start().await;
    let mut request = script("true");
    request["cancelOnDisconnect"] = json!(true);
    let mut stream = Stream::open(test.post("/execute").json(&request)).await;
    let id = stream.next().await.unwrap().json()["executionId"].clone();
    drop(stream);
    super::wait::eventually("the execution is cancelled", async || {
        let shown = test.get(&format!("/executions/{id}")).send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        (shown["status"] == "cancelled").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_persons_key_of_another_workspace_is_refused_and_says_so() {
    let test = TestApp::start().await;
    let here = test.member("default", MemberRole::Owner).await;
    let there = test.joined(&here.person, "other", MemberRole::Owner).await;
    let send = |token: &str| {
        let call = test.as_(token, Method::POST, "/execute");
        let call = call.header("accept", "application/json");
        call.header("idempotency-key", "k").json(&script("true"))
    };
    assert_eq!(send(&here.token).send().await.unwrap().status(), 202);
    let (status, problem) = refusal(send(&there.token)).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("idempotency_conflict"))
    );
    assert_eq!(count(&test).await, 1);
}

#[tokio::test]
async fn old_idempotency_keys_go_however_many_there_are() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    sqlx::query(
        "insert into idempotency_keys (principal, key, body_mac, execution_id, created_at)
         select 'key:1', n::text, '', $1, now() - make_interval(hours => case n when 1 then 20 else 30 end)
         from generate_series(1, 12000) as n",
    )
    .bind(job.id)
    .execute(test.db())
    .await
    .unwrap();
    clean(test.app()).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar("select key from idempotency_keys")
        .fetch_all(test.db())
        .await
        .unwrap();
    assert_eq!(left, ["1"], "only what is younger than a day");
}
