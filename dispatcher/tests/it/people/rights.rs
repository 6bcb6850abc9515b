//! What a role gives takes effect at once, and ends at once.

use clawlink::auth;
use clawlink::auth::principal::MemberRole;
use clawlink::bus::RightsOf;
use reqwest::Method;
use serde_json::{Value, json};

use super::{answer, ends};
use crate::app::TestApp;
use crate::client::{Stream, refusal};
use crate::wait::eventually;

#[tokio::test]
async fn only_members_get_a_workspace_token() {
    let test = TestApp::start().await;
    let member = test.member("default", MemberRole::Viewer).await;
    let (other, _) = test.key_for("other", auth::principal::KeyRole::Admin).await;
    let choose = |tenant: Value| {
        let request = test.as_(&member.person.token, Method::POST, "/api/auth/tenant-token");
        request.json(&json!({"tenantId": tenant}))
    };
    answer(choose(json!(member.workspace)), 200).await;
    let foreign = refusal(choose(json!(other))).await;
    assert_eq!(foreign.0, 401);
    // One that does not exist answers the same.
    assert_eq!(refusal(choose(json!(999_999))).await, foreign);
    assert_eq!(refusal(choose(json!("x"))).await, foreign);
    assert_eq!(refusal(choose(json!(null))).await.0, 400);
}

#[tokio::test]
async fn who_becomes_a_member_need_not_wait() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", auth::principal::KeyRole::Admin).await;
    let ann = test.person("ann@example.org").await;
    let choose = || {
        let request = test.as_(&ann.token, Method::POST, "/api/auth/tenant-token");
        request.json(&json!({"tenantId": workspace}))
    };
    answer(choose(), 401).await;
    let path = format!("/api/tenants/{workspace}/members");
    let invite = test.as_(key.expose(), Method::POST, &path);
    answer(
        invite.json(&json!({"userId": ann.user, "role": "viewer"})),
        200,
    )
    .await;
    answer(choose(), 200).await;
}

#[tokio::test]
async fn a_changed_right_takes_effect_at_once_on_all_replicas() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let member = test.member("default", MemberRole::Developer).await;
    let path = "/sessions/00000000-0000-4000-8000-000000000000";
    let here = || test.as_(&member.token, Method::DELETE, path).send();
    let there = || {
        let request = test.http.delete(format!("{}{path}", second.url));
        request.bearer_auth(&member.token).send()
    };
    assert_eq!(here().await.unwrap().status(), 404);
    assert_eq!(there().await.unwrap().status(), 404);
    for (change, status) in [
        ("update members set role = 'viewer'", 403),
        ("update members set removed_at = now()", 401),
    ] {
        sqlx::query(change).execute(test.db()).await.unwrap();
        auth::forget(test.app(), RightsOf::User(member.person.user));
        assert_eq!(here().await.unwrap().status(), status);
        eventually("the other replica knows", async || {
            (there().await.unwrap().status() == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn closed_workspaces_and_disabled_people_are_refused() {
    let test = TestApp::start().await;
    let owner = test.member("default", MemberRole::Owner).await;
    let path = "/sessions/00000000-0000-4000-8000-000000000000";
    let set = async |change: &'static str| {
        sqlx::query(change).execute(test.db()).await.unwrap();
        auth::forget(test.app(), RightsOf::Everyone);
    };
    let statuses = async || {
        let mut seen = Vec::new();
        for token in [owner.token.as_str(), test.key.expose()] {
            for (method, path) in [(Method::GET, "/sessions"), (Method::DELETE, path)] {
                let answer = test.as_(token, method, path).send().await.unwrap();
                seen.push(answer.status().as_u16());
            }
        }
        seen
    };
    assert_eq!(statuses().await, [200, 404, 200, 404]);
    set("update workspaces set status = 'archived'").await;
    assert_eq!(statuses().await, [200, 403, 200, 403]);
    set("update workspaces set status = 'suspended'").await;
    assert_eq!(statuses().await, [200, 403, 200, 403]);
    set("update workspaces set status = 'active'").await;
    set("update users set disabled_at = now()").await;
    assert_eq!(statuses().await, [401, 401, 200, 404]);
}

#[tokio::test]
async fn streams_end_with_the_right_to_read_them() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let owner = test.member("default", MemberRole::Owner).await;
    let guest = test.member("default", MemberRole::Viewer).await;
    let (workspace, key) = test
        .key_for("default", auth::principal::KeyRole::Readonly)
        .await;
    let open = async |token: &str| {
        let request = test.http.get(format!("{}/api/events", second.url));
        let mut stream = Stream::open(request.bearer_auth(token)).await;
        assert_eq!(stream.next().await.unwrap().kind(), "feed.ready");
        stream
    };
    let mut stays = open(&owner.token).await;
    let cut = [open(&guest.token).await, open(key.expose()).await];
    let id: i64 = sqlx::query_scalar("select max(id) from api_keys")
        .fetch_one(test.db())
        .await
        .unwrap();
    for path in [
        format!("/api/tenants/{workspace}/members/{}", guest.person.user),
        format!("/api/tenants/{workspace}/keys/{id}"),
    ] {
        let remove = test.as_(&owner.token, Method::DELETE, &path).send();
        assert!(remove.await.unwrap().status().is_success(), "{path}");
    }
    for stream in cut {
        ends(stream).await;
    }
    assert_eq!(stays.next().await.unwrap().kind(), "member.removed");
    let rename = test.as_(
        &owner.token,
        Method::PATCH,
        &format!("/api/tenants/{workspace}"),
    );
    answer(rename.json(&json!({"name": "Ours"})), 200).await;
    assert_eq!(stays.next().await.unwrap().kind(), "workspace.updated");
}
