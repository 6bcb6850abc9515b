//! People: registering, and what else is theirs in the modules below.

pub(crate) mod makers;

mod disabled;
mod late;
mod passwords;
mod rights;
mod tokens;

use std::time::Duration;

use clawlink::auth::principal::MemberRole;
use clawlink::auth::settings::Registration;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{Stream, refusal};

/// How long a stream may go on that should end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Returns when the stream has ended.
async fn ends(stream: Stream) {
    let rest = tokio::time::timeout(PATIENCE, stream.rest()).await;
    rest.expect("the stream has ended");
}

async fn register(test: &TestApp, name: &str) -> Value {
    let register = test.http.post(test.url("/api/auth/web/register"));
    answer(register.json(&account(name)), 201).await
}

fn account(name: &str) -> Value {
    json!({"email": format!("{name}@Example.org"), "username": name, "password": "correct horse"})
}

/// What a request is answered that must get this status; null if that is no JSON.
async fn answer(request: RequestBuilder, status: u16) -> Value {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), status);
    answer.json().await.unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_person_runs_the_installation_and_owns_the_first_workspace() {
    let test = TestApp::start().await;
    let first = register(&test, "Ann").await;
    assert_eq!(first["user"]["email"], "ann@example.org");
    assert_eq!(first["user"]["username"], "ann");
    assert_eq!(first["user"]["isPlatformAdmin"], true);
    assert_eq!(first["user"]["bio"], Value::Null);
    assert_eq!(first["expiresIn"], 86_400);
    let second = register(&test, "ben").await;
    assert_eq!(second["user"]["isPlatformAdmin"], false);

    let web = text(&first["token"]);
    let mine = answer(test.as_(&web, Method::GET, "/api/auth/my-tenants"), 200).await;
    assert_eq!(mine["tenants"][0]["slug"], "default");
    assert_eq!(mine["tenants"][0]["role"], "owner");
    // The portal sends the id as a string and finds it again in the token.
    let id = mine["tenants"][0]["id"].as_i64().unwrap();
    let choose = test.as_(&web, Method::POST, "/api/auth/tenant-token");
    let chosen = answer(choose.json(&json!({"tenantId": id.to_string()})), 200).await;
    assert_eq!(chosen["expiresIn"], 3_600);
    let token = text(&chosen["token"]);
    answer(test.as_(&token, Method::GET, "/sessions"), 200).await;
    let me = answer(test.as_(&token, Method::GET, "/api/auth/me"), 200).await;
    assert_eq!(me["user"]["username"], "ann");
}

#[tokio::test]
async fn many_who_come_first_make_one_admin() {
    let test = TestApp::start().await;
    let names: Vec<String> = (0..12).map(|n| format!("p{n}")).collect();
    let made = names.iter().map(|name| register(&test, name));
    let made = futures::future::join_all(made).await;
    let admins = made
        .iter()
        .filter(|made| made["user"]["isPlatformAdmin"] == true);
    assert_eq!(admins.count(), 1);
    let members: i64 = sqlx::query_scalar("select count(*) from members")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(members, 1);
}

#[tokio::test]
async fn registration_closes() {
    let test = TestApp::start_with(|settings| {
        settings.sign_in.registration = Registration::First;
    })
    .await;
    let tries = (0..6).map(|n| {
        let request = test.http.post(test.url("/api/auth/web/register"));
        request.json(&account(&format!("p{n}"))).send()
    });
    let tries = futures::future::join_all(tries).await;
    let mut statuses: Vec<u16> = tries
        .into_iter()
        .map(|answer| answer.unwrap().status().as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403, 403, 403, 403, 403]);
    // Who comes later is told so before anything is computed of the password.
    let mut late = account("late");
    late["password"] = json!("short");
    let request = test.http.post(test.url("/api/auth/web/register"));
    assert_eq!(refusal(request.json(&late)).await.0, 403);
}

#[tokio::test]
async fn names_are_unique_whatever_their_case() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let post = |body: Value| {
        test.http
            .post(test.url("/api/auth/web/register"))
            .json(&body)
    };
    let mut other = account("other");
    other["email"] = json!("ANN@example.org");
    let (status, problem) = refusal(post(other)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("email_taken")));
    let mut other = account("other");
    other["username"] = json!("Ann");
    let (status, problem) = refusal(post(other)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("username_taken")));
    for (field, value) in [
        ("email", "no address"),
        ("email", "a\u{0}@b"),
        ("username", ""),
        ("username", "a b"),
        ("password", "short"),
    ] {
        let mut body = account("other");
        body[field] = json!(value);
        assert_eq!(refusal(post(body)).await.0, 400, "{field}: {value:?}");
    }
}

#[tokio::test]
async fn the_old_registration_tells_nothing_and_opens_nothing() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let owner = test.member("default", MemberRole::Owner).await;
    let post = |token: &str, email: &str| {
        let body = json!({"email": email, "tenantId": owner.workspace});
        test.as_(token, Method::POST, "/api/auth/register")
            .json(&body)
    };
    // Nobody joins a workspace by knowing its number.
    assert_eq!(refusal(post("", "x@example.org")).await.0, 401);
    let developer = test.member("default", MemberRole::Developer).await;
    assert_eq!(
        refusal(post(&developer.token, "x@example.org")).await.0,
        403
    );
    let known = answer(post(&owner.token, "ann@example.org"), 201).await;
    let again = answer(post(&owner.token, "ann@example.org"), 201).await;
    let unknown = answer(post(&owner.token, "nobody@example.org"), 201).await;
    assert_eq!(known["user"]["id"], again["user"]["id"]);
    assert_ne!(known["user"]["id"], unknown["user"]["id"]);
    let key = text(&unknown["apiKey"]);
    answer(test.as_(&key, Method::GET, "/sessions"), 200).await;
    let foreign = test.member("other", MemberRole::Owner).await;
    assert_eq!(refusal(post(&foreign.token, "x@example.org")).await.0, 404);
}
