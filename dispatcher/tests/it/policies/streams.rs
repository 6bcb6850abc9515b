//! Open streams of a session that a policy comes to hide.

use std::time::Duration;

use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink_shared::event::EventType;
use clawlink_shared::secret::Secret;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::devices::{Machine, Shown};
use super::policy;
use crate::app::TestApp;
use crate::client::{Stream, append, refusal, script};
use crate::members::call;
use crate::wait::eventually;

/// How long a stream may go on that should end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Opens a stream and waits for its first event.
async fn open(request: RequestBuilder) -> Stream {
    let mut stream = Stream::open(request).await;
    stream.next().await.unwrap();
    stream
}

async fn ends(stream: Stream) {
    let rest = tokio::time::timeout(PATIENCE, stream.rest()).await;
    rest.expect("the stream has ended");
}

async fn change(test: &TestApp, admin: &Secret, method: Method, path: &str, body: &Value) {
    let answer = call(test, admin, method, path).json(body).send().await;
    let status = answer.unwrap().status();
    assert!(status.is_success(), "{path}: {status}");
}

#[tokio::test]
async fn streams_end_with_the_policy_that_hides_their_session() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let (_, admin) = test.key_for("default", KeyRole::Admin).await;
    let guest = test.member("default", MemberRole::Developer).await;
    let hidden = test.accepted(&script("true")).await;
    let shown = test.accepted(&script("true")).await;
    let get = |token: &str, path: &str| {
        let request = test.http.get(format!("{}{path}", second.url));
        request.bearer_auth(token)
    };
    let session = format!("/sessions/{}/stream", hidden.session_id);
    let execution = format!("/executions/{}/events", hidden.execution_id);
    let other = format!("/executions/{}/events", shown.execution_id);
    let cut = [
        open(get(&guest.token, &session)).await,
        open(get(&guest.token, &execution)).await,
    ];
    let lines = get(&guest.token, &session).header("accept", "application/x-ndjson");
    let lines = lines.send().await.unwrap();
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    let mut stay = [
        (
            hidden.execution_id,
            open(get(admin.expose(), &execution)).await,
        ),
        (shown.execution_id, open(get(&guest.token, &other)).await),
    ];
    let denies = json!({"resourceKind": "session", "resource": hidden.session_id.to_string(),
        "deniedUsers": [guest.person.user.to_string()]});
    let id = policy(&test, &admin, denies).await;
    for stream in cut {
        ends(stream).await;
    }
    // Lines that just ended would look complete.
    let lines = tokio::time::timeout(PATIENCE, lines.bytes()).await;
    assert!(lines.expect("the lines have ended").is_err());
    for (path, code) in [
        (&session, "session_not_found"),
        (&execution, "execution_not_found"),
    ] {
        let (status, problem) = refusal(get(&guest.token, path)).await;
        assert_eq!((status, &problem["error"]), (404, &json!(code)));
    }
    for (execution, stream) in &mut stay {
        let said = (EventType::Message, json!({"message": "still here"}));
        append(test.app(), *execution, &[said]).await;
        loop {
            let event = stream.next().await.expect("the stream goes on");
            if event.json()["message"] == "still here" {
                break;
            }
        }
    }
    // A policy that now is about others shows the session; and about this one again, hides it.
    let path = format!("/api/policies/{id}");
    let says = |role: &str| {
        json!({"resourceKind": "session", "resource": hidden.session_id.to_string(),
            "deniedRoles": [role]})
    };
    change(&test, &admin, Method::PUT, &path, &says("viewer")).await;
    eventually("the other dispatcher knows", async || {
        let page = get(&guest.token, &execution).header("accept", "application/json");
        (page.send().await.unwrap().status() == 200).then_some(())
    })
    .await;
    let cut = open(get(&guest.token, &execution)).await;
    change(&test, &admin, Method::PUT, &path, &says("developer")).await;
    ends(cut).await;
}

#[tokio::test]
async fn a_lowered_role_and_a_distrusted_device_hide_what_policies_then_hide() {
    let test = TestApp::start().await;
    let (workspace, admin) = test.key_for("default", KeyRole::Admin).await;
    let guest = test.member("default", MemberRole::Developer).await;
    let machine = Machine::register(&test, &test.key).await;
    sqlx::query("update devices set trust = 'trusted'")
        .execute(test.db())
        .await
        .unwrap();
    let by_role = test.accepted(&script("true")).await;
    let by_device = test.accepted(&script("true")).await;
    for hides in [
        json!({"resourceKind": "session", "resource": by_role.session_id.to_string(),
            "deniedRoles": ["viewer"]}),
        json!({"resourceKind": "session", "resource": by_device.session_id.to_string(),
            "minimumTrust": "verified"}),
    ] {
        policy(&test, &admin, hides).await;
    }
    let path = format!("/executions/{}/events", by_role.execution_id);
    let cut = open(test.as_(&guest.token, Method::GET, &path)).await;
    let member = format!("/api/tenants/{workspace}/members/{}", guest.person.user);
    change(
        &test,
        &admin,
        Method::PATCH,
        &member,
        &json!({"role": "viewer"}),
    )
    .await;
    ends(cut).await;

    let path = format!("/executions/{}/events", by_device.execution_id);
    let device = format!("/api/devices/{}", machine.id);
    let read = |nonce: &str| machine.get(&test, &test.key, &path, &Shown::now(&path, nonce));
    let cut = open(read("a")).await;
    let untrusted = json!({"trust": "untrusted"});
    change(&test, &admin, Method::PATCH, &device, &untrusted).await;
    ends(cut).await;
    assert_eq!(refusal(read("b")).await.0, 404);
}
