//! Who answers, who may, and who is first.

use clawlink::auth::principal::KeyRole;
use clawlink_shared::approval::Decision;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Agent;
use crate::app::TestApp;
use crate::wait::eventually;

#[tokio::test]
async fn of_twenty_answers_at_once_the_first_wins() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    assert_eq!(test.state_of(&job).await, "waiting");
    let requested = &test.told(&job, "approval_requested").await[0];
    assert_eq!(requested["approvalId"], id.to_string());
    assert!(requested["expiresAt"].as_str().unwrap() > requested["timestamp"].as_str().unwrap());
    let listening = tokio::spawn({
        let held = agent.held.at(&second);
        async move { held.control(0, 20).await }
    });
    let answers = (0..20).map(|number| {
        let decision = if number % 2 == 0 { "allow" } else { "deny" };
        let message = format!("answer {number}");
        test.answer(&job, id, json!({"decision": decision, "message": message}))
    });
    let answers = futures::future::join_all(answers).await;
    let (good, late): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(status, _)| *status == 200);
    assert_eq!(good.len(), 1);
    for (status, problem) in late {
        assert_eq!(
            (status, &problem["error"]),
            (409, &json!("approval_decided"))
        );
    }
    let (status, orders) = listening.await.unwrap();
    assert_eq!(
        (status, orders.items.len()),
        (200, 1),
        "heard at another replica"
    );
    let heard = agent.heard().await;
    let shown = &good[0].1;
    assert_eq!(heard.len(), 1);
    assert_eq!(shown["decision"], json!(heard[0].1));
    assert_eq!(shown["message"], json!(heard[0].2));
    assert!(shown["decidedBy"].as_str().unwrap().starts_with("key:"));
    let resolved = test.told(&job, "approval_resolved").await;
    assert_eq!(resolved.len(), 1);
    assert_eq!(resolved[0]["by"], shown["decidedBy"]);
    assert_eq!(test.state_of(&job).await, "running");
    let entries: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries where action in ('approval.allowed', 'approval.denied')",
    )
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!(entries, 1);
    agent.complete().await;
    assert_eq!(test.state_of(&job).await, "completed");
}

#[tokio::test]
async fn it_waits_until_the_last_of_several_questions_is_answered() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let ids = [agent.ask_bash("one").await, agent.ask_bash("two").await];
    let decisions = [("allow_for_session", "waiting"), ("deny", "running")];
    for (id, (decision, state)) in ids.iter().zip(decisions) {
        let (status, shown) = test.answer(&job, *id, json!({"decision": decision})).await;
        assert_eq!(status, 200, "{shown}");
        assert_eq!(test.state_of(&job).await, state);
    }
    let heard = agent.heard().await;
    let heard: Vec<_> = heard
        .iter()
        .map(|(id, decision, _)| (*id, *decision))
        .collect();
    assert_eq!(
        heard,
        [
            (ids[0], Decision::AllowForSession),
            (ids[1], Decision::Deny)
        ]
    );
    let states = test.told(&job, "state_changed").await;
    let states: Vec<&str> = states
        .iter()
        .filter_map(|event| event["to"].as_str())
        .collect();
    assert_eq!(states, ["planning", "running", "waiting", "running"]);
}

#[tokio::test]
async fn a_question_that_is_sent_again_is_asked_once() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = Uuid::new_v4();
    let fields =
        json!({"approvalId": id, "kind": "tool", "tool": "Bash", "input": {"command": "x"}});
    let line = agent.tell("approval_requested", fields).await;
    let before = test.log(&job).await;
    assert_eq!(agent.held.try_lines(line.clone()).await.0, 200);
    assert_eq!(
        test.answer(&job, id, json!({"decision": "allow"})).await.0,
        200
    );
    assert_eq!(agent.held.try_lines(line).await.0, 200);
    assert_eq!(test.state_of(&job).await, "running");
    assert_eq!(test.log(&job).await[..before.len()], before);
    assert_eq!(test.told(&job, "approval_requested").await.len(), 1);
    for bad in [
        json!({"n": 2, "type": "approval_requested", "fields": {"tool": "Bash"}}),
        json!({"n": 2, "type": "approval_withdrawn", "fields": {}}),
        json!({"n": 2, "type": "user_message", "fields": {"messageId": "x"}}),
    ] {
        let (status, problem) = agent.held.try_lines(format!("{bad}\n")).await;
        assert_eq!((status, &problem["error"]), (400, &json!("event_refused")));
    }
}

#[tokio::test]
async fn who_may_not_see_finds_nothing_and_who_may_not_answer_is_refused() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    let allow = json!({"decision": "allow"});
    for (workspace, role, expected) in [
        ("other", KeyRole::Admin, 404),
        ("default", KeyRole::Readonly, 403),
        ("default", KeyRole::Ci, 403),
    ] {
        let (_, key) = test.key_for(workspace, role).await;
        let (status, _) = test.answer_as(key.expose(), &job, id, allow.clone()).await;
        assert_eq!(status, expected, "{workspace} {role:?}");
    }
    let (_, foreign) = test.key_for("other", KeyRole::Admin).await;
    let get = |path: String| {
        let key = foreign.expose().to_owned();
        let test = &test;
        async move { test.call_as(&key, Method::GET, &path, Value::Null).await }
    };
    assert_eq!(
        get(format!("/executions/{}/approvals", job.id)).await.0,
        404
    );
    let (status, open) = get("/api/approvals".to_owned()).await;
    assert_eq!((status, &open["approvals"]), (200, &json!([])));
    for (body, status) in [
        (json!({}), 400),
        (json!({"decision": "maybe"}), 400),
        (
            json!({"decision": "deny", "message": "x".repeat(5000)}),
            400,
        ),
    ] {
        assert_eq!(test.answer(&job, id, body).await.0, status);
    }
    let unknown = test.answer(&job, Uuid::new_v4(), allow.clone()).await;
    assert_eq!(unknown.1["error"], "approval_not_found");
    assert_eq!(test.state_of(&job).await, "waiting");
    assert!(agent.heard().await.is_empty());
}

#[tokio::test]
async fn open_questions_are_listed_in_pages_and_told_to_boards() {
    let test = TestApp::start().await;
    let mut stream = crate::client::Stream::open(test.get("/api/events")).await;
    stream.next().await.unwrap();
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(agent.ask_bash(&format!("make {number}")).await.to_string());
    }
    let mut found = Vec::new();
    let mut path = "/api/approvals?limit=2".to_owned();
    loop {
        let page: Value = test.get(&path).send().await.unwrap().json().await.unwrap();
        let list = page["approvals"].as_array().unwrap();
        found.extend(
            list.iter()
                .map(|one| one["approvalId"].as_str().unwrap().to_owned()),
        );
        assert!(list.iter().all(|one| one["state"] == "open"));
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/api/approvals?limit=2&cursor={cursor}");
    }
    assert_eq!(found, ids);
    let first: Uuid = ids[0].parse().unwrap();
    test.answer(&job, first, json!({"decision": "deny"})).await;
    let all = test.get(&format!("/executions/{}/approvals", job.id));
    let all: Value = all.send().await.unwrap().json().await.unwrap();
    assert_eq!(all["approvals"][0]["state"], "denied");
    assert_eq!(all["approvals"].as_array().unwrap().len(), 5);
    let mut kinds = Vec::new();
    while kinds.len() < 6 {
        let event = stream.next().await.unwrap();
        kinds.extend(Some(event.kind()).filter(|kind| kind.starts_with("approval.")));
    }
    assert_eq!(kinds[..5], ["approval.requested"; 5]);
    assert_eq!(kinds[5], "approval.resolved");
}

#[tokio::test]
async fn an_answer_reaches_the_worker_through_dispatchers_that_come_and_go() {
    let mut test = TestApp::start().await;
    let job = test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    let second = test.second_dispatcher().await;
    assert_eq!(
        test.answer(&job, id, json!({"decision": "allow"})).await.0,
        200
    );
    test.dispatcher.end().await;
    let moved = agent.held.at(&second);
    let orders = eventually("the other replica says it", || async {
        let (status, orders) = moved.control(0, 1).await;
        (status == 200 && !orders.items.is_empty()).then_some(orders)
    })
    .await;
    assert_eq!(orders.items.len(), 1);
    let (_, none) = moved.control(orders.items[0].k, 0).await;
    assert!(none.items.is_empty(), "said once");
}

#[tokio::test]
async fn a_question_that_was_asked_before_is_refused_by_its_number() {
    let test = TestApp::start().await;
    test.submit().await;
    let mut agent = Agent::start(&test).await;
    let id = agent.ask_bash("make").await;
    let fields = json!({"approvalId": id, "kind": "tool", "tool": "Bash", "input": {}});
    let line = json!({"n": 2, "type": "approval_requested", "fields": fields});
    let (status, problem) = agent.held.try_lines(format!("{line}\n")).await;
    assert_eq!(
        (status, &problem["error"], &problem["n"]),
        (400, &json!("event_refused"), &json!(2))
    );
}
