//! One session's own limit on money: said at its beginning, changed by those who manage limits,
//! within what the workspace allows each session.

use clawlink::auth::principal::KeyRole;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::refusal;
use crate::jobs::Job;
use crate::limits::cost;
use crate::members::call;
use crate::worker::Worker;

impl TestApp {
    /// Status and answer of a change of a session's limit.
    pub(crate) async fn limit_session(
        &self,
        key: &Secret,
        session: &str,
        body: &Value,
    ) -> (u16, Value) {
        let path = format!("/sessions/{session}");
        let answer = call(self, key, Method::PATCH, &path).json(body).send();
        let answer = answer.await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn own_limit(&self, job: &Job) -> Value {
        let answer = self.get(&format!("/sessions/{}", job.session)).send().await;
        let session: Value = answer.unwrap().json().await.unwrap();
        session["sessionBudgetUsd"].clone()
    }
}

fn again(job: &Job) -> Value {
    json!({"userRequest": "true", "codingAssistantProvider": "shell", "resumeSessionId": job.session})
}

#[tokio::test]
async fn a_session_stops_at_its_own_limit_and_goes_on_after_its_raise() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let job = test.submit_with(json!({"sessionBudgetUsd": 0.5})).await;
    assert_eq!(test.own_limit(&job).await, json!(0.5));
    let held = worker.run().await;
    held.consumed(1, &cost(0.3)).await;
    held.complete_with(1, &cost(0.3)).await;

    let next = test.resume(&job).await;
    let held = worker.run().await;
    let waiting = test.resume(&job).await;
    held.consumed(1, &cost(0.19)).await;
    assert_eq!(held.told_to_stop().await, None);
    held.consumed(2, &cost(0.2)).await;
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
    held.stopped(2, 0.2).await;
    assert_eq!(test.last_event(&next).await["code"], "budget_exceeded");
    // What waited is ended when a worker would take it.
    test.queued().await;
    assert!(worker.claim_now().await.is_none(), "it gets nothing");
    test.becomes(&waiting, "failed").await;
    let end = test.last_event(&waiting).await;
    assert_eq!(end["code"], "budget_exceeded");
    let words = end["error"].as_str().unwrap();
    assert!(words.contains("$0.50 of $0.50"), "{words}");

    let refused = test.refused(&again(&job)).await;
    assert_eq!(refused, Some(json!([403, "budget_exceeded"])));
    test.submit().await;
    worker.run().await.complete(0).await;

    let admin = test.admin_key().await;
    let raise = json!({"sessionBudgetUsd": 2});
    let (status, _) = test.limit_session(&test.key, &job.session, &raise).await;
    assert_eq!(status, 403, "a developer");
    let (status, session) = test.limit_session(&admin, &job.session, &raise).await;
    assert_eq!((status, &session["sessionBudgetUsd"]), (200, &json!(2.0)));
    let resumed = test.resume(&job).await;
    let held = worker.run().await;
    assert_eq!(held.id(), resumed.id);
    // Lowered while it runs, it counts at the next report.
    let lower = json!({"sessionBudgetUsd": 0.6});
    test.limit_session(&admin, &job.session, &lower).await;
    held.consumed(1, &cost(0.1)).await;
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
    held.stopped(1, 0.1).await;
    let lift = json!({"sessionBudgetUsd": null});
    let (status, session) = test.limit_session(&admin, &job.session, &lift).await;
    assert_eq!(
        (status, session.get("sessionBudgetUsd")),
        (200, None),
        "{session}"
    );
    let free = test.resume(&job).await;
    worker.run().await.complete(0).await;
    test.becomes(&free, "completed").await;

    let path = "/api/audit/events?eventType=session.limited";
    let entries = call(&test, &admin, Method::GET, path).send().await;
    let entries: Value = entries.unwrap().json().await.unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 3, "{entries}");
}

#[tokio::test]
async fn a_sessions_own_limit_stays_within_the_workspaces() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    test.limit(json!({"sessionBudgetUsd": 1.0})).await;
    let with = |budget: Value| json!({"userRequest": "true", "codingAssistantProvider": "shell", "sessionBudgetUsd": budget});
    for bad in [json!(1.01), json!(-1), json!("much")] {
        let (status, problem) = refusal(test.execute(&with(bad))).await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &json!("sessionBudgetUsd"))
        );
    }
    let job = test.submit_with(json!({"sessionBudgetUsd": 1})).await;
    let mut turn = again(&job);
    turn["sessionBudgetUsd"] = json!(0.1);
    let (status, problem) = refusal(test.execute(&turn)).await;
    assert_eq!(
        (status, &problem["field"]),
        (400, &json!("sessionBudgetUsd"))
    );

    let admin = test.admin_key().await;
    let (_, foreign) = test.key_for("other", KeyRole::Admin).await;
    for (key, body, refused) in [
        (&admin, json!({"sessionBudgetUsd": 1.01}), 400),
        (&admin, json!({"sessionBudgetUsd": -1}), 400),
        (&admin, json!({}), 400),
        (&admin, json!({"sessionBudgetUsd": 1, "weekly": 1}), 400),
        (&foreign, json!({"sessionBudgetUsd": 1}), 404),
    ] {
        let (status, answer) = test.limit_session(key, &job.session, &body).await;
        assert_eq!(status, refused, "{body}: {answer}");
    }
    assert_eq!(test.own_limit(&job).await, json!(1.0));

    // What the workspace allows each session counts also when it is lowered later.
    test.limit(json!({"sessionBudgetUsd": 0.5})).await;
    let held = worker.run().await;
    held.consumed(1, &cost(0.49)).await;
    assert_eq!(held.told_to_stop().await, None);
    held.consumed(2, &cost(0.5)).await;
    assert_eq!(held.told_to_stop().await, Some(ErrorCode::BudgetExceeded));
    held.stopped(2, 0.5).await;
}
