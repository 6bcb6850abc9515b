//! Streams: whatever a client does, what it has read is the log.

use std::time::Duration;

use clawlink_shared::event::EventType;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::app::TestApp;
use super::client::{Event, Stream, append, finish, log, script};
use super::wait::eventually;

/// At least so many events in the long run.
const EVENTS: usize = 5_000;
/// So often its client is cut.
const CUTS: usize = 200;
/// A piece that is read between two cuts is shorter; so the cuts come before the end.
const PIECE: usize = EVENTS / CUTS;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_200_times_between_two_dispatchers_reads_the_log() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let id = test.accepted(&script("true")).await.execution_id;

    let writers = [test.app().clone(), second.app.clone()];
    let mut chance = StdRng::seed_from_u64(seed.wrapping_add(1));
    let writing = tokio::spawn(async move {
        let mut written = 0;
        while written < EVENTS {
            let count = chance.random_range(1..40);
            let batch: Vec<_> = (0..count)
                .map(|n| {
                    (
                        EventType::AgentText,
                        json!({"text": "x".repeat(n), "delta": true}),
                    )
                })
                .collect();
            append(&writers[chance.random_range(0..2)], id, &batch).await;
            written += count;
        }
        finish(&writers[0], id).await;
    });

    let urls = [test.dispatcher.url.clone(), second.url.clone()];
    let mut read: Vec<String> = Vec::new();
    let mut cuts = 0;
    loop {
        let url = &urls[cuts % 2];
        let mut request = test
            .http
            .get(format!("{url}/executions/{id}/events"))
            .bearer_auth(test.key.expose());
        if !read.is_empty() {
            request = request.header("last-event-id", read.len());
        }
        let mut stream = Stream::open(request).await;
        // Short pieces until the cuts are used up, then to the end.
        let piece = match cuts < CUTS {
            true => random.random_range(0..PIECE),
            false => usize::MAX,
        };
        let mut ended = false;
        for _ in 0..piece {
            let Some(event) = stream.next().await else {
                ended = true;
                break;
            };
            assert_eq!(event.id, (read.len() + 1).to_string());
            read.push(event.data);
        }
        if ended {
            break;
        }
        cuts += 1;
    }
    writing.await.unwrap();
    assert!(
        read.len() > EVENTS && cuts >= CUTS,
        "{} events, {cuts} cuts",
        read.len()
    );
    assert_eq!(read, log(test.db(), id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_beside_a_fast_writer_miss_nothing() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let id = test.accepted(&script("true")).await.execution_id;
    let mut readers = Vec::new();
    for url in [&test.dispatcher.url, &second.url].repeat(8) {
        let request = test
            .http
            .get(format!("{url}/executions/{id}/events"))
            .bearer_auth(test.key.expose());
        readers.push(tokio::spawn(Stream::open(request).await.rest()));
    }
    for n in 0..300 {
        append(
            test.app(),
            id,
            &[(EventType::AgentText, json!({"text": n}))],
        )
        .await;
    }
    finish(&second.app, id).await;
    let expected = log(test.db(), id).await;
    for reader in readers {
        let read: Vec<String> = reader.await.unwrap().into_iter().map(|e| e.data).collect();
        assert_eq!(read, expected);
    }
}

#[tokio::test]
async fn a_stream_can_be_read_after_the_end_and_ends_at_once() {
    let test = TestApp::start().await;
    let id = test.accepted(&script("true")).await.execution_id;
    finish(test.app(), id).await;
    let path = format!("/executions/{id}/events");
    let all = Stream::open(test.get(&path)).await.rest().await;
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].kind(), "completed");
    let tail = Stream::open(test.get(&format!("{path}?after=2"))).await;
    assert_eq!(tail.rest().await, all[2..]);
    for after in ["3", "99"] {
        let none = Stream::open(test.get(&path).header("last-event-id", after)).await;
        assert_eq!(none.rest().await, []);
    }
    let bad = test.get(&path).header("last-event-id", "x").send().await;
    assert_eq!(bad.unwrap().status(), 400);
}

#[tokio::test]
async fn a_page_of_events_is_json() {
    let test = TestApp::start().await;
    let id = test.accepted(&script("true")).await.execution_id;
    finish(test.app(), id).await;
    let page = |query: &str| {
        test.get(&format!("/executions/{id}/events{query}"))
            .header("accept", "application/json")
            .send()
    };
    let first: serde_json::Value = page("?limit=2").await.unwrap().json().await.unwrap();
    assert_eq!(first["nextAfter"], 2);
    assert_eq!(first["events"][0]["type"], "connected");
    let last: serde_json::Value = page("?after=2").await.unwrap().json().await.unwrap();
    assert_eq!(last["events"][0]["type"], "completed");
    assert!(last.get("nextAfter").is_none());
    assert_eq!(page("?limit=0").await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_idle_stream_says_that_it_lives() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.keep_alive = Duration::from_millis(30);
    })
    .await;
    let id = test.accepted(&script("true")).await.execution_id;
    let mut stream = Stream::open(test.get(&format!("/executions/{id}/events?after=2"))).await;
    for _ in 0..2 {
        assert_eq!(stream.frame().await.as_deref(), Some(": keep-alive"));
    }
    finish(test.app(), id).await;
    assert_eq!(stream.next().await.unwrap().kind(), "completed");
}

#[tokio::test]
async fn a_stream_says_that_it_lives_while_the_log_cannot_be_read() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.keep_alive = Duration::from_millis(30);
    })
    .await;
    let id = test.accepted(&script("true")).await.execution_id;
    let mut tx = test.db().begin().await.unwrap();
    sqlx::query("lock table events in access exclusive mode")
        .execute(&mut *tx)
        .await
        .unwrap();
    let mut stream = Stream::open(test.get(&format!("/executions/{id}/events"))).await;
    for _ in 0..5 {
        assert_eq!(stream.frame().await.as_deref(), Some(": keep-alive"));
    }
    tx.commit().await.unwrap();
    assert_eq!(stream.next().await.unwrap().kind(), "connected");
    finish(test.app(), id).await;
    let rest = stream.rest().await;
    assert_eq!(rest.last().unwrap().kind(), "completed");
}

#[tokio::test]
async fn draining_ends_streams() {
    let test = TestApp::start().await;
    let drain = Duration::from_secs(60);
    let second = test
        .dispatcher_with(|settings| settings.tuning.drain = drain)
        .await;
    let id = test.accepted(&script("true")).await.execution_id;
    let request = test
        .http
        .get(format!("{}/executions/{id}/events?after=2", second.url))
        .bearer_auth(test.key.expose());
    let mut stream = Stream::open(request).await;
    let begun = std::time::Instant::now();
    second.stop().await;
    assert_eq!(stream.next().await, None);
    assert!(begun.elapsed() < drain, "the drain waited for the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_and_can_resume() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.slow_reader = Duration::from_millis(500);
    })
    .await;
    let id = test.accepted(&script("true")).await.execution_id;
    let text = "y".repeat(200 * 1024);
    for _ in 0..20 {
        let batch: Vec<_> = (0..5)
            .map(|_| (EventType::AgentText, json!({"text": &text})))
            .collect();
        append(test.app(), id, &batch).await;
    }
    let address = test.dispatcher.url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /executions/{id}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        test.key.expose()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let open = async || {
        let text = test.http.get(test.url("/metrics")).send().await.unwrap();
        let text = text.text().await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("clawlink_streams "));
        line.map(|line| line["clawlink_streams ".len()..].to_owned())
    };
    eventually("the stream is open", async || {
        (open().await.as_deref() == Some("1")).then_some(())
    })
    .await;
    eventually("the stream is cut", async || {
        (open().await.as_deref() == Some("0")).then_some(())
    })
    .await;
    let mut received = Vec::new();
    // A reset connection is an error after what had arrived.
    let _cut = socket.read_to_end(&mut received).await;
    assert!(received.len() < 100 * text.len(), "everything was sent");
    finish(test.app(), id).await;
    // A busy machine may make this reader a slow one too; it goes on where it was cut.
    let mut read = Vec::new();
    while read
        .last()
        .is_none_or(|event: &Event| event.kind() != "completed")
    {
        let path = format!("/executions/{id}/events?after={}", read.len());
        read.extend(Stream::open(test.get(&path)).await.rest().await);
    }
    assert_eq!(read.len(), 103);
}
