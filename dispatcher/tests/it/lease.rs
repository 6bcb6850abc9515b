//! Leases: claimed, repeated, acknowledged, refused, and the reports made under them.

use clawlink_shared::secret::Secret;
use serde_json::json;
use uuid::Uuid;

use crate::app::TestApp;
use crate::wait::eventually;
use crate::worker::Worker;

#[tokio::test]
async fn an_execution_goes_from_the_queue_to_its_recorded_end() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.claim().await }
    });
    let job = test.submit().await;
    let held = waiting.await.unwrap();
    assert_eq!(held.id(), job.id);
    assert_eq!(held.assignment.lease.attempt, 1);
    assert_eq!(held.assignment.session.turn, 1);
    held.ack().await;
    held.state("running").await;
    assert_eq!(held.events(1..=5).await, 5);
    let archive = held.upload(b"archive").await;
    let report = json!({
        "outcome": "completed", "lastN": 5, "archive": archive, "branch": "b",
        "commitHash": "c", "result": "nul \u{0} is text", "usage": {"inputTokens": 7},
        "providerSessionId": "conversation",
    });
    for _ in 0..2 {
        assert_eq!(held.try_complete(&report).await.0, 200);
    }
    let types = test.types(&job).await;
    assert_eq!(types[..2], ["connected", "queued"]);
    assert_eq!(types[2..4], ["state_changed", "state_changed"]);
    assert_eq!(types[4..9], ["message"; 5]);
    assert_eq!(types[9..], ["completed"]);
    let end = test.last_event(&job).await;
    assert_eq!(end["result"], "nul \u{fffd} is text");
    assert_eq!(end["branch"], "b");
    assert_eq!(end["usage"]["inputTokens"], 7);
    assert!(end["duration_ms"].is_u64());

    let next = test.resume(&job).await;
    let held = worker.run().await;
    assert_eq!(held.id(), next.id);
    let session = &held.assignment.session;
    assert_eq!(session.turn, 2);
    assert_eq!(session.archived_root.as_deref(), Some("/workspace"));
    assert_eq!(session.provider_session_id.as_deref(), Some("conversation"));
    let source = session.archive.as_ref().unwrap();
    let restored = test.http.get(source.url.expose()).send().await.unwrap();
    assert_eq!(restored.bytes().await.unwrap(), "archive");
    let (status, again) = held.try_post("archive/source", &json!({})).await;
    assert_eq!((status, &again["size"]), (200, &json!(7)));
    let folder = format!("session-{}", job.session);
    let blobs = &test.app().blobs;
    eventually("the first turn's log is archived", || async {
        let size = blobs.size(&format!("{folder}/turns/1.events.jsonl")).await;
        size.unwrap()
    })
    .await;
    let uuid = Uuid::parse_str(&job.session).unwrap();
    assert_eq!(session.id.0, uuid);
}

#[tokio::test]
async fn repeating_a_claim_gives_the_same_lease_at_any_dispatcher() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let worker = Worker::new(&test.dispatcher);
    let job = test.submit().await;
    test.submit().await;
    let claim = Uuid::new_v4();
    let first = worker.claim_as(claim, &["shell"], 5).await.unwrap();
    assert_eq!(first.id(), job.id);
    let elsewhere = Worker::new(&second);
    for repeated in [&worker, &elsewhere] {
        let again = repeated.claim_as(claim, &["shell"], 5).await.unwrap();
        assert_eq!(again.id(), first.id());
        assert_eq!(
            again.assignment.lease.token.expose(),
            first.assignment.lease.token.expose()
        );
    }
    first.ack().await;
    let calls = (0..4).map(|_| worker.claim_as(claim, &["shell"], 0));
    for again in futures::future::join_all(calls).await {
        assert_eq!(again.unwrap().id(), first.id());
    }
}

#[tokio::test]
async fn an_unacknowledged_claim_is_taken_back_uncounted() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let job = test.submit().await;
    let lost = worker.claim().await;
    let (status, problem) = lost.try_events(1..=1).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("lease_not_acknowledged"))
    );
    sqlx::query("update executions set claimed_at = now() - interval '1 hour'")
        .execute(test.db())
        .await
        .unwrap();
    let held = Worker::new(&test.dispatcher).claim().await;
    assert_eq!(held.id(), job.id);
    assert_eq!(held.assignment.lease.attempt, 1);
    held.ack().await;
    for call in ["ack", "heartbeat", "archive"] {
        let (status, problem) = lost.try_post(call, &json!({})).await;
        assert_eq!(
            (status, &problem["error"]),
            (409, &json!("lease_lost")),
            "{call}"
        );
    }
    let (status, _) = lost
        .try_complete(&json!({"outcome": "completed", "lastN": 0}))
        .await;
    assert_eq!(status, 409);
    held.state("running").await;
    held.complete(0).await;
    assert_eq!(test.state_of(&job).await, "completed");
}

#[tokio::test]
async fn events_are_stored_once_in_order_and_without_gaps() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let other = held.at(&second);
    assert_eq!(held.events(1..=3).await, 3);
    assert_eq!(other.events(1..=3).await, 3, "a lost answer");
    assert_eq!(other.events(2..=5).await, 5, "an overlap");
    let (status, problem) = held.try_events(7..=8).await;
    assert_eq!((status, &problem["error"]), (409, &json!("events_missing")));
    assert_eq!(problem["ackedN"], 5);
    let both = tokio::join!(held.try_events(6..=9), other.try_events(6..=9));
    assert_eq!((both.0.0, both.1.0), (200, 200));
    let good = json!({"n": 10, "type": "message", "fields": {"message": "x"}});
    let forged = json!({"n": 11, "type": "completed", "fields": {}});
    let (status, problem) = held.try_lines(format!("{good}\n{forged}\n")).await;
    assert_eq!((status, &problem["error"]), (400, &json!("event_refused")));
    assert_eq!(problem["n"], 11);
    let (status, problem) = held
        .try_complete(&json!({"outcome": "completed", "lastN": 11}))
        .await;
    assert_eq!((status, &problem["ackedN"]), (409, &json!(10)));
    held.complete(10).await;
    let messages = test.types(&job).await;
    assert_eq!(
        messages.iter().filter(|kind| *kind == "message").count(),
        10
    );
}

#[tokio::test]
async fn complete_wants_the_granted_archive() {
    let mut test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).claim().await;
    held.ack().await;
    let report = |archive: serde_json::Value| json!({"outcome": "completed", "lastN": 0, "archive": archive});
    let archive = held.upload(b"one").await;
    let (status, problem) = held.try_complete(&report(json!(archive))).await;
    assert_eq!((status, &problem["error"]), (409, &json!("state_conflict")));
    held.state("running").await;
    let short = json!({"key": archive.key, "size": 4, "sha256": archive.sha256});
    let foreign = archive.key.replace("/1-", "/2-");
    let foreign = json!({"key": foreign, "size": 3, "sha256": archive.sha256});
    for wrong in [short, foreign] {
        let (status, problem) = held.try_complete(&report(wrong)).await;
        assert_eq!(
            (status, &problem["error"]),
            (409, &json!("archive_missing"))
        );
    }
    test.s3.kill().await;
    let (status, _) = held.try_complete(&report(json!(archive))).await;
    assert_eq!(status, 503, "the worker repeats it");
    assert_eq!(test.state_of(&job).await, "running");
    test.s3.restart().await.unwrap();
    assert_eq!(held.try_complete(&report(json!(archive))).await.0, 200);
}

#[tokio::test]
async fn workers_of_another_protocol_and_without_token_are_refused() {
    let test = TestApp::start().await;
    let claim = || test.http.post(test.url("/worker/claim")).json(&json!({}));
    let old = claim()
        .bearer_auth(crate::app::POOL_TOKEN)
        .header("x-clawlink-protocol", "99");
    let answer = old.send().await.unwrap();
    assert_eq!(answer.status(), 426);
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("from 1 to 1"));
    let stranger = claim()
        .bearer_auth(test.key.expose())
        .header("x-clawlink-protocol", "1");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn an_interrupted_run_fails_retryably_and_credentials_go() {
    let test = TestApp::start().await;
    let job = test
        .submit_with(json!({"codingAssistantAuthentication": "secret-of-this-request"}))
        .await;
    let held = Worker::new(&test.dispatcher).run().await;
    let agent = held.assignment.credentials.agent.as_ref().unwrap();
    assert_eq!(agent.expose(), "secret-of-this-request");
    let report = json!({"outcome": "interrupted", "lastN": 0});
    assert_eq!(held.try_complete(&report).await.0, 200);
    let end = test.last_event(&job).await;
    assert_eq!(end["code"], "interrupted");
    assert_eq!(end["retryable"], true);
    let left: i64 = sqlx::query_scalar("select count(*) from credentials")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_can_never_be_handed_out_fails_and_holds_up_nobody() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let secret = json!({"codingAssistantAuthentication": "sealed-with-another-key"});
    let broken = [test.submit_with(secret).await, test.submit().await];
    sqlx::query("update credentials set sealed = '\\x00'")
        .execute(test.db())
        .await
        .unwrap();
    sqlx::query("update executions set spec = '[]' where id = $1")
        .bind(broken[1].id)
        .execute(test.db())
        .await
        .unwrap();
    let good = test.submit().await;
    test.queued().await;
    let held = worker.claim_now().await.unwrap();
    assert_eq!(held.id(), good.id, "in the same call");
    for job in &broken {
        let end = test.last_event(job).await;
        assert_eq!(
            (&end["type"], &end["code"]),
            (&json!("error"), &json!("internal_error"))
        );
    }
}

#[tokio::test]
async fn only_a_current_lease_reaches_the_storage_and_a_recorded_end_needs_none() {
    let mut test = TestApp::start().await;
    test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let archive = held.upload(b"archive").await;
    let report = json!({"outcome": "completed", "lastN": 0, "archive": archive});
    assert_eq!(held.try_complete(&report).await.0, 200);
    test.s3.kill().await;
    assert_eq!(held.try_complete(&report).await.0, 200);
    let mut stranger = held.clone();
    stranger.assignment.lease.token = Secret::new("guessed");
    let (status, problem) = stranger.try_complete(&report).await;
    assert_eq!((status, &problem["error"]), (409, &json!("lease_lost")));
    test.submit().await;
    let other = Worker::new(&test.dispatcher).run().await;
    let (status, problem) = other.try_complete(&report).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("archive_missing")),
        "a key of another lease"
    );
}

#[tokio::test]
async fn what_a_worker_says_of_itself_is_bounded() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let many = vec!["shell"; 65];
    let answer = worker.claim_call(Uuid::new_v4(), &many, 0).await;
    assert_eq!(answer.status(), 400);
}

/// A replica goes by what it saw last of an execution, except where that would be a refusal.
#[tokio::test]
async fn a_report_that_another_replica_recorded_is_repeatable_at_the_one_that_had_the_events() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    held.events(1..=3).await;
    let archive = held.upload(b"archive").await;
    let report = json!({"outcome": "completed", "lastN": 3, "archive": archive});
    assert_eq!(held.at(&second).try_complete(&report).await.0, 200);
    let (status, answer) = held.try_complete(&report).await;
    assert_eq!(status, 200, "{answer}");
}
