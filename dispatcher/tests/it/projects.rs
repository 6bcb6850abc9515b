//! Projects, as clients of earlier systems and of this one call them.

use clawlink::auth::principal::KeyRole;
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::refusal;

/// Makes a project from this body.
pub(crate) async fn project(test: &TestApp, body: Value) -> Value {
    let answer = test.post("/api/projects").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

pub(crate) async fn get(test: &TestApp, path: &str) -> Value {
    let answer = test.get(path).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

pub(crate) async fn patch(test: &TestApp, path: &str, body: Value) -> Value {
    let request = test.http.patch(test.url(path)).json(&body);
    let answer = request.bearer_auth(test.key.expose()).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_project_has_the_shape_that_old_clients_read() {
    let test = TestApp::start().await;
    let made = project(
        &test,
        json!({"key": " app ", "name": "The app", "description": "d",
            "githubRepoUrl": "git@github.com:acme/app.git", "defaultBranch": "main",
            "defaultAgent": "claude"}),
    )
    .await;
    let times = ["createdAt", "updatedAt"].map(|name| made[name].as_str().unwrap().to_owned());
    for time in &times {
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    let expected = json!({"id": 1, "tenantId": made["tenantId"], "key": "APP", "name": "The app",
        "description": "d", "status": "active", "githubRepoUrl": "git@github.com:acme/app.git",
        "githubRepoOwner": "acme", "githubRepoName": "app", "defaultBranch": "main",
        "defaultAgent": "claude", "tasksFollowExecutions": true,
        "createdAt": times[0], "updatedAt": times[1]});
    assert_eq!(made, expected);
    assert_eq!(get(&test, "/api/projects/1").await, made);
    assert_eq!(
        get(&test, "/api/projects").await,
        json!({"projects": [made]})
    );
}

#[tokio::test]
async fn null_clears_and_absent_leaves() {
    let test = TestApp::start().await;
    let body = json!({"name": "a", "description": "d", "defaultBranch": "b", "default_agent": "c",
        "github_repo_url": "https://github.com/a/b"});
    let made = project(&test, body).await;
    assert_eq!(made["githubRepoName"], "b");
    let same = patch(&test, "/api/projects/1", json!({"name": "new"})).await;
    assert_eq!(
        (&same["description"], &same["name"]),
        (&json!("d"), &json!("new"))
    );
    let cleared = patch(
        &test,
        "/api/projects/1",
        json!({"description": null, "defaultBranch": null, "defaultAgent": null,
            "githubRepoUrl": null, "tasksFollowExecutions": false, "status": "on_hold"}),
    )
    .await;
    for name in [
        "description",
        "defaultBranch",
        "defaultAgent",
        "githubRepoUrl",
        "githubRepoOwner",
        "githubRepoName",
    ] {
        assert_eq!(cleared[name], Value::Null, "{name}");
    }
    assert_eq!(
        (&cleared["tasksFollowExecutions"], &cleared["status"]),
        (&json!(false), &json!("on_hold"))
    );
}

#[tokio::test]
async fn a_key_is_derived_and_unique_in_its_workspace_only() {
    let test = TestApp::start().await;
    assert_eq!(
        project(&test, json!({"name": "My app"})).await["key"],
        "MYAPP"
    );
    assert_eq!(
        project(&test, json!({"name": "my APP"})).await["key"],
        "MYAPP2"
    );
    project(&test, json!({"name": "x", "key": "APP"})).await;
    let again = test
        .post("/api/projects")
        .json(&json!({"name": "y", "key": "app"}));
    let (status, problem) = refusal(again).await;
    assert_eq!((status, &problem["error"]), (409, &json!("key_taken")));
    let request = test
        .http
        .patch(test.url("/api/projects/1"))
        .json(&json!({"key": "app"}));
    let (status, problem) = refusal(request.bearer_auth(test.key.expose())).await;
    assert_eq!((status, &problem["error"]), (409, &json!("key_taken")));
    let (_, other) = test.key_for("other", KeyRole::Developer).await;
    let request = test
        .http
        .post(test.url("/api/projects"))
        .bearer_auth(other.expose());
    let answer = request
        .json(&json!({"name": "x", "key": "APP"}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_creates_of_one_key_make_one_project() {
    let test = TestApp::start().await;
    let body = json!({"name": "x", "key": "APP"});
    let requests = (0..12).map(|_| test.post("/api/projects").json(&body).send());
    let mut statuses: Vec<u16> = futures::future::join_all(requests)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().status().as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 11][..]));
    let body = json!({"name": "Upserted", "description": "d"});
    let requests = (0..12).map(|_| test.post("/api/projects/upsert").json(&body).send());
    let mut created = 0;
    for answer in futures::future::join_all(requests).await {
        let answer: Value = answer.unwrap().json().await.unwrap();
        assert_eq!(answer["project"]["name"], "Upserted");
        created += i32::from(answer["action"] == "created");
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_by_field() {
    let test = TestApp::start().await;
    let body = json!({"name": " ", "key": "x".repeat(51), "description": "a\u{0}b",
        "githubRepoUrl": "https://user:token@github.com/a/b"});
    let (status, problem) = refusal(test.post("/api/projects").json(&body)).await;
    let fields: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| &fault["field"])
        .collect();
    assert_eq!(status, 400);
    assert_eq!(fields, ["name", "key", "description", "githubRepoUrl"]);
    assert!(!problem.to_string().contains("token@"), "{problem}");
    for body in [
        json!({}),
        json!({"name": "x", "status": "odd"}),
        json!([1]),
        json!({"name": 7}),
    ] {
        let (status, _) = refusal(test.post("/api/projects").json(&body)).await;
        assert_eq!(status, 400, "{body}");
    }
    for path in [
        "/api/projects/x",
        "/api/projects?limit=0",
        "/api/projects?cursor=%00",
        "/api/projects?archived=maybe",
        "/api/projects?status=odd",
    ] {
        assert_eq!(refusal(test.get(path)).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn deleting_archives_unless_forced() {
    let test = TestApp::start().await;
    let (_, admin) = test.key_for("default", KeyRole::Admin).await;
    project(&test, json!({"name": "one"})).await;
    project(&test, json!({"name": "two"})).await;
    let delete = |path: &str| {
        let request = test.http.delete(test.url(path)).bearer_auth(admin.expose());
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(delete("/api/projects/1").await, 204);
    let keys = async |path| {
        let list = get(&test, path).await;
        let list = list["projects"].as_array().unwrap().clone();
        list.iter()
            .map(|one| one["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("/api/projects").await, ["TWO"]);
    assert_eq!(keys("/api/projects?archived=true").await, ["ONE"]);
    assert_eq!(keys("/api/projects?archived=any").await, ["ONE", "TWO"]);
    assert_eq!(keys("/api/projects?status=archived").await, ["ONE"]);
    assert_eq!(delete("/api/projects/1?force=true").await, 204);
    assert_eq!(delete("/api/projects/1?force=true").await, 404);
    assert_eq!(refusal(test.get("/api/projects/1")).await.0, 404);
}

#[tokio::test]
async fn pages_go_through_all_projects() {
    let test = TestApp::start().await;
    for key in ["C", "A", "Ä", "B", "Z"] {
        project(&test, json!({"name": key, "key": key})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/projects?limit=2".to_owned();
    loop {
        let page = get(&test, &path).await;
        let projects = page["projects"].as_array().unwrap();
        seen.extend(
            projects
                .iter()
                .map(|one| one["key"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/api/projects?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["A", "B", "C", "Z", "Ä"]);
}

#[tokio::test]
async fn projects_of_others_are_not_there() {
    let test = TestApp::start().await;
    project(&test, json!({"name": "mine"})).await;
    let (_, other) = test.key_for("other", KeyRole::Admin).await;
    for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
        for id in ["1", "1?force=true", "999"] {
            let url = test.url(&format!("/api/projects/{id}"));
            let request = test
                .http
                .request(method.clone(), url)
                .bearer_auth(other.expose());
            let (status, problem) = refusal(request.json(&json!({"name": "theirs"}))).await;
            assert_eq!(
                (status, &problem["error"]),
                (404, &json!("project_not_found"))
            );
        }
    }
    assert_eq!(get(&test, "/api/projects/1").await["name"], "mine");
    let request = test
        .http
        .get(test.url("/api/projects"))
        .bearer_auth(other.expose());
    let list: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(list, json!({"projects": []}));
}
