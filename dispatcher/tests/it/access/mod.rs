//! Every route of the table with every kind of credential. A route that is new fails here
//! until its expectation is written down.

mod callers;
mod expected;

use clawlink::http;
use clawlink::http::routes::Route;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use callers::{CALLERS, Keys};
use expected::{EXPECTED, expected};

use super::app::TestApp;
use super::client::{Submitted, script};

#[tokio::test]
async fn every_route_answers_every_caller_as_declared() {
    let test = TestApp::start_with(|settings| {
        // Each caller gets an execution of its own for each route.
        settings.tuning.pending_cap = 100_000;
        settings.tuning.queue_cap = 100_000;
    })
    .await;
    let mut keys = Keys::make(&test).await;
    super::tasks::task(&test, json!({})).await;
    let (_, routes) = http::service(test.app());
    let mut faults = Vec::new();
    for route in &routes {
        let name = format!("{} {}", route.method, route.path);
        let Some((_, access, open)) = EXPECTED.iter().find(|(known, _, _)| *known == name) else {
            faults.push(format!("{name}: no expectation is written down"));
            continue;
        };
        if route.access != *access {
            faults.push(format!(
                "{name}: declared {:?}, expected {access:?}",
                route.access
            ));
        }
        for caller in CALLERS {
            let made = test.accepted(&script("true")).await;
            let status = knock(&test, route, made, keys.of(caller)).await;
            let good = match expected(route, *access, *open, caller) {
                Some(expected) => status == expected,
                None => (400..500).contains(&status),
            };
            if !good {
                faults.push(format!("{name} as {caller:?}: {status}"));
            }
        }
        if route.path.starts_with("/api/auth/logout") {
            keys = Keys::make(&test).await;
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

async fn knock(test: &TestApp, route: &Route, made: Submitted, key: Option<&str>) -> u16 {
    // A test's first project and task have the number 1.
    let id = match route.path {
        path if path.starts_with("/sessions") => made.session_id.to_string(),
        path if path.starts_with("/api/projects") || path.starts_with("/api/tasks") => "1".into(),
        path if path.starts_with("/api/tenants") => workspace(test).await.to_string(),
        path if path.starts_with("/api/devices") => Uuid::nil().to_string(),
        _ => made.execution_id.to_string(),
    };
    let session = made.session_id.to_string();
    let path = [
        ("{id}", id.as_str()),
        ("{slug}", "none"),
        ("{file}", "none"),
        ("{provider}", "none"),
        ("{kind}", "relates"),
        ("{other}", "2"),
        ("{user}", &session),
        ("{session}", &session),
        ("{approvalId}", &session),
        ("{userId}", &session),
        ("{invitationId}", "0"),
        ("{keyId}", "0"),
    ]
    .iter()
    .fold(route.path.to_owned(), |path, (name, value)| {
        path.replace(name, value)
    });
    let mut request = test.http.request(route.method.clone(), test.url(&path));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if route.method == Method::POST {
        request = request.header("content-type", "application/json");
    }
    let request = request.header("x-clawlink-protocol", "1");
    request.send().await.unwrap().status().as_u16()
}

/// The first workspace.
async fn workspace(test: &TestApp) -> i64 {
    sqlx::query_scalar("select id from workspaces where slug = 'default'")
        .fetch_one(test.db())
        .await
        .unwrap()
}

#[tokio::test]
async fn wrong_methods_and_paths_have_our_own_answers() {
    let test = TestApp::start().await;
    let (status, problem) = super::client::refusal(test.get("/execute")).await;
    assert_eq!(
        (status, problem["error"].as_str()),
        (405, Some("method_not_allowed"))
    );
    let (status, problem) = super::client::refusal(test.get("/nowhere")).await;
    assert_eq!(
        (status, problem["error"].as_str()),
        (404, Some("not_found"))
    );
}
