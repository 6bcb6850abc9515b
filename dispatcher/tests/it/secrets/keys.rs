//! The secret key is replaced while executions run.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clawlink::secrets::{self, Round};
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Desk, env, named, with_env};
use crate::app::{Dispatcher, TestApp};
use crate::worker::Worker;

#[tokio::test]
async fn the_key_is_replaced_while_executions_run() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let old = Secret::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let new = Secret::new(BASE64_STANDARD.encode([7; 32]));
    desk.put("TOKEN", "canary").await;
    let mut request = with_env(json!({"SECRET": {"secret": "TOKEN"}, "OWN": "of-the-request"}));
    request["codingAssistantAuthentication"] = json!("raw");
    let held_claim = Uuid::new_v4();
    test.accepted(&request).await;
    let worker = Worker::new(&test.dispatcher);
    let held = worker.claim_as(held_claim, &["shell"], 20).await.unwrap();
    held.ack().await;
    held.state("running").await;
    let keyed = async |secret_key: &Secret, other: Option<&Secret>| {
        test.dispatcher_with(|settings| {
            settings.secret_key = Some(secret_key.clone());
            settings.secret_key_old = other.cloned();
        })
        .await
    };
    // First every replica accepts the new key, then every replica uses it.
    let ready = keyed(&old, Some(&new)).await;
    let idempotent = |dispatcher: &Dispatcher| {
        let request = test.http.post(format!("{}/execute", dispatcher.url));
        let request = request
            .bearer_auth(test.key.expose())
            .header("idempotency-key", "once");
        request
            .header("accept", "application/json")
            .json(&request_body())
    };
    let first: Value = idempotent(&ready)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let during = keyed(&new, Some(&old)).await;
    let again: Value = idempotent(&during)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(again["executionId"], first["executionId"]);
    let repeated = Worker::new(&during)
        .claim_as(held_claim, &["shell"], 0)
        .await;
    let repeated = repeated.expect("the same lease");
    assert_eq!(repeated.id(), held.id());
    assert_eq!(
        repeated.assignment.lease.token.expose(),
        held.assignment.lease.token.expose()
    );
    assert_eq!(env(&repeated)["OWN"], "of-the-request");
    // The loop may have been there first; what counts is that nothing is left.
    secrets::round(&during.app).await.unwrap();
    assert_eq!(secrets::round(&during.app).await.unwrap(), Round::default());
    ready.stop().await;

    let after = keyed(&new, None).await;
    let pending = Worker::new(&after)
        .claim_as(Uuid::new_v4(), &["shell"], 20)
        .await;
    assert_eq!(env(&pending.expect("there is work"))["SECRET"], "canary");
    let moved = held.at(&after);
    assert_eq!(moved.events(1..=1).await, 1);
    moved.complete(1).await;
    test.accepted_at(&after, &with_env(named("TOKEN"))).await;
    let held = Worker::new(&after).claim().await;
    assert_eq!(env(&held)["SECRET"], "canary");
    after.stop().await;
    during.stop().await;
}

fn request_body() -> Value {
    with_env(named("TOKEN"))
}

#[tokio::test]
async fn what_no_key_opens_is_counted_and_left() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    desk.put("TOKEN", "value").await;
    let lost = test
        .dispatcher_with(|settings| {
            settings.secret_key = Some(Secret::new(BASE64_STANDARD.encode([8; 32])));
            settings.secret_key_old = Some(Secret::new(BASE64_STANDARD.encode([9; 32])));
        })
        .await;
    let round = secrets::round(&lost.app).await.unwrap();
    assert_eq!(
        round,
        Round {
            resealed: 0,
            broken: 1
        }
    );
    lost.stop().await;
    test.accepted(&with_env(named("TOKEN"))).await;
    let held = Worker::new(&test.dispatcher).claim().await;
    assert_eq!(env(&held)["SECRET"], "value");
}
