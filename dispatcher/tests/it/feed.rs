//! The feed: whatever a client does, what it has read is the log of its workspace.

use std::time::Duration;

use clawlink::auth::principal::KeyRole;
use clawlink::feed;
use clawlink_shared::id::WorkspaceId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{Event, Stream, refusal};
use super::projects::patch;
use super::tasks::task;

/// Changes in the long run.
const CHANGES: usize = 600;
/// So often its client is cut.
const CUTS: usize = 60;

async fn log(test: &TestApp, workspace: i64) -> Vec<(i64, String)> {
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select seq, payload from feed_events where workspace_id = $1 order by seq")
            .bind(workspace)
            .fetch_all(test.db())
            .await
            .unwrap();
    let text = |(seq, payload)| (seq, String::from_utf8(payload).unwrap());
    rows.into_iter().map(text).collect()
}

/// Appends a change that is nobody's; pokes unless the hint is to be lost.
async fn append(app: &clawlink::app::App, workspace: i64, n: usize, hint: bool) {
    let workspace = WorkspaceId(workspace);
    let mut transaction = app.db.begin().await.unwrap();
    feed::append(
        &mut transaction,
        workspace,
        "test.changed",
        &json!({"n": n}),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    if hint {
        feed::poke(app, workspace);
    }
}

fn open(test: &TestApp, url: &str, after: Option<i64>) -> reqwest::RequestBuilder {
    let request = test.http.get(format!("{url}/api/events"));
    let request = request.bearer_auth(test.key.expose());
    match after {
        Some(after) => request.header("last-event-id", after),
        None => request,
    }
}

#[tokio::test]
async fn a_stream_begins_now_and_shows_each_change_once() {
    let test = TestApp::start().await;
    let made = task(&test, json!({})).await;
    let mut stream = Stream::open(test.get("/api/events")).await;
    let ready = stream.next().await.unwrap();
    assert_eq!(
        (ready.id.as_str(), ready.kind().as_str()),
        ("2", "feed.ready")
    );
    let changed = patch(&test, "/api/tasks/1", json!({"status": "done"})).await;
    let event = stream.next().await.unwrap();
    assert_eq!(
        event.json(),
        json!({"type": "task.updated", "seq": 3, "data": changed})
    );
    test.delete("/api/tasks/1?force=true").send().await.unwrap();
    let event = stream.next().await.unwrap();
    let gone = json!({"id": 1, "projectId": 1, "key": made["key"]});
    assert_eq!(
        event.json(),
        json!({"type": "task.deleted", "seq": 4, "data": gone})
    );
    drop(stream);
    let all = Stream::open(test.get("/api/events?after=0")).await;
    let kinds = take(all, 4)
        .await
        .iter()
        .map(Event::kind)
        .collect::<Vec<_>>();
    assert_eq!(
        kinds,
        [
            "project.created",
            "task.created",
            "task.updated",
            "task.deleted"
        ]
    );
    for bad in ["x", "-1"] {
        let request = test.get("/api/events").header("last-event-id", bad);
        assert_eq!(refusal(request).await.0, 400, "{bad}");
    }
}

async fn take(mut stream: Stream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(stream.next().await.unwrap());
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_between_two_dispatchers_reads_the_log() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let (other, _) = test.key_for("other", KeyRole::Admin).await;
    let made = task(&test, json!({})).await;
    let workspace = made["tenantId"].as_i64().unwrap();
    let writers = [test.app().clone(), second.app.clone()];
    let mut chance = StdRng::seed_from_u64(seed.wrapping_add(1));
    let writing = tokio::spawn(async move {
        for n in 0..CHANGES {
            let app = &writers[chance.random_range(0..2)];
            append(app, workspace, n, chance.random_bool(0.8)).await;
            if n % 7 == 0 {
                append(app, other.0, n, true).await;
            }
        }
    });
    let urls = [test.dispatcher.url.clone(), second.url.clone()];
    let mut read: Vec<(i64, String)> = Vec::new();
    let mut cuts = 0;
    let total = CHANGES + 2;
    while read.len() < total {
        let after = read.last().map_or(0, |(seq, _)| *seq);
        let request = open(&test, &urls[cuts % 2], Some(after));
        let mut stream = Stream::open(request).await;
        let piece = match cuts < CUTS {
            true => random.random_range(0..CHANGES / CUTS),
            false => total - read.len(),
        };
        for _ in 0..piece.min(total - read.len()) {
            let event = stream.next().await.unwrap();
            read.push((event.id.parse().unwrap(), event.data));
        }
        cuts += 1;
    }
    writing.await.unwrap();
    assert_eq!(read, log(&test, workspace).await);
    assert!(!read.iter().any(|(_, data)| data.contains("feed.re")));
}

#[tokio::test]
async fn a_lost_hint_delays_a_tick_and_no_more() {
    let test = TestApp::start().await;
    let made = task(&test, json!({})).await;
    let workspace = made["tenantId"].as_i64().unwrap();
    let second = test.second_dispatcher().await;
    let mut stream = Stream::open(open(&test, &second.url, Some(2))).await;
    append(test.app(), workspace, 1, false).await;
    assert_eq!(stream.next().await.unwrap().json()["data"], json!({"n": 1}));
}

#[tokio::test]
async fn who_was_away_too_long_is_told_to_load_anew() {
    let test = TestApp::start().await;
    let made = task(&test, json!({})).await;
    let workspace = made["tenantId"].as_i64().unwrap();
    for n in 0..10 {
        append(test.app(), workspace, n, true).await;
    }
    feed::forget(test.app(), Duration::from_secs(3600), 4)
        .await
        .unwrap();
    assert_eq!(log(&test, workspace).await.len(), 4);
    for (after, first) in [
        (3, "feed.reset"),
        (7, "feed.reset"),
        (8, "test.changed"),
        (99, "feed.reset"),
    ] {
        let mut stream = Stream::open(test.get(&format!("/api/events?after={after}"))).await;
        let event = stream.next().await.unwrap();
        assert_eq!(event.kind(), first, "{after}");
        let seq = if first == "feed.reset" { 12 } else { 9 };
        assert_eq!(event.id, seq.to_string(), "{after}");
    }
    let mut stream = Stream::open(test.get("/api/events?after=2")).await;
    stream.next().await.unwrap();
    append(test.app(), workspace, 11, true).await;
    assert_eq!(stream.next().await.unwrap().id, "13");
    feed::forget(test.app(), Duration::ZERO, 4).await.unwrap();
    assert_eq!(log(&test, workspace).await.len(), 0);
    append(test.app(), workspace, 12, true).await;
    assert_eq!(stream.next().await.unwrap().id, "14");
}

#[tokio::test]
async fn others_see_nothing_of_it_and_drains_end_it() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.keep_alive = Duration::from_millis(50);
    })
    .await;
    let second = test.second_dispatcher().await;
    let (_, other) = test.key_for("other", KeyRole::Readonly).await;
    let request = test.http.get(format!("{}/api/events", second.url));
    let mut theirs = Stream::open(request.bearer_auth(other.expose())).await;
    assert_eq!(theirs.next().await.unwrap().id, "0");
    task(&test, json!({})).await;
    assert_eq!(theirs.frame().await.as_deref(), Some(": keep-alive"));
    second.stop().await;
    let rest: Vec<Value> = theirs.rest().await.iter().map(Event::json).collect();
    assert_eq!(rest, [] as [Value; 0]);
}
