//! Requests that were admitted before their caller's rights ended, and performed after.

use clawlink::auth;
use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink_shared::id::WorkspaceId;
use reqwest::Method;
use serde_json::json;

use super::{answer, text};
use crate::app::TestApp;
use crate::wait::{eventually, is_lock_awaited};

/// Knocks with a request that gives access while `ending` ends the caller's rights in a
/// transaction of its own; nothing may come of it.
async fn comes_too_late(test: &TestApp, token: &str, path: &str, ending: &'static str, id: &str) {
    let mut change = test.db().begin().await.unwrap();
    sqlx::query(ending)
        .bind(id)
        .execute(&mut *change)
        .await
        .unwrap();
    let (method, body) = match path.rsplit('/').next() {
        Some("keys") => (Method::POST, json!({"name": "late", "role": "ci"})),
        Some("members") => (
            Method::POST,
            json!({"email": "late@example.org", "role": "viewer"}),
        ),
        _ => (Method::PATCH, json!({"role": "manager"})),
    };
    let request = test.as_(token, method, path).json(&body);
    let request = tokio::spawn(request.send());
    eventually("the request has got as far as it can", async || {
        let waits = is_lock_awaited(test.db()).await;
        (waits || request.is_finished()).then_some(())
    })
    .await;
    change.commit().await.unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), 401, "{ending}");
}

/// What gives access to the workspace and stands, beside the keys that were there.
async fn given(test: &TestApp, workspace: WorkspaceId) -> i64 {
    sqlx::query_scalar(
        "select (select count(*) from api_keys where workspace_id = $1 and name = 'late')
            + (select count(*) from invitations where workspace_id = $1)",
    )
    .bind(workspace.0)
    .fetch_one(test.db())
    .await
    .unwrap()
}

#[tokio::test]
async fn who_is_out_by_then_gives_nobody_access() {
    let test = TestApp::start().await;
    for (slug, ending) in [
        (
            "taken-over",
            "update users set tokens_valid_from = now()
             where id = $1::text::uuid",
        ),
        (
            "disabled",
            "update users set disabled_at = now() where id = $1::text::uuid",
        ),
        (
            "removed",
            "with held as (select id from workspaces where slug = 'removed' for update)
             update members set removed_at = now() from held
             where workspace_id = held.id and user_id = $1::text::uuid",
        ),
    ] {
        let guest = test.member(slug, MemberRole::Manager).await;
        let friend = test.member(slug, MemberRole::Viewer).await.person.user;
        let user = guest.person.user.to_string();
        for what in ["keys", "members", &format!("members/{friend}")] {
            let path = format!("/api/tenants/{}/{what}", guest.workspace);
            comes_too_late(&test, &guest.token, &path, ending, &user).await;
            sqlx::query(
                "with back as (
                    update users set tokens_valid_from = created_at, disabled_at = null)
                 update members set removed_at = null",
            )
            .execute(test.db())
            .await
            .unwrap();
            auth::forget(test.app(), clawlink::bus::RightsOf::Everyone);
        }
        assert_eq!(given(&test, guest.workspace).await, 0);
        let role = "select role from members where user_id = $1::text::uuid";
        let role: String = sqlx::query_scalar(role)
            .bind(friend.to_string())
            .fetch_one(test.db())
            .await
            .unwrap();
        assert_eq!(role, "viewer");
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_by_then_makes_no_other() {
    let test = TestApp::start().await;
    let guest = test.member("team", MemberRole::Manager).await;
    let path = format!("/api/tenants/{}/keys", guest.workspace);
    let make = test.as_(&guest.token, Method::POST, &path);
    let make = make.json(&json!({"name": "first", "role": "admin"}));
    let key = text(&answer(make, 201).await["apiKey"]);
    let (workspace, _) = test.key_for("team", KeyRole::Admin).await;
    // That it was used is noted now, and not while its row is locked.
    answer(test.as_(&key, Method::GET, "/sessions"), 200).await;
    // As a takeover does: the account, then its keys.
    let ending = "with account as (
            update users set updated_at = now() where id = $1::text::uuid returning id)
         update api_keys set revoked_at = now() from account where created_by = account.id";
    let user = guest.person.user.to_string();
    comes_too_late(&test, &key, &path, ending, &user).await;
    assert_eq!(given(&test, workspace).await, 0);
}
