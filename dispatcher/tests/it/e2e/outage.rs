//! Dispatchers that are away while agents run.

use serde_json::{Value, json};

use super::shaky::{Shaky, claims, last, starts, work_of};
use super::world::{Submitted, said};

const SCRIPT: &str = "echo before; while ! test -e go; do sleep 0.05; done; echo after";

/// With every dispatcher away, the lease lapses and the agent goes on to its end; then
/// dispatchers come back.
async fn outlives(mut world: Shaky, run: &Submitted, worker: super::world::Worker) {
    world.lease_lapses(run).await;
    std::fs::write(work_of(&worker, run).join("go"), "").unwrap();
    let back = world.app.second_dispatcher().await;
    world.dispatcher.lead_to(&back.url);
    world.app.dispatcher = back;
    let events = world.end_of(run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (1, 1));
    assert_eq!(said(&events), ["before", "after"]);
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn all_drained_for_longer_than_the_lease_nothing_fails() {
    let mut world = Shaky::start().await;
    let worker = world.worker();
    let run = world.submit(world.script(SCRIPT, json!({}))).await;
    world.says(&run, "before").await;
    world.app.dispatcher.end().await;
    outlives(world, &run, worker).await;
}

#[tokio::test]
async fn all_killed_for_longer_than_the_lease_nothing_fails() {
    let mut world = Shaky::start().await;
    let process = world.app.dispatcher_process().await;
    world.dispatcher.lead_to(&process.url);
    let worker = world.worker();
    let run = world.submit(world.script(SCRIPT, json!({}))).await;
    world.says(&run, "before").await;
    world.app.dispatcher.end().await;
    process.kill().await;
    outlives(world, &run, worker).await;
}

#[tokio::test]
async fn when_one_of_two_is_killed_workers_and_streams_go_on_at_the_other() {
    let world = Shaky::start().await;
    let process = world.app.dispatcher_process().await;
    let urls = format!("{},{}", process.url, world.app.dispatcher.url);
    let worker = world.worker_at(&urls);
    let script = "for i in $(seq 200); do echo $i; sleep 0.005; done; \
                  while ! test -e go; do sleep 0.05; done; for i in $(seq 100); do echo $i; done";
    let run = world.submit(world.script(script, json!({}))).await;

    let path = format!("/executions/{}/events", run.execution);
    let call = world.app.http.get(format!("{}{path}", process.url));
    let call = call.bearer_auth(world.app.key.expose());
    let mut stream = call.send().await.unwrap();
    let mut text = Vec::new();
    while text.len() < 4096 {
        text.extend(stream.chunk().await.unwrap().expect("it has not ended"));
    }
    process.kill().await;
    while let Ok(Some(chunk)) = stream.chunk().await {
        text.extend(chunk);
    }
    std::fs::write(work_of(&worker, &run).join("go"), "").unwrap();

    let mut joined = whole_events(&text);
    let cursor = last(&joined)["seq"].to_string();
    let rest = world.app.get(&path).header("last-event-id", cursor);
    let rest = rest.send().await.unwrap().bytes().await.unwrap();
    joined.extend(whole_events(&rest));
    assert_eq!(joined, world.end_of(&run).await);
    assert_eq!(last(&joined)["type"], "completed");
    assert_eq!(said(&joined).len(), 300);
    assert_eq!(worker.exit_code().await, Some(0));
}

/// The events of a stream that may have been cut in the middle of one.
fn whole_events(stream: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(stream);
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    whole
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
