//! Lost workers and lost time: what the sweeper does, one step at a time.

use std::time::Duration;

use clawlink::executions::sweep::{Trust, sweep};
use serde_json::json;

use crate::app::TestApp;
use crate::jobs::Job;
use crate::wait::eventually;
use crate::worker::{Held, Worker};

/// A database that has answered for long.
const TRUST: Trust = Trust {
    leases: true,
    cancels: true,
};

/// Makes a lease lapse now, as if its worker had been silent for its whole length.
pub(crate) async fn lapse(test: &TestApp, held: &Held) {
    let lapsed = sqlx::query(
        "update executions set lease_expires_at = now() - interval '1 second' where id = $1",
    );
    lapsed.bind(held.id()).execute(test.db()).await.unwrap();
}

/// Sweeps once, trusting leases.
pub(crate) async fn sweep_now(test: &TestApp) -> usize {
    sweep(test.app(), TRUST).await.unwrap()
}

async fn end_of(test: &TestApp, job: &Job) -> (String, String) {
    let end = test.last_event(job).await;
    let text = |name: &str| end[name].as_str().unwrap_or_default().to_owned();
    (text("type"), text("code"))
}

#[tokio::test]
async fn a_worker_lost_before_the_agent_started_is_replaced_up_to_the_bound() {
    let test = TestApp::start_with(|settings| settings.tuning.max_attempts = 2).await;
    let worker = Worker::new(&test.dispatcher);
    let job = test.submit().await;
    for attempt in 1..=2 {
        let held = worker.claim().await;
        held.ack().await;
        assert_eq!(held.assignment.lease.attempt, attempt);
        assert_eq!(held.events(1..=2).await, 2, "numbers begin anew");
        lapse(&test, &held).await;
        assert_eq!(sweep_now(&test).await, 1);
        assert_eq!(held.try_events(3..=3).await.0, 409);
        assert_eq!(held.control(0, 0).await.0, 409);
    }
    let end = end_of(&test, &job).await;
    assert_eq!(end, ("error".into(), "worker_lost".into()));
    assert_eq!(test.last_event(&job).await["retryable"], true);
}

#[tokio::test]
async fn a_worker_lost_while_the_agent_ran_fails_the_execution() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    lapse(&test, &held).await;
    assert_eq!(sweep_now(&test).await, 1);
    assert_eq!(sweep_now(&test).await, 0, "sweeping is idempotent");
    let end = end_of(&test, &job).await;
    assert_eq!(end, ("error".into(), "worker_lost".into()));
    let report = json!({"outcome": "completed", "lastN": 0});
    let (status, problem) = held.try_complete(&report).await;
    assert_eq!((status, &problem["error"]), (409, &json!("lease_lost")));
}

#[tokio::test]
async fn resume_runs_once_more_with_its_credentials() {
    let test = TestApp::start().await;
    let worker = Worker::new(&test.dispatcher);
    let job = test
        .submit_with(json!({
            "onWorkerLost": "resume", "codingAssistantAuthentication": "kept-for-the-second-run",
        }))
        .await;
    let first = worker.run().await;
    first.events(1..=4).await;
    lapse(&test, &first).await;
    sweep_now(&test).await;
    let held = worker.run().await;
    assert_eq!(held.id(), job.id);
    assert_eq!(held.assignment.lease.attempt, 2);
    assert!(held.assignment.credentials.agent.is_some());
    let log = test.log(&job).await;
    let said = |event: &serde_json::Value| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("once more"))
    };
    assert!(log.iter().any(said), "{log:#?}");
    assert_eq!(held.events(1..=2).await, 2);
    lapse(&test, &held).await;
    sweep_now(&test).await;
    assert_eq!(end_of(&test, &job).await.1, "worker_lost");
}

#[tokio::test]
async fn an_expired_lease_that_nobody_swept_is_renewed() {
    let test = TestApp::start_with(|settings| {
        // This replica's own sweeper trusts nothing for an hour.
        settings.tuning.lease = Duration::from_secs(3600);
    })
    .await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    lapse(&test, &held).await;
    assert_eq!(held.events(1..=1).await, 1);
    assert_eq!(sweep_now(&test).await, 0);
    lapse(&test, &held).await;
    let hasty = Trust {
        leases: false,
        cancels: false,
    };
    assert_eq!(sweep(test.app(), hasty).await.unwrap(), 0);
    assert_eq!(held.try_post("heartbeat", &json!({})).await.0, 200);
    held.complete(1).await;
    assert_eq!(test.state_of(&job).await, "completed");
}

#[tokio::test]
async fn the_loop_sweeps_by_itself_after_one_lease_length() {
    let test = TestApp::start_with(|settings| {
        // This replica's own sweeper trusts nothing for an hour; the second one's soon does.
        settings.tuning.lease = Duration::from_secs(3600);
    })
    .await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    lapse(&test, &held).await;
    let _second = test
        .dispatcher_with(|settings| settings.tuning.lease = Duration::from_millis(100))
        .await;
    eventually("the lost worker is noticed", || async {
        (test.state_of(&job).await == "failed").then_some(())
    })
    .await;
    assert_eq!(end_of(&test, &job).await.1, "worker_lost");
}

#[tokio::test]
async fn many_sweepers_and_a_last_report_agree_on_one_end() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    for _ in 0..15 {
        let job = test.submit().await;
        let held = Worker::new(&test.dispatcher).run().await;
        lapse(&test, &held).await;
        let report = json!({"outcome": "completed", "lastN": 0});
        let (mine, theirs, (status, _)) = tokio::join!(
            sweep(test.app(), TRUST),
            sweep(&second.app, TRUST),
            held.try_complete(&report),
        );
        let swept = mine.unwrap() + theirs.unwrap();
        let state = test.state_of(&job).await;
        match status {
            200 => assert_eq!((swept, state.as_str()), (0, "completed")),
            409 => assert_eq!((swept, state.as_str()), (1, "failed")),
            other => panic!("status {other}"),
        }
        test.log(&job).await;
    }
}

#[tokio::test]
async fn hand_outs_that_no_worker_acknowledges_are_bounded() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    for _ in 0..10 {
        let held = Worker::new(&test.dispatcher).claim().await;
        assert_eq!(held.assignment.lease.attempt, 1, "none counts");
        let silent = "update executions set claimed_at = now() - interval '1 hour' where id = $1";
        let silent = sqlx::query(silent).bind(held.id());
        silent.execute(test.db()).await.unwrap();
        sweep_now(&test).await;
    }
    let end = end_of(&test, &job).await;
    assert_eq!(end, ("error".into(), "worker_lost".into()));
}

#[tokio::test]
async fn a_cancelled_execution_whose_worker_lives_may_finish_its_work() {
    let test = TestApp::start().await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        jobs.push((
            test.submit().await,
            Worker::new(&test.dispatcher).run().await,
        ));
    }
    for (job, _) in &jobs {
        assert_eq!(test.cancel(job).await, 202);
    }
    let age = async |minutes: f64| {
        let aged = "update executions set cancel_requested_at = now() - $1 * interval '1 minute'";
        let aged = sqlx::query(aged).bind(minutes);
        aged.execute(test.db()).await.unwrap();
    };
    age(2.0).await;
    assert_eq!(sweep_now(&test).await, 0);
    let (job, held) = &jobs[0];
    let archive = held.upload(b"archive").await;
    let report = json!({"outcome": "cancelled", "lastN": 0, "archive": archive});
    assert_eq!(held.try_complete(&report).await.0, 200);
    assert_eq!(test.state_of(job).await, "cancelled");
    age(6.0).await;
    assert_eq!(sweep_now(&test).await, 1, "not for ever");
    assert_eq!(test.state_of(&jobs[1].0).await, "cancelled");
}

#[tokio::test]
async fn one_that_cannot_be_swept_holds_up_no_other() {
    let test = TestApp::start().await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = test.submit().await;
        let held = Worker::new(&test.dispatcher).run().await;
        lapse(&test, &held).await;
        jobs.push(job);
    }
    // As a later release may have written it; its lease lapsed first.
    let odd = "update executions set agent = 'of-tomorrow',
        lease_expires_at = now() - interval '1 hour' where id = $1";
    let odd = sqlx::query(odd).bind(jobs[0].id);
    odd.execute(test.db()).await.unwrap();
    assert_eq!(sweep_now(&test).await, 1);
    assert_eq!(test.state_of(&jobs[0]).await, "running");
    assert_eq!(test.state_of(&jobs[1]).await, "failed");
}
