//! Workspaces as people see them: made, chosen, joined by invitation, and no others.

use clawlink::auth::principal::MemberRole;
use clawlink_shared::id::WorkspaceId;
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::refusal;
use super::members::audited;

async fn make(test: &TestApp, token: &str, body: Value) -> Value {
    let request = test.as_(token, Method::POST, "/api/tenants/create");
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

async fn slugs(test: &TestApp, token: &str, path: &str) -> Vec<String> {
    let answer = test.as_(token, Method::GET, path).send().await.unwrap();
    let list: Value = answer.json().await.unwrap();
    let tenants = list["tenants"].as_array().unwrap().iter();
    tenants
        .map(|tenant| tenant["slug"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn who_makes_a_workspace_owns_it_and_sees_no_other() {
    let test = TestApp::start().await;
    let one = test.person("one@example.org").await;
    let two = test.person("two@example.org").await;
    let made = make(&test, &one.token, json!({"name": "Acme, Inc."})).await;
    assert_eq!(
        (&made["slug"], &made["status"]),
        (&json!("acme-inc"), &json!("active"))
    );
    let member = &made["members"][0];
    assert_eq!(
        (&member["userId"], &member["role"], &member["isActive"]),
        (&json!(one.user), &json!("owner"), &json!(true))
    );
    make(&test, &two.token, json!({"name": "Other"})).await;
    for path in ["/api/tenants", "/api/tenants/mine", "/api/auth/my-tenants"] {
        assert_eq!(slugs(&test, &one.token, path).await, ["acme-inc"], "{path}");
    }
    // One page each.
    make(&test, &one.token, json!({"name": "日本"})).await;
    let page = test.as_(&one.token, Method::GET, "/api/tenants?limit=1");
    let page: Value = page.send().await.unwrap().json().await.unwrap();
    let next = format!("/api/tenants?limit=1&cursor={}", page["nextCursor"]);
    let rest = slugs(&test, &one.token, &next).await;
    assert!(rest.len() == 1 && rest[0].starts_with("workspace-"));
    // The other's is neither seen nor chosen.
    let switch = format!("/api/tenants/{}/switch", made["id"]);
    let (status, problem) = refusal(test.as_(&two.token, Method::POST, &switch)).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("workspace_not_found"))
    );
    let chosen = test.as_(&one.token, Method::POST, &switch).send().await;
    let chosen: Value = chosen.unwrap().json().await.unwrap();
    let token = chosen["token"].as_str().unwrap();
    let own = format!("/api/tenants/{}", made["id"]);
    let shown = test.as_(token, Method::GET, &own).send().await.unwrap();
    assert_eq!(shown.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_creates_one_gets_the_slug_and_no_other_leaves_a_row() {
    let test = TestApp::start().await;
    let mut people = Vec::new();
    for number in 0..6 {
        people.push(test.person(&format!("p{number}@example.org")).await);
    }
    let attempts = people.iter().map(|person| {
        let request = test.as_(&person.token, Method::POST, "/api/tenants");
        request.json(&json!({"name": "Same Name"})).send()
    });
    let mut statuses: Vec<u16> = futures::future::join_all(attempts)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().status().as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
    let (rows, owners): (i64, i64) = sqlx::query_as(
        "select count(*), (select count(*) from members) from workspaces
         where slug <> 'default'",
    )
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!((rows, owners), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_accepted_once() {
    let test = TestApp::start().await;
    let owner = test.member("team", MemberRole::Owner).await;
    let path = format!("/api/tenants/{}/members", owner.workspace);
    let body = json!({"email": "New@Example.org", "role": "developer"});
    let invite = async || -> String {
        let request = test.as_(&owner.token, Method::POST, &path).json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["invitation"]["token"].as_str().unwrap().to_owned()
    };
    let void = invite().await;
    let token = invite().await;
    let listed = format!("/api/tenants/{}/invitations", owner.workspace);
    let listed = test.as_(&owner.token, Method::GET, &listed).send().await;
    let listed = listed.unwrap().text().await.unwrap();
    assert!(listed.contains("new@example.org") && !listed.contains(&token));
    assert_eq!(listed.matches("invitedBy").count(), 1);

    let one = test.person("one@example.org").await;
    let two = test.person("two@example.org").await;
    let accept = |person: &str, token: &str| {
        let request = test.as_(person, Method::POST, "/api/invitations/accept");
        request.json(&json!({"token": token}))
    };
    let (status, problem) = refusal(accept(&one.token, &void)).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("invitation_not_found"))
    );
    let (first, second, third) = tokio::join!(
        accept(&one.token, &token).send(),
        accept(&two.token, &token).send(),
        accept(&one.token, &token).send(),
    );
    let mut statuses = [first, second, third].map(|answer| answer.unwrap().status().as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404, 404]);
    let joined: i64 = sqlx::query_scalar("select count(*) from members where role = 'developer'")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(joined, 1);
    let log = audited(&test, owner.workspace).await;
    let accepted = log.iter().filter(|action| *action == "invitation.accepted");
    assert_eq!(accepted.count(), 1);
}

#[tokio::test]
async fn a_removed_member_and_a_lowered_role_take_effect_at_once() {
    let test = TestApp::start().await;
    let owner = test.member("team", MemberRole::Owner).await;
    let other = test.member("team", MemberRole::Owner).await;
    let own = format!("/api/tenants/{}", owner.workspace);
    let member = format!("{own}/members/{}", other.person.user);
    let rename = || {
        let request = test.as_(&other.token, Method::PATCH, &own);
        request.json(&json!({"name": "mine now"}))
    };
    assert_eq!(rename().send().await.unwrap().status(), 200);
    let lower = test.as_(&owner.token, Method::PATCH, &member);
    let lower = lower.json(&json!({"role": "viewer"})).send().await;
    assert_eq!(lower.unwrap().status(), 200);
    assert_eq!(refusal(rename()).await.0, 403);
    let remove = test.as_(&owner.token, Method::DELETE, &member).send().await;
    assert_eq!(remove.unwrap().status(), 200);
    assert_eq!(
        refusal(test.as_(&other.token, Method::GET, &own)).await.0,
        401
    );
    let last = format!("{own}/members/{}", owner.person.user);
    let (status, problem) = refusal(test.as_(&owner.token, Method::DELETE, &last)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("last_owner")));
}

#[tokio::test]
async fn an_owner_deletes_only_their_own() {
    let test = TestApp::start().await;
    let owner = test.member("team", MemberRole::Owner).await;
    let manager = test.member("team", MemberRole::Manager).await;
    let foreign = test.member("other", MemberRole::Owner).await;
    let path = format!("/api/tenants/{}", owner.workspace);
    let delete = |token: &str, body: Value| test.as_(token, Method::DELETE, &path).json(&body);
    let confirmed = json!({"confirm": "team"});
    assert_eq!(
        refusal(delete(&foreign.token, confirmed.clone())).await.0,
        404
    );
    assert_eq!(
        refusal(delete(&manager.token, confirmed.clone())).await.0,
        403
    );
    assert_eq!(refusal(delete(&owner.token, json!({}))).await.0, 400);
    let done = delete(&owner.token, confirmed).send().await.unwrap();
    assert_eq!(done.status(), 204);
    assert_eq!(
        refusal(test.as_(&owner.token, Method::GET, &path)).await.0,
        401
    );
    let WorkspaceId(id) = owner.workspace;
    let left: i64 = sqlx::query_scalar("select count(*) from workspaces where id = $1")
        .bind(id)
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(
        audited(&test, owner.workspace).await.last().unwrap(),
        "workspace.deleted"
    );
}
