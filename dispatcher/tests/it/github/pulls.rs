//! What is opened, for whom, and what is said when nothing is.

use clawlink_fixtures::github::{Github, Mishap};
use serde_json::{Value, json};

use super::{BRANCH, Hub, REPO};
use crate::worker::Worker;

#[tokio::test]
async fn a_pull_request_is_opened_once_and_named_everywhere() {
    let hub = Hub::start().await;
    let wish = json!({"title": "A title", "body": "Some *words*", "base": "main", "draft": true});
    let (made, held) = hub.running(&json!({"createPullRequest": wish})).await;
    let answer = held.must("pull-request", &json!({})).await;
    let url = format!("{}/{REPO}/pull/1", hub.github.api());
    assert_eq!(answer, json!({"pullRequest": {"url": url, "number": 1}}));
    // Its answer was lost, or another dispatcher hears it again.
    let second = hub.test.second_dispatcher().await;
    for again in [&held, &held.at(&second)] {
        assert_eq!(again.must("pull-request", &json!({})).await, answer);
    }
    held.complete(0).await;

    let pulls = hub.github.pulls(REPO);
    assert_eq!(pulls.len(), 1);
    let pull = &pulls[0];
    assert_eq!(
        (&*pull.title, &*pull.head, &*pull.base),
        ("A title", BRANCH, "main")
    );
    assert_eq!(
        (pull.body.as_deref(), pull.draft),
        (Some("Some *words*"), true)
    );
    assert_eq!(hub.github.log().len(), 1);
    let created = hub.events(made, "pull_request_created").await;
    assert_eq!(created.len(), 1);
    assert_eq!(
        (&created[0]["url"], &created[0]["number"]),
        (&json!(url), &json!(1))
    );
    assert_eq!(hub.events(made, "completed").await[0]["prUrl"], url);
    assert_eq!(hub.shown(made).await["prUrl"], url);
    let audited: Vec<(String, Option<String>)> = sqlx::query_as(
        "select actor, resource_id from audit_entries where action = 'pull_request.opened'",
    )
    .fetch_all(hub.test.db())
    .await
    .unwrap();
    assert_eq!(
        audited,
        [(
            hub.shown(made).await["submittedBy"]
                .as_str()
                .unwrap()
                .to_owned(),
            Some(url)
        )]
    );
    second.stop().await;
}

#[tokio::test]
async fn what_the_wish_leaves_open_is_chosen() {
    let hub = Hub::start().await;
    hub.github.add_branch(REPO, "release");
    let repository = |branch: Option<&str>| {
        let mut github = hub.request(&json!({}))["github"].clone();
        github["branch"] = json!(branch);
        json!({ "github": github })
    };
    hub.asked(&repository(None)).await;
    hub.asked(&repository(Some("release"))).await;
    // The worker went on from the default branch where this one is missing.
    hub.github.close(REPO, 1, false);
    hub.asked(&repository(Some("gone"))).await;
    hub.github.close(REPO, 3, false);
    hub.asked(&repository(Some(BRANCH))).await;
    let pulls = hub.github.pulls(REPO);
    let bases: Vec<&str> = pulls.iter().map(|pull| pull.base.as_str()).collect();
    assert_eq!(bases, ["main", "release", "main", "main"]);
    assert_eq!(pulls[0].title, "Mend the fence");
    let body = pulls[0].body.as_deref().unwrap();
    assert!(body.contains("Clawlink-Session: ") && body.contains("Clawlink-Execution: "));
    assert!(!pulls[0].draft);
}

#[tokio::test]
async fn an_open_pull_request_is_found_and_a_closed_one_is_not() {
    let hub = Hub::start().await;
    let first = hub.asked(&json!({})).await;
    let (made, held) = hub.running(&json!({})).await;
    assert_eq!(held.must("pull-request", &json!({})).await, first);
    assert_eq!(hub.events(made, "pull_request_created").await.len(), 1);
    held.complete(0).await;
    hub.github.close(REPO, 1, true);
    let third = hub.asked(&json!({})).await;
    assert_eq!(third["pullRequest"]["number"], 2);
    assert_eq!(hub.github.pulls(REPO).len(), 2);
}

#[tokio::test]
async fn github_enterprise_is_spoken_to_below_its_path() {
    let hub = Hub::start_with(|settings, github| {
        settings.github.github_api = format!("{}/", github.enterprise_api());
    })
    .await;
    assert_eq!(hub.asked(&json!({})).await["pullRequest"]["number"], 1);
    assert!(hub.github.log().iter().all(|asked| asked.is_enterprise));
}

#[tokio::test]
async fn refusals_are_said_and_fail_nothing() {
    let hub = Hub::start().await;
    let with = |token: &str| {
        let mut github = hub.request(&json!({}))["github"].clone();
        github["accessToken"] = json!(token);
        json!({ "github": github })
    };
    let wish = |wish: Value| json!({ "createPullRequest": wish });
    hub.github.add_level_branch(REPO, "level");
    let reader = hub.github.read_only_token();
    for (fields, words) in [
        (with("ghp_expired"), "does not know the token"),
        (with(&reader), "not accessible by personal access token"),
        (
            json!({"branchName": "never-pushed"}),
            "head is not accepted",
        ),
        (
            json!({"branchName": "level"}),
            "No commits between main and level",
        ),
        (wish(json!({"base": "nowhere"})), "base is not accepted"),
        (wish(json!({"base": BRANCH})), "No commits between"),
        (wish(json!(false)), "does not ask for one"),
    ] {
        let reason = hub.reason(&fields).await;
        assert!(reason.contains(words), "{reason}");
        assert!(!reason.contains("ghp_expired") && !reason.contains(&reader));
    }
    let mut elsewhere = hub.request(&json!({}))["github"].clone();
    elsewhere["repoUrl"] = json!(format!("http://{}/acme/hidden.git", hub.github.host()));
    let reason = hub.reason(&json!({ "github": elsewhere })).await;
    assert!(reason.contains("does not show this repository"), "{reason}");
    elsewhere["accessToken"] = Value::Null;
    let reason = hub.reason(&json!({ "github": elsewhere })).await;
    assert!(reason.contains("no token"), "{reason}");
    assert!(hub.github.pulls(REPO).is_empty());
}

#[tokio::test]
async fn a_token_is_sent_to_its_own_host_only() {
    let other = Github::start().await.unwrap();
    let hub = Hub::start().await;
    // Another host's repository: this API hears nothing of its token.
    let github = json!({
        "repoUrl": format!("http://{}/{REPO}.git", other.host()), "accessToken": "ghp_of_another",
    });
    let reason = hub.reason(&json!({ "github": github })).await;
    assert!(reason.contains(hub.github.host()), "{reason}");
    assert!(hub.github.log().is_empty());
    // An answer that leads to another host is not followed.
    hub.github.next([Mishap::MovedTo(format!(
        "{}/repositories/1/pulls",
        other.api()
    ))]);
    let reason = hub.reason(&json!({})).await;
    assert!(reason.contains("another host"), "{reason}");
    assert!(other.log().is_empty());
    // Within the API it is: the repository was renamed.
    hub.github.create_repo("acme/renamed", "main");
    hub.github.add_branch("acme/renamed", BRANCH);
    let moved = format!("{}/repos/acme/renamed/pulls", hub.github.api());
    let relative = "/repos/acme/renamed".to_owned();
    hub.github.next([Mishap::MovedTo(relative)]);
    hub.asked(&json!({})).await;
    let home = hub.github.log();
    assert_eq!(home[home.len() - 2].path, "/repos/acme/renamed");
    hub.github.next([Mishap::MovedTo(moved.clone())]);
    let wish = json!({"createPullRequest": {"base": "main"}});
    hub.asked(&wish).await;
    assert_eq!(hub.github.pulls("acme/renamed").len(), 1);
    // Nor in circles.
    hub.github.next(vec![Mishap::MovedTo(moved); 9]);
    let reason = hub.reason(&wish).await;
    assert!(reason.contains("from place to place"), "{reason}");
}

#[tokio::test]
async fn only_the_holder_of_the_lease_may_ask() {
    let hub = Hub::start().await;
    let made = hub.test.accepted(&hub.request(&json!({}))).await;
    let held = Worker::new(&hub.test.dispatcher).claim().await;
    let (status, answer) = held.try_post("pull-request", &json!({})).await;
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("lease_not_acknowledged"))
    );
    held.ack().await;
    held.state("running").await;
    let path = format!("/executions/{}/cancel", made.execution_id);
    assert_eq!(
        hub.test
            .post(&path)
            .json(&json!({}))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    let answer = held.must("pull-request", &json!({})).await;
    assert!(answer["reason"].as_str().unwrap().contains("cancelled"));
    held.complete(0).await;
    let (status, answer) = held.try_post("pull-request", &json!({})).await;
    assert_eq!((status, &answer["error"]), (409, &json!("lease_lost")));
    assert!(hub.github.log().is_empty());
}

#[tokio::test]
async fn secrets_of_the_request_do_not_reach_title_and_text() {
    let hub = Hub::start().await;
    let token = hub.github.token();
    let wish = json!({"title": format!("use {token}"), "body": format!("```{token}```")});
    hub.asked(&json!({"createPullRequest": wish})).await;
    let pull = &hub.github.pulls(REPO)[0];
    assert_eq!(
        (&*pull.title, pull.body.as_deref()),
        ("use ***", Some("```***```"))
    );
}
