//! What people say to running agents, and where it goes.

use clawlink::auth::principal::KeyRole;
use clawlink::executions::sweep::{Trust, sweep};
use clawlink_shared::control::Order;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use uuid::Uuid;

use crate::app::TestApp;
use crate::approvals::Agent;
use crate::jobs::Job;
use crate::sweep::{lapse, sweep_now};
use crate::wait::eventually;
use crate::worker::Worker;

/// A conversation that a scripted worker runs.
async fn conversation(test: &TestApp, more: Value) -> (Job, Agent) {
    let mut body = json!({
        "codingAssistantProvider": "claude", "codingAssistantAuthentication": "kept-credential",
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let job = test.submit_with(body).await;
    (job, claim(test).await)
}

async fn claim(test: &TestApp) -> Agent {
    let worker = Worker::new(&test.dispatcher);
    let held = worker.claim_as(Uuid::new_v4(), &["claude"], 20).await;
    let held = held.expect("there is work");
    held.ack().await;
    held.state("running").await;
    Agent::of(held)
}

async fn say(test: &TestApp, job: &Job, text: &str) -> (u16, Value) {
    let path = format!("/executions/{}/messages", job.id);
    let key = test.key.expose().to_owned();
    test.call_as(&key, Method::POST, &path, json!({ "text": text }))
        .await
}

async fn heard(agent: &Agent, after: u64) -> Vec<(u64, Uuid, String)> {
    let (status, orders) = agent.held.control(after, 0).await;
    assert_eq!(status, 200);
    let items = orders.items.into_iter();
    items
        .filter_map(|item| match item.order {
            Order::Message { id, text } => Some((item.k, id, text)),
            Order::Cancel { .. } | Order::Approval { .. } | Order::Stop { .. } => None,
        })
        .collect()
}

#[tokio::test]
async fn a_running_agent_hears_it_once_and_says_that_it_took_it() {
    let test = TestApp::start().await;
    let (job, mut agent) = conversation(&test, json!({})).await;
    let (status, sent) = say(&test, &job, "look at the tests too").await;
    assert_eq!(
        (status, &sent["delivered"]),
        (202, &json!("running")),
        "{sent}"
    );
    assert_eq!(sent["executionId"], job.id);
    let orders = heard(&agent, 0).await;
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].2, "look at the tests too");
    assert_eq!(sent["messageId"], orders[0].1.to_string());
    assert_eq!(
        heard(&agent, 0).await,
        orders,
        "until it is taken it is said again"
    );
    let fields = json!({"messageId": orders[0].1, "text": orders[0].2});
    agent.tell("user_message", fields).await;
    assert!(heard(&agent, 0).await.is_empty());
    agent.complete().await;
    assert_eq!(test.told(&job, "user_message").await.len(), 1);
    assert_eq!(turns(&test, &job).await, 1, "no further turn");
}

#[tokio::test]
async fn what_the_agent_did_not_take_is_the_next_turn() {
    let test = TestApp::start().await;
    let (job, mut agent) = conversation(&test, json!({})).await;
    for text in ["first", "second", "third"] {
        assert_eq!(say(&test, &job, text).await.1["delivered"], "running");
    }
    let orders = heard(&agent, 0).await;
    let fields = json!({"messageId": orders[0].1, "text": "first"});
    agent.tell("user_message", fields).await;
    agent.complete().await;
    let said = test.told(&job, "message").await;
    let said = said.last().unwrap()["message"].as_str().unwrap();
    assert!(said.contains("next turn"), "{said}");
    let next = claim(&test).await;
    assert!(said.contains(&next.held.id().to_string()), "{said}");
    let request = &next.held.assignment.request;
    let text = serde_json::to_value(&request.prompt).unwrap();
    assert_eq!(text[0]["text"], "second\n\nthird");
    assert_eq!(next.held.assignment.session.turn, 2);
    let credential = next.held.assignment.credentials.agent.as_ref();
    assert_eq!(credential.unwrap().expose(), "kept-credential");
    assert!(heard(&next, 0).await.is_empty());
    next.complete().await;
}

#[tokio::test]
async fn where_nobody_listens_it_is_a_turn_at_once() {
    let test = TestApp::start().await;
    let script = test.submit().await;
    let running = Worker::new(&test.dispatcher).run().await;
    let (status, sent) = say(&test, &script, "echo hello").await;
    assert_eq!(
        (status, &sent["delivered"]),
        (202, &json!("next_turn")),
        "{sent}"
    );
    assert_ne!(sent["executionId"], script.id);
    assert_eq!(sent["sessionId"], script.session);
    running.complete(0).await;
    let next = Worker::new(&test.dispatcher).run().await;
    assert_eq!(sent["executionId"], next.id());
    next.complete(0).await;
    let after = say(&test, &script, "echo again").await.1;
    assert_eq!(after["delivered"], "next_turn", "of an ended execution too");
    let (job, agent) = conversation(&test, json!({})).await;
    agent.complete().await;
    let path = format!("/executions/{}/messages", job.id);
    let key = test.key.expose().to_owned();
    let body = json!({"text": "more", "codingAssistantAuthentication": "another"});
    let (status, sent) = test.call_as(&key, Method::POST, &path, body).await;
    assert_eq!(
        (status, &sent["delivered"]),
        (202, &json!("next_turn")),
        "{sent}"
    );
    let (status, refused) = say(&test, &job, "without a credential").await;
    assert_eq!(
        (status, &refused["field"]),
        (400, &json!("codingAssistantAuthentication"))
    );
}

#[tokio::test]
async fn a_cancelled_execution_drops_it_and_says_so() {
    let test = TestApp::start().await;
    let (job, agent) = conversation(&test, json!({})).await;
    say(&test, &job, "too late").await;
    assert_eq!(test.cancel(&job).await, 202);
    assert_eq!(
        say(&test, &job, "echo").await.0,
        400,
        "no credential for a next turn"
    );
    let report = json!({"outcome": "cancelled", "lastN": 0});
    assert_eq!(agent.held.try_complete(&report).await.0, 200);
    let said = test.told(&job, "message").await;
    assert!(
        said.last().unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("cancelled")
    );
    assert_eq!(turns(&test, &job).await, 1);
}

#[tokio::test]
async fn a_lost_worker_loses_no_message() {
    let test = TestApp::start().await;
    let trust = Trust {
        leases: true,
        cancels: true,
    };
    for on_loss in ["fail", "resume"] {
        let (job, mut agent) = conversation(&test, json!({"onWorkerLost": on_loss})).await;
        say(&test, &job, "taken").await;
        say(&test, &job, "open").await;
        let orders = heard(&agent, 0).await;
        let fields = json!({"messageId": orders[0].1, "text": "taken"});
        agent.tell("user_message", fields).await;
        let lapse = "update executions set lease_expires_at = now() - interval '1 s' where id = $1";
        sqlx::query(lapse)
            .bind(job.id)
            .execute(test.db())
            .await
            .unwrap();
        sweep(test.app(), trust).await.unwrap();
        let next = claim(&test).await;
        if on_loss == "fail" {
            assert_ne!(next.held.id(), job.id);
            let prompt = serde_json::to_value(&next.held.assignment.request.prompt).unwrap();
            assert_eq!(prompt[0]["text"], "open");
        } else {
            assert_eq!(next.held.id(), job.id);
            let texts: Vec<String> = heard(&next, 0).await.into_iter().map(|one| one.2).collect();
            assert_eq!(texts, ["taken", "open"], "the run begins anew");
        }
        let report = json!({"outcome": "cancelled", "lastN": 0});
        assert_eq!(next.held.try_complete(&report).await.0, 200);
    }
}

#[tokio::test]
async fn the_same_request_twice_is_said_once() {
    let test = TestApp::start().await;
    let (job, agent) = conversation(&test, json!({})).await;
    let send = |text: &'static str| {
        let path = format!("/executions/{}/messages", job.id);
        let call = test.post(&path).header("idempotency-key", "k");
        async move {
            let answer = call.json(&json!({ "text": text })).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.unwrap())
        }
    };
    let (one, other) = tokio::join!(send("hello"), send("hello"));
    assert_eq!((one.0, &one.1), (202, &other.1));
    assert_eq!(heard(&agent, 0).await.len(), 1);
    assert_eq!(send("other").await.0, 409);
}

#[tokio::test]
async fn bounds_and_strangers() {
    let test = TestApp::start().await;
    let (job, agent) = conversation(&test, json!({})).await;
    for bad in [
        "".to_owned(),
        " ".to_owned(),
        "x".repeat(33_000),
        "a\0".to_owned(),
    ] {
        assert_eq!(say(&test, &job, &bad).await.0, 400);
    }
    for _ in 0..32 {
        assert_eq!(say(&test, &job, "more").await.0, 202);
    }
    let (status, problem) = say(&test, &job, "more").await;
    assert_eq!((status, &problem["error"]), (429, &json!("busy")));
    assert_eq!(heard(&agent, 0).await.len(), 32);
    let path = format!("/executions/{}/messages", job.id);
    for (workspace, role, expected) in [
        ("other", KeyRole::Admin, 404),
        ("default", KeyRole::Readonly, 403),
    ] {
        let (_, key) = test.key_for(workspace, role).await;
        let body = json!({"text": "hello"});
        let (status, _) = test.call_as(key.expose(), Method::POST, &path, body).await;
        assert_eq!(status, expected);
    }
}

async fn turns(test: &TestApp, job: &Job) -> i64 {
    sqlx::query_scalar("select count(*) from executions where session_id = $1::uuid")
        .bind(&job.session)
        .fetch_one(test.db())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_said_while_the_end_is_being_written_is_not_lost() {
    let test = TestApp::start().await;
    let (job, agent) = conversation(&test, json!({})).await;
    let mut db = test.superuser().await;
    let mut tx = db.begin().await.unwrap();
    sqlx::query("select from executions where id = $1 for no key update")
        .bind(job.id)
        .execute(&mut *tx)
        .await
        .unwrap();
    let completing = tokio::spawn(async move { agent.complete().await });
    eventually(
        "the report has been read, and waits to be written",
        async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(test.db())
            .await
            .unwrap();
            (waiting == 1).then_some(())
        },
    )
    .await;
    sqlx::query("update executions set orders = orders + 1 where id = $1")
        .bind(job.id)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(
        "insert into messages (id, workspace_id, execution_id, text, sent_by, state, order_number)
         select gen_random_uuid(), workspace_id, id, 'one more', 'key:1', 'open', orders
         from executions where id = $1",
    )
    .bind(job.id)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    completing.await.unwrap();
    let next = claim(&test).await;
    let prompt = serde_json::to_value(&next.held.assignment.request.prompt).unwrap();
    assert_eq!(prompt[0]["text"], "one more");
}

/// An execution that waits for its second worker, with a message that the first did not take.
async fn requeued(test: &TestApp) -> Job {
    let (job, agent) = conversation(test, json!({"onWorkerLost": "resume"})).await;
    assert_eq!(say(test, &job, "open").await.1["delivered"], "running");
    lapse(test, &agent.held).await;
    assert_eq!(sweep_now(test).await, 1);
    job
}

async fn last_words(test: &TestApp, job: &Job) -> String {
    let said = test.told(job, "message").await;
    said.last().unwrap()["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_end_without_a_worker_says_what_becomes_of_it() {
    let test = TestApp::start().await;
    let cancelled = requeued(&test).await;
    assert_eq!(test.cancel(&cancelled).await, 202);
    assert!(last_words(&test, &cancelled).await.contains("cancelled"));

    let unreadable = requeued(&test).await;
    sqlx::query("update executions set spec = '[]' where id = $1")
        .bind(unreadable.id)
        .execute(test.db())
        .await
        .unwrap();
    let worker = Worker::new(&test.dispatcher);
    test.queued().await;
    let held = worker.claim_as(Uuid::new_v4(), &["claude"], 0).await;
    assert!(held.is_none());
    assert_eq!(test.last_event(&unreadable).await["code"], "internal_error");
    let said = last_words(&test, &unreadable).await;
    assert!(said.contains("say it in a new request"), "{said}");
    let open: i64 = sqlx::query_scalar("select count(*) from messages where state = 'open'")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(open, 0);
}
