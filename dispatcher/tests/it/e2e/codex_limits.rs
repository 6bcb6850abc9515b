//! The real `codex` at limits of its model.

use serde_json::{Value, json};

use super::codex::ask;
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
