//! Workspaces: renamed, archived, deleted, and only one's own.

use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink::workspaces::{self, Changes};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{finish, refusal, script};
use super::members::{audited, call, member};
use super::wait::eventually;

#[tokio::test]
async fn nobody_sees_or_changes_another_workspace() {
    let test = TestApp::start().await;
    let (mine, _) = test.key_for("mine", KeyRole::Admin).await;
    let (_, foreign) = test.key_for("other", KeyRole::Admin).await;
    let tenant = format!("/api/tenants/{mine}");
    for (method, path) in [
        (Method::GET, tenant.clone()),
        (Method::PATCH, tenant.clone()),
        (Method::GET, format!("{tenant}/members")),
        (Method::POST, format!("{tenant}/members")),
        (Method::GET, format!("{tenant}/invitations")),
        (Method::GET, format!("{tenant}/keys")),
        (Method::POST, format!("{tenant}/keys")),
    ] {
        let request = call(&test, &foreign, method, &path).json(&json!({"name": "taken"}));
        let (status, problem) = refusal(request).await;
        assert_eq!(
            (status, &problem["error"]),
            (404, &json!("workspace_not_found")),
            "{path}"
        );
    }
    let name: String = sqlx::query_scalar("select name from workspaces where id = $1")
        .bind(mine.0)
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(name, "mine");
}

#[tokio::test]
async fn a_workspace_is_renamed_and_archived() {
    let test = TestApp::start().await;
    let (id, admin) = test.key_for("team", KeyRole::Admin).await;
    let owner = member(&test, id, "owner", MemberRole::Owner).await;
    let path = format!("/api/tenants/{id}");
    let change = json!({"name": " New name ", "status": "archived"});
    let answer = call(&test, &admin, Method::PATCH, &path)
        .json(&change)
        .send();
    let shown: Value = answer.await.unwrap().json().await.unwrap();
    assert_eq!(
        (&shown["name"], &shown["slug"], &shown["status"]),
        (&json!("New name"), &json!("team"), &json!("archived"))
    );
    let reopen = Changes {
        is_archived: Some(false),
        ..Changes::default()
    };
    workspaces::update(test.app(), &owner, &reopen)
        .await
        .unwrap();
    for bad in [json!({"name": ""}), json!({"status": "suspended"})] {
        let (status, _) = refusal(call(&test, &admin, Method::PATCH, &path).json(&bad)).await;
        assert_eq!(status, 400);
    }
    sqlx::query("update workspaces set status = 'suspended' where id = $1")
        .bind(id.0)
        .execute(test.db())
        .await
        .unwrap();
    let refused = workspaces::update(test.app(), &owner, &reopen).await;
    assert_eq!(refused.unwrap_err().code(), "workspace_suspended");
}

/// Tables that keep rows of workspaces, and how many of this one they hold.
async fn rows_of(test: &TestApp, workspace: i64) -> Vec<(String, i64)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.columns
         where column_name = 'workspace_id' and table_schema = 'public'
            and table_name <> 'audit_entries'",
    )
    .fetch_all(test.db())
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let text = format!("select count(*) from {table} where workspace_id = $1");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
            .bind(workspace)
            .fetch_one(test.db())
            .await
            .unwrap();
        found.push((table, count));
    }
    found
}

#[tokio::test]
async fn deleting_takes_every_row_and_object_but_not_the_audit_log() {
    let test = TestApp::start().await;
    let (id, admin) = test.key_for("default", KeyRole::Admin).await;
    let owner = member(&test, id, "owner", MemberRole::Owner).await;
    let policy = json!({"resourceKind": "agent", "resource": "x"});
    let invitation = json!({"email": "a@example.org", "role": "viewer"});
    for (path, body) in [
        ("/api/policies".to_owned(), policy),
        (format!("/api/tenants/{id}/members"), invitation),
    ] {
        let made = call(&test, &admin, Method::POST, &path).json(&body).send();
        assert!(made.await.unwrap().status().is_success());
    }
    let done = test.accepted(&script("true")).await;
    finish(test.app(), done.execution_id).await;
    let object = format!("{}/turns/1.tar.zst", done.session_id.folder());
    let blobs = &test.app().blobs;
    blobs
        .put(&object, b"archive".as_slice().into())
        .await
        .unwrap();
    test.accepted(&script("true")).await;

    let delete = workspaces::delete;
    let refused = delete(test.app(), &owner, Some("Default"), true).await;
    assert_eq!(refused.unwrap_err().code(), "invalid_request");
    let refused = delete(test.app(), &owner, Some("default"), false).await;
    assert_eq!(refused.unwrap_err().code(), "workspace_running");
    delete(test.app(), &owner, Some("default"), true)
        .await
        .unwrap();

    let rows = rows_of(&test, id.0).await;
    assert!(rows.len() > 5, "{rows:?}");
    assert!(rows.iter().all(|(_, count)| *count == 0), "{rows:?}");
    let log = audited(&test, id).await;
    assert_eq!(log.last().unwrap(), "workspace.deleted");
    assert!(log.contains(&"policy.created".to_owned()));
    eventually("the objects are gone", async || {
        let left = blobs.list(&done.session_id.folder()).await.ok()?;
        left.is_empty().then_some(())
    })
    .await;
    let (status, _) = refusal(call(&test, &admin, Method::GET, "/sessions")).await;
    assert_eq!(status, 401);
    let gone = delete(test.app(), &owner, Some("default"), true).await;
    assert_eq!(gone.unwrap_err().code(), "workspace_not_found");
}
