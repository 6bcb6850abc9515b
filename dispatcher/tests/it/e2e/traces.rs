//! One trace from the request through queue and worker to the agent, at a collector that speaks
//! OTLP over HTTP.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpListener;

use crate::app::scratch;
use crate::wait::eventually;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Bodies = Arc<Mutex<Vec<Bytes>>>;

async fn collector() -> (String, Bodies) {
    let bodies = Bodies::default();
    let take = async |State(bodies): State<Bodies>, body: Bytes| {
        bodies.lock().expect("not poisoned").push(body);
    };
    let router = Router::new().route("/v1/traces", post(take));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = router.with_state(bodies.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, bodies)
}

/// Whether one batch holds all of these.
fn has(bodies: &Bodies, wanted: &[&[u8]]) -> bool {
    let bodies = bodies.lock().expect("not poisoned");
    bodies.iter().any(|body| {
        wanted
            .iter()
            .all(|part| body.windows(part.len()).any(|window| window == *part))
    })
}

#[tokio::test]
async fn a_trace_goes_from_the_request_to_the_agent() {
    let (collector, bodies) = collector().await;
    let dir = scratch();
    let data = dir.path().join("data");
    let mut up = Command::new(env!("CARGO_BIN_EXE_clawlink"))
        .args(["up", "--listen", "127.0.0.1:0", "--workers", "1"])
        .arg("--data-dir")
        .arg(&data)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env_remove("DATABASE_URL")
        .env_remove("DATABASE_MIGRATION_URL")
        .env_remove("REDIS_URL")
        .env_remove("S3_ENDPOINT")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(up.stdout.take().unwrap());
    let (mut lines, ready) = tokio::task::spawn_blocking(move || {
        let mut lines = stdout.lines();
        let ready = lines.next().unwrap().unwrap();
        (lines, ready)
    })
    .await
    .unwrap();
    let url = ready.strip_prefix("ready ").unwrap();
    let key = std::fs::read_to_string(data.join("api-key")).unwrap();
    let answer = reqwest::Client::new()
        .post(format!("{url}/execute"))
        .bearer_auth(key.trim())
        .header("traceparent", PARENT)
        .json(&json!({
            "codingAssistantProvider": "shell",
            "userRequest": "echo the agent is in $TRACEPARENT",
        }))
        .send()
        .await
        .unwrap();
    let stream = answer.text().await.unwrap();
    assert!(
        stream.contains(&format!("the agent is in 00-{TRACE}-")),
        "{stream}"
    );

    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    for (service, span) in [
        ("clawlink", "POST /execute"),
        ("clawlink", "POST /worker/executions"),
        ("clawlink-worker", "execution"),
        ("clawlink-worker", "agent"),
    ] {
        let wanted = [service.as_bytes(), span.as_bytes(), &trace];
        eventually(&format!("{service} sends {span}"), async || {
            has(&bodies, &wanted).then_some(())
        })
        .await;
    }
    kill_process(Pid::from_child(&up), Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        // It would die of writing into a pipe that is closed.
        let _rest = lines.by_ref().count();
        up.wait()
    });
    assert!(ended.await.unwrap().unwrap().success());
}
