//! Tasks, as clients of earlier systems and of this one call them.

use std::collections::BTreeSet;

use clawlink::auth::principal::{KeyRole, MemberRole};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::refusal;
use super::projects::{get, patch, project};

/// Makes a task with these fields, and project `APP` if there is no project yet.
pub(crate) async fn task(test: &TestApp, fields: Value) -> Value {
    if get(test, "/api/projects").await["projects"] == json!([]) {
        project(test, json!({"name": "App", "key": "APP"})).await;
    }
    let mut body = json!({"projectId": 1, "title": "do it"});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = test.post("/api/tasks").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

/// The given field of each task of a list.
pub(crate) async fn each(test: &TestApp, path: &str, field: &str) -> Vec<Value> {
    let list = get(test, path).await;
    let list = list["tasks"].as_array().unwrap().clone();
    list.iter().map(|task| task[field].clone()).collect()
}

#[tokio::test]
async fn a_task_has_the_shape_that_old_clients_read() {
    let test = TestApp::start().await;
    let made = task(&test, json!({"description": "d", "priority": "high"})).await;
    let expected = json!({"id": 1, "projectId": 1, "tenantId": made["tenantId"], "key": "APP-001",
        "title": "do it", "description": "d", "status": "todo", "blockedReason": null,
        "priority": "high", "labels": [], "assignedAgentType": null, "assigneeId": null,
        "persona": null, "startDate": null, "dueDate": null, "githubPrUrl": null,
        "githubPrNumber": null, "parentId": null, "position": "V", "archived": false,
        "progress": {"done": 0, "total": 0}, "createdBy": "key:1",
        "createdAt": made["createdAt"], "updatedAt": made["updatedAt"]});
    assert_eq!(made, expected);
    assert_eq!(get(&test, "/api/tasks/1").await, made);
    for path in [
        "/api/tasks",
        "/api/tasks?project_id=1",
        "/api/tasks?projectId=1",
    ] {
        assert_eq!(get(&test, path).await, json!({"tasks": [made]}), "{path}");
    }
    let snake = json!({"project_id": "1", "title": "b", "due_date": "2026-12-01",
        "assigned_agent_type": "openai", "githubPrUrl": null});
    let answer = test.post("/api/tasks").json(&snake).send().await.unwrap();
    let second: Value = answer.json().await.unwrap();
    assert_eq!(second["dueDate"], "2026-12-01T00:00:00.000Z");
    assert_eq!(second["assignedAgentType"], "openai");
    assert_eq!(second["key"], "APP-002");
}

#[tokio::test]
async fn null_clears_every_field_that_can_be_empty() {
    let test = TestApp::start().await;
    let full = json!({"description": "d", "labels": ["a", " b ", "a"], "assignedAgentType": "claude",
        "persona": "p", "startDate": "2026-11-20T10:00:00+01:00", "dueDate": "2026-11-21",
        "githubPrUrl": "https://github.com/a/b/pull/7", "githubPrNumber": 7,
        "status": "blocked", "blockedReason": "why"});
    task(&test, json!({})).await;
    let changed = patch(&test, "/api/tasks/1", full).await;
    assert_eq!(changed["labels"], json!(["a", "b"]));
    assert_eq!(changed["startDate"], "2026-11-20T09:00:00.000Z");
    let same = patch(&test, "/api/tasks/1", json!({})).await;
    let names = [
        "description",
        "assignedAgentType",
        "persona",
        "startDate",
        "dueDate",
        "githubPrUrl",
        "githubPrNumber",
        "blockedReason",
    ];
    for name in names {
        assert_eq!(same[name], changed[name], "{name}");
        assert_ne!(same[name], Value::Null, "{name}");
        let cleared = patch(&test, "/api/tasks/1", json!({name: null})).await;
        assert_eq!(cleared[name], Value::Null, "{name}");
    }
    let cleared = patch(&test, "/api/tasks/1", json!({"labels": null})).await;
    assert_eq!(cleared["labels"], json!([]));
    patch(&test, "/api/tasks/1", json!({"blockedReason": "again"})).await;
    let unblocked = patch(&test, "/api/tasks/1", json!({"status": "todo"})).await;
    assert_eq!(unblocked["blockedReason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_made_at_once_are_all_different_and_never_given_again() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    task(&test, json!({})).await;
    let body = json!({"projectId": 1, "title": "x"});
    let requests = (0..40).map(|n| {
        let url = [&test.dispatcher.url, &second.url][n % 2];
        let request = test.http.post(format!("{url}/api/tasks")).json(&body);
        request.bearer_auth(test.key.expose()).send()
    });
    let mut keys = BTreeSet::new();
    let mut positions = BTreeSet::new();
    for answer in futures::future::join_all(requests).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.unwrap();
        keys.insert(made["key"].as_str().unwrap().to_owned());
        positions.insert(made["position"].as_str().unwrap().to_owned());
    }
    let expected: BTreeSet<String> = (2..=41).map(|n| format!("APP-{n:03}")).collect();
    assert_eq!((keys, positions.len()), (expected, 40));

    for id in 30..=41 {
        let path = format!("/api/tasks/{id}?force=true");
        assert_eq!(test.delete(&path).send().await.unwrap().status(), 204);
    }
    assert_eq!(task(&test, json!({})).await["key"], "APP-042");
    // Not even by another project that takes the key.
    patch(&test, "/api/projects/1", json!({"key": "OLD"})).await;
    let other = project(&test, json!({"name": "b", "key": "APP"})).await;
    let made = task(&test, json!({"projectId": other["id"]})).await;
    assert_eq!(made["key"], "APP-043");
    assert_eq!(task(&test, json!({})).await["key"], "OLD-001");
}

#[tokio::test]
async fn deleting_archives_unless_forced() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    task(&test, json!({})).await;
    for _ in 0..2 {
        assert_eq!(
            test.delete("/api/tasks/1").send().await.unwrap().status(),
            204
        );
    }
    assert_eq!(each(&test, "/api/tasks", "id").await, [2]);
    assert_eq!(each(&test, "/api/tasks?archived=true", "id").await, [1]);
    assert_eq!(each(&test, "/api/tasks?archived=any", "id").await, [2, 1]);
    assert_eq!(get(&test, "/api/tasks/1").await["archived"], true);
    patch(&test, "/api/tasks/1", json!({"archived": false})).await;
    assert_eq!(
        test.delete("/api/tasks/1?force=true")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(refusal(test.get("/api/tasks/1")).await.0, 404);
}

#[tokio::test]
async fn tasks_of_others_are_not_there() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    task(&test, json!({})).await;
    let (_, other) = test.key_for("other", KeyRole::Admin).await;
    let theirs = |method: Method, path: &str| {
        test.http
            .request(method, test.url(path))
            .bearer_auth(other.expose())
    };
    let link = json!({"kind": "relates", "taskId": 2});
    for (method, path, body) in [
        (Method::GET, "/api/tasks/1", json!({})),
        (Method::PATCH, "/api/tasks/1", json!({"title": "theirs"})),
        (Method::PUT, "/api/tasks/1", json!({"title": "theirs"})),
        (Method::DELETE, "/api/tasks/1", json!({})),
        (Method::DELETE, "/api/tasks/1?force=true", json!({})),
        (Method::GET, "/api/tasks/1/relations", json!({})),
        (Method::POST, "/api/tasks/1/relations", link),
        (
            Method::DELETE,
            "/api/tasks/1/relations/relates/2",
            json!({}),
        ),
        (
            Method::POST,
            "/api/tasks",
            json!({"projectId": 1, "title": "x"}),
        ),
        (Method::GET, "/api/tasks?projectId=1", json!({})),
    ] {
        let (status, problem) = refusal(theirs(method.clone(), path).json(&body)).await;
        assert_eq!(status, 404, "{method} {path} {problem}");
    }
    let answer = theirs(Method::POST, "/api/tasks/next")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"task": null}));
    let answer = theirs(Method::GET, "/api/tasks?q=do&archived=any")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"tasks": []}));
    // Nor can theirs be tied to mine.
    let made = theirs(Method::POST, "/api/projects").json(&json!({"name": "b"}));
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    for extra in [
        json!({"parentId": 1}),
        json!({"beforeId": 1}),
        json!({"afterId": 1}),
    ] {
        let mut body = extra.clone();
        body["projectId"] = made["id"].clone();
        body["title"] = json!("x");
        let (status, _) = refusal(theirs(Method::POST, "/api/tasks").json(&body)).await;
        assert_eq!(status, 404, "{extra}");
    }
    assert_eq!(get(&test, "/api/tasks/1").await["title"], "do it");
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_by_field() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    let body = json!({"title": "", "description": "\u{0}", "dueDate": "soon", "labels": [""],
        "githubPrUrl": "javascript:alert(1)", "githubPrNumber": 0, "beforeId": 1, "afterId": 1});
    let (status, problem) = refusal(test.post("/api/tasks").json(&body)).await;
    let mut fields: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["field"].as_str().unwrap())
        .collect();
    fields.sort_unstable();
    let expected = [
        "beforeId",
        "description",
        "dueDate",
        "githubPrNumber",
        "githubPrUrl",
        "labels",
        "title",
    ];
    assert_eq!((status, &fields[..]), (400, &expected[..]));
    for body in [
        json!({}),
        json!({"projectId": 1}),
        json!({"title": "x"}),
        json!({"projectId": 1, "title": "x", "status": "odd"}),
        json!({"projectId": 1, "title": "x", "priority": "urgent"}),
        json!({"projectId": "x", "title": "x"}),
    ] {
        assert_eq!(
            refusal(test.post("/api/tasks").json(&body)).await.0,
            400,
            "{body}"
        );
    }
    let unknown = json!({"projectId": 1, "title": "x", "assigneeId": uuid::Uuid::new_v4()});
    let (status, problem) = refusal(test.post("/api/tasks").json(&unknown)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("no_such_member")));
    for query in [
        "limit=0",
        "limit=501",
        "status=odd",
        "priority=odd",
        "sort=odd",
        "sort=position",
        "cursor=zz",
        "archived=1",
        "dueFrom=soon",
        "q=%00",
        "projectId=x",
    ] {
        let path = format!("/api/tasks?{query}");
        assert_eq!(refusal(test.get(&path)).await.0, 400, "{query}");
    }
    assert_eq!(refusal(test.get("/api/tasks/x")).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_repeated_makes_one_task() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    let create = |body: Value| {
        let request = test.post("/api/tasks").header("idempotency-key", "k-1");
        request.json(&body)
    };
    let body = json!({"projectId": 1, "title": "once"});
    let answers = futures::future::join_all((0..8).map(|_| create(body.clone()).send())).await;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.json::<Value>().await.unwrap()["id"], 2);
    }
    let (status, problem) = refusal(create(json!({"projectId": 1, "title": "other"}))).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("idempotency_conflict"))
    );
    let (_, other) = test.key_for("default", KeyRole::Developer).await;
    let request = test
        .http
        .post(test.url("/api/tasks"))
        .header("idempotency-key", "k-1");
    let answer = request
        .bearer_auth(other.expose())
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["id"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_the_task_of_another() {
    let test = TestApp::start().await;
    task(&test, json!({"priority": "low"})).await;
    task(
        &test,
        json!({"priority": "critical", "assignedAgentType": "claude"}),
    )
    .await;
    task(&test, json!({"priority": "high"})).await;
    task(&test, json!({"priority": "critical", "status": "done"})).await;
    // Empty, with JSON's content type, as old clients send it.
    let next = |body: &str| {
        let request = test
            .post("/api/tasks/next")
            .header("content-type", "application/json");
        let request = request.body(body.to_owned());
        async { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let first = next(r#"{"agentType": "codex"}"#).await;
    assert_eq!(
        (&first["task"]["id"], &first["task"]["status"]),
        (&json!("3"), &json!("in_progress"))
    );
    assert_eq!(
        (&first["task"]["projectId"], &first["task"]["priority"]),
        (&json!(1), &json!("high"))
    );
    let both = futures::future::join(next(""), next("")).await;
    let mut ids = [both.0["task"]["id"].clone(), both.1["task"]["id"].clone()];
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, ["1", "2"]);
    assert_eq!(next("").await, json!({"task": null}));
}

#[tokio::test]
async fn who_was_a_member_once_is_given_nothing_new() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    let guest = test.member("default", MemberRole::Viewer).await;
    let body = json!({"assigneeId": guest.person.user});
    patch(&test, "/api/tasks/1", body.clone()).await;
    sqlx::query("update members set removed_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    // What stands there may be sent back.
    patch(&test, "/api/tasks/1", body.clone()).await;
    patch(&test, "/api/tasks/1", json!({"assigneeId": null})).await;
    let request = test.as_(test.key.expose(), Method::PATCH, "/api/tasks/1");
    let (status, problem) = refusal(request.json(&body)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("no_such_member")));
    let new = json!({"projectId": 1, "title": "x", "assigneeId": guest.person.user});
    assert_eq!(refusal(test.post("/api/tasks").json(&new)).await.0, 409);
}
