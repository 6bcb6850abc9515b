//! Cancelling in each state, and workers that are told to stop.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::shaky::{Shaky, last};
use super::world::{Submitted, event, outline, said};

impl Shaky {
    async fn cancel(&self, run: &Submitted) {
        let path = format!("/executions/{}/cancel", run.execution);
        let answer = self.app.post(&path).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }

    async fn is_cancelled(&self, run: &Submitted) -> Vec<Value> {
        let events = self.end_of(run).await;
        let end = last(&events);
        assert_eq!(end["type"], "cancelled", "{events:#?}");
        assert!(end["by"].as_str().unwrap().starts_with("key:"), "{end}");
        events
    }
}

#[tokio::test]
async fn pending_then_no_worker_gets_it() {
    let world = Shaky::start().await;
    let run = world.submit(world.script("echo ran", json!({}))).await;
    world.cancel(&run).await;
    world.is_cancelled(&run).await;
    let (_, events) = world.completes(world.script("echo other", json!({}))).await;
    assert_eq!(said(&events), ["other"]);
}

#[tokio::test]
async fn while_cloning_from_a_silent_host() {
    let world = Shaky::start().await;
    let held = world.git_gate.hold("POST /app.git/git-upload-pack");
    let worker = world.worker();
    let run = world.submit(world.script("echo ran", json!({}))).await;
    held.reached().await;
    world.cancel(&run).await;
    let events = world.is_cancelled(&run).await;
    assert!(said(&events).is_empty());
    assert_eq!(worker.exit_code().await, Some(0));
    drop(held);
}

#[tokio::test]
async fn while_a_script_runs_its_changes_stay_in_the_session_unpushed() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let script = "echo half > half.txt; echo ran; trap '' TERM INT; while :; do sleep 0.05; done";
    let run = world.submit(world.script(script, json!({}))).await;
    world.says(&run, "ran").await;
    world.cancel(&run).await;
    let events = world.is_cancelled(&run).await;
    assert!(last(&events)["commitHash"].is_null());
    assert_eq!(world.git.branches("app").await.unwrap(), ["main"]);
    assert_eq!(worker.exit_code().await, Some(0));
    let (_, events) = world
        .completes(world.turn(&run.session, "cat half.txt"))
        .await;
    assert_eq!(said(&events), ["half"]);
}

#[tokio::test]
async fn while_claude_answers() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let request = world.on_repository("app", "claude", "[[slow]] count");
    let run = world.submit(request).await;
    world.says(&run, "tick").await;
    world.cancel(&run).await;
    world.is_cancelled(&run).await;
    assert_eq!(worker.exit_code().await, Some(0));
    assert!(world.archive_of(&run).await.is_some());
    let mut next = world.on_repository("app", "claude", "[[text]] go on");
    next["websiteSessionId"] = json!(run.session);
    let (_, events) = world.completes(next).await;
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert!(result.contains("2 marked user turns"), "{result}");
}

#[tokio::test]
async fn while_pushing_the_push_is_finished_and_named() {
    let world = Shaky::start().await;
    let held = world.git_gate.hold("POST /app.git/git-receive-pack");
    let worker = world.worker();
    let run = world
        .submit(world.script("echo new > new.txt", json!({})))
        .await;
    held.reached().await;
    world.cancel(&run).await;
    held.release();
    let events = world.is_cancelled(&run).await;
    let branch = last(&events)["branch"].as_str().expect("it is named");
    assert_eq!(
        last(&events)["commitHash"].as_str(),
        world.git.tip("app", branch).await.unwrap().as_deref()
    );
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_busy_worker_that_drains_saves_the_session_and_says_so() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let script = "echo half > half.txt; echo ran; while :; do sleep 0.05; done";
    let run = world.submit(world.script(script, json!({}))).await;
    world.says(&run, "ran").await;
    worker.signal(Signal::TERM);
    let events = world.end_of(&run).await;
    assert_eq!(outline(&events).last(), Some(&"error"), "{events:#?}");
    assert_eq!(last(&events)["code"], "interrupted");
    assert_eq!(last(&events)["retryable"], true);
    assert_eq!(worker.exit_code().await, Some(0));
    let (_, events) = world
        .completes(world.turn(&run.session, "cat half.txt"))
        .await;
    assert_eq!(said(&events), ["half"]);
}

#[tokio::test]
async fn a_draining_worker_lets_a_short_run_finish_and_an_idle_one_exits() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let script = "echo ran; sleep 0.3; echo done";
    let run = world.submit(world.script(script, json!({}))).await;
    world.says(&run, "ran").await;
    worker.signal(Signal::TERM);
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!(said(&events), ["ran", "done"]);
    assert_eq!(worker.exit_code().await, Some(0));
}
