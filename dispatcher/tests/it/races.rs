//! Cancelling against completion, loss and requeue: seeded plans, acted out at the same time.
//! `CLAWLINK_TEST_SEED` repeats one; moments are counted in calls, not in time.

use std::time::Duration;

use clawlink::executions::sweep::{Trust, sweep};
use rand::RngExt as _;
use serde_json::json;

use crate::app::TestApp;
use crate::jobs::Job;
use crate::queue::seeded;
use crate::wait::eventually;
use crate::worker::{Held, Worker};

const ROUNDS: usize = 24;
/// The most calls that somebody lets pass between two deeds.
const MOST_CALLS: usize = 6;
const TRUST: Trust = Trust {
    leases: true,
    cancels: true,
};

/// What becomes of the first worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Reports,
    VanishesUnacknowledged,
    VanishesBeforeTheAgent,
    VanishesWithTheAgent,
}

#[derive(Debug)]
struct Plan {
    fate: Fate,
    resumes: bool,
    /// Calls before the cancel request.
    cancel_after: usize,
    /// Calls between the worker's deeds.
    pauses: [usize; 4],
    /// Calls between sweeps.
    sweep_after: usize,
}

impl Plan {
    fn draw(random: &mut impl rand::Rng) -> Self {
        let fates = [
            Fate::Reports,
            Fate::VanishesUnacknowledged,
            Fate::VanishesBeforeTheAgent,
            Fate::VanishesWithTheAgent,
        ];
        Self {
            fate: fates[random.random_range(0..fates.len())],
            resumes: random.random(),
            cancel_after: random.random_range(0..3 * MOST_CALLS),
            pauses: std::array::from_fn(|_| random.random_range(0..MOST_CALLS)),
            sweep_after: random.random_range(0..MOST_CALLS),
        }
    }
}

async fn pass(test: &TestApp, calls: usize) {
    for _ in 0..calls {
        let answer = test.http.get(test.url("/health")).send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

/// Its time is over at once: to acknowledge, and the lease.
async fn vanish(test: &TestApp, held: &Held) {
    let silent = "update executions set lease_expires_at = now() - interval '1 s',
            claimed_at = claimed_at - interval '1 hour'
         where id = $1 and claim_id is not null and state in ('planning', 'running')";
    let silent = sqlx::query(silent).bind(held.id());
    silent.execute(test.db()).await.unwrap();
}

/// The first worker; answers whether its report of success was accepted.
async fn first_worker(test: &TestApp, plan: &Plan) -> bool {
    let held = Worker::new(&test.dispatcher).claim_now().await;
    let Some(held) = held else { return false };
    pass(test, plan.pauses[0]).await;
    if plan.fate == Fate::VanishesUnacknowledged {
        vanish(test, &held).await;
        return false;
    }
    let mut last_n = 0;
    for (call, pause) in [("ack", 1), ("state", 2), ("complete", 3)] {
        let body = match call {
            "state" => json!({"to": "running"}),
            "complete" => json!({"outcome": "completed", "lastN": last_n}),
            _ => json!({}),
        };
        let (status, answer) = held.try_post(call, &body).await;
        assert!(
            status == 200 || answer["error"] == "lease_lost",
            "{call}: {answer}"
        );
        if status != 200 || call == "complete" {
            return status == 200;
        }
        if held.try_events(last_n + 1..=last_n + 2).await.0 == 200 {
            last_n += 2;
        }
        pass(test, plan.pauses[pause]).await;
        let is_time = match call {
            "ack" => plan.fate == Fate::VanishesBeforeTheAgent,
            _ => plan.fate == Fate::VanishesWithTheAgent,
        };
        if is_time {
            vanish(test, &held).await;
            return false;
        }
    }
    false
}

/// Sweeps, and runs to the end what comes back to the queue.
async fn second_worker(test: &TestApp, plan: &Plan, job: &Job) {
    eventually(&format!("execution {} ends: {plan:?}", job.id), || async {
        pass(test, plan.sweep_after).await;
        sweep(test.app(), TRUST).await.unwrap();
        if ["completed", "failed", "cancelled"].contains(&test.state_of(job).await.as_str()) {
            return Some(());
        }
        if let Some(held) = Worker::new(&test.dispatcher).claim_now().await {
            held.try_post("ack", &json!({})).await;
            held.try_post("state", &json!({"to": "running"})).await;
            let report = json!({"outcome": "completed", "lastN": 0});
            held.try_complete(&report).await;
        }
        None
    })
    .await;
}

#[tokio::test]
async fn a_cancel_at_any_moment_leads_to_one_end_that_all_agree_on() {
    let (seed, mut random) = seeded();
    let test = TestApp::start_with(|settings| {
        // Leases end when the plan says so; only the plan's own sweeps count.
        settings.tuning.lease = Duration::from_secs(3600);
        settings.tuning.ack = Duration::from_secs(1800);
    })
    .await;
    for round in 0..ROUNDS {
        let plan = Plan::draw(&mut random);
        let lost = if plan.resumes { "resume" } else { "fail" };
        let job = test.submit_with(json!({ "onWorkerLost": lost })).await;
        test.queued().await;
        let (reported, (), cancelled) = tokio::join!(
            first_worker(&test, &plan),
            second_worker(&test, &plan, &job),
            async {
                pass(&test, plan.cancel_after).await;
                test.cancel(&job).await
            }
        );
        let state = test.state_of(&job).await;
        let what = format!("seed {seed}, round {round}: {state}, {plan:?}");
        match cancelled {
            202 => assert_eq!(state, "cancelled", "{what}"),
            409 => assert_ne!(state, "cancelled", "{what}"),
            other => panic!("status {other}; {what}"),
        }
        if reported && cancelled == 409 {
            assert_eq!(state, "completed", "{what}");
        }
        let log = test.log(&job).await;
        let ends = ["completed", "error", "cancelled"];
        let end = log.last().unwrap()["type"].as_str().unwrap();
        assert!(ends.contains(&end), "{what}: {log:#?}");
        let runs = log.iter().filter(|event| event["to"] == "running").count();
        assert!(runs <= 1 + usize::from(plan.resumes), "{what}: {log:#?}");
    }
}
