//! A dispatcher of an earlier release as a process beside this release's, on one database that this
//! one migrated, one Redis, one S3: what every rolling update goes through.
//!
//! `./deploy/test --all` builds it from this repository's history and names the program in
//! `CLAWLINK_TEST_EARLIER_DISPATCHER`. That an earlier release's statements are still understood
//! is shown in [`upgrade`](super::upgrade), without building it.

use std::path::Path;

use clawlink::auth::principal::KeyRole;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::{DispatcherProcess, TestApp, required};
use super::client::{Event, Stream, script};
use super::jobs::Job;
use super::wait::eventually;
use super::worker::Worker;

/// Both releases on the same parts.
struct Update {
    test: TestApp,
    earlier: DispatcherProcess,
}

impl Update {
    async fn begun() -> Self {
        let program = required("CLAWLINK_TEST_EARLIER_DISPATCHER");
        let test = TestApp::start().await;
        let earlier = test.dispatcher_process_of(Path::new(&program)).await;
        Self { test, earlier }
    }

    fn present(&self) -> &str {
        &self.test.dispatcher.url
    }

    async fn submit(&self, at: &str, body: &Value) -> Job {
        let call = self.test.http.post(format!("{at}/execute"));
        let call = call.bearer_auth(self.test.key.expose());
        let answer = call.header("accept", "application/json").json(body).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        let said: Value = answer.json().await.unwrap();
        Job {
            id: said["executionId"].as_i64().unwrap(),
            session: said["sessionId"].as_str().unwrap().to_owned(),
        }
    }

    async fn stream(&self, at: &str, job: &Job) -> Stream {
        let call = self
            .test
            .http
            .get(format!("{at}/executions/{}/events", job.id));
        Stream::open(call.bearer_auth(self.test.key.expose())).await
    }
}

fn values(events: Vec<Event>) -> Vec<Value> {
    events.iter().map(Event::json).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_pass_through_both_releases() {
    let update = Update::begun().await;
    let (old, new) = (update.earlier.url.as_str(), update.present());
    for (submit, claim, finish) in [
        (old, new, old),
        (new, old, new),
        (old, old, new),
        (new, new, old),
    ] {
        let env = json!({"env": {"TOKEN": "canary"}});
        let mut body = script("true");
        body["providerOptions"] = env;
        let job = update.submit(submit, &body).await;
        let streams = [
            update.stream(old, &job).await,
            update.stream(new, &job).await,
        ];
        let held = Worker::at(claim).run().await;
        assert_eq!(held.id(), job.id);
        let token = &held.assignment.credentials.env["TOKEN"];
        assert_eq!(
            token.expose(),
            "canary",
            "sealed by one, opened by the other"
        );
        held.at_url(old).events(1..=3).await;
        // An answer that was lost: the other release knows what it has.
        assert_eq!(held.at_url(new).events(2..=6).await, 6);
        assert_eq!(held.at_url(old).events(5..=8).await, 8);
        held.at_url(finish).complete(8).await;
        let log = update.test.log(&job).await;
        assert_eq!(log.last().unwrap()["type"], "completed");
        let told = log.iter().filter(|event| event["type"] == "message");
        assert_eq!(told.count(), 8);
        for stream in streams {
            assert_eq!(values(stream.rest().await), log);
        }
        // A later turn, accepted and taken by the other one.
        let (other, again) = if submit == old {
            (new, old)
        } else {
            (old, new)
        };
        let mut next = script("true");
        next["resumeSessionId"] = json!(job.session);
        let next = update.submit(other, &next).await;
        let held = Worker::at(again).run().await;
        assert_eq!((held.id(), held.assignment.session.turn), (next.id, 2));
        held.at_url(other).complete(0).await;
        update.test.becomes(&next, "completed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_losses_and_secrets_cross_over() {
    let update = Update::begun().await;
    let test = &update.test;
    let (old, new) = (update.earlier.url.as_str(), update.present());
    for (held_at, asked_at) in [(old, new), (new, old)] {
        // A cancel reaches the worker at the other release.
        let job = update.submit(asked_at, &script("true")).await;
        let held = Worker::at(held_at).run().await;
        assert_eq!(held.id(), job.id);
        let cancel = format!("{asked_at}/executions/{}/cancel", job.id);
        let cancel = test.http.post(cancel).bearer_auth(test.key.expose());
        assert!(cancel.send().await.unwrap().status().is_success());
        let (status, orders) = held.control(0, 20).await;
        assert_eq!((status, orders.items.len()), (200, 1));
        let report = json!({"outcome": "cancelled", "lastN": 0});
        assert_eq!(held.at_url(asked_at).try_complete(&report).await.0, 200);
        test.becomes(&job, "cancelled").await;

        // What one stored and sealed the other hands out.
        let (_, admin) = test.key_for("default", KeyRole::Admin).await;
        let name = format!("TOKEN_{}", Uuid::new_v4().simple());
        let put = test.http.put(format!("{held_at}/api/secrets/{name}"));
        let put = put
            .bearer_auth(admin.expose())
            .json(&json!({"value": "canary"}));
        assert_eq!(put.send().await.unwrap().status(), 201);
        let mut body = script("true");
        body["providerOptions"] = json!({"env": {"SECRET": {"secret": name}}});
        for claim in [old, new] {
            let job = update.submit(asked_at, &body).await;
            let held = Worker::at(claim).run().await;
            assert_eq!(held.id(), job.id);
            assert_eq!(held.assignment.credentials.env["SECRET"].expose(), "canary");
            held.complete(0).await;
        }
    }
    // The earlier release dies with the update: what it accepted goes on.
    let job = update.submit(old, &script("true")).await;
    let held = Worker::at(old).run().await;
    let waiting = update.submit(old, &script("true")).await;
    let present = update.present().to_owned();
    let Update { test, earlier } = update;
    earlier.kill().await;
    held.at_url(&present).events(1..=2).await;
    held.at_url(&present).complete(2).await;
    test.becomes(&job, "completed").await;
    let held = eventually("what was accepted is queued", async || {
        Worker::at(&present).claim_now().await
    })
    .await;
    assert_eq!(held.id(), waiting.id);
}
