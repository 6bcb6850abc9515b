//! Tokens: of which kind, how long, and what ends them.

use clawlink::auth;
use clawlink::auth::principal::MemberRole;
use clawlink::bus::RightsOf;
use reqwest::Method;
use serde_json::{Value, json};

use super::{account, answer, register, text};
use crate::app::TestApp;
use crate::client::refusal;

#[tokio::test]
async fn a_token_of_one_kind_is_not_taken_for_another() {
    let test = TestApp::start().await;
    let member = test.member("default", MemberRole::Owner).await;
    let key = test.key.expose().to_owned();
    for (token, path, status) in [
        (&member.person.token, "/sessions", 401),
        (&member.person.token, "/api/auth/me", 200),
        (&member.token, "/sessions", 200),
        (&member.token, "/api/auth/me", 200),
        (&key, "/sessions", 200),
        (&key, "/api/auth/me", 401),
    ] {
        let answer = test.as_(token, Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    let key_token = test.http.post(test.url("/api/auth/token"));
    let body = json!({"apiKey": key, "tenantId": member.workspace});
    let token = text(&answer(key_token.json(&body), 200).await["token"]);
    answer(test.as_(&token, Method::GET, "/sessions"), 200).await;
    answer(test.as_(&token, Method::GET, "/api/auth/me"), 401).await;
    // Nor for another workspace.
    let other = json!({"apiKey": key, "tenantId": member.workspace.0 + 1});
    let request = test.http.post(test.url("/api/auth/token")).json(&other);
    assert_eq!(refusal(request).await.0, 401);
    sqlx::query("update api_keys set revoked_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    auth::forget(test.app(), RightsOf::Workspace(member.workspace));
    answer(test.as_(&token, Method::GET, "/sessions"), 401).await;
    answer(test.as_(&key, Method::GET, "/sessions"), 401).await;
}

#[tokio::test]
async fn signing_out_ends_all_tokens_of_the_sign_in() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let login = || async {
        let body = json!({"email": "ann@example.org", "password": "correct horse"});
        let request = test.http.post(test.url("/api/auth/web/login")).json(&body);
        answer(request, 200).await
    };
    let (second, third) = (login().await, login().await);
    let alive = async |signed_in: &Value| {
        let request = test.as_(
            signed_in["token"].as_str().unwrap(),
            Method::GET,
            "/api/auth/me",
        );
        request.send().await.unwrap().status() == 200
    };
    let out = |signed_in: &Value, path: &str| {
        test.as_(signed_in["token"].as_str().unwrap(), Method::POST, path)
    };
    assert!(alive(&first).await && alive(&second).await);
    answer(out(&first, "/api/auth/logout"), 204).await;
    assert!(!alive(&first).await && alive(&second).await);
    let refresh = test.http.post(test.url("/api/auth/refresh"));
    let refresh = refresh.json(&json!({"refreshToken": first["refreshToken"]}));
    assert_eq!(refusal(refresh).await.0, 401);
    answer(out(&second, "/api/auth/logout/everywhere"), 204).await;
    assert!(!alive(&second).await && !alive(&third).await);
    assert!(alive(&login().await).await);
}

#[tokio::test]
async fn a_refresh_token_serves_once_and_a_stolen_one_ends_the_sign_in() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let refresh = |token: &Value| {
        let request = test.http.post(test.url("/api/auth/refresh"));
        request.json(&json!({"refreshToken": token}))
    };
    let second = answer(refresh(&first["refreshToken"]), 200).await;
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    let web = text(&second["token"]);
    // At once it may be a race of one client with itself: refused, and nothing ends.
    let (status, problem) = refusal(refresh(&first["refreshToken"])).await;
    assert_eq!((status, &problem["error"]), (409, &json!("refresh_raced")));
    let third = answer(refresh(&second["refreshToken"]), 200).await;
    sqlx::query("update refresh_tokens set replaced_at = replaced_at - interval '1 minute'")
        .execute(test.db())
        .await
        .unwrap();
    assert_eq!(refusal(refresh(&first["refreshToken"])).await.0, 401);
    assert_eq!(refusal(refresh(&third["refreshToken"])).await.0, 401);
    answer(test.as_(&web, Method::GET, "/api/auth/me"), 401).await;
    let recorded: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries where action = 'user.refresh_reused' and outcome = 'denied'",
    )
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!(recorded, 1);
    assert_eq!(refusal(refresh(&json!("unknown"))).await.0, 401);
}

#[tokio::test]
async fn one_of_many_concurrent_refreshes_wins() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let tries = (0..8).map(|_| {
        let request = test.http.post(test.url("/api/auth/refresh"));
        let request = request.json(&json!({"refreshToken": first["refreshToken"]}));
        async { request.send().await.unwrap().status().as_u16() }
    });
    let mut statuses = futures::future::join_all(tries).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn an_expired_refresh_token_is_refused() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    sqlx::query("update refresh_tokens set expires_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    let request = test.http.post(test.url("/api/auth/refresh"));
    let request = request.json(&json!({"refreshToken": first["refreshToken"]}));
    assert_eq!(refusal(request).await.0, 401);
}

#[tokio::test]
async fn browsers_keep_the_refresh_token_in_a_cookie() {
    let test = TestApp::start().await;
    let mut body = account("ann");
    body["cookie"] = json!(true);
    let request = test
        .http
        .post(test.url("/api/auth/web/register"))
        .json(&body);
    let made = request.send().await.unwrap();
    let cookie = made.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly; SameSite=Strict") && cookie.contains("Path=/api/auth/refresh;")
    );
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["refreshToken"], Value::Null);
    let pair = cookie.split(';').next().unwrap();
    let refresh = test.http.post(test.url("/api/auth/refresh"));
    let refreshed = refresh.header("cookie", pair).send().await.unwrap();
    assert_eq!(refreshed.status(), 200);
    let next = refreshed.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(next.starts_with("clawlink_refresh=") && !next.starts_with(pair));
    let web = refreshed.json::<Value>().await.unwrap();
    assert_eq!(web["refreshToken"], Value::Null);
    let out = test.as_(
        web["token"].as_str().unwrap(),
        Method::POST,
        "/api/auth/logout",
    );
    let out = out.send().await.unwrap();
    assert!(
        out.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
}
