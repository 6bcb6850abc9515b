//! Generated requests against a running server: no 5xx, and no status, media type or shape that
//! the OpenAPI document does not promise.
//!
//! The generator is schemathesis, a Python program that `./deploy/test` installs and names in
//! `CLAWLINK_TEST_SCHEMATHESIS`. The seed that it prints repeats a run.

use std::process::Stdio;

use clawlink::auth::principal::KeyRole;
use serde_json::json;

use super::app::{TestApp, required};
use super::client::script;

/// What is checked of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,ignored_auth";
/// Generated requests for each operation and phase.
const EXAMPLES: &str = "8";
/// Not asked: streams, which do not end, and workers' calls, which need a lease.
const LEFT_OUT: &str = "^/worker|/stream$|^/api/events$";

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_what_its_document_says() {
    let test = TestApp::start().await;
    let (_, key) = test.key_for("default", KeyRole::Admin).await;
    // Something to be found, so that not everything is 404.
    test.accepted(&script("true")).await;
    let agent = json!({"name": "a", "type": "claude"});
    let made = test.http.post(test.url("/api/agents"));
    let made = made.bearer_auth(key.expose()).json(&agent);
    assert_eq!(made.send().await.unwrap().status(), 201);

    let program = required("CLAWLINK_TEST_SCHEMATHESIS");
    let run = tokio::process::Command::new(program)
        .args(["run", &test.url("/openapi.json")])
        .args(["-H", &format!("Authorization: Bearer {}", key.expose())])
        .args(["-H", "Accept: application/json"])
        .args(["--checks", CHECKS, "-n", EXAMPLES])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--exclude-path-regex", LEFT_OUT])
        .args(["--request-timeout", "20", "--no-color"])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
