//! The http agent against a real server: both kinds of answer, refusals, silence, endless lines.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clawlink_shared::agent::{AgentKind, Definition, EndpointDefinition};
use clawlink_shared::event::EventType;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::{MAX_LINE_BYTES, StopReason};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::agent_job::{Ended, Run, Session};
use crate::wait::slow_work;

const SOON: Duration = Duration::from_secs(30);

/// What a server saw of its last request.
#[derive(Default)]
struct Seen {
    authorization: Option<String>,
    body: Value,
}

/// A server that gives everybody the answer that its path names.
struct Server {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let router = Router::new().fallback(answer).with_state(seen.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    fn run(&self, session: &Session, path: &str) -> Run {
        let mut run = session.run("a prompt");
        run.environment.allow_private_hosts = true;
        run.definition = Some(Definition::Endpoint(EndpointDefinition {
            url: format!("{}/{path}", self.address),
            idle_seconds: Some(1),
        }));
        run
    }

    async fn finish(&self, path: &str) -> Ended {
        let session = Session::new();
        self.run(&session, path).finish(AgentKind::Http).await
    }
}

const RECORDS: [&str; 8] = [
    r#"{"type":"session","conversation":"c-7"}"#,
    r#"{"type":"agent_text","text":"Hel","delta":true}"#,
    r#"{"type":"agent_text","text":"lo","delta":true}"#,
    r#"{"type":"agent_tool_call","toolCallId":"1","tool":"look","input":{"at":"it"}}"#,
    r#"{"type":"agent_tool_result","toolCallId":"1","ok":true,"output":"seen"}"#,
    r#"{"type":"vendor_news","n":1.10}"#,
    "not JSON",
    r#"{"type":"usage","inputTokens":12,"outputTokens":3,"costUsd":0.5}"#,
];

/// How often, and how many times, a slow answer says that it is not over: for longer than it may
/// be silent.
const KEEP_ALIVE: Duration = Duration::from_millis(300);
const KEPT_ALIVE: u32 = 6;

const COMPLETED: &str = r#"{"type":"completed","result":"Hello"}"#;

async fn answer(State(seen): State<Arc<Mutex<Seen>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    {
        let mut seen = seen.lock().unwrap();
        let authorization = head.headers.get(header::AUTHORIZATION);
        seen.authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        seen.body = serde_json::from_slice(&body).unwrap();
    }
    let lines = |records: &[&str]| records.join("\n") + "\n";
    match head.uri.path() {
        "/lines" => lines(&[&RECORDS[..], &[COMPLETED]].concat()).into_response(),
        "/events" => {
            let records = RECORDS.iter().chain([&COMPLETED]);
            let mut body = String::from(": hello\nretry: 5\n\n");
            for record in records {
                // Data of more lines than one is one record.
                let record = record.replace(",\"delta\"", "\ndata:,\"delta\"");
                body += &format!("id: 1\r\nevent: any\r\ndata: {record}\r\n\r\n");
            }
            (
                [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")],
                body,
            )
                .into_response()
        }
        "/failed" => lines(&[r#"{"type":"error","message":"no more","code":"rate_limited"}"#])
            .into_response(),
        "/odd" => {
            lines(&[r#"{"type":"error","error":"bad","code":"worker_lost"}"#]).into_response()
        }
        "/cut" => lines(&RECORDS[..2]).into_response(),
        "/stall" => {
            let first = Bytes::from_static(b"{\"type\":\"message\",\"message\":\"wait\"}\n");
            let body = async_stream::stream! {
                yield Ok::<_, Infallible>(first);
                std::future::pending::<()>().await;
            };
            Body::from_stream(body).into_response()
        }
        "/slow" => {
            let body = async_stream::stream! {
                for _ in 0..KEPT_ALIVE {
                    yield Ok::<_, Infallible>(Bytes::from_static(b": still here\n\n"));
                    slow_work(KEEP_ALIVE).await;
                }
                yield Ok(Bytes::from(format!("data: {COMPLETED}\n\n")));
            };
            let kind = [(header::CONTENT_TYPE, "text/event-stream")];
            (kind, Body::from_stream(body)).into_response()
        }
        "/endless-line" => {
            let body = async_stream::stream! {
                for _ in 0..100 {
                    yield Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1 << 20]));
                }
                yield Ok(Bytes::from(format!("\n{COMPLETED}\n")));
            };
            Body::from_stream(body).into_response()
        }
        "/moved" => (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, "/lines")],
        )
            .into_response(),
        path => {
            let status: u16 = path[1..].parse().unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            (status, "because of me").into_response()
        }
    }
}

#[tokio::test]
async fn both_kinds_of_answer_give_the_same_events() {
    for path in ["lines", "events"] {
        let server = Server::start().await;
        let session = Session::new();
        let mut run = server.run(&session, path);
        run.credential = Some(Secret::new("http-secret-value"));
        run.resume = Some("c-6".into());
        run.options.model = Some("large".into());
        let ended = run.finish(AgentKind::Http).await;
        assert_eq!(ended.end.failure, None, "{path}");
        assert_eq!(ended.said(), "Hello");
        assert_eq!(ended.end.result.as_deref(), Some("Hello"));
        assert_eq!(ended.end.provider_session_id.as_deref(), Some("c-7"));
        assert_eq!(ended.end.usage.as_ref().unwrap().input_tokens, 12);
        assert_eq!(ended.texts(EventType::AgentToolCall, "tool"), "look");
        assert_eq!(ended.texts(EventType::AgentToolResult, "output"), "seen");
        let forwarded = ended.texts(EventType::AssistantMessage, "data");
        assert!(forwarded.contains("vendor_news"), "{forwarded}");
        assert!(forwarded.contains("not JSON"), "{forwarded}");
        let seen = server.seen.lock().unwrap();
        let bearer = Some("Bearer http-secret-value");
        assert_eq!(seen.authorization.as_deref(), bearer);
        assert_eq!(seen.body["text"], "a prompt");
        assert_eq!(seen.body["conversation"], "c-6");
        assert_eq!(seen.body["model"], "large");
    }
}

#[tokio::test]
async fn bad_ends_have_their_codes() {
    let cases = [
        ("401", ErrorCode::AuthError, "because of me"),
        ("403", ErrorCode::AuthError, "403"),
        ("429", ErrorCode::RateLimited, "429"),
        ("500", ErrorCode::AgentError, "because of me"),
        ("moved", ErrorCode::AgentError, "307"),
        ("failed", ErrorCode::RateLimited, "no more"),
        ("odd", ErrorCode::AgentError, "bad"),
        ("cut", ErrorCode::AgentError, "without `completed`"),
        ("stall", ErrorCode::Timeout, "silent for 1 s"),
    ];
    let server = Server::start().await;
    for (path, code, words) in cases {
        let failure = server.finish(path).await.end.failure.unwrap();
        assert_eq!(failure.code, code, "{path}");
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test]
async fn who_says_that_it_lives_is_not_silent() {
    let server = Server::start().await;
    let ended = server.finish("slow").await;
    assert_eq!(ended.end.failure, None);
    assert_eq!(ended.end.result.as_deref(), Some("Hello"));
    assert_eq!(ended.texts(EventType::AssistantMessage, "data"), "");
}

#[tokio::test]
async fn endless_lines_are_cut_and_said_so() {
    let server = Server::start().await;
    let ended = server.finish("endless-line").await;
    assert_eq!(ended.end.failure, None);
    let said = ended.texts(EventType::Message, "message");
    let dropped = 100 * (1 << 20) - MAX_LINE_BYTES;
    assert!(
        said.contains(&format!("{dropped} bytes were left out")),
        "{said}"
    );
}

#[tokio::test]
async fn a_stop_ends_the_exchange() {
    let server = Server::start().await;
    let session = Session::new();
    let mut run = server.run(&session, "stall");
    run.definition = Some(Definition::Endpoint(EndpointDefinition {
        url: format!("{}/stall", server.address),
        idle_seconds: None,
    }));
    let mut running = run.start(AgentKind::Http).await;
    running.until(|told| told.kind == EventType::Message).await;
    let since = Instant::now();
    running.stop(StopReason::Cancel);
    let ended = running.finish().await;
    assert!(since.elapsed() < SOON);
    assert_eq!(ended.end.failure, None, "the caller knows why");
}

#[tokio::test]
async fn addresses_obey_the_same_rule_as_repositories() {
    let addresses = [
        "http://127.0.0.1:1/",
        "https://127.0.0.1:1/",
        "https://localhost:1/",
        "https://169.254.169.254/latest",
        "https://[::1]:1/",
        "https://user:word@agent.example/",
        "ftp://agent.example/",
    ];
    for address in addresses {
        let session = Session::new();
        let mut run = session.run("a prompt");
        run.definition = Some(Definition::Endpoint(EndpointDefinition {
            url: address.into(),
            idle_seconds: None,
        }));
        let failure = run.finish(AgentKind::Http).await.end.failure.unwrap();
        assert_eq!(failure.code, ErrorCode::ValidationError, "{address}");
    }
}
