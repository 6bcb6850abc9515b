//! Writing secrets: values go in and never come out, and bounds are named.

use serde_json::{Value, json};

use super::Desk;
use crate::app::TestApp;

#[tokio::test]
async fn a_secret_goes_in_and_never_comes_out() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let body = json!({"value": "canary-one", "allowedRoles": ["ci", "ci"], "allowedAgents": ["ClaudeAgentSDK"]});
    let (status, made) = desk.try_put("DEPLOY_KEY", &body).await;
    assert_eq!(status, 201);
    assert_eq!(made["allowedRoles"], json!(["ci"]));
    assert_eq!(made["allowedAgents"], json!(["claude"]));
    assert_eq!((&made["size"], &made["version"]), (&json!(10), &json!(1)));
    let (status, changed) = desk
        .try_put("DEPLOY_KEY", &json!({"value": "canary-two"}))
        .await;
    assert_eq!((status, &changed["version"]), (200, &json!(2)));
    assert_eq!(
        changed["allowedRoles"],
        json!(["ci"]),
        "absent is unchanged"
    );
    let (_, cleared) = desk
        .try_put("DEPLOY_KEY", &json!({"allowedRoles": null}))
        .await;
    assert_eq!(cleared["allowedRoles"], Value::Null);
    assert_eq!(cleared["version"], 2);
    let list = desk.list().await;
    assert_eq!(list["count"], 1);
    let one = &list["secrets"][0];
    assert_eq!(
        (&one["scope"], &one["lastUsedAt"]),
        (&json!("workspace"), &Value::Null)
    );
    let audited = desk.audited().await;
    let actions: Vec<&str> = audited.iter().map(|entry| entry.0.as_str()).collect();
    assert_eq!(
        actions,
        ["secret.created", "secret.updated", "secret.updated"]
    );
    let shown = format!("{made} {changed} {list} {audited:?}");
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(desk.delete("DEPLOY_KEY").await, 204);
    assert_eq!(desk.delete("DEPLOY_KEY").await, 404);
    assert_eq!(desk.list().await["count"], 0);
}

#[tokio::test]
async fn bounds_are_named_without_quoting_values() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let long = "canary".repeat(11_000);
    for (name, body) in [
        ("A", json!({})),
        ("A", json!({"value": ""})),
        ("A", json!({"value": 12345})),
        ("A", json!({"value": {"canary": "canary"}})),
        ("A", json!({"value": "canary\u{0}canary"})),
        ("A", json!({ "value": long })),
        ("A", json!({"value": "canary", "canary": 1})),
        ("A", json!({"value": "canary", "allowedRoles": ["canary"]})),
        ("A", json!({"value": "canary", "allowedAgents": "canary"})),
        ("A", json!("canary")),
        ("-A", json!({"value": "canary"})),
        ("a..b", json!({"value": "canary"})),
        ("a%20b", json!({"value": "canary"})),
        ("A?agent=nobody", json!({"value": "canary"})),
    ] {
        let (status, problem) = desk.try_put(name, &body).await;
        assert_eq!(
            (status, &problem["error"]),
            (400, &json!("invalid_request"))
        );
        let text = problem.to_string();
        assert!(
            !text.contains("canary") && !text.contains("12345"),
            "{text}"
        );
    }
    let (status, problem) = desk.try_put("A?agent=77", &json!({"value": "x"})).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("agent_not_found"))
    );
    sqlx::query(
        "insert into secrets (workspace_id, name, sealed, size, created_by, updated_by)
         select id, 'N' || n, '\\x00', 1, '', '' from workspaces, generate_series(1, 500) n",
    )
    .execute(test.db())
    .await
    .unwrap();
    let (status, problem) = desk.try_put("ONE_MORE", &json!({"value": "x"})).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("too_many_secrets"))
    );
    assert_eq!(desk.try_put("N7", &json!({"value": "x"})).await.0, 200);
}

#[tokio::test]
async fn two_who_make_the_same_secret_make_one() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let bodies = [json!({"value": "one"}), json!({"value": "two"})];
    let [one, two] = &bodies;
    let ((one, _), (two, _)) = tokio::join!(desk.try_put("A", one), desk.try_put("A", two));
    let mut statuses = [one, two];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    assert_eq!(desk.list().await["secrets"][0]["version"], 2);
}
