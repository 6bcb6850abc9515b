//! Who runs when: sessions one turn at a time, workspaces up to their cap, and what waiting
//! executions are told.

use clawlink::executions::wait::record_reasons;
use clawlink_shared::secret::Secret;
use serde_json::json;

use crate::app::TestApp;
use crate::wait::eventually;
use crate::worker::Worker;

#[tokio::test]
async fn turns_of_a_session_run_one_after_the_other() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let first = test.submit().await;
    let second = test.resume(&first).await;
    let third = test.resume(&first).await;
    let held = worker.run().await;
    assert_eq!(held.id(), first.id);
    test.queued().await;
    assert!(worker.claim_now().await.is_none());
    eventually("the wait reason is logged", || async {
        let event = test.last_event(&second).await;
        (event["type"] == "queued" && event["waitReason"] == "session_busy").then_some(())
    })
    .await;
    let shown = test.show(&third).await;
    assert_eq!(shown["queue"]["waitReason"], "session_busy");
    held.complete(0).await;
    let held = worker.run().await;
    assert_eq!(held.id(), second.id);
    test.queued().await;
    assert!(worker.claim_now().await.is_none());
    assert_eq!(test.cancel(&second).await, 202);
    let cancelled = json!({"outcome": "cancelled", "lastN": 0});
    assert_eq!(held.try_complete(&cancelled).await.0, 200);
    assert_eq!(worker.run().await.id(), third.id);
}

#[tokio::test]
async fn a_workspace_runs_as_many_as_its_cap_also_under_a_storm_of_claims() {
    let test = TestApp::start_with(|settings| settings.tuning.running_cap = 3).await;
    let second = test.second_dispatcher().await;
    for _ in 0..10 {
        test.submit().await;
    }
    let workers: Vec<Worker> = (0..12)
        .map(|n| {
            Worker::new(if n % 2 == 0 {
                &test.dispatcher
            } else {
                &second
            })
        })
        .collect();
    let mut held = Vec::new();
    let mut ended = 0;
    while ended < 10 {
        let claims = workers.iter().map(Worker::claim_now);
        let got = futures::future::join_all(claims).await;
        held.extend(got.into_iter().flatten());
        assert!(held.len() <= 3, "{} run at one time", held.len());
        if let Some(one) = held.pop() {
            one.ack().await;
            one.state("running").await;
            one.complete(0).await;
            ended += 1;
        }
    }
    assert!(held.is_empty());
}

/// One that had to move on because its place was taken must not make its neighbour move on too.
#[tokio::test]
async fn claims_side_by_side_take_different_places() {
    const PLACES: i32 = 40;
    const WORKERS: usize = 8;
    const ROUNDS: usize = 15;
    let test = TestApp::start_with(|settings| settings.tuning.running_cap = PLACES).await;
    for _ in 0..2 + WORKERS * ROUNDS {
        test.submit().await;
    }
    let workers: Vec<Worker> = (0..WORKERS)
        .map(|_| Worker::new(&test.dispatcher))
        .collect();
    // They stay, so that the places of later ones are taken.
    let _staying = [workers[0].run().await, workers[0].run().await];
    let mut earlier = Vec::new();
    for _ in 0..ROUNDS {
        let claims = workers.iter().map(Worker::claim);
        let claimed = futures::future::join_all(claims).await;
        for held in std::mem::replace(&mut earlier, claimed) {
            held.ack().await;
            held.state("running").await;
            held.complete(0).await;
        }
    }
    let metrics = test.get("/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let claims = WORKERS * ROUNDS;
    let claimed = format!(
        "clawlink_executions_claimed_total{{agent=\"shell\"}} {}",
        claims + 2
    );
    assert!(metrics.contains(&claimed), "{metrics}");
    let contested = metrics
        .lines()
        .find_map(|line| line.strip_prefix("clawlink_places_contested_total "))
        .map_or(0, |count| count.parse::<usize>().unwrap());
    // Twelve to eighteen where each takes the next free place after one of its own.
    assert!(contested < claims / 15, "{contested} of {claims} claims");
}

#[tokio::test]
async fn a_full_workspace_says_so_and_moves_on_at_once() {
    let test = TestApp::start_with(|settings| settings.tuning.running_cap = 1).await;
    let worker = Worker::new(&test.dispatcher);
    let first = test.submit().await;
    let held = worker.run().await;
    assert_eq!(held.id(), first.id);
    let urgent = test.submit_with(json!({"priority": "low"})).await;
    let shown = test.show(&urgent).await;
    assert_eq!(shown["queue"]["waitReason"], "workspace_at_cap");
    let waiting = tokio::spawn({
        let worker = Worker::new(&test.dispatcher);
        async move { worker.claim().await }
    });
    held.complete(0).await;
    assert_eq!(waiting.await.unwrap().id(), urgent.id);
}

#[tokio::test]
async fn an_execution_is_told_whether_anyone_offers_its_agent() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let reason = || async {
        let shown = test.show(&job).await;
        shown["queue"]["waitReason"].as_str().map(str::to_owned)
    };
    assert_eq!(reason().await.as_deref(), Some("no_worker_offers_agent"));
    let worker = Worker::new(&test.dispatcher);
    let first = worker.run().await;
    assert_eq!(first.id(), job.id);
    let job = test.submit().await;
    let shown = test.show(&job).await;
    assert_eq!(shown["queue"]["waitReason"], "no_idle_worker");
    assert_eq!(shown["queue"]["position"], 0);
    let status: serde_json::Value = test
        .get("/status")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(status["workers"]["busy"], 1);
    assert_eq!(status["queue"]["depth"], 1);
    eventually("it is said that a worker is missing", async || {
        let answer = test.get("/status").send().await.unwrap();
        let status: serde_json::Value = answer.json().await.unwrap();
        let waited = status["queue"]["longestWaitSeconds"].as_f64().unwrap();
        (status["queue"]["waitingForWorker"] == 1 && waited > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_without_redis_does_not_contradict_those_that_know() {
    let test = TestApp::start().await;
    let lonely = test
        .dispatcher_with(|settings| {
            settings.redis_url = Some(Secret::new("redis://127.0.0.1:1"));
        })
        .await;
    let job = test.submit().await;
    eventually("it has waited long enough to be looked at", async || {
        let waited = "select queued_at < now() - interval '200 ms' from executions";
        let waited = sqlx::query_scalar::<_, bool>(waited);
        waited.fetch_one(test.db()).await.unwrap().then_some(())
    })
    .await;
    for _ in 0..5 {
        record_reasons(&lonely.app).await.unwrap();
        record_reasons(test.app()).await.unwrap();
    }
    let shown = test.show(&job).await;
    assert_eq!(shown["queue"]["waitReason"], "no_worker_offers_agent");
    assert_eq!(test.types(&job).await, ["connected", "queued"]);
}
