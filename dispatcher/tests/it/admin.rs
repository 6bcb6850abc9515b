//! What those who run the installation do: suspending workspaces, and the platform's audit log.

use clawlink::auth::principal::{KeyRole, MemberRole};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{refusal, script};
use super::worker::Worker;

async fn get(test: &TestApp, token: &str, path: &str) -> Value {
    let answer = test.as_(token, Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

async fn turn(test: &TestApp, token: &str, id: i64, how: &str) -> Value {
    let path = format!("/api/admin/tenants/{id}/{how}");
    let request = test.as_(token, Method::POST, &path);
    let answer = request.json(&json!({"reason": "unpaid"})).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_suspended_workspace_is_read_and_what_runs_goes_on() {
    let test = TestApp::start().await;
    let admin = test.platform_admin().await.token;
    let owner = test.member("default", MemberRole::Owner).await;
    let id = owner.workspace.0;
    let running = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let waiting = test.submit().await;

    let shown = turn(&test, &admin, id, "suspend").await;
    assert_eq!(
        (&shown["status"], &shown["slug"], &shown["memberCount"]),
        (&json!("suspended"), &json!("default"), &json!(1))
    );
    // Nothing new begins, for keys and people, whatever the call.
    let task = json!({"taskId": 1});
    for (path, body) in [
        ("/execute", script("true")),
        ("/api/runtime/executions", task),
        ("/api/runtime/tasks/submit", json!({"prompt": "x"})),
        ("/api/projects", json!({"name": "x"})),
    ] {
        for token in [test.key.expose(), &owner.token] {
            let request = test.as_(token, Method::POST, path).json(&body);
            let (status, problem) = refusal(request).await;
            assert_eq!(status, 403, "{path}");
            assert!(problem["message"].as_str().unwrap().contains("suspended"));
        }
    }
    // Not even the owner ends it, or takes the workspace away.
    for (method, body) in [
        (Method::PATCH, json!({"status": "active"})),
        (Method::DELETE, json!({"confirm": "default"})),
    ] {
        let path = format!("/api/tenants/{id}");
        let request = test.as_(&owner.token, method, &path).json(&body);
        assert_eq!(refusal(request).await.0, 403);
    }
    // Reading works, also with a token that is made now.
    let tenant = json!({ "tenantId": id });
    let request = test.as_(&owner.person.token, Method::POST, "/api/auth/tenant-token");
    let token = request.json(&tenant).send().await.unwrap();
    let token: Value = token.json().await.unwrap();
    let token = token["token"].as_str().unwrap();
    assert_eq!(get(&test, token, "/sessions").await["count"], 2);
    // What was accepted goes on and can be stopped.
    held.complete(0).await;
    test.becomes(&running, "completed").await;
    assert_eq!(test.cancel(&waiting).await, 202);
    test.becomes(&waiting, "cancelled").await;

    turn(&test, &admin, id, "resume").await;
    test.submit().await;
}

#[tokio::test]
async fn suspending_is_done_once_told_in_both_logs_and_undone_to_what_was() {
    let test = TestApp::start().await;
    let admin = test.platform_admin().await.token;
    let (id, key) = test.key_for("default", KeyRole::Admin).await;
    let archive = test.as_(key.expose(), Method::PATCH, &format!("/api/tenants/{id}"));
    let archive = archive.json(&json!({"status": "archived"})).send().await;
    assert_eq!(archive.unwrap().status(), 200);
    for (how, status) in [
        ("suspend", "suspended"),
        ("suspend", "suspended"),
        ("resume", "archived"),
        ("resume", "archived"),
    ] {
        assert_eq!(turn(&test, &admin, id.0, how).await["status"], status);
    }
    let told: Vec<(Option<i64>, String, String)> = sqlx::query_as(
        "select workspace_id, action, details ->> 'reason' from audit_entries
         where action in ('workspace.suspended', 'workspace.resumed') order by id",
    )
    .fetch_all(test.db())
    .await
    .unwrap();
    let deed = |action: &str| {
        [Some(id.0), None].map(|whose| (whose, action.to_owned(), "unpaid".to_owned()))
    };
    let expected = [deed("workspace.suspended"), deed("workspace.resumed")].concat();
    assert_eq!(told, expected);
    let missing = test.as_(&admin, Method::POST, "/api/admin/tenants/999/suspend");
    let (status, problem) = refusal(missing).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("workspace_not_found"))
    );
}

#[tokio::test]
async fn the_platforms_admin_sees_all_workspaces_and_its_own_log_only() {
    let test = TestApp::start().await;
    let admin = test.platform_admin().await.token;
    let owner = test.member("team", MemberRole::Owner).await;
    let slugs = async |query: &str| -> Vec<String> {
        let list = get(&test, &admin, &format!("/api/admin/tenants{query}")).await;
        let list = list["tenants"].as_array().unwrap().clone();
        let slug = |tenant: &Value| tenant["slug"].as_str().unwrap().to_owned();
        list.iter().map(slug).collect()
    };
    assert_eq!(slugs("").await, ["default", "team"]);
    assert_eq!(slugs("?slug=team").await, ["team"]);
    turn(&test, &admin, owner.workspace.0, "suspend").await;
    assert_eq!(slugs("?status=suspended").await, ["team"]);
    let first = get(&test, &admin, "/api/admin/tenants?limit=1").await;
    let next = format!("?limit=1&cursor={}", first["nextCursor"]);
    assert_eq!(slugs(&next).await, ["team"]);
    // A workspace's entries are its own.
    test.submit().await;
    let entries = get(&test, &admin, "/api/admin/audit/events").await;
    let entries = entries.as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["tenantId"].is_null()));
    let types: Vec<&str> = entries
        .iter()
        .map(|entry| entry["eventType"].as_str().unwrap())
        .collect();
    assert!(types.contains(&"workspace_suspended"), "{types:?}");
    assert!(!types.contains(&"execution_submitted"), "{types:?}");
    // Neither a workspace token of a member nor a key is enough.
    for token in [owner.person.token.as_str(), test.key.expose()] {
        for path in ["/api/admin/tenants", "/api/admin/audit/events"] {
            let (status, _) = refusal(test.as_(token, Method::GET, path)).await;
            assert!(matches!(status, 401 | 403), "{status}");
        }
    }
}
