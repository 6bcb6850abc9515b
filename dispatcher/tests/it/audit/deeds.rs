//! What is written down by itself: submitted, cancelled and deleted things, and refusals.

use clawlink::auth::principal::KeyRole;
use serde_json::Value;

use crate::app::TestApp;
use crate::client::script;
use crate::wait::eventually;

type Row = (String, String, String, String, Value, Option<String>);

async fn entries(test: &TestApp) -> Vec<Row> {
    sqlx::query_as(
        "select actor, action, coalesce(resource_type || ':' || resource_id, ''), outcome, details, address
         from audit_entries order by id",
    )
    .fetch_all(test.db())
    .await
    .unwrap()
}

#[tokio::test]
async fn submitting_cancelling_and_deleting_are_deeds_of_their_caller() {
    let test = TestApp::start().await;
    let made = test.accepted(&script("echo hidden-prompt")).await;
    let cancel = format!("/executions/{}/cancel", made.execution_id);
    for _ in 0..2 {
        let answer = test.post(&cancel).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }
    let session = format!("/sessions/{}", made.session_id);
    assert_eq!(test.delete(&session).send().await.unwrap().status(), 200);
    let rows = entries(&test).await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.1.as_str(), row.2.as_str()))
        .collect();
    let execution = format!("execution:{}", made.execution_id);
    let session = format!("session:{}", made.session_id);
    assert_eq!(
        told,
        [
            ("execution.submitted", execution.as_str()),
            ("execution.cancelled", &execution),
            ("session.deleted", &session),
        ]
    );
    for (actor, _, _, outcome, details, address) in &rows {
        assert!(actor.starts_with("key:"), "{actor}");
        assert_eq!(outcome, "allowed");
        assert_eq!(address.as_deref(), Some("127.0.0.1"));
        assert!(!details.to_string().contains("hidden-prompt"));
    }
    assert_eq!(rows[0].4["agent"], "shell");
}

#[tokio::test]
async fn a_known_caller_who_may_not_is_an_entry_and_a_stranger_a_count() {
    let mut test = TestApp::start().await;
    let (workspace, key) = test.key_for("default", KeyRole::Readonly).await;
    let submit = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(key.expose());
    assert_eq!(submit.send().await.unwrap().status(), 403);
    for n in 0..25 {
        let request = test.http.get(test.url("/sessions"));
        let request = match n % 2 {
            0 => request,
            _ => request.bearer_auth("clawlink_wrong"),
        };
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    let rows = entries(&test).await;
    let [(_, action, resource, outcome, details, _)] = &rows[..] else {
        panic!("{rows:?}");
    };
    assert_eq!(
        (action.as_str(), outcome.as_str()),
        ("access.denied", "denied")
    );
    assert_eq!(resource, "route:POST /execute");
    assert_eq!(details["permission"], "execution:submit");
    let of: i64 = sqlx::query_scalar("select workspace_id from audit_entries")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(of, workspace.0);
    let mut db = test.superuser().await;
    // Some may have been counted by a tick; draining writes the rest.
    test.dispatcher.end().await;
    let (rows, count): (i64, i64) = sqlx::query_as(
        "select count(*), sum(count)::bigint from audit_denials where address = '127.0.0.1'",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!(count, 25);
    assert!(rows <= 2, "a row per minute, not {rows}");
}

#[tokio::test]
async fn keys_made_at_the_command_line_are_deeds_of_the_operator() {
    let test = TestApp::start().await;
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_clawlink"))
        .args(["admin", "create-key", "--name", "robot", "--role", "ci"])
        .env("DATABASE_URL", test.database_url())
        .env_remove("DATABASE_MIGRATION_URL")
        .output()
        .unwrap();
    let key = String::from_utf8(status.stdout).unwrap();
    let rows = eventually("the entry is there", async || {
        let rows = entries(&test).await;
        (!rows.is_empty()).then_some(rows)
    })
    .await;
    let (actor, action, _, _, details, _) = &rows[0];
    assert_eq!(
        (actor.as_str(), action.as_str()),
        ("operator", "key.created")
    );
    assert_eq!(
        (&details["name"], &details["role"]),
        (&"robot".into(), &"ci".into())
    );
    assert!(!details.to_string().contains(key.trim()));
}

#[tokio::test]
async fn a_key_that_gets_a_token_is_an_entry() {
    let test = TestApp::start().await;
    let body = serde_json::json!({"apiKey": test.key});
    let token = test.http.post(test.url("/api/auth/token")).json(&body);
    assert_eq!(token.send().await.unwrap().status(), 200);
    let rows = entries(&test).await;
    let (actor, action, resource, ..) = &rows[0];
    assert_eq!((action.as_str(), actor), ("key.signed_in", resource));
    assert!(actor.starts_with("key:"), "{actor}");
}

#[tokio::test]
async fn counts_of_strangers_are_forgotten_after_a_while() {
    let test = TestApp::start().await;
    sqlx::query(
        "insert into audit_denials (minute, address, count)
         select date_trunc('minute', now()) - n * interval '1 day', '192.0.2.1', 1
         from unnest('{0, 89, 91, 1000}'::int[]) n",
    )
    .execute(test.db())
    .await
    .unwrap();
    clawlink::audit::clean(test.app()).await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from audit_denials")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(left, 2);
}
