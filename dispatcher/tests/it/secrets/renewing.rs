//! Logins that an agent's program renews, and who may store them.

use serde_json::json;

use super::{Desk, agent, claim_claude, claude};
use crate::app::TestApp;
use crate::worker::Held;

const LOGIN: &str = r#"{"claudeAiOauth":{"accessToken":"first-token","refreshToken":"r"}}"#;

#[tokio::test]
async fn a_renewed_login_goes_back_where_it_came_from() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    desk.put("CLAUDE_CODE_OAUTH_TOKEN", LOGIN).await;
    let mut holders = Vec::new();
    for _ in 0..2 {
        test.accepted(&claude()).await;
        let held = claim_claude(&test.dispatcher).await;
        assert_eq!(agent(&held), Some(LOGIN));
        let early = held
            .try_post("credentials", &json!({ "agent": LOGIN }))
            .await;
        assert_eq!(
            (early.0, &early.1["error"]),
            (409, &json!("lease_not_acknowledged"))
        );
        held.ack().await;
        holders.push(held);
    }
    let renewed = |n: usize| LOGIN.replace("first", &format!("renewed-{n}"));
    let hand_back = async |held: &Held, value: &str| {
        let (status, answer) = held
            .try_post("credentials", &json!({ "agent": value }))
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["stored"].as_bool().unwrap()
    };
    for junk in ["", "sk-raw", "{}", "[1]", &"x".repeat(70_000)] {
        assert!(!hand_back(&holders[0], junk).await);
    }
    let (zero, one) = (renewed(0), renewed(1));
    let (first, second) = tokio::join!(hand_back(&holders[0], &zero), hand_back(&holders[1], &one));
    assert!(first != second, "one of them was the first");
    let winner = usize::from(second);
    assert!(
        hand_back(&holders[winner], &renewed(winner)).await,
        "repeated"
    );
    assert!(
        hand_back(&holders[winner], &renewed(7)).await,
        "renewed again"
    );
    assert!(!hand_back(&holders[1 - winner], &renewed(8)).await);
    test.accepted(&claude()).await;
    let held = claim_claude(&test.dispatcher).await;
    assert_eq!(agent(&held), Some(renewed(7).as_str()));
    let audited = desk.audited().await;
    let renewals = audited.iter().filter(|entry| entry.0 == "secret.renewed");
    assert_eq!(renewals.count(), 2);
    assert!(!format!("{audited:?}").contains("token"), "{audited:?}");
    desk.put("CLAUDE_CODE_OAUTH_TOKEN", LOGIN).await;
    held.ack().await;
    assert!(!hand_back(&held, &renewed(9)).await, "a person was faster");
}

#[tokio::test]
async fn what_is_no_secret_of_the_workspace_is_not_stored() {
    let test = TestApp::start().await;
    let desk = Desk::of(&test).await;
    let mut own = claude();
    own["codingAssistantAuthentication"] = serde_json::from_str(LOGIN).unwrap();
    test.accepted(&own).await;
    let held = claim_claude(&test.dispatcher).await;
    held.ack().await;
    let login = json!({ "agent": LOGIN.replace("first", "next") });
    assert_eq!(
        held.try_post("credentials", &login).await.1["stored"],
        false
    );
    // A key is not a login: a worker cannot replace it.
    desk.put("ANTHROPIC_API_KEY", "sk-ant-api03-key").await;
    test.accepted(&claude()).await;
    let held = claim_claude(&test.dispatcher).await;
    held.ack().await;
    assert_eq!(
        held.try_post("credentials", &login).await.1["stored"],
        false
    );
    assert_eq!(desk.list().await["secrets"][0]["version"], 1);
    let (status, problem) = held
        .try_post("credentials", &json!({"agent": 123_456}))
        .await;
    assert_eq!(status, 400);
    assert!(!problem.to_string().contains("123456"), "{problem}");
    held.state("running").await;
    held.complete(0).await;
    let (status, problem) = held.try_post("credentials", &login).await;
    assert_eq!((status, &problem["error"]), (409, &json!("lease_lost")));
}
