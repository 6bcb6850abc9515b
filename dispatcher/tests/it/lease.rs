//! Leases: claimed, repeated, acknowledged, refused, and the reports made under them.

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
