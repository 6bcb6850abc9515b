//! The real `codex` at limits: of money, and of its model.

use serde_json::{Value, json};

use super::approvals::{CODEX, WAIT, asking_of};
use super::codex::ask;
use super::shaky::{Shaky, last, work_of};
use super::world::{World, event};

/// The same conversation.
fn go_on(session: &str, prompt: &str) -> Value {
    let mut request = ask(prompt);
    request["websiteSessionId"] = json!(session);
    request
}

#[tokio::test]
async fn a_limit_of_its_model_that_is_over_soon_is_waited_out() {
    let world = World::start().await;
    let worker = world.patient_worker(60);
    let submitted = world.submit(ask("[[err429:8]] say something")).await;
    let events = world.events(submitted.execution).await;
    assert_eq!(worker.exit_code().await, Some(0));
    event(&events, "completed");
    let waits = events.iter().filter(|event| {
        let words = event["message"].as_str().unwrap_or_default();
        event["type"] == "message" && words.contains("the agent goes on at 20")
    });
    assert!(waits.count() > 0, "{events:#?}");
}

#[tokio::test]
async fn a_limit_of_its_model_that_lasts_ends_the_run_and_keeps_the_session() {
    let world = World::start().await;
    let worker = world.patient_worker(0);
    let first = world.submit(ask("[[err429]] say something")).await;
    let events = world.events(first.execution).await;
    assert_eq!(worker.exit_code().await, Some(0));
    let end = event(&events, "error");
    assert_eq!(end["code"], "rate_limited", "{end}");
    assert_eq!(end["retryable"], true);
    let (_, events) = world.run(go_on(&first.session, "[[text]] and now?")).await;
    event(&events, "completed");
    let last = world.model.messages().pop().unwrap().body.to_string();
    assert!(
        last.contains("say something") && last.contains("and now?"),
        "{last}"
    );
}

/// Codex says what an answer consumed when the tools that it called have returned, so the stop
/// comes in the middle of the next answer.
#[tokio::test]
async fn a_session_without_money_of_its_own_stops_codex_and_a_raise_lets_it_go_on() {
    let world = Shaky::start().await;
    let worker = world.worker();
    // Less than the first answer of the model costs.
    let mut request = asking_of(&world, CODEX, WAIT, "bypassPermissions");
    request["autoCommit"] = json!(false);
    request["sessionBudgetUsd"] = json!(0.0001);
    let first = world.submit(request).await;
    world.tells(&first, "agent_tool_call").await;
    world.say(&first, "[[slow]] please").await;
    world.tells(&first, "user_message").await;
    std::fs::write(work_of(&worker, &first).join("go"), "").unwrap();
    let events = world.events(first.execution).await;
    assert_eq!(worker.exit_code().await, Some(0));
    let end = event(&events, "error");
    assert_eq!(end["code"], "budget_exceeded", "{end}");

    let again = go_on(&first.session, "[[text]] go on");
    let answer = world.app.execute(&again).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let admin = world.app.admin_key().await;
    let raise = json!({"sessionBudgetUsd": 1});
    let limited = world.app.limit_session(&admin, &first.session, &raise);
    assert_eq!(limited.await.0, 200);
    let worker = world.worker();
    let next = world.submit(again).await;
    let events = world.completed(&next, worker).await;
    let result = last(&events)["result"].as_str().unwrap();
    assert!(result.contains("marked user turns"), "{result}");
}
