//! Redis flushed, away and back; dispatchers that stop: nothing accepted is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clawlink::executions::reconcile::reconcile;
use clawlink_shared::secret::Secret;
use uuid::Uuid;

use crate::app::TestApp;
use crate::wait::eventually;
use crate::worker::Worker;

/// Deletes all keys of this installation, as a flush would.
async fn flush(test: &TestApp) {
    let mut redis = test.app().bus.redis();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(test.app().bus.key("*"))
        .query_async(&mut redis)
        .await
        .unwrap();
    if !keys.is_empty() {
        let _deleted: i64 = redis::cmd("DEL")
            .arg(keys)
            .query_async(&mut redis)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_flushed_redis_loses_nothing_and_nothing_runs_twice() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let mut jobs = BTreeSet::new();
    let mut seen = Vec::new();
    for round in 0..4 {
        for _ in 0..5 {
            jobs.insert(test.submit().await.id);
        }
        flush(&test).await;
        for _ in 0..=round {
            let held = worker.run().await;
            seen.push(held.id());
            held.complete(0).await;
        }
    }
    flush(&test).await;
    while seen.len() < jobs.len() {
        let held = worker.run().await;
        seen.push(held.id());
        held.complete(0).await;
    }
    test.queued().await;
    assert!(worker.claim_now().await.is_none());
    let unique: BTreeSet<i64> = seen.iter().copied().collect();
    assert_eq!((unique.len(), &unique), (seen.len(), &jobs));
}

#[tokio::test]
async fn without_redis_executions_are_accepted_claimed_and_ended() {
    let test = TestApp::start().await;
    let alone = test
        .dispatcher_with(|settings| {
            // Nothing listens there.
            settings.redis_url = Some(Secret::new("redis://127.0.0.1:1"));
        })
        .await;
    let worker = Worker::new(&alone);
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.claim().await }
    });
    let job = test.submit().await;
    let held = waiting.await.unwrap();
    assert_eq!(held.id(), job.id);
    held.ack().await;
    held.state("running").await;
    let listening = tokio::spawn({
        let held = held.clone();
        async move { held.control(0, 20).await }
    });
    assert_eq!(test.cancel(&job).await, 202);
    assert_eq!(listening.await.unwrap().1.items.len(), 1, "a tick later");
    let report = serde_json::json!({"outcome": "cancelled", "lastN": 0});
    assert_eq!(held.try_complete(&report).await.0, 200);
    assert_eq!(test.last_event(&job).await["type"], "cancelled");
}

#[tokio::test]
async fn what_a_dead_dispatcher_popped_comes_back() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let shell = [clawlink_shared::agent::AgentKind::Shell];
    // Popped, and never confirmed.
    eventually("it is queued", || async {
        use clawlink::executions::queue::{Popped, pop};
        let popped = pop(&test.app().bus, &shell).await.unwrap();
        matches!(popped, Popped::Entry(_)).then_some(())
    })
    .await;
    assert_eq!(Worker::new(&test.dispatcher).run().await.id(), job.id);
}

#[tokio::test]
async fn a_draining_dispatcher_lets_its_waiting_workers_go() {
    let test = TestApp::start().await;
    let second = test
        .dispatcher_with(|settings| settings.tuning.drain = Duration::from_secs(60))
        .await;
    let worker = Worker::new(&second);
    let begun = Instant::now();
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.claim_as(Uuid::new_v4(), &["shell"], 30).await }
    });
    eventually("the worker counts as idle", || async {
        let status: serde_json::Value = test
            .get("/status")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        (status["workers"]["idle"] == 1).then_some(())
    })
    .await;
    second.stop().await;
    assert!(waiting.await.unwrap().is_none());
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "waited to the end"
    );
}

#[tokio::test]
async fn a_kind_that_only_another_release_knows_keeps_nothing_from_the_queue() {
    let test = TestApp::start().await;
    let odd = test.submit().await;
    let job = test.submit().await;
    test.queued().await;
    sqlx::query("update executions set agent = 'of-tomorrow' where id = $1")
        .bind(odd.id)
        .execute(test.db())
        .await
        .unwrap();
    flush(&test).await;
    reconcile(test.app()).await.unwrap();
    let held = Worker::new(&test.dispatcher).claim_now().await;
    assert_eq!(held.expect("the other one").id(), job.id);
}
