//! Guessing passwords is slow, resetting them takes the operator's word, old hashes go.

use clawlink::auth::principal::KeyRole;
use clawlink::auth::{self, reset};
use clawlink_shared::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::refusal;

async fn register(test: &TestApp) -> Value {
    let body = json!({"email": "ann@example.org", "username": "ann", "password": "correct horse"});
    let request = test.http.post(test.url("/api/auth/web/register"));
    request
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

fn login(test: &TestApp, email: &str, password: &str) -> reqwest::RequestBuilder {
    let body = json!({"email": email, "password": password});
    test.http.post(test.url("/api/auth/web/login")).json(&body)
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn an_account_is_tried_a_few_times_a_minute() {
    let test = TestApp::start_with(|settings| settings.sign_in.attempts_per_account = 3).await;
    register(&test).await;
    // One that does not exist is no different.
    for email in ["ann@example.org", "nobody@example.org"] {
        for _ in 0..3 {
            assert_eq!(status(login(&test, email, "wrong horse")).await, 401);
        }
        let refused = login(&test, email, "correct horse").send().await.unwrap();
        assert_eq!(refused.status(), 429);
        let wait: u64 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn an_address_tries_a_few_accounts_a_minute() {
    let test = TestApp::start_with(|settings| {
        settings.sign_in.attempts_per_address = 4;
        settings.tuning.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let from = |address: &str, n: usize| {
        let request = login(&test, &format!("p{n}@example.org"), "wrong horse");
        request.header("x-forwarded-for", address)
    };
    for n in 0..4 {
        assert_eq!(status(from("192.0.2.1", n)).await, 401);
    }
    assert_eq!(status(from("192.0.2.1", 9)).await, 429);
    // What a client wrote itself in front of that changes nothing.
    assert_eq!(status(from("198.51.100.1, 192.0.2.1", 9)).await, 429);
    assert_eq!(status(from("192.0.2.2", 9)).await, 401);
}

#[tokio::test]
async fn without_redis_the_limits_hold_on_each_replica() {
    let test = TestApp::start().await;
    let lonely = test
        .dispatcher_with(|settings| {
            settings.redis_url = Some(Secret::new("redis://127.0.0.1:1"));
            settings.sign_in.attempts_per_account = 3;
        })
        .await;
    let try_it = || {
        let body = json!({"email": "ann@example.org", "password": "wrong horse"});
        let url = format!("{}/api/auth/web/login", lonely.url);
        status(test.http.post(url).json(&body))
    };
    for _ in 0..3 {
        assert_eq!(try_it().await, 401);
    }
    assert_eq!(try_it().await, 429);
}

#[tokio::test]
async fn a_reset_token_serves_once_and_ends_all_sign_ins() {
    let test = TestApp::start().await;
    let before = register(&test).await;
    let mut db = test.db().acquire().await.unwrap();
    assert!(
        reset::issue(&mut db, "nobody@example.org")
            .await
            .unwrap()
            .is_none()
    );
    let first = reset::issue(&mut db, "Ann@example.org")
        .await
        .unwrap()
        .unwrap();
    let second = reset::issue(&mut db, "ann@example.org")
        .await
        .unwrap()
        .unwrap();
    drop(db);
    let set = |token: &str, password: &str| {
        let body = json!({"token": token, "password": password});
        test.http.post(test.url("/api/auth/reset")).json(&body)
    };
    assert_eq!(refusal(set(first.expose(), "short")).await.0, 400);
    assert_eq!(refusal(set("unknown", "battery staple")).await.0, 401);
    assert_eq!(status(set(first.expose(), "battery staple")).await, 204);
    // It is used up, and so is every other one.
    assert_eq!(refusal(set(first.expose(), "another one")).await.0, 401);
    assert_eq!(refusal(set(second.expose(), "another one")).await.0, 401);
    let me = test.as_(
        before["token"].as_str().unwrap(),
        Method::GET,
        "/api/auth/me",
    );
    assert_eq!(status(me).await, 401);
    assert_eq!(
        status(login(&test, "ann@example.org", "correct horse")).await,
        401
    );
    assert_eq!(
        status(login(&test, "ann@example.org", "battery staple")).await,
        200
    );
}

#[tokio::test]
async fn the_operator_makes_accounts_where_registration_is_closed() {
    let test = TestApp::start().await;
    let mut tx = test.db().begin().await.unwrap();
    let token = reset::create(&mut tx, "Ann@Example.org", "ann")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        status(login(&test, "ann@example.org", "battery staple")).await,
        401
    );
    let body = json!({"token": token, "password": "battery staple"});
    let set = test.http.post(test.url("/api/auth/reset")).json(&body);
    assert_eq!(status(set).await, 204);
    let answer = login(&test, "ann@example.org", "battery staple")
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["user"]["isPlatformAdmin"], true);
    let mut tx = test.db().begin().await.unwrap();
    let again = reset::create(&mut tx, "ann@example.org", "ben")
        .await
        .unwrap_err();
    assert_eq!(again.code(), "email_taken");
}

#[tokio::test]
async fn old_hashes_are_taken_and_replaced() {
    let test = TestApp::start().await;
    register(&test).await;
    // PBKDF2-SHA256 of "correct horse" with the salt "saltsaltsalt", a thousand times.
    let old = "$pbkdf2-sha256$i=1000$c2FsdHNhbHRzYWx0$F7o7+5VTVzFAO998X6s3AHrDsJVdMiIlgndIMe19NvY";
    sqlx::query("update users set password_hash = $1")
        .bind(old)
        .execute(test.db())
        .await
        .unwrap();
    let costlier = test
        .dispatcher_with(|settings| settings.sign_in.password_memory_kib = 128)
        .await;
    for (url, expected) in [
        (&test.dispatcher.url, "$argon2id$v=19$m=64,t=1,p=1$"),
        (&costlier.url, "$argon2id$v=19$m=128,t=1,p=1$"),
    ] {
        let login = |password: &str| {
            let body = json!({"email": "ann@example.org", "password": password});
            test.http
                .post(format!("{url}/api/auth/web/login"))
                .json(&body)
        };
        assert_eq!(status(login("wrong horse")).await, 401);
        assert_eq!(status(login("correct horse")).await, 200);
        let now: String = sqlx::query_scalar("select password_hash from users")
            .fetch_one(test.db())
            .await
            .unwrap();
        assert!(now.starts_with(expected), "{now}");
        assert_eq!(status(login("correct horse")).await, 200);
    }
}

#[tokio::test]
async fn what_expired_is_thrown_away() {
    let test = TestApp::start().await;
    let kept = register(&test).await;
    login(&test, "ann@example.org", "correct horse")
        .send()
        .await
        .unwrap();
    sqlx::query(
        "update sign_ins set created_at = now() - interval '1 year',
            last_used_at = now() - interval '1 year', revoked_at = now()
         where id <> (select min(id::text)::uuid from sign_ins)",
    )
    .execute(test.db())
    .await
    .unwrap();
    auth::clean(test.app()).await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from sign_ins")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(left, 1);
    let me = test.as_(kept["token"].as_str().unwrap(), Method::GET, "/api/auth/me");
    assert_eq!(status(me).await, 200);
}

#[tokio::test]
async fn whom_the_operator_vouches_for_gets_what_the_address_was_invited_to() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    let path = format!("/api/tenants/{workspace}/members");
    let invite = test.as_(key.expose(), Method::POST, &path);
    let body = json!({"email": "ann@example.org", "role": "developer"});
    assert_eq!(status(invite.json(&body)).await, 200);
    let mut tx = test.db().begin().await.unwrap();
    let token = reset::create(&mut tx, "ann@example.org", "ann")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let body = json!({"token": token, "password": "battery staple"});
    let set = test.http.post(test.url("/api/auth/reset")).json(&body);
    assert_eq!(status(set).await, 204);
    let signed_in = login(&test, "ann@example.org", "battery staple")
        .send()
        .await
        .unwrap();
    let signed_in: Value = signed_in.json().await.unwrap();
    let choose = test.as_(
        signed_in["token"].as_str().unwrap(),
        Method::POST,
        "/api/auth/tenant-token",
    );
    assert_eq!(
        status(choose.json(&json!({"tenantId": workspace}))).await,
        200
    );
}
