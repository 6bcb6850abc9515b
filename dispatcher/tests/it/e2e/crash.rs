//! Workers that die in each phase, as `kill -9` ends them.

use clawlink_fixtures::gate::Held;
use serde_json::{Value, json};

use super::shaky::{Shaky, claims, last, starts, work_of};
use super::world::{Submitted, event, outline, said};

/// Lets a first worker die while `held` holds it.
async fn dies_at(world: &Shaky, held: Held, request: Value) -> Submitted {
    let worker = world.worker();
    let run = world.submit(request).await;
    held.reached().await;
    worker.kill().await;
    held.release();
    run
}

#[tokio::test]
async fn while_cloning_another_worker_takes_over() {
    let world = Shaky::start().await;
    let held = world.git_gate.hold("POST /app.git/git-upload-pack");
    let run = dies_at(&world, held, world.script("echo ran", json!({}))).await;
    let second = world.worker();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (2, 1));
    assert_eq!(said(&events), ["ran"]);
    assert_eq!(second.exit_code().await, Some(0));
}

#[tokio::test]
async fn while_restoring_another_worker_takes_over() {
    let world = Shaky::start().await;
    let (first, _) = world
        .completes(world.script("echo kept > kept.txt", json!({})))
        .await;
    let held = world.storage.hold("GET ");
    let run = dies_at(&world, held, world.turn(&first.session, "cat kept.txt")).await;
    let second = world.worker();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (2, 1));
    assert_eq!(said(&events), ["kept"]);
    assert_eq!(second.exit_code().await, Some(0));
}

#[tokio::test]
async fn while_the_agent_runs_it_fails_and_the_session_stays_as_it_was() {
    let world = Shaky::start().await;
    let (first, _) = world
        .completes(world.script("echo one > log.txt", json!({})))
        .await;
    let archive = world.archive_of(&first).await;
    assert!(archive.is_some());

    let worker = world.worker();
    let script = "echo two >> log.txt; echo ran; while ! test -e go; do sleep 0.05; done";
    let run = world.submit(world.turn(&first.session, script)).await;
    world.says(&run, "ran").await;
    worker.kill().await;
    let waiting = world.worker();
    let events = world.is_lost(&run).await;
    assert_eq!((claims(&events), starts(&events)), (1, 1));
    assert_eq!(world.archive_of(&first).await, archive);

    let third = world
        .submit(world.turn(&first.session, "cat log.txt"))
        .await;
    assert_eq!(said(&world.end_of(&third).await), ["one"]);
    assert_eq!(waiting.exit_code().await, Some(0));
}

#[tokio::test]
async fn while_the_agent_runs_it_runs_once_more_if_the_request_says_so() {
    let world = Shaky::start().await;
    let script = "echo ran >> log.txt; echo ran; while ! test -e go; do sleep 0.05; done; \
                  cat log.txt";
    let worker = world.worker();
    let more = json!({"onWorkerLost": "resume"});
    let run = world.submit(world.script(script, more)).await;
    world.says(&run, "ran").await;
    worker.kill().await;

    let second = world.worker();
    world.state(run.execution, "pending").await;
    world.state(run.execution, "running").await;
    let go = work_of(&second, &run).join("go");
    std::fs::write(go, "").unwrap();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (2, 2));
    assert_eq!(
        said(&events),
        ["ran", "ran", "ran"],
        "the second run began anew"
    );
    let is_told = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["type"] == "message" && message.contains("once more")
    };
    assert!(events.iter().any(is_told), "{events:#?}");
    assert_eq!(second.exit_code().await, Some(0));
}

#[tokio::test]
async fn between_commit_and_push_it_fails_and_the_next_turn_can_start_again() {
    let world = Shaky::start().await;
    for call in [
        "GET /app.git/info/refs?service=git-receive-pack",
        "POST /app.git/git-receive-pack",
    ] {
        let held = world.git_gate.hold(call);
        let request = world.script("echo new > new.txt; echo ran", json!({}));
        let run = dies_at(&world, held, request).await;
        let events = world.is_lost(&run).await;
        assert_eq!(said(&events), ["ran"], "{call}");
        assert_eq!(world.archive_of(&run).await, None, "{call}");
        let (_, events) = world
            .completes(world.turn(&run.session, "echo again > new.txt"))
            .await;
        let branch = event(&events, "completed")["branch"].as_str().unwrap();
        let file = world.git.file("app", branch, "new.txt").await.unwrap();
        assert_eq!(file, "again\n", "{call}");
    }
}

#[tokio::test]
async fn after_the_push_the_second_run_continues_what_the_host_has() {
    let world = Shaky::start().await;
    let held = world.storage.hold("PUT ");
    let more = json!({"onWorkerLost": "resume"});
    let request = world.script("echo ran; echo run >> runs.txt", more);
    let run = dies_at(&world, held, request).await;
    let second = world.worker();
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "completed", "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (2, 2));
    let branch = last(&events)["branch"].as_str().unwrap();
    let file = world.git.file("app", branch, "runs.txt").await.unwrap();
    assert_eq!(file, "run\nrun\n");
    assert_eq!(second.exit_code().await, Some(0));
}

#[tokio::test]
async fn while_archiving_or_before_its_report_the_earlier_archive_stays_current() {
    let world = Shaky::start().await;
    let (first, _) = world
        .completes(world.script("echo one > log.txt", json!({})))
        .await;
    let archive = world.archive_of(&first).await;
    for what in ["archiving", "reporting"] {
        let held = match what {
            "archiving" => world.storage.hold("PUT "),
            _ => world.dispatcher.hold("/complete "),
        };
        let request = world.turn(&first.session, "echo two >> log.txt; echo ran");
        let worker = world.worker();
        let run = world.submit(request).await;
        held.reached().await;
        worker.kill().await;
        let events = world.is_lost(&run).await;
        held.release();
        assert_eq!(said(&events), ["ran"], "{what}");
        assert_eq!(world.archive_of(&first).await, archive, "{what}");
    }
    let (_, events) = world
        .completes(world.turn(&first.session, "cat log.txt"))
        .await;
    // What both had pushed is gone on with.
    assert_eq!(said(&events), ["one", "two", "two"]);
}

#[tokio::test]
async fn after_a_turn_that_was_lost_after_its_push_the_next_one_goes_on_from_the_branch() {
    let world = Shaky::start().await;
    let (first, _) = world
        .completes(world.script("echo one > log.txt", json!({})))
        .await;
    let held = world.dispatcher.hold("/complete ");
    let worker = world.worker();
    let run = world
        .submit(world.turn(&first.session, "echo two > two.txt"))
        .await;
    held.reached().await;
    worker.kill().await;
    world.is_lost(&run).await;
    held.release();
    let (_, events) = world
        .completes(world.turn(&first.session, "cat two.txt; echo three > three.txt"))
        .await;
    assert_eq!(said(&events), ["two"]);
    let is_told = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["type"] == "message" && message.contains("1 commit of this session")
    };
    assert!(events.iter().any(is_told), "{events:#?}");
    let branch = event(&events, "completed")["branch"].as_str().unwrap();
    for (path, content) in [("two.txt", "two\n"), ("three.txt", "three\n")] {
        let file = world.git.file("app", branch, path).await.unwrap();
        assert_eq!(file, content, "{path}");
    }
}

#[tokio::test]
async fn a_report_that_was_on_the_disk_is_sent_by_the_next_worker_there() {
    let world = Shaky::start_with(|settings| {
        settings.tuning.lease = std::time::Duration::from_secs(30);
    })
    .await;
    let held = world.dispatcher.hold("/complete ");
    let worker = world.worker();
    let run = world.submit(world.script("echo ran", json!({}))).await;
    held.reached().await;
    let disk = worker.kill().await;
    held.release();
    let next = world.worker_on(&world.dispatcher.url(), disk);
    let events = world.end_of(&run).await;
    assert_eq!(outline(&events).last(), Some(&"completed"), "{events:#?}");
    assert_eq!((claims(&events), starts(&events)), (1, 1));
    assert!(world.archive_of(&run).await.is_some());
    next.kill().await;
}
