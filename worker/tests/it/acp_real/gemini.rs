//! gemini's conversations last: turn after turn within the same minute, and under another root.

use std::process::Command;

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_worker::agents::discover;

use super::run;
use crate::agent_job::Session;

const GEMINI: AgentKind = AgentKind::Gemini;

/// The next turn of that conversation, which is that turn of it.
async fn turn(session: &Session, model: &Model, conversation: &mut Option<String>, number: usize) {
    let mut next = run(session, model, GEMINI, "[[text]] a word");
    next.resume = conversation.clone();
    let ended = next.finish(GEMINI).await;
    assert_eq!(ended.end.failure, None, "turn {number}: {:?}", ended.events);
    let seen = format!("I have seen {number} marked user turn");
    assert!(ended.said().contains(&seen), "{}", ended.said());
    *conversation = ended.end.provider_session_id;
}

#[tokio::test]
async fn a_conversation_goes_on_and_on() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut conversation = None;
    for number in 1..=4 {
        turn(&session, &model, &mut conversation, number).await;
    }
}

#[tokio::test]
async fn a_conversation_goes_on_under_another_root() {
    let (first, second) = (Session::named("first"), Session::named("second"));
    let model = Model::start().await.unwrap();
    let mut conversation = None;
    turn(&first, &model, &mut conversation, 1).await;
    turn(&first, &model, &mut conversation, 2).await;
    // What an archive takes along.
    let script = r#"
        mkdir "$2/.gemini" && cp -a "$1/.gemini/tmp" "$2/.gemini/tmp"
        chown -R --reference="$2" "$2/.gemini""#;
    let moved = Command::new("bash")
        .args(["-ec", script, "move"])
        .args([first.home(), second.home()])
        .status();
    assert!(moved.unwrap().success());
    let environment = run(&second, &model, GEMINI, "").environment;
    let agent = discover(environment).await.get(GEMINI).unwrap();
    agent.relocate(&first.root, &second.root).unwrap();
    turn(&second, &model, &mut conversation, 3).await;
    turn(&second, &model, &mut conversation, 4).await;
}
