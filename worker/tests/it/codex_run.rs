//! The real CLI in the real sandbox, against a scripted model over a socket.

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use clawlink_shared::prompt::{ImageSource, PromptPart};
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::StopReason;
use serde_json::{Value, json};

use crate::agent_job::{Run, Session, agent_dir};

/// One transparent pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

/// A job for codex with a key, whose model is scripted.
fn codex(session: &Session, model: &Model, prompt: &str) -> Run {
    let mut run = session.run(prompt);
    run.environment.agent_dir = Some(agent_dir());
    let base_url = ("OPENAI_BASE_URL".into(), model.base_url().into());
    run.environment.passthrough.extend([base_url]);
    run.options.model = Some("gpt-5-codex".into());
    run.credential = Some(Secret::new("sk-scripted-key"));
    run
}

#[tokio::test]
async fn text_streams_and_is_counted() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = codex(&session, &model, "[[text]] hi")
        .finish(AgentKind::Codex)
        .await;
    assert_eq!(ended.end.failure, None);
    let said = "Hello from the scripted model. I have seen 1 marked user turns.";
    assert_eq!(ended.end.result.as_deref(), Some(said));
    assert_eq!(ended.said(), said);
    let deltas = ended
        .events
        .iter()
        .filter(|told| told.fields["delta"] == true);
    assert!(deltas.count() > 3);
    let usage = ended.end.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (100, 25));
    assert!(ended.end.provider_session_id.is_some());
    let requests = model.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.path == "/v1/responses"),
        "{requests:?}"
    );
    assert_eq!(
        requests[0].headers["authorization"],
        "Bearer sk-scripted-key"
    );
}

#[tokio::test]
async fn tools_work_in_the_sandbox() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = codex(&session, &model, "[[write]] a file")
        .finish(AgentKind::Codex)
        .await;
    assert_eq!(ended.end.failure, None);
    let hello = std::fs::read_to_string(session.work().join("hello.txt"));
    assert_eq!(hello.unwrap(), "hello from the scripted model\n");
    assert_eq!(
        ended.texts(EventType::AgentToolCall, "tool"),
        "exec_command"
    );
    assert_eq!(ended.texts(EventType::AgentToolResult, "ok"), "true");
    assert_eq!(ended.end.usage.unwrap().input_tokens, 200);
}

#[tokio::test]
async fn tools_cannot_leave_the_session_and_do_not_see_the_key() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    std::fs::write(session.outside().join("secret"), "outside-secret").unwrap();
    let prompt = "[[bash:cat ../../secret; env]]";
    let ended = codex(&session, &model, prompt)
        .finish(AgentKind::Codex)
        .await;
    let output = ended.texts(EventType::AgentToolResult, "output");
    assert!(output.contains("denied"), "{output}");
    assert!(!output.contains("outside-secret"), "{output}");
    assert!(!output.contains("DATABASE_URL"), "{output}");
    assert!(output.contains("PATH="), "{output}");
    assert!(!output.contains("sk-scripted-key"), "{output}");
}

#[tokio::test]
async fn conversation_continues_where_only_its_file_is() {
    let model = Model::start().await.unwrap();
    let session = Session::new();
    let ended = codex(&session, &model, "[[text]] one")
        .finish(AgentKind::Codex)
        .await;
    let conversation = ended.end.provider_session_id;
    let kept = session.outside().join("kept");
    std::fs::rename(session.home().join(".codex/sessions"), &kept).unwrap();
    std::fs::remove_dir_all(session.home().join(".codex")).unwrap();
    std::fs::create_dir(session.home().join(".codex")).unwrap();
    std::fs::rename(&kept, session.home().join(".codex/sessions")).unwrap();
    session.give(&session.home().join(".codex"));

    let mut run = codex(&session, &model, "[[text]] two");
    run.resume = conversation.clone();
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(ended.end.failure, None);
    assert!(ended.end.result.unwrap().contains("2 marked user turns"));
    assert_eq!(ended.end.provider_session_id, conversation);
    assert_eq!(ended.end.usage.unwrap().input_tokens, 100);
}

#[tokio::test]
async fn unknown_conversation_is_said() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = codex(&session, &model, "[[text]]");
    run.resume = Some("01a1f820-bd51-76a1-ae44-8963873edb2b".into());
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(
        ended.end.failure.unwrap().code,
        ErrorCode::SessionUnavailable
    );
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn images_reach_the_model() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = codex(&session, &model, "[[text]] what is this?");
    run.prompt.push(PromptPart::Image {
        source: ImageSource::Base64 {
            media_type: "image/png".into(),
            data: PNG.into(),
        },
    });
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(ended.end.failure, None);
    let body = model.messages()[0].body.to_string();
    assert!(body.contains("input_image"), "{body}");
    let told = ended.texts(EventType::AssistantMessage, "data");
    assert!(!told.contains("base64,"), "the prompt is not told again");
}

#[tokio::test]
async fn refusals_of_the_model_have_codes() {
    for (prompt, code) in [
        ("[[err401]]", ErrorCode::AuthError),
        ("[[err429]]", ErrorCode::RateLimited),
        ("[[err500]]", ErrorCode::AgentError),
    ] {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let ended = codex(&session, &model, prompt)
            .finish(AgentKind::Codex)
            .await;
        let failure = ended.end.failure.unwrap();
        assert_eq!(failure.code, code, "{prompt}: {}", failure.message);
    }
}

#[tokio::test]
async fn a_command_needs_an_approval_and_without_one_is_not_run() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = codex(&session, &model, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Default;
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(ended.end.failure, None);
    assert!(!session.work().join("hello.txt").exists());
    assert_eq!(ended.texts(EventType::AgentToolResult, "ok"), "false");
    let last = model.messages().pop().unwrap().body.to_string();
    assert!(
        last.contains("approval"),
        "the reason reaches the model: {last}"
    );
}

#[tokio::test]
async fn a_plan_is_made_and_not_carried_out_unasked() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = codex(&session, &model, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Plan;
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(ended.end.failure, None);
    assert!(!session.work().join("hello.txt").exists());
    let messages = ended.texts(EventType::Message, "message");
    assert!(
        messages.contains("The plan is not carried out"),
        "{messages}"
    );
    let first = model.messages()[0].body.to_string();
    assert!(first.contains("You are in plan mode"), "{first}");
}

#[tokio::test]
async fn turns_are_limited() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = codex(&session, &model, "[[write]] a file");
    run.options.max_turns = Some(1);
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::MaxTurns);
    assert!(ended.end.provider_session_id.is_some());
}

#[tokio::test]
async fn stop_ends_an_answer_a_tool_and_a_silent_model() {
    for (prompt, sign) in [
        ("[[slow]]", "tick"),
        ("[[sleep]]", "Using"),
        ("[[stall]]", ""),
    ] {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let mut running = codex(&session, &model, prompt)
            .start(AgentKind::Codex)
            .await;
        model.wait_for_messages(1).await;
        let is_sign = |text: &Value| text.as_str().is_some_and(|text| text.contains(sign));
        running
            .until(|told| sign.is_empty() || is_sign(&told.fields["text"]))
            .await;
        running.stop(StopReason::Cancel);
        let ended = running.finish().await;
        assert_eq!(ended.end.failure, None, "{prompt}");
        assert!(ended.end.provider_session_id.is_some(), "{prompt}");
    }
}

#[tokio::test]
async fn credentials_travel_in_three_ways() {
    let token = |name: &str| {
        // Three parts in base64url; the middle one is {"exp":4102444800,"email":"a@b.c"}.
        format!("e30.eyJleHAiOjQxMDI0NDQ4MDAsImVtYWlsIjoiYUBiLmMifQ.{name}")
    };
    let login = json!({
        "auth_mode": "chatgpt", "OPENAI_API_KEY": null, "last_refresh": "2026-11-20T00:00:00Z",
        "tokens": {
            "id_token": token("id"), "access_token": token("access"),
            "refresh_token": "refresh-token-scripted", "account_id": "account-scripted",
        },
    });
    for (credential, sent) in [
        ("sk-raw-key".to_owned(), "Bearer sk-raw-key".to_owned()),
        (
            json!({"apiKey": "sk-json-key"}).to_string(),
            "Bearer sk-json-key".to_owned(),
        ),
        (login.to_string(), format!("Bearer {}", token("access"))),
    ] {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let mut run = codex(&session, &model, "[[text]]");
        run.credential = Some(Secret::new(credential));
        let ended = run.finish(AgentKind::Codex).await;
        assert_eq!(ended.end.failure, None);
        assert_eq!(model.messages()[0].headers["authorization"], sent);
        assert!(!session.home().join(".codex/auth.json").exists());
        assert!(ended.end.refreshed_credential.is_none());
    }
}

#[tokio::test]
async fn a_credential_of_another_shape_is_refused() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = codex(&session, &model, "[[text]]");
    run.credential = Some(Secret::new(r#"{"claudeAiOauth": {}}"#));
    let ended = run.finish(AgentKind::Codex).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::ValidationError);
}
