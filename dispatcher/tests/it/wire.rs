//! Hostile bytes on the wire: no request is answered with 5xx, hangs, or holds up others.

use std::time::Duration;

use axum::http::Method;
use clawlink::http;
use clawlink::http::routes::Access;
use clawlink_shared::control::{PROTOCOL, PROTOCOL_HEADER};
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::app::{POOL_TOKEN, TestApp};
use super::client::script;
use super::worker::Worker;

/// No answer takes longer on any machine that runs tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bodies that are nearly right, for each route that takes one.
fn model(path: &str) -> Value {
    let key = "session-00000000-0000-0000-0000-000000000000/turns/1-x.tar.zst";
    let archive = json!({"key": key, "size": 1, "sha256": "0".repeat(64)});
    match path.rsplit('/').next().unwrap() {
        "execute" => json!({"userRequest": "true", "codingAssistantProvider": "shell",
            "websiteSessionId": Uuid::new_v4(), "github": {"repoUrl": "https://h/a", "directory": "../x"},
            "providerOptions": {"env": {"A": "b"}, "timeoutSeconds": 1}, "priority": "low"}),
        "claim" => json!({"claimId": Uuid::new_v4(), "workerId": "w", "host": "h", "version": "1",
            "root": "/workspace", "agents": [{"kind": "claude", "version": "1"}],
            "labels": {"a": "b"}, "waitSeconds": 0}),
        "state" => json!({"to": "running"}),
        "events" => json!({"n": 1, "type": "message", "fields": {"message": "x"}}),
        "archive" => json!({"size": 10}),
        "parts" => json!({"from": 1, "count": 1}),
        "finish" => json!({"parts": [{"number": 1, "etag": "x"}]}),
        "complete" => json!({"outcome": "failed", "error": {"code": "agent_error", "message": "x"},
            "lastN": 7, "archive": archive, "branch": "b", "commitHash": "0".repeat(40),
            "usage": {"inputTokens": 1, "outputTokens": 1}, "result": "r"}),
        _ => json!({"reason": "x"}),
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "\0",
        "../../etc/passwd",
        "running",
        "completed",
        "\u{202e}",
        "🦀",
        "-1",
        "null",
        "00000000-0000-0000-0000-000000000000",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![i64::MIN, -1, i64::from(i32::MAX) + 1, i64::MAX])
            .prop_map(Value::from),
        Just(json!(u64::MAX)),
        prop::sample::select(texts.to_vec()).prop_map(Value::from),
        ".{0,30}".prop_map(Value::from),
        (1_usize..200_000).prop_map(|length| Value::from("x".repeat(length))),
    ];
    leaf.prop_recursive(3, 16, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts something odd in the place of a part of `value`.
fn mutated(mut value: Value, at: &[prop::sample::Index], odd: Value) -> Value {
    replace(&mut value, at, odd);
    value
}

fn replace(place: &mut Value, at: &[prop::sample::Index], odd: Value) {
    match (at, place) {
        ([index, rest @ ..], Value::Object(map)) if !map.is_empty() => {
            let nth = index.index(map.len());
            if let Some(inner) = map.values_mut().nth(nth) {
                replace(inner, rest, odd);
            }
        }
        ([index, rest @ ..], Value::Array(list)) if !list.is_empty() => {
            let nth = index.index(list.len());
            replace(&mut list[nth], rest, odd);
        }
        (_, place) => *place = odd,
    }
}

fn bodies(path: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let at = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    prop_oneof![
        6 => (at, odd()).prop_map(move |(at, odd)| {
            mutated(model(path), &at, odd).to_string().into_bytes()
        }),
        1 => odd().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => any::<prop::sample::Index>().prop_map(move |index| {
            let mut text = model(path).to_string().into_bytes();
            text.truncate(index.index(text.len()));
            text
        }),
    ]
}

#[test]
fn no_route_answers_any_body_with_5xx() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let test = runtime.block_on(TestApp::start());
    let held = runtime.block_on(async {
        test.accepted(&script("true")).await;
        Worker::new(&test.dispatcher).run().await
    });
    let (_, routes) = http::service(test.app());
    let posts: Vec<_> = routes
        .into_iter()
        .filter(|route| route.method == Method::POST && route.path != "/executions/{id}/cancel")
        .collect();
    assert!(posts.len() >= 11, "{posts:?}");
    // A connection with an unread body may close while the next request is on its way.
    let http = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    for route in posts {
        let config = ProptestConfig {
            cases: 40,
            failure_persistence: None,
            ..Default::default()
        };
        let path = route.path.replace("{id}", &held.id().to_string());
        let credential = match route.access {
            Access::Pool => POOL_TOKEN,
            Access::Lease => held.assignment.lease.token.expose(),
            _ => test.key.expose(),
        };
        TestRunner::new(config)
            .run(&bodies(route.path), |body| {
                let request = http
                    .post(test.url(&path))
                    .bearer_auth(credential)
                    .header("accept", "application/json")
                    .header("content-type", "application/json")
                    .header(PROTOCOL_HEADER, PROTOCOL)
                    .timeout(PATIENCE)
                    .body(body);
                let answer = runtime.block_on(request.send());
                let status = answer.map(|answer| answer.status().as_u16());
                prop_assert!(matches!(status, Ok(200..500)), "{}: {status:?}", route.path);
                Ok(())
            })
            .unwrap();
    }
    let health = runtime.block_on(async { test.get("/health").send().await.unwrap().status() });
    assert_eq!(health, 200);
    runtime.block_on(async { drop(test) });
}

/// Sends bytes, and answers what comes back until the server closes.
async fn exchange(test: &TestApp, bytes: &[u8]) -> String {
    let address = test.dispatcher.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may refuse before it has read everything.
    let _refused = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _reset = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn odd_paths_lead_nowhere() {
    let test = TestApp::start().await;
    let id = test.accepted(&script("true")).await.execution_id;
    let key = test.key.expose();
    for path in [
        "/sessions/..",
        "/sessions/../health/../../etc/passwd",
        "/sessions/%2e%2e%2f%2e%2e%2fetc",
        "/sessions/..%2f..%2fvictim",
        "/sessions/%00",
        "/sessions/%ff%fe",
        "/sessions/%",
        "/sessions/{id}",
        "/sessions//stream",
        "/sessions/00000000-0000-0000-0000-00000000000g",
        "/executions/1%2f..%2f1",
        "/executions/-1",
        "/executions/99999999999999999999",
        "/executions/1;drop",
        "/executions/0x1",
        "/executions/１",
        "/executions/%31%00",
        "/executions/1/events/../cancel",
        "//executions",
        "/\\..\\etc",
        "/executions/%2e",
        "http://other.example.com/sessions/..",
        "*",
        "/./health/../sessions/x",
        "/sessions?limit=-1",
        "/sessions?limit=x",
        "/sessions?cursor=%00",
        "/sessions?cursor=../..",
        "/sessions?limit=1&limit=2",
        "/executions/1/events?after=-1",
        "/executions/1/events?after=%ff",
        "/worker/executions/1/control?after=x",
    ] {
        for method in ["GET", "DELETE", "POST"] {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
                 Accept: application/json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let answer = exchange(&test, head.as_bytes()).await;
            let code = status(&answer).unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
            assert!((400..500).contains(&code), "{method} {path}: {answer}");
        }
    }
    let same = test.get(&format!("/executions/{id}")).send().await.unwrap();
    assert_eq!(same.status(), 200);
}

#[tokio::test]
async fn garbage_is_refused_and_others_are_served() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.max_body_bytes = 100_000;
        settings.tuning.request = Duration::from_secs(1);
    })
    .await;
    let key = test.key.expose();
    let post = |rest: &str| {
        let head = "POST /execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        format!("{head}Authorization: Bearer {key}\r\n{rest}").into_bytes()
    };
    let long = "x".repeat(1 << 20);
    let many: String = (0..1_000).map(|n| format!("H{n}: x\r\n")).collect();
    let chunks = format!("{:x}\r\n{long}\r\n", long.len());
    let requests: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /health\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
        post(&format!("X: {long}\r\n\r\n")),
        post(&format!("{many}\r\n")),
        post("X: \x01\x02\r\n\r\n"),
        post("Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}"),
        post("Content-Length: -1\r\n\r\n"),
        post("Content-Length: 99999999999999999999\r\n\r\n"),
        post("Content-Length: 9999999999\r\n\r\n{"),
        post(
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
        ),
        post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        post(&format!(
            "Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunks.repeat(4)
        )),
        post("Transfer-Encoding: chunked\r\n\r\n2\r\n{}"),
        post("Authorization: Bearer other\r\nContent-Length: 2\r\n\r\n{}"),
        post("Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
        post("Expect: 200-nothing\r\nContent-Length: 2\r\n\r\n{}"),
        post("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}"),
        post("Idempotency-Key: \r\nContent-Length: 2\r\n\r\n{}"),
    ];
    let answers = join_all(requests.iter().map(|bytes| exchange(&test, bytes))).await;
    for (request, answer) in requests.iter().zip(&answers) {
        let request = String::from_utf8_lossy(&request[..request.len().min(200)]);
        assert!(
            answer.is_empty() || status(answer).is_some_and(|code| (400..500).contains(&code)),
            "{request:?}: {answer}"
        );
    }
    assert_eq!(test.get("/health").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn who_never_finishes_a_request_is_cut() {
    let within = Duration::from_secs(2);
    let test = TestApp::start_with(|settings| settings.tuning.request = within).await;
    let address = test
        .dispatcher
        .url
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let key = test.key.expose();
    let half_head = "POST /execute HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned();
    let half_body = format!(
        "POST /execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 100\r\n\r\n{{"
    );
    let worker_body = format!(
        "POST /worker/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {POOL_TOKEN}\r\n\
         X-Clawlink-Protocol: {PROTOCOL}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let cut = |bytes: String| {
        let address = address.clone();
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let reading = stream.read_to_string(&mut answer);
            let _reset = tokio::time::timeout(PATIENCE, reading)
                .await
                .expect("is cut");
            answer
        }
    };
    let heads = join_all((0..100).map(|_| cut(half_head.clone())));
    let bodies = join_all([half_body, worker_body, String::new()].map(cut));
    let served = async {
        for _ in 0..20 {
            assert_eq!(test.get("/health").send().await.unwrap().status(), 200);
        }
    };
    let (heads, bodies, ()) = tokio::join!(heads, bodies, served);
    assert!(
        heads
            .iter()
            .all(|answer| answer.is_empty() || status(answer) == Some(408))
    );
    let codes: Vec<_> = bodies.iter().map(|answer| status(answer)).collect();
    assert_eq!(codes, [Some(408), Some(408), None], "{bodies:?}");
}

#[tokio::test]
async fn a_stream_outlives_the_bound_on_requests() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.request = Duration::from_secs(1);
        settings.tuning.keep_alive = Duration::from_millis(400);
    })
    .await;
    let id = test.accepted(&script("true")).await.execution_id;
    let request = test.get(&format!("/executions/{id}/events"));
    let mut stream = super::client::Stream::open(request).await;
    let mut comments = 0;
    while comments < 5 {
        let frame = stream.frame().await.expect("the stream goes on");
        comments += usize::from(frame.starts_with(':'));
    }
}
