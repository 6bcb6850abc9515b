//! Two workers that hold one execution: the first was frozen until its lease was swept, and
//! wakes up again.

use serde_json::json;

use super::shaky::{Shaky, claims, last, starts, work_of};
use super::world::said;

#[tokio::test]
async fn one_that_was_frozen_while_cloning_is_refused() {
    let world = Shaky::start().await;
    let held = world.git_gate.hold("POST /app.git/git-upload-pack");
    let first = world.worker();
    let run = world.submit(world.script("echo ran", json!({}))).await;
    held.reached().await;
    first.freeze();
    world.state(run.execution, "pending").await;
    held.release();
    let second = world.worker();
    world.state(run.execution, "running").await;
    first.thaw();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (2, 1));
    assert_eq!(said(&events), ["ran"]);
    assert_eq!(second.exit_code().await, Some(0));
    assert_eq!(first.exit_code().await, Some(0));
    assert_eq!(world.end_of(&run).await, events, "nothing was added");
}

#[tokio::test]
async fn one_that_was_frozen_while_its_agent_ran_stops_the_agent_and_exits() {
    let world = Shaky::start().await;
    let first = world.worker();
    let script = "echo ran; while :; do sleep 0.05; done";
    let run = world.submit(world.script(script, json!({}))).await;
    world.says(&run, "ran").await;
    first.freeze();
    let events = world.is_lost(&run).await;
    first.thaw();
    assert_eq!(
        first.exit_code().await,
        Some(0),
        "the agent has no end of its own"
    );
    assert_eq!(world.end_of(&run).await, events, "nothing was added");
    assert_eq!(world.archive_of(&run).await, None);
}

#[tokio::test]
async fn the_upload_of_a_stale_lease_never_becomes_current() {
    let world = Shaky::start().await;
    let first = world.worker();
    let held = world.storage.hold("PUT ");
    let more = json!({"onWorkerLost": "resume", "github": null});
    let script = "echo ran; echo run >> runs.txt";
    let run = world.submit(world.script(script, more)).await;
    held.reached().await;
    first.freeze();
    world.state(run.execution, "pending").await;
    // Its bytes are on their way already, and arrive after the other's have.
    let second = world.worker();
    world.state(run.execution, "running").await;
    held.release();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (2, 2));
    assert_eq!(second.exit_code().await, Some(0));
    let archive = world.archive_of(&run).await;
    first.thaw();
    assert_eq!(first.exit_code().await, Some(0));
    assert_eq!(world.archive_of(&run).await, archive);
    assert_eq!(world.end_of(&run).await, events, "nothing was added");
    let (_, events) = world
        .completes(json!({"websiteSessionId": run.session, "userRequest": "cat runs.txt"}))
        .await;
    assert_eq!(said(&events), ["run"], "the second run's tree");
}

#[tokio::test]
async fn one_whose_lease_nobody_swept_goes_on() {
    let world = Shaky::start_with(|settings| {
        // No sweep: leases are judged after they were trusted for one length.
        settings.tuning.tick = std::time::Duration::from_secs(60);
    })
    .await;
    let worker = world.worker();
    let script = "echo ran; while ! test -e go; do sleep 0.05; done; echo done";
    let run = world.submit(world.script(script, json!({}))).await;
    world.says(&run, "ran").await;
    worker.freeze();
    world.lease_lapses(&run).await;
    worker.thaw();
    std::fs::write(work_of(&worker, &run).join("go"), "").unwrap();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!(said(&events), ["ran", "done"]);
    assert_eq!(worker.exit_code().await, Some(0));
}
