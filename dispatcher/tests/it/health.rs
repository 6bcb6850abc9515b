//! Health, as load balancers see it.

use std::time::{Duration, Instant};

use clawlink_fixtures::gate::Gate;

use crate::app::TestApp;
use crate::client::script;
use crate::wait::eventually;

#[tokio::test]
async fn a_dispatcher_on_real_parts_is_healthy_and_drains() {
    let mut test = TestApp::start().await;
    let health = |url: String, http: reqwest::Client| async move {
        let answer = http.get(format!("{url}/health")).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()
    };
    eventually("all parts answer", || async {
        let body = health(test.dispatcher.url.clone(), test.http.clone()).await;
        (body["status"] == "ok").then_some(())
    })
    .await;
    let second = test.second_dispatcher().await;
    let body = health(second.url.clone(), test.http.clone()).await;
    assert_eq!(body["checks"]["postgres"], "ok");
    second.stop().await;
    test.s3.kill().await;
    let body = health(test.dispatcher.url.clone(), test.http.clone()).await;
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["checks"]["s3"], "down");
}

#[tokio::test]
async fn a_part_that_does_not_answer_is_down_and_the_answer_comes_soon() {
    let test = TestApp::start().await;
    let gate = Gate::start().await.unwrap();
    gate.lead_to(&test.s3.url());
    let second = test
        .dispatcher_with(|settings| settings.s3.s3_endpoint = Some(gate.url()))
        .await;
    let silent = gate.hold("HEAD /");
    let begun = Instant::now();
    let asked = test.http.get(format!("{}/health", second.url));
    let body: serde_json::Value = asked.send().await.unwrap().json().await.unwrap();
    // One try of a call to the storage alone takes up to ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(9));
    assert_eq!(silent.count(), 1, "it was asked");
    assert_eq!(body["checks"]["s3"], "down");
    assert_eq!(body["checks"]["postgres"], "ok");
}

#[tokio::test]
async fn a_dispatcher_that_leaves_says_so_and_still_takes_requests() {
    let test = TestApp::start().await;
    let live = async || {
        let answer = test.http.get(test.url("/health/live")).send().await;
        answer.unwrap().status().as_u16()
    };
    assert_eq!(live().await, 200);
    test.dispatcher.app.shutdown.leaving().cancel();
    assert_eq!(live().await, 503);
    test.accepted(&script("echo hello")).await;
}
