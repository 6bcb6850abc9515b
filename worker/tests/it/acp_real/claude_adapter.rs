//! Claude's adapter for the protocol, as a workspace's own command: nothing here knows it.

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::{AgentKind, CommandDefinition, Definition};
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::desk::Answer;

use super::run;
use crate::agent_job::{Run, Session};

/// A job for the adapter, defined as a workspace would.
fn adapter(session: &Session, model: &Model, prompt: &str) -> Run {
    let mut run = run(session, model, AgentKind::Acp, prompt);
    let env = [
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("CLAUDE_CODE_MAX_RETRIES", "2"),
    ];
    run.definition = Some(Definition::Command(CommandDefinition {
        command: "claude-agent-acp".into(),
        env: env.map(|(name, value)| (name.into(), value.into())).into(),
        credential_variable: Some("ANTHROPIC_API_KEY".into()),
        state_folder: Some(".claude".into()),
        ..CommandDefinition::default()
    }));
    run.options.model = None;
    run.credential = Some(Secret::new("sk-ant-api03-scripted"));
    run
}

#[tokio::test]
async fn it_writes_continues_and_counts() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = adapter(&session, &model, "[[write]] a file")
        .finish(AgentKind::Acp)
        .await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(session.work().join("hello.txt").exists());
    assert_eq!(ended.texts(EventType::AgentToolCall, "tool"), "Write");
    assert_eq!(ended.end.result.as_deref(), Some("Done: the tool has run."));
    assert!(ended.end.usage.unwrap().input_tokens >= 200);
    let keys = model.messages();
    let mut keys = keys.iter().map(|call| call.headers.get("x-api-key"));
    assert!(keys.all(|key| key.is_some_and(|key| key == "sk-ant-api03-scripted")));

    let mut second = adapter(&session, &model, "[[text]] again");
    second.resume = ended.end.provider_session_id;
    let ended = second.finish(AgentKind::Acp).await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(
        ended.said().ends_with("I have seen 2 marked user turns."),
        "{}",
        ended.said()
    );
}

#[tokio::test]
async fn it_asks_and_hears() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = adapter(&session, &model, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Default;
    run.has_people = true;
    let mut running = run.start(AgentKind::Acp).await;
    let question = running.question().await;
    // Its question has the kind of tool alone.
    assert_eq!(question["tool"], "edit", "{question}");
    assert!(question["input"]["content"].is_string(), "{question}");
    running.say("[[echo:heard-in-mid-run]] please").await;
    running.answer(&question, Answer::Allow { for_session: false });
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(session.work().join("hello.txt").exists());
    assert_eq!(ended.end.result.as_deref(), Some("heard-in-mid-run"));
}

#[tokio::test]
async fn what_its_model_refuses_has_a_code() {
    for (prompt, code) in [
        ("[[err401]]", ErrorCode::AuthError),
        ("[[err429]]", ErrorCode::RateLimited),
        ("[[err500]]", ErrorCode::AgentError),
    ] {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let ended = adapter(&session, &model, prompt)
            .finish(AgentKind::Acp)
            .await;
        let failure = ended.end.failure.unwrap();
        assert_eq!(failure.code, code, "{prompt}: {}", failure.message);
    }
}
