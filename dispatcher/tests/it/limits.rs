//! Limits on money: refused, stopped, ended while waiting, raised and gone on.

use clawlink::auth::principal::KeyRole;
use clawlink_shared::control::Order;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::{refusal, script};
use crate::members::call;
use crate::sweep::{lapse, sweep_now};
use crate::worker::{Held, Worker};

impl TestApp {
    /// Sets the first workspace's limits; those that are not named are lifted.
    pub(crate) async fn limit(&self, limits: Value) -> Value {
        let admin = self.admin_key().await;
        let mut all = json!({"dailyBudgetUsd": null, "sessionBudgetUsd": null,
            "executionBudgetUsd": null});
        for (name, limit) in limits.as_object().unwrap() {
            all[name] = limit.clone();
        }
        let put = call(self, &admin, Method::PUT, "/api/limits").json(&all);
        let answer = put.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn admin_key(&self) -> Secret {
        self.key_for("default", KeyRole::Admin).await.1
    }

    /// The code with which a new request is refused; none if it is taken.
    pub(crate) async fn refused(&self, body: &Value) -> Option<Value> {
        let answer = self.execute(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status != 202).then(|| json!([status, body["error"]]))
    }
}

/// A report of usage.
pub(crate) fn cost(dollars: f64) -> Value {
    json!({"inputTokens": 1, "outputTokens": 1, "costUsd": dollars})
}

impl Held {
    /// The code of a stop, if one is ordered.
    pub(crate) async fn told_to_stop(&self) -> Option<ErrorCode> {
        let (_, orders) = self.control(0, 0).await;
        match orders.items.into_iter().next().map(|item| item.order) {
            Some(Order::Stop { code, .. }) => Some(code),
            _ => None,
        }
    }

    /// Ends as a worker does that was told to.
    pub(crate) async fn stopped(&self, last_n: u64, dollars: f64) {
        let error = json!({"code": "budget_exceeded", "message": "as told"});
        let report = json!({"outcome": "failed", "error": error, "lastN": last_n,
            "usage": cost(dollars)});
        self.must("complete", &report).await;
    }
}

#[tokio::test]
async fn a_requests_own_budget_stops_it() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let own = json!({"providerOptions": {"maxBudgetUsd": 0.5}});
    test.submit_with(own).await;
    let held = worker.run().await;
    held.consumed(1, &cost(0.49)).await;
    assert_eq!(held.told_to_stop().await, None);
    let listening = tokio::spawn({
        let held = held.clone();
        async move { held.control(0, 20).await }
    });
    held.consumed(2, &cost(0.5)).await;
    let (_, orders) = listening.await.unwrap();
    let Order::Stop { code, reason } = &orders.items[0].order else {
        panic!("{orders:?}");
    };
    assert_eq!(*code, ErrorCode::BudgetExceeded);
    assert!(reason.contains("$0.50 of $0.50"), "{reason}");
    // An order is given once to those who say that they know it.
    assert!(held.control(orders.items[0].k, 0).await.1.items.is_empty());
    held.stopped(2, 0.5).await;
}

#[tokio::test]
async fn a_cumulative_agent_and_a_table_price_are_held_to_it_too() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    test.limit(json!({"executionBudgetUsd": 0.001})).await;
    let options = json!({"providerOptions": {"model": "claude-sonnet-4-5"}});
    test.submit_with(options).await;
    let held = worker.run().await;
    let tokens = |output: u64| json!({"inputTokens": 100, "outputTokens": output});
    held.consumed(1, &tokens(25)).await;
    assert_eq!(held.told_to_stop().await, None, "$0.000675");
    held.consumed(2, &tokens(47)).await;
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
}

#[tokio::test]
async fn a_session_stops_and_goes_on_after_a_raise() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    test.limit(json!({"sessionBudgetUsd": 1.0})).await;
    let job = test.submit().await;
    let held = worker.run().await;
    held.consumed(1, &cost(0.6)).await;
    held.complete_with(1, &cost(0.6)).await;

    let next = test.resume(&job).await;
    let held = worker.run().await;
    held.consumed(1, &cost(0.39)).await;
    assert_eq!(held.told_to_stop().await, None);
    held.consumed(2, &cost(0.4)).await;
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
    held.stopped(2, 0.4).await;
    let end = test.last_event(&next).await;
    assert_eq!(end["code"], "budget_exceeded");
    assert_eq!(end["retryable"], false);

    let again = json!({"userRequest": "true", "codingAssistantProvider": "shell",
        "resumeSessionId": job.session});
    let refused = test.refused(&again).await;
    assert_eq!(refused, Some(json!([403, "budget_exceeded"])));
    assert_eq!(test.refused(&script("true")).await, None, "another session");
    worker.run().await.complete(0).await;

    test.limit(json!({"sessionBudgetUsd": 2.0})).await;
    let resumed = test.resume(&job).await;
    let held = worker.run().await;
    assert_eq!(held.id(), resumed.id);
    held.complete(0).await;
    test.becomes(&resumed, "completed").await;
}

#[tokio::test]
async fn two_that_race_for_the_last_dollar_do_not_both_go_on() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    test.limit(json!({"dailyBudgetUsd": 1.0})).await;
    for round in 0..5 {
        test.midnight_passes().await;
        test.submit().await;
        test.submit().await;
        let (one, other) = (worker.run().await, worker.run().await);
        // Each alone is far below; together they reach it.
        let (dollars, more) = (cost(0.5), cost(0.5));
        tokio::join!(one.consumed(1, &dollars), other.consumed(1, &more));
        let told = [one.told_to_stop().await, other.told_to_stop().await];
        let stopped = told.iter().flatten().count();
        assert!(stopped >= 1, "round {round}: both go on");
        // The other one is told at its next report.
        for held in [&one, &other] {
            held.consumed(2, &cost(0.51)).await;
            assert!(held.told_to_stop().await.is_some(), "round {round}");
            held.stopped(2, 0.51).await;
        }
    }
}

#[tokio::test]
async fn an_exhausted_day_refuses_and_ends_what_waits_until_midnight() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let shown = test.limit(json!({"dailyBudgetUsd": 1.0})).await;
    assert_eq!(shown["spentTodayUsd"], 0.0);
    test.submit().await;
    let held = worker.run().await;
    let waiting = test.submit().await;
    held.consumed(1, &cost(1.25)).await;
    held.stopped(1, 1.25).await;

    let (status, problem) = refusal(test.execute(&script("true"))).await;
    assert_eq!(
        (status, &problem["error"]),
        (403, &json!("budget_exceeded"))
    );
    let words = problem["detail"].as_str().unwrap();
    assert!(words.contains("$1.25 of $1.00"), "{words}");
    test.queued().await;
    assert!(worker.claim_now().await.is_none(), "it gets nothing");
    test.becomes(&waiting, "failed").await;
    assert_eq!(test.last_event(&waiting).await["code"], "budget_exceeded");
    let limits: Value = test
        .get("/api/limits")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(limits["spentTodayUsd"], 1.25);

    test.midnight_passes().await;
    test.submit().await;
    worker.run().await.complete(0).await;
}

#[tokio::test]
async fn limits_are_managed_by_managers_and_audited() {
    let test = TestApp::start().await;
    let put = |key: &Secret, body: Value| call(&test, key, Method::PUT, "/api/limits").json(&body);
    let (status, _) = refusal(put(&test.key, json!({"dailyBudgetUsd": 1}))).await;
    assert_eq!(status, 403, "a developer");
    let admin = test.admin_key().await;
    for bad in [
        json!({"dailyBudgetUsd": 1}),
        json!({"dailyBudgetUsd": -1, "sessionBudgetUsd": null, "executionBudgetUsd": null}),
        json!({"dailyBudgetUsd": "much", "sessionBudgetUsd": null, "executionBudgetUsd": null}),
        json!({"dailyBudgetUsd": 1, "sessionBudgetUsd": null, "executionBudgetUsd": null, "weekly": 1}),
    ] {
        let (status, _) = refusal(put(&admin, bad)).await;
        assert_eq!(status, 400);
    }
    let set = test
        .limit(json!({"dailyBudgetUsd": 0.1, "sessionBudgetUsd": 1e300}))
        .await;
    assert_eq!(set["dailyBudgetUsd"], 0.1);
    assert!(set["executionBudgetUsd"].is_null());
    assert!(set["updatedBy"].as_str().unwrap().starts_with("key:"));
    let cleared = test.limit(json!({})).await;
    assert!(cleared["dailyBudgetUsd"].is_null(), "{cleared}");
    let entries = call(
        &test,
        &admin,
        Method::GET,
        "/api/audit/events?eventType=limits.updated",
    );
    let entries: Value = entries.send().await.unwrap().json().await.unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 2, "{entries}");

    let (_, foreign) = test.key_for("other", KeyRole::Admin).await;
    let theirs = call(&test, &foreign, Method::GET, "/api/limits")
        .send()
        .await;
    let theirs: Value = theirs.unwrap().json().await.unwrap();
    assert!(theirs["updatedBy"].is_null(), "{theirs}");
}

#[tokio::test]
async fn a_stop_is_given_to_the_next_worker_too() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let wish = json!({"onWorkerLost": "resume", "providerOptions": {"maxBudgetUsd": 1.0}});
    test.submit_with(wish).await;
    let lost = worker.run().await;
    lost.consumed(1, &cost(1.0)).await;
    lapse(&test, &lost).await;
    sweep_now(&test).await;
    let held = worker.run().await;
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
    held.stopped(0, 0.0).await;
}

#[tokio::test]
async fn a_report_that_comes_with_what_an_agent_took_counts_too() {
    let test = TestApp::start().await;
    test.submit_with(json!({"providerOptions": {"maxBudgetUsd": 0.5}}))
        .await;
    let held = Worker::new(&test.dispatcher).run().await;
    let taken = json!({"messageId": uuid::Uuid::new_v4(), "text": "go on"});
    let taken = json!({"n": 1, "type": "user_message", "fields": taken});
    let report = json!({"n": 2, "type": "usage", "fields": cost(0.5)});
    let (status, answer) = held.try_lines(format!("{taken}\n{report}\n")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
    assert_eq!(test.usage("").await["total"]["costUsd"], 0.5);
}
