//! People whom the operator keeps out and lets in again, at the command line.

use std::process::{Command, Output};

use clawlink::auth::principal::MemberRole;
use reqwest::Method;
use serde_json::json;

use super::{answer, ends, register, text};
use crate::app::TestApp;
use crate::client::{Stream, refusal};
use crate::wait::eventually;

fn admin(test: &TestApp, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clawlink"))
        .arg("admin")
        .args(args)
        .env("DATABASE_URL", test.database_url())
        .env_remove("DATABASE_MIGRATION_URL")
        .output()
        .unwrap()
}

/// What a command that succeeds says.
fn said(test: &TestApp, args: &[&str]) -> String {
    let output = admin(test, args);
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn who_is_disabled_is_out_at_once_and_comes_back_when_enabled() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let ann = register(&test, "ann").await;
    let web = ann["token"].as_str().unwrap();
    // Who comes first owns the first workspace.
    let mine = answer(test.as_(web, Method::GET, "/api/auth/my-tenants"), 200).await;
    let workspace = mine["tenants"][0]["id"].as_i64().unwrap();
    let switch = test.as_(
        web,
        Method::POST,
        &format!("/api/tenants/{workspace}/switch"),
    );
    let token = text(&answer(switch, 200).await["token"]);
    let keys = format!("/api/tenants/{workspace}/keys");
    let make = test.as_(&token, Method::POST, &keys);
    let make = make.json(&json!({"name": "mine", "role": "admin"}));
    let key = text(&answer(make, 201).await["apiKey"]);
    let colleague = test.member("default", MemberRole::Owner).await;
    let open = async |token: &str| {
        let request = test.http.get(format!("{}/api/events", second.url));
        let mut stream = Stream::open(request.bearer_auth(token)).await;
        assert_eq!(stream.next().await.unwrap().kind(), "feed.ready");
        stream
    };
    let (cut, mut of_key) = (open(&token).await, open(&key).await);
    let mut stays = open(&colleague.token).await;

    let told = said(&test, &["disable-user", " Ann@Example.org"]);
    assert!(told.contains("is disabled") && told.contains("valid still: 1"));
    ends(cut).await;
    eventually("no dispatcher remembers", async || {
        let here = status(test.as_(web, Method::GET, "/api/auth/me")).await;
        let there = test.http.get(format!("{}/sessions", second.url));
        let there = status(there.bearer_auth(&token)).await;
        ((here, there) == (401, 401)).then_some(())
    })
    .await;
    let refresh = || {
        let request = test.http.post(test.url("/api/auth/refresh"));
        request.json(&json!({"refreshToken": ann["refreshToken"]}))
    };
    let login = || {
        let request = test.http.post(test.url("/api/auth/web/login"));
        request.json(&json!({"email": "ann@example.org", "password": "correct horse"}))
    };
    assert_eq!(refusal(refresh()).await.0, 401);
    assert_eq!(refusal(login()).await.0, 401);
    // The key is the workspace's; colleagues see that its maker is out.
    assert_eq!(status(test.as_(&key, Method::GET, "/sessions")).await, 200);
    let listed = answer(test.as_(&colleague.token, Method::GET, &keys), 200).await;
    assert_eq!(listed["keys"][0]["isCreatorActive"], false);
    let rename = format!("/api/tenants/{workspace}");
    let rename = test.as_(&key, Method::PATCH, &rename);
    assert_eq!(status(rename.json(&json!({"name": "Ours"}))).await, 200);
    for stream in [&mut of_key, &mut stays] {
        assert_eq!(stream.next().await.unwrap().kind(), "workspace.updated");
    }

    let told = said(&test, &["disable-user", "ann@example.org", "--revoke-keys"]);
    assert!(told.contains("was disabled already") && told.contains("revoked: 1"));
    ends(of_key).await;
    eventually("no dispatcher remembers the key", async || {
        let status = status(test.as_(&key, Method::GET, "/sessions")).await;
        (status == 401).then_some(())
    })
    .await;

    let told = said(&test, &["enable-user", "ann@example.org"]);
    assert!(told.contains("may sign in again"));
    let told = said(&test, &["enable-user", "ann@example.org"]);
    assert!(told.contains("was not disabled"));
    assert_eq!(status(login()).await, 200);
    // What ended has ended.
    assert_eq!(refusal(refresh()).await.0, 401);
    assert_eq!(
        status(test.as_(web, Method::GET, "/api/auth/me")).await,
        401
    );
    let deeds: Vec<(String, String)> = sqlx::query_as(
        "select actor, action from audit_entries
         where action in ('user.disabled', 'user.enabled', 'key.revoked') order by id",
    )
    .fetch_all(test.db())
    .await
    .unwrap();
    let deeds: Vec<(&str, &str)> = deeds
        .iter()
        .map(|(actor, action)| (actor.as_str(), action.as_str()))
        .collect();
    let operator = ["user.disabled", "key.revoked", "user.enabled"];
    assert_eq!(deeds, operator.map(|action| ("operator", action)));
}

#[tokio::test]
async fn nobody_is_disabled_by_a_wrong_address() {
    let test = TestApp::start().await;
    let ann = test.person("ann@example.org").await;
    for task in ["disable-user", "enable-user"] {
        let output = admin(&test, &[task, "an@example.org"]);
        assert!(!output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("nobody has the address an@example.org"));
    }
    let me = test.as_(&ann.token, Method::GET, "/api/auth/me");
    assert_eq!(status(me).await, 200);
}
