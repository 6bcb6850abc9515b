//! Machines prove themselves, for one request and what is in it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clawlink::auth::principal::KeyRole;
use clawlink::devices::proof::{message, older_message};
use clawlink_shared::secret::Secret;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::policy;
use crate::app::TestApp;
use crate::client::{refusal, script};
use crate::members::call;

/// A machine with a key.
pub(super) struct Machine {
    pub(super) id: String,
    key: Ed25519KeyPair,
}

impl Machine {
    pub(super) async fn register(test: &TestApp, owner: &Secret) -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let public = BASE64_STANDARD.encode(key.public_key().as_ref());
        let body = json!({"name": "laptop", "publicKey": public});
        let answer = call(test, owner, Method::POST, "/api/devices").json(&body);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let device: Value = answer.json().await.unwrap();
        assert_eq!(device["trust"], "untrusted");
        let (status, problem) =
            refusal(call(test, owner, Method::POST, "/api/devices").json(&body)).await;
        assert_eq!((status, &problem["error"]), (409, &json!("device_exists")));
        let id = device["id"].as_str().unwrap().to_owned();
        Self { id, key }
    }

    /// A `GET` that shows this machine.
    pub(super) fn get(
        &self,
        test: &TestApp,
        key: &Secret,
        path: &str,
        proof: &Shown,
    ) -> RequestBuilder {
        let text = message("GET", &proof.target, proof.timestamp, &proof.nonce, b"");
        self.show(call(test, key, Method::GET, path), proof, &text)
    }

    /// The request with a signature over this text.
    fn show(&self, request: RequestBuilder, proof: &Shown, text: &str) -> RequestBuilder {
        let signature = BASE64_STANDARD.encode(self.key.sign(text.as_bytes()).as_ref());
        request
            .header("x-device-id", &self.id)
            .header("x-device-timestamp", proof.timestamp)
            .header("x-device-nonce", &proof.nonce)
            .header("x-device-signature", signature)
    }
}

/// What a proof says.
#[derive(Clone)]
pub(super) struct Shown {
    target: String,
    timestamp: i64,
    nonce: String,
}

impl Shown {
    pub(super) fn now(target: &str, nonce: &str) -> Self {
        Self {
            target: target.to_owned(),
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            nonce: nonce.to_owned(),
        }
    }
}

#[tokio::test]
async fn a_proof_holds_once_for_its_request_its_time_and_its_owner() {
    let test = TestApp::start().await;
    let (_, other) = test.key_for("default", KeyRole::Developer).await;
    let machine = Machine::register(&test, &test.key).await;
    let path = "/sessions?limit=1";
    let good = Shown::now(path, "n1");
    let first = machine.get(&test, &test.key, path, &good).send().await;
    assert_eq!(first.unwrap().status(), 200);
    let mut old = Shown::now(path, "n2");
    old.timestamp -= 120;
    let mut early = Shown::now(path, "n3");
    early.timestamp += 120;
    let elsewhere = Shown::now("/sessions?limit=2", "n4");
    for (key, proof, why) in [
        (&test.key, &good, "used before"),
        (&test.key, &old, "a minute off"),
        (&test.key, &early, "a minute off"),
        (&test.key, &elsewhere, "signature is wrong"),
        (&other, &Shown::now(path, "n5"), "device is unknown"),
    ] {
        let (status, problem) = refusal(machine.get(&test, key, path, proof)).await;
        assert_eq!(status, 401);
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
    let half = test.get(path).header("x-device-id", &machine.id);
    assert_eq!(refusal(half).await.0, 401);
}

#[tokio::test]
async fn a_policy_can_demand_a_trusted_device() {
    let test = TestApp::start().await;
    let (_, admin) = test.key_for("default", KeyRole::Admin).await;
    let machine = Machine::register(&test, &test.key).await;
    let made = test.accepted(&script("true")).await;
    let demands = json!({"resourceKind": "session", "resource": "*", "minimumTrust": "verified"});
    policy(&test, &admin, demands).await;
    let path = format!("/sessions/{}", made.session_id);
    assert_eq!(refusal(test.get(&path)).await.0, 404);
    let request = machine.get(&test, &test.key, &path, &Shown::now(&path, "a"));
    assert_eq!(refusal(request).await.0, 404);
    // A key cannot raise trust, a person did.
    let device = format!("/api/devices/{}", machine.id);
    let raise = call(&test, &admin, Method::PATCH, &device).json(&json!({"trust": "trusted"}));
    assert_eq!(refusal(raise).await.0, 403);
    sqlx::query("update devices set trust = 'trusted'")
        .execute(test.db())
        .await
        .unwrap();
    let request = machine.get(&test, &test.key, &path, &Shown::now(&path, "b"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    // Lowering it is for keys, too.
    let lower = call(&test, &admin, Method::PATCH, &device).json(&json!({"trust": "untrusted"}));
    assert_eq!(lower.send().await.unwrap().status(), 200);
    let request = machine.get(&test, &test.key, &path, &Shown::now(&path, "c"));
    assert_eq!(refusal(request).await.0, 404);
}

#[tokio::test]
async fn a_proof_covers_the_body() {
    let test = TestApp::start().await;
    let machine = Machine::register(&test, &test.key).await;
    let body = script("true").to_string();
    let post = |sent: &str, signed: &str, is_older: bool, nonce: &str| {
        let proof = Shown::now("/execute", nonce);
        let (target, time) = (&proof.target, proof.timestamp);
        let text = match is_older {
            true => older_message("POST", target, time, nonce),
            false => message("POST", target, time, nonce, signed.as_bytes()),
        };
        let request = call(&test, &test.key, Method::POST, "/execute")
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(sent.to_owned());
        machine.show(request, &proof, &text)
    };
    let other = script("rm -rf /").to_string();
    for (request, why) in [
        (post(&other, &body, false, "a"), "another body"),
        (post("", &body, false, "b"), "no body"),
        (
            post(&body, &body, true, "c"),
            "the older form, which says nothing of a body",
        ),
    ] {
        let (status, problem) = refusal(request).await;
        assert_eq!(status, 401, "{why}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("signature is wrong"), "{why}: {message}");
    }
    let taken = post(&body, &body, false, "d").send().await.unwrap();
    assert_eq!(taken.status(), 202, "the body arrives whole");
    // Without a body, devices that sign the older form go on.
    let proof = Shown::now("/sessions", "e");
    let text = older_message("GET", "/sessions", proof.timestamp, "e");
    let request = call(&test, &test.key, Method::GET, "/sessions");
    let shown = machine.show(request, &proof, &text).send().await.unwrap();
    assert_eq!(shown.status(), 200);
}

#[tokio::test]
async fn a_closed_workspace_takes_no_new_machines() {
    let test = TestApp::start().await;
    let (_, key) = test.key_for("default", KeyRole::Readonly).await;
    for status in ["archived", "suspended"] {
        sqlx::query("update workspaces set status = $1")
            .bind(status)
            .execute(test.db())
            .await
            .unwrap();
        let public = Ed25519KeyPair::generate().unwrap();
        let public = BASE64_STANDARD.encode(public.public_key().as_ref());
        let body = json!({"name": "laptop", "publicKey": public});
        let register = call(&test, &key, Method::POST, "/api/devices").json(&body);
        assert_eq!(refusal(register).await.0, 403, "{status}");
    }
}
