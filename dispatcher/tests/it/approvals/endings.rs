//! Questions that nobody answers: time, cancelling, lost workers, agents that end.

use clawlink::approvals::expire;
use clawlink::executions::sweep::{Trust, sweep};
use clawlink_shared::approval::Decision;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Agent;
use crate::app::TestApp;
use crate::jobs::Job;
use crate::worker::Worker;

const TRUST: Trust = Trust {
    leases: true,
    cancels: true,
};

/// Makes an update of the execution that holds this id.
async fn set(test: &TestApp, sql: &'static str, job: &Job) {
    sqlx::query(sql)
        .bind(job.id)
        .execute(test.db())
        .await
        .unwrap();
}

async fn overdue(test: &TestApp, job: &Job) {
    let sql = "update approvals set expires_at = now() - interval '1 s' where execution_id = $1";
    set(test, sql, job).await;
}

async fn state(test: &TestApp, id: Uuid) -> (String, Option<String>) {
    sqlx::query_as("select state, decided_by from approvals where id = $1")
        .bind(id)
        .fetch_one(test.db())
        .await
        .unwrap()
}

async fn settings(test: &TestApp, body: Value) -> Value {
    let admin = test.admin().await;
    let path = "/api/approval-settings";
    let (status, shown) = test.call_as(&admin, Method::PUT, path, body).await;
    assert_eq!(status, 200, "{shown}");
    shown
}

#[tokio::test]
async fn without_an_answer_in_time_it_is_denied_and_said_so() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    assert_eq!(expire(test.app()).await.unwrap(), 0);
    overdue(&test, &job).await;
    test.becomes(&job, "running").await;
    assert_eq!(
        state(&test, id).await,
        ("expired".into(), Some("timeout".into()))
    );
    let heard = agent.heard().await;
    assert_eq!(heard[0].1, Decision::Deny);
    assert!(heard[0].2.as_deref().unwrap().contains("in time"));
    let resolved = test.told(&job, "approval_resolved").await;
    assert_eq!(
        (&resolved[0]["by"], &resolved[0]["decision"]),
        (&json!("timeout"), &json!("deny"))
    );
    let late = test.answer(&job, id, json!({"decision": "allow"})).await;
    assert_eq!(late.1["error"], "approval_decided");
    agent.complete().await;
}

#[tokio::test]
async fn a_workspace_says_how_long_and_what_then() {
    let test = TestApp::start().await;
    let shown = settings(&test, json!({"timeoutSeconds": 5, "onTimeout": "allow"})).await;
    assert_eq!(shown, json!({"timeoutSeconds": 5, "onTimeout": "allow"}));
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    let waits: f64 = sqlx::query_scalar(
        "select extract(epoch from expires_at - created_at)::float8 from approvals where id = $1",
    )
    .bind(id)
    .fetch_one(test.db())
    .await
    .unwrap();
    assert!((4.0..=5.5).contains(&waits), "{waits}");
    overdue(&test, &job).await;
    test.becomes(&job, "running").await;
    assert_eq!(agent.answer_to(id).await, Some(Decision::Allow));
    let admin = test.admin().await;
    for bad in [json!({"timeoutSeconds": 0}), json!({"onTimeout": "maybe"})] {
        let path = "/api/approval-settings";
        assert_eq!(test.call_as(&admin, Method::PUT, path, bad).await.0, 400);
    }
    let back = settings(&test, json!({})).await;
    assert_eq!(back, json!({"timeoutSeconds": 900, "onTimeout": "deny"}));
}

#[tokio::test]
async fn cancelling_withdraws_what_was_asked() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    assert_eq!(test.cancel(&job).await, 202);
    let (_, orders) = agent.held.control(0, 0).await;
    assert_eq!(orders.items.len(), 1, "the cancel is heard");
    let report = json!({"outcome": "cancelled", "lastN": 1});
    assert_eq!(agent.held.try_complete(&report).await.0, 200);
    assert_eq!(test.last_event(&job).await["type"], "cancelled");
    assert_eq!(state(&test, id).await.0, "withdrawn");
    let resolved = test.told(&job, "approval_resolved").await;
    assert_eq!(resolved[0]["decision"], "withdrawn");
    let late = test.answer(&job, id, json!({"decision": "allow"})).await;
    assert_eq!(
        (late.0, &late.1["error"]),
        (409, &json!("approval_decided"))
    );
}

#[tokio::test]
async fn an_answer_and_a_cancel_are_both_heard_in_order() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    assert_eq!(
        test.answer(&job, id, json!({"decision": "allow"})).await.0,
        200
    );
    let (_, orders) = agent.held.control(0, 0).await;
    assert_eq!(orders.items.len(), 1);
    let heard = orders.items[0].k;
    assert_eq!(test.cancel(&job).await, 202);
    let (_, orders) = agent.held.control(heard, 5).await;
    assert_eq!(orders.items.len(), 1);
    assert!(orders.items[0].k > heard);
    assert!(matches!(
        orders.items[0].order,
        clawlink_shared::control::Order::Cancel { .. }
    ));
}

#[tokio::test]
async fn a_lost_worker_leaves_no_open_question() {
    let test = TestApp::start().await;
    for on_loss in ["fail", "resume"] {
        let job = test.submit_with(json!({"onWorkerLost": on_loss})).await;
        let mut agent = Agent::start(&test).await;
        let id = agent.ask_bash("make").await;
        let lapse = "update executions set lease_expires_at = now() - interval '1 s' where id = $1";
        set(&test, lapse, &job).await;
        sweep(test.app(), TRUST).await.unwrap();
        assert_eq!(
            state(&test, id).await,
            ("withdrawn".into(), Some("end".into()))
        );
        let resolved = test.told(&job, "approval_resolved").await;
        assert_eq!(resolved[0]["decision"], "withdrawn");
        let late = test.answer(&job, id, json!({"decision": "allow"})).await;
        assert_eq!(late.1["error"], "approval_decided");
        if on_loss == "fail" {
            assert_eq!(test.last_event(&job).await["code"], "worker_lost");
            continue;
        }
        let mut again = Agent::of(Worker::new(&test.dispatcher).run().await);
        assert!(
            again.heard().await.is_empty(),
            "answers of the first are not heard"
        );
        let id = again.ask_bash("make").await;
        assert_eq!(
            test.answer(&job, id, json!({"decision": "allow"})).await.0,
            200
        );
        assert_eq!(again.answer_to(id).await, Some(Decision::Allow));
        again.complete().await;
    }
}

#[tokio::test]
async fn an_agent_that_does_not_wait_any_more_goes_on() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    agent
        .tell("approval_withdrawn", json!({"approvalId": id}))
        .await;
    assert_eq!(test.state_of(&job).await, "running");
    assert_eq!(
        state(&test, id).await,
        ("withdrawn".into(), Some("agent".into()))
    );
    let types = test.types(&job).await;
    assert!(
        types.iter().all(|kind| kind != "approval_withdrawn"),
        "{types:?}"
    );
    let asked = agent.ask_bash("make").await;
    assert_eq!(
        test.answer(&job, asked, json!({"decision": "deny"}))
            .await
            .0,
        200
    );
    agent
        .tell("approval_withdrawn", json!({"approvalId": asked}))
        .await;
    assert_eq!(
        state(&test, asked).await.0,
        "denied",
        "the answer was first"
    );
    agent.complete().await;
}

#[tokio::test]
async fn an_agent_may_end_while_its_question_is_open() {
    let test = TestApp::start().await;
    for outcome in ["completed", "failed", "interrupted"] {
        let job = test.submit().await;
        let mut agent = Agent::start(&test).await;
        let id = agent.ask_bash("make").await;
        let mut report = json!({"outcome": outcome, "lastN": 1});
        if outcome != "completed" {
            report["error"] = json!({"code": "timeout", "message": "its time is up"});
        }
        let (status, answer) = agent.held.try_complete(&report).await;
        assert_eq!(status, 200, "{answer}");
        let expected = if outcome == "completed" {
            "completed"
        } else {
            "failed"
        };
        assert_eq!(test.state_of(&job).await, expected);
        assert_eq!(state(&test, id).await.0, "withdrawn");
        assert_eq!(agent.held.try_complete(&report).await.0, 200, "repeated");
    }
}
