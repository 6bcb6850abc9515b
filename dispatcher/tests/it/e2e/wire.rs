//! Answers that are lost on the wire after the dispatcher has done what was asked.

use serde_json::json;

use super::shaky::{Shaky, claims, last, starts};
use super::world::said;
use crate::wait::eventually;

#[tokio::test]
async fn whichever_answer_is_lost_there_is_one_run_and_one_end() {
    let world = Shaky::start().await;
    for call in [
        "/worker/claim ",
        "/ack ",
        "/state ",
        "/events ",
        "/heartbeat ",
        "/archive ",
        "/complete ",
    ] {
        world.dispatcher.lose_answers(call, 1);
        // The claim must be answered with work, so work comes first.
        let script = match call {
            "/heartbeat " => "echo ran; sleep 1",
            _ => "echo ran",
        };
        let run = world.submit(world.script(script, json!({}))).await;
        let worker = world.worker();
        let events = world.end_of(&run).await;
        assert_eq!(last(&events)["type"], "completed", "{call}: {events:#?}");
        assert_eq!((claims(&events), starts(&events)), (1, 1), "{call}");
        assert_eq!(said(&events), ["ran"], "{call}");
        assert_eq!(worker.exit_code().await, Some(0), "{call}");
        assert!(world.dispatcher.has_lost_all(), "{call}");
    }
}

#[tokio::test]
async fn events_whose_acknowledgements_are_lost_are_there_once() {
    let world = Shaky::start().await;
    world.dispatcher.lose_answers("/events ", 5);
    let script = "for i in $(seq 400); do echo line $i; sleep 0.001; done";
    let (_, events) = world.completes(world.script(script, json!({}))).await;
    let expected: Vec<_> = (1..=400).map(|i| format!("line {i}")).collect();
    assert_eq!(said(&events), expected);
    assert!(world.dispatcher.has_lost_all());
}

#[tokio::test]
async fn a_lost_answer_of_the_storage_loses_no_archive() {
    let world = Shaky::start().await;
    world.storage.lose_answers("PUT ", 1);
    let (run, _) = world
        .completes(world.script("echo kept > kept.txt", json!({})))
        .await;
    world.storage.lose_answers("GET ", 1);
    let (_, events) = world
        .completes(world.turn(&run.session, "cat kept.txt"))
        .await;
    assert_eq!(said(&events), ["kept"]);
    assert!(world.storage.has_lost_all());
}

#[tokio::test]
async fn joining_a_large_archive_may_take_longer_than_other_calls() {
    let world = Shaky::start_with(|settings| {
        settings.s3.s3_endpoint = settings.s3.s3_public_endpoint.clone();
    })
    .await;
    let joined = world.storage.hold(".tar.zst?uploadId=");
    let worker = world.worker();
    let script = "head -c 9000000 /dev/urandom > large";
    let run = world
        .submit(world.script(script, json!({"github": null})))
        .await;
    joined.reached().await;
    // Other calls are given up after 10 s by the dispatcher, and after 15 s by the worker.
    let expiry = async || {
        let expiry = sqlx::query_scalar::<_, f64>(
            "select extract(epoch from lease_expires_at)::float8 from executions where id = $1",
        );
        let expiry = expiry.bind(run.execution).fetch_one(world.app.db()).await;
        expiry.unwrap()
    };
    let begun = expiry().await;
    eventually("the worker renews its lease meanwhile", async || {
        (expiry().await > begun + 17.0).then_some(())
    })
    .await;
    assert_eq!(joined.count(), 1, "asked once");
    joined.release();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!(worker.exit_code().await, Some(0));
}
