//! Members, invitations and keys: never without an owner, never above one's own rights.

use clawlink::auth::principal::{KeyRole, MemberRole, Principal, Who};
use clawlink::workspaces::role::Role;
use clawlink::workspaces::{self, Invited};
use clawlink_shared::id::{UserId, WorkspaceId};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::TestApp;
use super::client::refusal;

/// An account without a password.
pub(crate) async fn account(test: &TestApp, name: &str) -> UserId {
    let id = Uuid::new_v4();
    sqlx::query("insert into users (id, email, username) values ($1, $2, $3)")
        .bind(id)
        .bind(format!("{name}@example.org"))
        .bind(name)
        .execute(test.db())
        .await
        .unwrap();
    UserId(id)
}

/// A new account that is a member, acting in the workspace.
pub(crate) async fn member(
    test: &TestApp,
    workspace: WorkspaceId,
    name: &str,
    role: MemberRole,
) -> Principal {
    let user = account(test, name).await;
    sqlx::query("insert into members (workspace_id, user_id, role) values ($1, $2, $3)")
        .bind(workspace.0)
        .bind(user.0)
        .bind(role.as_str())
        .execute(test.db())
        .await
        .unwrap();
    let sign_in = Uuid::new_v4();
    sqlx::query("insert into sign_ins (id, user_id, method) values ($1, $2, 'password')")
        .bind(sign_in)
        .bind(user.0)
        .execute(test.db())
        .await
        .unwrap();
    Principal {
        workspace,
        who: Who::User(user),
        sign_in: Some(sign_in),
        role: Role::Member(role),
        device: None,
        address: None,
    }
}

/// Somebody vouches for the account's address.
async fn prove(test: &TestApp, name: &str) {
    sqlx::query("update users set email_verified_at = now() where username = $1")
        .bind(name)
        .execute(test.db())
        .await
        .unwrap();
}

fn user(principal: &Principal) -> UserId {
    principal.user().unwrap()
}

/// Roles of active members, sorted.
async fn roles(test: &TestApp, workspace: WorkspaceId) -> Vec<String> {
    sqlx::query_scalar(
        "select role from members where workspace_id = $1 and removed_at is null order by role",
    )
    .bind(workspace.0)
    .fetch_all(test.db())
    .await
    .unwrap()
}

/// What the audit log says was done in the workspace, in order.
pub(crate) async fn audited(test: &TestApp, workspace: WorkspaceId) -> Vec<String> {
    sqlx::query_scalar(
        "select action from audit_entries
         where workspace_id = $1 and outcome = 'allowed' order by id",
    )
    .bind(workspace.0)
    .fetch_all(test.db())
    .await
    .unwrap()
}

/// Calls with an API key.
pub(crate) fn call(
    test: &TestApp,
    key: &clawlink_shared::secret::Secret,
    method: Method,
    path: &str,
) -> reqwest::RequestBuilder {
    test.http
        .request(method, test.url(path))
        .bearer_auth(key.expose())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_who_remove_each_other_one_stays() {
    let test = TestApp::start().await;
    for round in 0..5 {
        let (workspace, _) = test.key_for(&format!("w{round}"), KeyRole::Admin).await;
        let one = member(&test, workspace, &format!("one{round}"), MemberRole::Owner).await;
        let two = member(&test, workspace, &format!("two{round}"), MemberRole::Owner).await;
        let (first, second) = tokio::join!(
            workspaces::remove(test.app(), &one, user(&two), false),
            workspaces::change_role(test.app(), &two, user(&one), MemberRole::Viewer),
        );
        let lost: Vec<&str> = [first.err(), second.err()]
            .iter()
            .flatten()
            .map(|error| error.code())
            .collect();
        // Who was removed first has no right to change roles any more.
        assert!(
            matches!(lost[..], ["last_owner"] | ["unauthorized"]),
            "{lost:?}"
        );
        let left = roles(&test, workspace).await;
        assert_eq!(left.iter().filter(|role| *role == "owner").count(), 1);
    }
}

#[tokio::test]
async fn a_manager_neither_makes_nor_removes_owners() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    let owner = member(&test, workspace, "owner", MemberRole::Owner).await;
    let manager = member(&test, workspace, "manager", MemberRole::Manager).await;
    let app = test.app();
    let made = Invited::User(account(&test, "new").await);
    for refused in [
        workspaces::invite(app, &manager, &made, MemberRole::Owner)
            .await
            .err(),
        workspaces::change_role(app, &manager, user(&manager), MemberRole::Owner)
            .await
            .err(),
        workspaces::change_role(app, &manager, user(&owner), MemberRole::Viewer)
            .await
            .err(),
        workspaces::remove(app, &manager, user(&owner), false)
            .await
            .err(),
    ] {
        assert_eq!(refused.unwrap().code(), "forbidden");
    }
    // Nor does a key, whose rights are a manager's.
    let path = format!("/api/tenants/{workspace}/members");
    let request = call(&test, &key, Method::POST, &path)
        .json(&json!({"email": "x@example.org", "role": "owner"}));
    assert_eq!(refusal(request).await.0, 403);
    let path = format!("{path}/{}", user(&owner));
    assert_eq!(
        refusal(call(&test, &key, Method::DELETE, &path)).await.0,
        403
    );
    assert_eq!(roles(&test, workspace).await, ["manager", "owner"]);
}

#[tokio::test]
async fn a_failed_invitation_leaves_all_members() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    member(&test, workspace, "owner", MemberRole::Owner).await;
    let path = format!("/api/tenants/{workspace}/members");
    let invite = |body: Value| call(&test, &key, Method::POST, &path).json(&body);
    let (status, problem) = refusal(invite(
        json!({"newUserId": Uuid::new_v4(), "role": "viewer"}),
    ))
    .await;
    assert_eq!((status, &problem["error"]), (404, &json!("user_not_found")));
    for bad in [
        json!({"email": "no address", "role": "viewer"}),
        json!({"email": "a@b", "role": "king"}),
        json!({"newUserId": "a@b", "role": "viewer"}),
        json!({"role": "viewer"}),
        json!({"email": "a@b"}),
    ] {
        assert_eq!(refusal(invite(bad)).await.0, 400);
    }
    assert_eq!(roles(&test, workspace).await, ["owner"]);
    // Both spellings, and the address of somebody who has an account.
    for (name, field) in [("one", "newUserId"), ("two", "userId")] {
        let id = account(&test, name).await;
        let answer = invite(json!({field: id, "role": "viewer"}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    account(&test, "three").await;
    prove(&test, "three").await;
    let answer = invite(json!({"email": " Three@Example.org", "role": "developer"}))
        .send()
        .await
        .unwrap();
    let tenant: Value = answer.json().await.unwrap();
    assert_eq!(tenant["members"].as_array().unwrap().len(), 4);
    let shown = &tenant["members"][3];
    assert_eq!(
        (&shown["role"], &shown["isActive"]),
        (&json!("developer"), &json!(true))
    );
    assert!(tenant.get("invitation").is_none());
}

#[tokio::test]
async fn removed_members_stay_visible_and_can_come_back() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    let guest = member(&test, workspace, "guest", MemberRole::Viewer).await;
    let path = format!("/api/tenants/{workspace}/members/{}", user(&guest));
    let answer = call(&test, &key, Method::DELETE, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let tenant: Value = answer.json().await.unwrap();
    assert_eq!(tenant["members"][0]["isActive"], false);
    let (status, problem) = refusal(call(&test, &key, Method::DELETE, &path)).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("member_not_found"))
    );
    let path = format!("/api/tenants/{workspace}/members");
    let body = json!({"userId": user(&guest), "role": "manager"});
    let answer = call(&test, &key, Method::POST, &path).json(&body).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    assert_eq!(roles(&test, workspace).await, ["manager"]);
    assert_eq!(
        audited(&test, workspace).await,
        ["member.removed", "member.added"]
    );
}

#[tokio::test]
async fn a_key_makes_no_key_above_itself_and_shows_secrets_once() {
    let test = TestApp::start().await;
    let (workspace, admin) = test.key_for("team", KeyRole::Admin).await;
    let path = format!("/api/tenants/{workspace}/keys");
    let body = json!({"name": "deploys", "role": "ci", "expiresAt": "2999-01-01T00:00:00Z"});
    let answer = call(&test, &admin, Method::POST, &path).json(&body).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.unwrap();
    let secret = made["apiKey"].as_str().unwrap().to_owned();
    assert!(secret.starts_with(made["prefix"].as_str().unwrap()));
    let listed = call(&test, &admin, Method::GET, &path).send();
    let listed = listed.await.unwrap().text().await.unwrap();
    assert!(!listed.contains(&secret) && listed.contains("2999-01-01T00:00:00.000Z"));
    // It works, and not for what its role lacks.
    let secret = secret.into();
    let tenant = format!("/api/tenants/{workspace}");
    let read = call(&test, &secret, Method::GET, &tenant).send();
    assert_eq!(read.await.unwrap().status(), 200);
    let (status, _) = refusal(call(&test, &secret, Method::POST, &path).json(&body)).await;
    assert_eq!(status, 403);
    // Revoking takes effect at once.
    let one = format!("{path}/{}", made["id"]);
    let revoked = call(&test, &admin, Method::DELETE, &one).send();
    assert_eq!(revoked.await.unwrap().status(), 204);
    let (status, _) = refusal(call(&test, &secret, Method::GET, &tenant)).await;
    assert_eq!(status, 401);
    let past = json!({"name": "late", "role": "ci", "expiresAt": "2000-01-01T00:00:00Z"});
    let (status, _) = refusal(call(&test, &admin, Method::POST, &path).json(&past)).await;
    assert_eq!(status, 400);
    assert_eq!(
        audited(&test, workspace).await,
        ["key.created", "key.revoked"]
    );
}

#[tokio::test]
async fn a_workspace_has_no_more_keys_than_it_can_list() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    sqlx::query(
        "insert into api_keys (workspace_id, name, prefix, hash, role)
         select $1, 'robot', 'clawlink_', sha256(n::text::bytea), 'ci' from generate_series(2, 200) n",
    )
    .bind(workspace.0)
    .execute(test.db())
    .await
    .unwrap();
    let path = format!("/api/tenants/{workspace}/keys");
    for request in [
        call(&test, &key, Method::POST, &path).json(&json!({"name": "x", "role": "ci"})),
        call(&test, &key, Method::POST, "/api/auth/register")
            .json(&json!({"email": "robot@example.org"})),
    ] {
        let (status, problem) = refusal(request).await;
        assert_eq!((status, &problem["error"]), (409, &json!("too_many_keys")));
    }
}

#[tokio::test]
async fn an_address_that_somebody_only_claims_gets_nothing() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    member(&test, workspace, "owner", MemberRole::Owner).await;
    account(&test, "boss").await;
    let path = format!("/api/tenants/{workspace}/members");
    let invite = async || -> Value {
        let request = call(&test, &key, Method::POST, &path);
        let body = json!({"email": "boss@example.org", "role": "manager"});
        request
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };
    let left = invite().await;
    assert_eq!(left["invitation"]["email"], "boss@example.org");
    assert_eq!(roles(&test, workspace).await, ["owner"]);
    prove(&test, "boss").await;
    assert!(invite().await.get("invitation").is_none());
    assert_eq!(roles(&test, workspace).await, ["manager", "owner"]);
}
