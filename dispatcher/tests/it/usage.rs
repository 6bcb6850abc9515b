//! What executions consume: recorded with the report, never twice, added up for whoever asks.

use clawlink::auth::principal::KeyRole;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::refusal;
use crate::jobs::Job;
use crate::members::call;
use crate::sweep::{lapse, sweep_now};
use crate::wait::eventually;
use crate::worker::{Held, Worker};

/// A report of usage as a worker's line.
pub(crate) fn usage_line(n: u64, usage: &Value) -> String {
    format!("{}\n", json!({"n": n, "type": "usage", "fields": usage}))
}

impl Held {
    /// Reports what was consumed so far.
    pub(crate) async fn consumed(&self, n: u64, usage: &Value) {
        let (status, answer) = self.try_lines(usage_line(n, usage)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Reports success with what was consumed.
    pub(crate) async fn complete_with(&self, last_n: u64, usage: &Value) {
        let report = json!({"outcome": "completed", "lastN": last_n, "usage": usage});
        self.must("complete", &report).await;
    }
}

impl TestApp {
    /// `GET /api/usage` with this query.
    pub(crate) async fn usage(&self, query: &str) -> Value {
        let answer = self.get(&format!("/api/usage?{query}")).send().await;
        let answer = answer.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// What the workspace has consumed in all: executions, input, output, dollars.
    async fn total(&self) -> (u64, u64, u64, Option<f64>) {
        let total = &self.usage("").await["total"];
        let count = |name: &str| total[name].as_u64().unwrap();
        (
            count("executions"),
            count("inputTokens"),
            count("outputTokens"),
            total["costUsd"].as_f64(),
        )
    }

    /// Moves everything that was consumed so far to the day before.
    pub(crate) async fn midnight_passes(&self) {
        sqlx::query("update usage set day = day - 1")
            .execute(self.db())
            .await
            .unwrap();
    }
}

fn priced(input: u64, output: u64, dollars: f64) -> Value {
    json!({"inputTokens": input, "outputTokens": output, "costUsd": dollars})
}

#[tokio::test]
async fn reports_replace_each_other_and_repeated_ends_count_once() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let job = test.submit().await;
    let held = worker.run().await;
    held.consumed(1, &priced(100, 10, 0.1)).await;
    held.consumed(2, &priced(300, 30, 0.3)).await;
    // The same lines again, as after a lost answer.
    held.consumed(2, &priced(300, 30, 0.3)).await;
    assert_eq!(test.total().await, (1, 300, 30, Some(0.3)));
    let shown = test.show(&job).await;
    assert_eq!(shown["usage"]["inputTokens"], 300, "while it runs: {shown}");

    let end = json!({"inputTokens": 400, "outputTokens": 40, "cacheReadTokens": 50,
        "cacheWriteTokens": 20, "costUsd": 0.35, "model": "some-model"});
    for _ in 0..3 {
        held.complete_with(2, &end).await;
    }
    assert_eq!(test.total().await, (1, 400, 40, Some(0.35)));
    let shown = test.show(&job).await;
    assert_eq!(shown["usage"], end, "as it was reported");
    assert_eq!(test.last_event(&job).await["usage"], end);
}

#[tokio::test]
async fn attempts_of_a_lost_worker_are_added_once() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let job = test.submit_with(json!({"onWorkerLost": "resume"})).await;
    let lost = worker.run().await;
    lost.consumed(1, &priced(1000, 100, 1.0)).await;
    lapse(&test, &lost).await;
    sweep_now(&test).await;
    let held = worker.run().await;
    assert_eq!(held.id(), job.id);
    assert_eq!(held.assignment.lease.attempt, 2);
    // Whoever lost it reports nothing any more.
    let (status, _) = lost.try_lines(usage_line(2, &priced(5000, 500, 5.0))).await;
    assert_eq!(status, 409);
    held.consumed(1, &priced(10, 1, 0.25)).await;
    held.complete_with(1, &priced(20, 2, 0.5)).await;
    assert_eq!(test.total().await, (1, 1020, 102, Some(1.5)));
    let end = test.last_event(&job).await;
    assert_eq!(end["usage"]["inputTokens"], 1020);
    assert_eq!(end["usage"]["costUsd"], 1.5);
}

#[tokio::test]
async fn what_a_lost_worker_reported_stays_known() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let lost = Worker::new(&test.dispatcher).run().await;
    lost.consumed(1, &priced(1000, 100, 1.0)).await;
    lapse(&test, &lost).await;
    sweep_now(&test).await;
    test.becomes(&job, "failed").await;
    assert_eq!(test.show(&job).await["usage"]["costUsd"], 1.0);
    let deleted = test.delete(&format!("/sessions/{}", job.session)).send();
    assert_eq!(deleted.await.unwrap().status(), 200);
    assert_eq!(test.total().await, (1, 1000, 100, Some(1.0)));
}

#[tokio::test]
async fn a_day_ends_at_midnight_utc() {
    let test = TestApp::start().await;
    test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    held.consumed(1, &priced(100, 10, 0.1)).await;
    test.midnight_passes().await;
    held.consumed(2, &priced(250, 25, 0.3)).await;
    held.complete_with(2, &priced(260, 26, 0.4)).await;
    let days = test.usage("groupBy=day").await;
    let of = |day: usize| &days["groups"][day];
    assert_eq!(of(0)["inputTokens"], 100);
    assert_eq!(of(0)["costUsd"], 0.1);
    assert_eq!(of(1)["inputTokens"], 160);
    assert_eq!(of(1)["costUsd"], 0.3);
    assert_eq!(days["total"]["costUsd"], 0.4);
    assert_eq!(days["total"]["executions"], 1);
    let today = of(1)["key"].as_str().unwrap();
    let only = test.usage(&format!("from={today}&to={today}")).await;
    assert_eq!(only["total"]["inputTokens"], 160);
}

#[tokio::test]
async fn what_the_agent_does_not_price_the_table_does() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let run = async |model: Value, usage: Value| -> Job {
        let options = json!({"providerOptions": {"model": model}});
        let job = test.submit_with(options).await;
        let held = worker.run().await;
        held.complete_with(0, &usage).await;
        job
    };
    let tokens = json!({"inputTokens": 7000, "outputTokens": 500, "cacheReadTokens": 2000,
        "cacheWriteTokens": 4000});
    let known = run(json!("claude-sonnet-4-5"), tokens.clone()).await;
    assert_eq!(test.show(&known).await["usage"]["costUsd"], 0.0261);
    let unknown = run(json!("nobodys-model"), tokens.clone()).await;
    let shown = test.show(&unknown).await;
    assert!(shown["usage"]["costUsd"].is_null(), "{shown}");
    // What the agent says is believed before the request and the table.
    let mut said = tokens;
    said["model"] = json!("gpt-5-mini");
    said["costUsd"] = json!(0.5);
    run(json!("claude-sonnet-4-5"), said).await;

    let models = test.usage("groupBy=model").await;
    let groups = models["groups"].as_array().unwrap();
    let of = |key: &str| groups.iter().find(|group| group["key"] == key).unwrap();
    assert_eq!(of("claude-sonnet-4-5")["costUsd"], 0.0261);
    assert_eq!(of("gpt-5-mini")["costUsd"], 0.5);
    assert!(of("nobodys-model")["costUsd"].is_null());
    assert_eq!(of("nobodys-model")["unpricedExecutions"], 1);
    assert_eq!(models["total"]["costUsd"], 0.5261);
    assert_eq!(models["total"]["unpricedExecutions"], 1);
}

#[tokio::test]
async fn a_file_of_the_operators_replaces_the_prices() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prices.json");
    std::fs::write(&file, r#"{"house": {"input": "1000000", "output": "0"}}"#).unwrap();
    let test = TestApp::start_with(|settings| settings.tuning.prices = Some(file)).await;
    let options = json!({"providerOptions": {"model": "acme/house-2"}});
    let job = test.submit_with(options).await;
    let held = Worker::new(&test.dispatcher).run().await;
    let usage = json!({"inputTokens": 3, "outputTokens": 3});
    held.complete_with(0, &usage).await;
    assert_eq!(test.show(&job).await["usage"]["costUsd"], 3.0);
}

#[tokio::test]
async fn usage_is_grouped_and_paged() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let mut jobs = Vec::new();
    for round in 1..=3 {
        jobs.push(test.submit().await);
        let held = worker.run().await;
        held.complete_with(0, &priced(round, 1, 0.5)).await;
    }
    let next = test.resume(&jobs[0]).await;
    let held = worker.run().await;
    assert_eq!(held.id(), next.id);
    held.complete_with(0, &priced(10, 1, 0.5)).await;

    let sessions = test.usage("groupBy=session").await;
    let groups = sessions["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    let first = groups.iter().find(|one| one["key"] == jobs[0].session);
    assert_eq!(first.unwrap()["inputTokens"], 11);
    assert_eq!(first.unwrap()["executions"], 2);
    for (group_by, key) in [("agent", json!("shell")), ("task", json!(null))] {
        let one = test.usage(&format!("groupBy={group_by}")).await;
        assert_eq!(one["groups"].as_array().unwrap().len(), 1, "{one}");
        assert_eq!(one["groups"][0]["key"], key);
        assert_eq!(one["groups"][0]["costUsd"], 2.0);
    }
    let users = test.usage("groupBy=user").await;
    assert!(
        users["groups"][0]["key"]
            .as_str()
            .unwrap()
            .starts_with("key:")
    );

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = test
            .usage(&format!("groupBy=execution&limit=3{cursor}"))
            .await;
        for group in page["groups"].as_array().unwrap() {
            seen.push(group["key"].as_str().unwrap().parse::<i64>().unwrap());
        }
        assert_eq!(page["total"]["executions"], 4, "of all pages");
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let ids: Vec<i64> = jobs.iter().map(|job| job.id).chain([next.id]).collect();
    assert_eq!(seen, ids);

    for bad in [
        "groupBy=colour",
        "from=yesterday",
        "from=2026-11-20&to=2026-11-19",
        "from=2000-01-01",
        "limit=0",
        "cursor=%00",
    ] {
        let (status, problem) = refusal(test.get(&format!("/api/usage?{bad}"))).await;
        assert_eq!(
            (status, &problem["error"]),
            (400, &json!("invalid_request")),
            "{bad}"
        );
    }
    let (_, other) = test.key_for("other", KeyRole::Admin).await;
    let theirs = call(&test, &other, Method::GET, "/api/usage").send().await;
    let theirs: Value = theirs.unwrap().json().await.unwrap();
    assert_eq!(theirs["groups"], json!([]));
    assert_eq!(theirs["total"]["executions"], 0);
}

#[tokio::test]
async fn reports_that_mean_nothing_are_kept_and_not_counted() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    held.consumed(1, &json!({"inputTokens": "many"})).await;
    held.consumed(2, &json!({"inputTokens": -1})).await;
    held.consumed(3, &json!({"inputTokens": 5, "costUsd": -3.0}))
        .await;
    let most = json!({"inputTokens": u64::MAX, "outputTokens": u64::MAX, "costUsd": 1e300});
    held.consumed(4, &most).await;
    held.complete(4).await;
    let types = test.types(&job).await;
    assert_eq!(types.iter().filter(|kind| *kind == "usage").count(), 4);
    let bound = 1_000_000_000_000;
    assert_eq!(test.total().await, (1, bound, bound, Some(1e6)));
    eventually("the end is archived", || async {
        let folder = format!("session-{}/turns/1.events.jsonl", job.session);
        test.app().blobs.size(&folder).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_report_without_a_cost_takes_back_none_that_is_known() {
    let test = TestApp::start().await;
    test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    held.consumed(1, &priced(100, 10, 0.4)).await;
    let unpriced = json!({"inputTokens": 200, "outputTokens": 20, "model": "nobodys-model"});
    held.consumed(2, &unpriced).await;
    assert_eq!(test.total().await, (1, 200, 20, Some(0.4)));
    held.consumed(3, &priced(300, 30, 0.7)).await;
    assert_eq!(test.total().await, (1, 300, 30, Some(0.7)));
}
