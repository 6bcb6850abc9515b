//! The agents and people: steps that they allow or refuse, plans, words in mid-run.

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::PermissionMode;
use clawlink_worker::agents::desk::Answer;

use super::run;
use crate::agent_job::Session;

/// Without a person, steps that need permission are refused.
async fn refuses_what_nobody_permits(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = run(&session, &model, kind, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Default;
    let _ended = run.finish(kind).await;
    assert!(!session.work().join("hello.txt").exists());
}

/// What a person allows is done.
async fn does_what_is_allowed(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = run(&session, &model, kind, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Default;
    run.has_people = true;
    let mut running = run.start(kind).await;
    let question = running.question().await;
    assert_eq!(question["kind"], "tool", "{question}");
    let hello = session.work().join("hello.txt");
    assert!(!hello.exists());
    running.answer(&question, Answer::Allow { for_session: true });
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(hello.exists(), "{question}");
    assert_eq!(ended.texts(EventType::AgentToolResult, "ok"), "true");
}

/// A plan goes back once, is approved, and is carried out.
async fn plans_first(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = run(&session, &model, kind, "[[plan]] a file");
    run.options.permission_mode = PermissionMode::Plan;
    run.has_people = true;
    let mut running = run.start(kind).await;
    let plan = running.question().await;
    assert_eq!(plan["kind"], "plan", "{plan}");
    let message = "use another name".to_owned();
    running.answer(&plan, Answer::Deny { message });
    let revised = running.question().await;
    assert_eq!(revised["kind"], "plan", "{revised}");
    let last = model.messages().pop().unwrap().body.to_string();
    assert!(last.contains("use another name"), "{last}");
    let text = revised["input"]["plan"].as_str().unwrap();
    assert!(text.contains("Write hello.txt"), "{text}");
    let hello = session.work().join("hello.txt");
    assert!(!hello.exists());
    running.answer(&revised, Answer::Allow { for_session: false });
    let step = running.question().await;
    assert_eq!(step["kind"], "tool", "steps are asked one by one: {step}");
    running.answer(&step, Answer::Allow { for_session: false });
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(hello.exists(), "{:?}", ended.events);
}

/// What a person says during a turn is the next prompt of the same run.
async fn hears_in_mid_run(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let wait = "[[bash:touch begun; while ! test -e go; do \
                python3 -c 'import time; time.sleep(0.05)'; done]]";
    let mut run = run(&session, &model, kind, wait);
    run.has_people = true;
    let mut running = run.start(kind).await;
    running
        .until(|told| told.kind == EventType::AgentToolCall)
        .await;
    let begun = session.work().join("begun");
    crate::wait::eventually("the tool runs", || begun.exists()).await;
    running.say("[[echo:heard-in-mid-run]] please").await;
    std::fs::write(session.work().join("go"), "").unwrap();
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert_eq!(ended.end.result.as_deref(), Some("heard-in-mid-run"));
}

#[tokio::test]
async fn opencode_asks_first() {
    refuses_what_nobody_permits(AgentKind::Openai).await;
}

#[tokio::test]
async fn gemini_asks_first() {
    refuses_what_nobody_permits(AgentKind::Gemini).await;
}

#[tokio::test]
async fn auggie_asks_first() {
    refuses_what_nobody_permits(AgentKind::Auggie).await;
}

#[tokio::test]
async fn opencode_does_what_is_allowed() {
    does_what_is_allowed(AgentKind::Openai).await;
}

#[tokio::test]
async fn gemini_does_what_is_allowed() {
    does_what_is_allowed(AgentKind::Gemini).await;
}

#[tokio::test]
async fn auggie_does_what_is_allowed() {
    does_what_is_allowed(AgentKind::Auggie).await;
}

#[tokio::test]
async fn opencode_plans_first() {
    plans_first(AgentKind::Openai).await;
}

#[tokio::test]
async fn gemini_plans_first() {
    plans_first(AgentKind::Gemini).await;
}

#[tokio::test]
async fn auggie_plans_first() {
    plans_first(AgentKind::Auggie).await;
}

/// auggie's own mode only asks the model to change nothing; this one does not obey.
#[tokio::test]
async fn auggie_changes_nothing_before_its_plan_is_approved() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = run(&session, &model, AgentKind::Auggie, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Plan;
    run.has_people = true;
    let mut running = run.start(AgentKind::Auggie).await;
    let plan = running.question().await;
    assert_eq!(plan["kind"], "plan", "nobody is asked for a step: {plan}");
    let hello = session.work().join("hello.txt");
    assert!(!hello.exists());
    running.answer(&plan, Answer::Allow { for_session: false });
    let step = running.question().await;
    assert_eq!(step["kind"], "tool", "{step}");
    running.answer(&step, Answer::Allow { for_session: false });
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert_eq!(ended.texts(EventType::AgentToolResult, "ok"), "false\ntrue");
    assert!(hello.exists(), "{:?}", ended.events);
}

#[tokio::test]
async fn opencode_hears_in_mid_run() {
    hears_in_mid_run(AgentKind::Openai).await;
}

#[tokio::test]
async fn gemini_hears_in_mid_run() {
    hears_in_mid_run(AgentKind::Gemini).await;
}

#[tokio::test]
async fn auggie_hears_in_mid_run() {
    hears_in_mid_run(AgentKind::Auggie).await;
}
