//! Whole executions beside partners that misbehave: a proxy without dispatchers, a dispatcher in a
//! hurry, a storage that stalls, a model at its limit.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use clawlink_shared::agent::{AgentKind, Definition, EndpointDefinition};
use clawlink_shared::control::{ArchiveSource, Assignment};
use clawlink_shared::execution::{ErrorCode, Outcome};
use clawlink_shared::secret::Secret;
use serde_json::json;
use tokio::net::TcpListener;

use crate::dispatcher::{Dispatcher, STALLED, assignment};
use crate::run::{ENDLESS, is_empty};
use crate::worker_process::Machine;

#[tokio::test]
async fn a_proxy_that_has_lost_sight_of_the_dispatchers_decides_nothing() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.told().lease_ms = 300;
    dispatcher.submit("echo started; read -t 1 < <(sleep 5); echo finished");
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    dispatcher.told().is_hidden = true;
    for call in ["heartbeat", "events", "archive"] {
        dispatcher
            .until(call, |told| told.hidden_calls.iter().any(|it| it == call))
            .await;
    }
    dispatcher.told().is_hidden = false;
    assert_eq!(worker.ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Completed);
    assert!(told.completes[0].archive.is_some());
    assert!(told.text().ends_with("finished"));
}

/// Long-polls that are looked at, and the time that the pauses between them take at least.
const POLLS: usize = 30;
const POLLING: Duration = Duration::from_millis(2900);

#[tokio::test]
async fn polls_that_are_answered_at_once_are_not_repeated_at_once() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.told().is_hurried = true;
    let polled = async |call: &str, since: Instant| {
        dispatcher
            .until(call, |told| told.count(call) >= POLLS)
            .await;
        assert!(since.elapsed() >= POLLING, "{call}: {:?}", since.elapsed());
    };
    let since = Instant::now();
    let worker = machine.start(&dispatcher);
    polled("claim", since).await;
    let since = Instant::now();
    dispatcher.submit(ENDLESS);
    polled("control", since).await;
    dispatcher.order(json!({"cancel": {"reason": "enough"}}));
    assert_eq!(worker.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_cancel_ends_the_download_of_a_session() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let mut resumed = assignment("true");
    resumed.session.archive = Some(ArchiveSource {
        url: Secret::new(format!("{}/storage/{STALLED}", dispatcher.url)),
        size: 1 << 20,
        sha256: "0".repeat(64),
    });
    dispatcher.put(resumed);
    dispatcher.order(json!({"cancel": {"reason": "enough"}}));
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Cancelled);
    assert!(told.completes[0].archive.is_none(), "the earlier one stays");
    assert!(is_empty(&machine.workspace()));
}

/// An execution by an agent at an address that answers every request so.
async fn answered_by(status: StatusCode, answer: String) -> Assignment {
    let router = Router::new().fallback(async move || (status, answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut assignment = assignment("do it");
    assignment.request.agent = AgentKind::Http;
    assignment.request.definition = Some(Definition::Endpoint(EndpointDefinition {
        url: address,
        idle_seconds: None,
    }));
    assignment
}

#[tokio::test]
async fn a_limit_of_the_model_that_outlasts_the_run_is_not_waited_for() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let words = "try again in 100s".to_owned();
    let mut limited = answered_by(StatusCode::TOO_MANY_REQUESTS, words).await;
    limited.limits.timeout_seconds = 10;
    dispatcher.put(limited);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    let failure = told.completes[0].error.as_ref().unwrap();
    assert_eq!(failure.code, ErrorCode::RateLimited, "{}", failure.message);
    assert!(!told.types().contains(&"message"), "nobody waits");
}

#[tokio::test]
async fn names_without_end_do_not_make_a_report_too_long() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let model = "m".repeat(10 << 20);
    let usage = json!({"inputTokens": 1, "outputTokens": 1, "model": model});
    let last = json!({"type": "completed", "result": "done", "usage": usage});
    dispatcher.put(answered_by(StatusCode::OK, format!("{last}\n")).await);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Completed);
    let usage = told.completes[0].usage.as_ref().unwrap();
    assert_eq!(usage.model.as_ref().unwrap().len(), 1024);
}
