//! Cancelling, in each state and against everything that may happen at the same time.

use std::time::Duration;

use clawlink::executions::sweep::{Trust, sweep};
use clawlink_shared::control::Order;
use serde_json::json;
use sqlx::Connection as _;
use uuid::Uuid;

use crate::app::TestApp;
use crate::worker::Worker;

#[tokio::test]
async fn a_pending_execution_ends_at_once() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    assert_eq!(test.cancel(&job).await, 202);
    let end = test.last_event(&job).await;
    assert_eq!(end["type"], "cancelled");
    assert!(end["by"].as_str().unwrap().starts_with("key:"));
    assert_eq!(test.cancel(&job).await, 202, "again is fine");
    test.queued().await;
    assert!(Worker::new(&test.dispatcher).claim_now().await.is_none());
}

#[tokio::test]
async fn a_worker_hears_of_it_at_once_in_each_state_and_on_any_replica() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    for state in ["planning", "running", "waiting"] {
        let job = test.submit().await;
        let held = Worker::new(&test.dispatcher).claim().await;
        held.ack().await;
        if state != "planning" {
            held.state("running").await;
        }
        if state == "waiting" {
            held.state("waiting").await;
        }
        let listening = tokio::spawn({
            let held = held.at(&second);
            async move { held.control(0, 20).await }
        });
        assert_eq!(test.cancel(&job).await, 202);
        assert_eq!(test.cancel(&job).await, 202);
        let (status, orders) = listening.await.unwrap();
        assert_eq!((status, orders.items.len()), (200, 1), "{state}");
        assert!(matches!(orders.items[0].order, Order::Cancel { .. }));
        let (status, orders) = held.control(orders.items[0].k, 0).await;
        assert_eq!((status, orders.items.len()), (200, 0), "said once");
        let report = json!({
            "outcome": "cancelled", "lastN": 0, "branch": "b", "commitHash": "c", "pushed": true,
        });
        assert_eq!(held.try_complete(&report).await.0, 200);
        let end = test.last_event(&job).await;
        assert_eq!(end["type"], "cancelled", "{state}");
        assert_eq!(end["branch"], "b", "a push that was begun is named");
    }
}

/// The replica that stored the run's events begins from what they left, which was before the
/// request.
#[tokio::test]
async fn a_request_outweighs_the_report_of_a_worker_that_has_not_heard_it() {
    let test = TestApp::start().await;
    for usage in [json!(null), json!({"inputTokens": 7})] {
        let job = test.submit().await;
        let held = Worker::new(&test.dispatcher).run().await;
        held.events(1..=2).await;
        assert_eq!(test.cancel(&job).await, 202);
        let report = json!({"outcome": "completed", "lastN": 2, "usage": usage});
        assert_eq!(held.try_complete(&report).await.0, 200);
        let end = test.last_event(&job).await;
        assert_eq!(end["type"], "cancelled", "{usage}");
        assert!(end["by"].as_str().unwrap().starts_with("key:"));
    }
}

#[tokio::test]
async fn an_ended_execution_is_not_cancelled() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    Worker::new(&test.dispatcher).run().await.complete(0).await;
    assert_eq!(test.cancel(&job).await, 409);
    assert_eq!(test.state_of(&job).await, "completed");
}

#[tokio::test]
async fn a_cancel_that_nobody_obeys_ends_it_after_its_time() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.cancel = Duration::from_millis(300);
    })
    .await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    assert_eq!(test.cancel(&job).await, 202);
    test.becomes(&job, "cancelled").await;
    assert_eq!(held.control(0, 0).await.0, 409);
}

#[tokio::test]
async fn racing_completion_loss_and_claims_it_still_ends_once() {
    let test = TestApp::start().await;
    let trust = Trust {
        leases: true,
        cancels: true,
    };
    for round in 0..30 {
        let more = json!({"onWorkerLost": "resume"});
        let job = test.submit_with(more).await;
        let worker = Worker::new(&test.dispatcher);
        match round % 3 {
            0 => {
                let held = worker.run().await;
                let report = json!({"outcome": "completed", "lastN": 0});
                let ((reported, _), asked) =
                    tokio::join!(held.try_complete(&report), test.cancel(&job));
                assert_eq!(reported, 200);
                let state = test.state_of(&job).await;
                let expected = if asked == 409 {
                    "completed"
                } else {
                    "cancelled"
                };
                assert_eq!(state, expected);
            }
            1 => {
                let held = worker.run().await;
                let lapse = "update executions set lease_expires_at = now() - interval '1 s'
                     where id = $1";
                sqlx::query(lapse)
                    .bind(held.id())
                    .execute(test.db())
                    .await
                    .unwrap();
                let (swept, asked) = tokio::join!(sweep(test.app(), trust), test.cancel(&job));
                swept.unwrap();
                assert_eq!(asked, 202);
                test.becomes(&job, "cancelled").await;
            }
            _ => {
                test.queued().await;
                let (claimed, asked) = tokio::join!(worker.claim_now(), test.cancel(&job));
                assert_eq!(asked, 202);
                if let Some(held) = claimed {
                    held.ack().await;
                    let report = json!({"outcome": "cancelled", "lastN": 0});
                    assert_eq!(held.try_complete(&report).await.0, 200);
                }
                test.becomes(&job, "cancelled").await;
            }
        }
        assert!(test.log(&job).await.len() >= 3);
    }
}

#[tokio::test]
async fn one_that_is_cancelled_while_it_cannot_be_handed_out_ends() {
    let test = TestApp::start_with(|settings| {
        // The sweeper does not come first.
        settings.tuning.ack = Duration::from_secs(3600);
    })
    .await;
    test.limit(json!({"dailyBudgetUsd": 100})).await;
    let job = test.submit().await;
    test.queued().await;
    // What was spent is looked up between confirming a claim and answering it.
    let mut db = test.superuser().await;
    let mut tx = db.begin().await.unwrap();
    sqlx::query("lock table usage in access exclusive mode")
        .execute(&mut *tx)
        .await
        .unwrap();
    let worker = Worker::new(&test.dispatcher);
    let claiming =
        tokio::spawn(async move { worker.claim_call(Uuid::new_v4(), &["shell"], 0).await });
    test.becomes(&job, "planning").await;
    assert_eq!(test.cancel(&job).await, 202);
    sqlx::query("alter table usage rename to usage_elsewhere")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(claiming.await.unwrap().status(), 500);
    test.becomes(&job, "cancelled").await;
}
