//! The real CLI in the real sandbox, against a scripted model over a socket.

use std::path::Path;
use std::process::Command;

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use clawlink_shared::prompt::{ImageSource, PromptPart};
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::StopReason;
use serde_json::Value;

use crate::agent_job::{Run, Session, agent_dir};

/// One transparent pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

/// A job for claude with a key, whose model is scripted.
pub(crate) fn claude(session: &Session, model: &Model, prompt: &str) -> Run {
    let mut run = session.run(prompt);
    run.environment.agent_dir = Some(agent_dir());
    let base_url = ("ANTHROPIC_BASE_URL".into(), model.base_url().into());
    run.environment.passthrough.extend([base_url]);
    run.options.model = Some("claude-sonnet-4-5".into());
    run.credential = Some(Secret::new("sk-ant-api03-scripted"));
    run
}

#[tokio::test]
async fn text_streams_and_is_counted() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = claude(&session, &model, "[[text]] hi")
        .finish(AgentKind::Claude)
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
    assert!(usage.cost_usd.unwrap() > 0.0);
    assert!(ended.end.provider_session_id.is_some());
    assert!(
        ended
            .events
            .iter()
            .any(|told| told.kind == EventType::Usage)
    );
    assert!(
        model
            .requests()
            .iter()
            .all(|request| request.is_message() || request.method == "HEAD")
    );
}

#[tokio::test]
async fn tools_work_in_the_sandbox() {
    for prompt in ["[[write]] a file", "[[bash]] a file"] {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let ended = claude(&session, &model, prompt)
            .finish(AgentKind::Claude)
            .await;
        assert_eq!(ended.end.failure, None);
        let hello = std::fs::read_to_string(session.work().join("hello.txt"));
        assert_eq!(
            hello.unwrap(),
            "hello from the scripted model\n",
            "{prompt}"
        );
        assert_eq!(ended.texts(EventType::AgentToolResult, "ok"), "true");
        assert!(
            !ended
                .texts(EventType::AgentToolCall, "toolCallId")
                .is_empty()
        );
    }
}

#[tokio::test]
async fn tools_cannot_leave_the_session() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    std::fs::write(session.outside().join("secret"), "outside-secret").unwrap();
    let prompt = "[[bash:cat ../../secret; cat /proc/$PPID/environ | tr '\\0' '\\n']]";
    let ended = claude(&session, &model, prompt)
        .finish(AgentKind::Claude)
        .await;
    let output = ended.texts(EventType::AgentToolResult, "output");
    assert!(output.contains("denied"), "{output}");
    assert!(!output.contains("outside-secret"), "{output}");
    assert!(!output.contains("DATABASE_URL"), "{output}");
}

#[tokio::test]
async fn conversation_continues_in_a_fresh_home() {
    let model = Model::start().await.unwrap();
    let first = Session::new();
    let ended = claude(&first, &model, "[[text]] one")
        .finish(AgentKind::Claude)
        .await;
    let conversation = ended.end.provider_session_id;

    // The same place on another machine: only the conversation's file has moved.
    let kept = first.outside().join("kept");
    std::fs::rename(first.home().join(".claude/projects"), &kept).unwrap();
    std::fs::remove_dir_all(first.home()).unwrap();
    copy_as_owner(&kept, &first.home().join(".claude/projects"), &first.root);

    let mut run = claude(&first, &model, "[[text]] two");
    run.resume = conversation.clone();
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    assert!(
        ended.said().contains("I have seen 2 marked user turns"),
        "{}",
        ended.said()
    );
    assert_eq!(ended.end.provider_session_id, conversation);
    assert_eq!(
        ended.end.usage.unwrap().input_tokens,
        100,
        "this turn's alone"
    );
}

#[tokio::test]
async fn unknown_conversation_is_session_unavailable() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[text]]");
    run.resume = Some("99999999-2222-4333-8444-555555555555".into());
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(
        ended.end.failure.unwrap().code,
        ErrorCode::SessionUnavailable
    );
    assert_eq!(model.messages().len(), 0);
}

#[tokio::test]
async fn image_reaches_the_model() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[text]] what is this");
    run.prompt.push(PromptPart::Image {
        source: ImageSource::Base64 {
            media_type: "image/png".into(),
            data: PNG.into(),
        },
    });
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    let body = &model.messages()[0].body;
    let messages = body["messages"].as_array().unwrap().iter();
    let blocks = messages
        .filter_map(|message| message["content"].as_array())
        .flatten();
    let images: Vec<&Value> = blocks.filter(|block| block["type"] == "image").collect();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0]["source"]["media_type"], "image/png");
}

#[tokio::test]
async fn refusals_of_the_model_have_their_codes() {
    let cases = [
        ("[[err401]]", ErrorCode::AuthError),
        ("[[err429]]", ErrorCode::RateLimited),
        ("[[err500]]", ErrorCode::AgentError),
    ];
    for (prompt, code) in cases {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let ended = claude(&session, &model, prompt)
            .finish(AgentKind::Claude)
            .await;
        let failure = ended.end.failure.unwrap();
        assert_eq!(failure.code, code, "{prompt}: {}", failure.message);
        let calls = model.messages().len();
        assert!((1..=8).contains(&calls), "{prompt}: {calls} calls");
    }
}

#[tokio::test]
async fn turn_limit_ends_the_run() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[write]]");
    run.options.max_turns = Some(1);
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::MaxTurns);
    assert!(session.work().join("hello.txt").exists());
}

#[tokio::test]
async fn budget_ends_the_run() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[write]]");
    run.options.max_budget_usd = Some(0.000_1);
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::BudgetExceeded);
}

#[tokio::test]
async fn ungranted_tools_are_denied_with_a_reason() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[write]]");
    run.options.permission_mode = PermissionMode::Default;
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    let output = ended.texts(EventType::AgentToolResult, "output");
    assert!(output.contains("there is nobody to ask"), "{output}");
    assert!(!session.work().join("hello.txt").exists());
}

#[tokio::test]
async fn plan_mode_changes_nothing() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[write]]");
    run.options.permission_mode = PermissionMode::Plan;
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    assert!(!session.work().join("hello.txt").exists());
}

#[tokio::test]
async fn stop_interrupts_words_tools_and_silence() {
    for prompt in ["[[endless]]", "[[sleep]]", "[[stall]]"] {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let mut running = claude(&session, &model, prompt)
            .start(AgentKind::Claude)
            .await;
        match prompt {
            "[[endless]]" => {
                running
                    .until(|told| told.kind == EventType::AgentText)
                    .await
            }
            "[[sleep]]" => {
                running
                    .until(|told| told.kind == EventType::AgentToolCall)
                    .await
            }
            _ => model.wait_for_messages(1).await,
        }
        let since = std::time::Instant::now();
        running.stop(StopReason::Cancel);
        let ended = running.finish().await;
        assert!(
            since.elapsed().as_secs() < 30,
            "{prompt}: {:?}",
            since.elapsed()
        );
        assert_eq!(ended.end.failure, None, "{prompt}: the caller knows why");
        assert!(ended.end.provider_session_id.is_some());

        let mut run = claude(&session, &model, "[[text]] again");
        run.resume = ended.end.provider_session_id;
        let ended = run.finish(AgentKind::Claude).await;
        assert_eq!(ended.end.failure, None, "{prompt}: can be continued");
        assert!(
            ended.said().contains("I have seen 2"),
            "{prompt}: {}",
            ended.said()
        );
    }
}

#[tokio::test]
async fn program_on_the_path_is_found_and_alone_readable() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let directory = session.outside().join("bin");
    std::fs::create_dir(&directory).unwrap();
    let installed = agent_dir().join(native_package());
    let linked = std::fs::hard_link(&installed, directory.join("claude"));
    linked
        .or_else(|_| std::os::unix::fs::symlink(&installed, directory.join("claude")))
        .unwrap();
    std::fs::write(directory.join("beside"), "beside-secret").unwrap();
    let prompt = format!("[[bash:cat {}/beside]]", directory.display());
    let mut run = claude(&session, &model, &prompt);
    run.environment.agent_dir = None;
    run.environment.search_path.insert(0, directory);
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    let output = ended.texts(EventType::AgentToolResult, "output");
    assert!(output.contains("denied"), "{output}");
}

fn copy_as_owner(from: &Path, to: &Path, owner_of: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(copied.success());
    if rustix::process::geteuid().is_root() {
        let home = owner_of.join("home");
        let mut chown = Command::new("chown");
        chown.arg("-R").arg("--reference").arg(owner_of).arg(home);
        assert!(chown.status().unwrap().success());
    }
}

/// The CLI's own program, below the agents' directory.
fn native_package() -> String {
    let machine = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "x64"
    };
    format!("node_modules/@anthropic-ai/claude-code-linux-{machine}/claude")
}
