//! The real `codex` and people: steps that they allow, plans that they judge, words in mid-run.

use serde_json::{Value, json};

use super::approvals::{
    CODEX, WAIT, asking_of, has_hello, plan_is_carried_out, plan_is_sent_back_and_refused,
};
use super::shaky::{Shaky, last, work_of};
use super::world::event;

/// A request for codex with this permission mode.
fn asking(world: &Shaky, prompt: &str, mode: &str) -> Value {
    asking_of(world, CODEX, prompt, mode)
}

#[tokio::test]
async fn an_allowed_command_is_run_and_one_allowed_for_the_session_not_asked_again() {
    let world = Shaky::start().await;
    let mut session = None;
    for (decision, by) in [
        (Some("allow"), "user"),
        (Some("allow_for_session"), "user"),
        (None, "session"),
    ] {
        let mut request = asking(&world, "[[bash:touch hello.txt]]", "default");
        if let Some(session) = &session {
            request["websiteSessionId"] = json!(session);
        }
        let worker = world.worker();
        let run = world.submit(request).await;
        if let Some(decision) = decision {
            let question = world.question(&run).await;
            assert_eq!(question["tool"], "exec_command");
            assert!(
                question["input"]["command"]
                    .to_string()
                    .contains("touch hello.txt"),
                "{question}"
            );
            assert_eq!(world.execution(run.execution).await["status"], "waiting");
            let body = json!({ "decision": decision });
            world.answer(&run, &question, body).await;
        }
        let events = world.completed(&run, worker).await;
        assert_eq!(event(&events, "agent_tool_result")["ok"], true);
        let is_by_session = event(&events, "approval_resolved")["by"] == "session";
        assert_eq!(is_by_session, by == "session", "{decision:?}");
        if session.is_none() {
            assert!(has_hello(&world, &events).await);
        }
        session = Some(run.session);
    }
}

#[tokio::test]
async fn a_plan_is_approved_and_carried_out_step_by_step() {
    plan_is_carried_out(CODEX, "exec_command").await;
}

#[tokio::test]
async fn a_plan_is_sent_back_with_words_and_then_refused_without() {
    plan_is_sent_back_and_refused(CODEX).await;
}

#[tokio::test]
async fn a_message_in_mid_run_is_heard_in_the_same_turn() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let mut request = asking(&world, WAIT, "bypassPermissions");
    request["autoCommit"] = json!(false);
    let run = world.submit(request).await;
    world.tells(&run, "agent_tool_call").await;
    let sent = world.say(&run, "[[echo:heard]] please").await;
    assert_eq!(sent["delivered"], "running");
    world.tells(&run, "user_message").await;
    std::fs::write(work_of(&worker, &run).join("go"), "").unwrap();
    let events = world.completed(&run, worker).await;
    assert_eq!(
        event(&events, "user_message")["messageId"],
        sent["messageId"]
    );
    assert_eq!(last(&events)["result"], "heard");
    let last = world.last_request();
    assert!(last.contains("[[echo:heard]] please"), "{last}");
    assert_eq!(world.turns(&run).await, 1);
}
