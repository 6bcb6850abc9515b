//! Passwords: what a wrong one tells, and what a new one ends.

use clawlink::auth;
use reqwest::Method;
use serde_json::json;

use super::{answer, register, text};
use crate::app::TestApp;
use crate::client::refusal;
use crate::wait::{eventually, is_lock_awaited};

#[tokio::test]
async fn who_fails_to_sign_in_learns_nothing() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let login = |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        test.http.post(test.url("/api/auth/web/login")).json(&body)
    };
    let good = answer(login(" Ann@EXAMPLE.org", "correct horse"), 200).await;
    assert_eq!(good["user"]["username"], "ann");
    let wrong = refusal(login("ann@example.org", "wrong horse")).await;
    for (email, password) in [
        ("nobody@example.org", "correct horse"),
        ("no address", "correct horse"),
        ("ann@example.org", ""),
        ("ann@example.org", &"x".repeat(5000)),
    ] {
        assert_eq!(refusal(login(email, password)).await, wrong, "{email}");
    }
    sqlx::query("update users set disabled_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    assert_eq!(
        refusal(login("ann@example.org", "correct horse")).await,
        wrong
    );
}

#[tokio::test]
async fn a_new_password_ends_the_other_sign_ins() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let token = text(&first["token"]);
    let change = |current: &str, new: &str| {
        let body = json!({"currentPassword": current, "newPassword": new});
        test.as_(&token, Method::POST, "/api/auth/password")
            .json(&body)
    };
    assert_eq!(
        refusal(change("wrong horse", "battery staple")).await.0,
        401
    );
    assert_eq!(refusal(change("correct horse", "short")).await.0, 400);
    let changed = answer(change("correct horse", "battery staple"), 200).await;
    answer(test.as_(&token, Method::GET, "/api/auth/me"), 401).await;
    answer(
        test.as_(&text(&changed["token"]), Method::GET, "/api/auth/me"),
        200,
    )
    .await;
    let login = |password: &str| {
        let body = json!({"email": "ann@example.org", "password": password});
        test.http.post(test.url("/api/auth/web/login")).json(&body)
    };
    assert_eq!(refusal(login("correct horse")).await.0, 401);
    answer(login("battery staple"), 200).await;
}

#[tokio::test]
async fn an_old_password_begins_nothing_once_it_was_changed() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let mut changing = test.db().begin().await.unwrap();
    sqlx::query("update users set password_hash = 'another', tokens_valid_from = now()")
        .execute(&mut *changing)
        .await
        .unwrap();
    let body = json!({"email": "ann@example.org", "password": "correct horse"});
    let login = test.http.post(test.url("/api/auth/web/login")).json(&body);
    let login = tokio::spawn(login.send());
    // It has compared with what was there before, and waits for the change; or does not.
    eventually("signing in has got as far as it can", async || {
        let waits = is_lock_awaited(test.db()).await;
        (waits || login.is_finished()).then_some(())
    })
    .await;
    changing.commit().await.unwrap();
    assert_eq!(login.await.unwrap().unwrap().status(), 401);
}

#[tokio::test]
async fn a_new_password_ends_reset_tokens() {
    let test = TestApp::start().await;
    let ann = register(&test, "ann").await;
    let mut db = test.db().acquire().await.unwrap();
    let token = auth::reset::issue(&mut db, "ann@example.org")
        .await
        .unwrap();
    drop(db);
    let change = test.as_(&text(&ann["token"]), Method::POST, "/api/auth/password");
    let body = json!({"currentPassword": "correct horse", "newPassword": "battery staple"});
    answer(change.json(&body), 200).await;
    let reset = test.http.post(test.url("/api/auth/reset"));
    let body = json!({"token": token, "password": "another one"});
    assert_eq!(refusal(reset.json(&body)).await.0, 401);
}
