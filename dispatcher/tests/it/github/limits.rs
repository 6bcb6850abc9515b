//! A GitHub that is slow, limited or broken.

use std::time::Duration;

use clawlink_fixtures::github::Mishap;
use serde_json::json;

use super::{Hub, REPO};

#[tokio::test]
async fn what_passes_is_waited_for() {
    let hub = Hub::start().await;
    let wish = json!({"createPullRequest": {"base": "main"}});
    for (mishaps, calls) in [
        (vec![Mishap::Status(502), Mishap::Status(503)], 3),
        (vec![Mishap::SecondaryLimit(0), Mishap::TooMany(1)], 3),
        (vec![Mishap::HourlyLimit(1)], 2),
    ] {
        let before = hub.github.log().len();
        hub.github.next(mishaps.clone());
        let answer = hub.asked(&wish).await;
        let number = answer["pullRequest"]["number"].as_u64();
        hub.github.close(REPO, number.expect("it is open"), false);
        assert_eq!(hub.github.log().len() - before, calls, "{mishaps:?}");
    }
}

#[tokio::test]
async fn a_pull_request_whose_answer_was_lost_is_found() {
    let hub = Hub::start().await;
    hub.github.next([Mishap::LostAnswer]);
    let answer = hub
        .asked(&json!({"createPullRequest": {"base": "main"}}))
        .await;
    assert_eq!(answer["pullRequest"]["number"], 1);
    assert_eq!(hub.github.pulls(REPO).len(), 1);
    let calls: Vec<String> = hub
        .github
        .log()
        .into_iter()
        .map(|asked| asked.method)
        .collect();
    assert_eq!(calls, ["POST", "POST", "GET"]);
}

#[tokio::test]
async fn what_lasts_is_said_at_once() {
    let hub = Hub::start().await;
    for mishap in [
        Mishap::HourlyLimit(3000),
        Mishap::SecondaryLimit(60),
        Mishap::TooMany(600),
    ] {
        let before = hub.github.log().len();
        hub.github.next([mishap]);
        let reason = hub.reason(&json!({})).await;
        assert!(reason.contains("rate limit"), "{reason}");
        assert_eq!(hub.github.log().len() - before, 1);
    }
    hub.github.next([
        Mishap::Status(500),
        Mishap::Status(502),
        Mishap::Status(504),
    ]);
    let reason = hub.reason(&json!({})).await;
    assert!(reason.contains("cannot be reached: 504"), "{reason}");
    assert!(hub.github.pulls(REPO).is_empty());
}

#[tokio::test]
async fn nobody_is_waited_for_without_bound() {
    let hub = Hub::start_with(|settings, _| {
        settings.github.github_timeout = Duration::from_millis(200);
    })
    .await;
    hub.github
        .next(vec![Mishap::Slow(Duration::from_secs(30)); 3]);
    let reason = hub.reason(&json!({})).await;
    assert!(reason.contains("no answer in time"), "{reason}");
    let gone = Hub::start_with(|settings, _| {
        settings.github.github_host = Some(settings.github.github_api.replace("http://", ""));
        settings.github.github_api = "http://127.0.0.1:1".to_owned();
    })
    .await;
    let reason = gone.reason(&json!({})).await;
    assert!(reason.contains("no connection"), "{reason}");
}
