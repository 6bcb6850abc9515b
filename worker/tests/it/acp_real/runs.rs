//! New conversations, continued ones, and stopped ones.

use std::process::Command;
use std::time::{Duration, Instant};

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_worker::agents::StopReason;

use super::run;
use crate::agent_job::Session;

/// Two graces of some seconds; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(30);

/// What of HOME travels with a session.
fn state_of(kind: AgentKind) -> &'static [&'static str] {
    match kind {
        AgentKind::Gemini => &[".gemini/tmp"],
        AgentKind::Auggie => &[".augment/sessions"],
        _ => &[
            ".local/share/opencode/opencode.db",
            ".local/share/opencode/opencode.db-wal",
            ".local/share/opencode/opencode.db-shm",
            ".clawlink",
        ],
    }
}

/// The same place on another machine: only the state has moved.
fn move_to_an_empty_disk(session: &Session, kind: AgentKind) {
    let kept = session.outside().join("kept");
    let script = r#"
        mv "$1" "$2"; mkdir "$1"; shift 2
        for path; do
          if [ -e "$KEPT/$path" ]; then
            mkdir -p "$NEW/$(dirname "$path")" && cp -a "$KEPT/$path" "$NEW/$path"
          fi
        done
        chown -R --reference="$NEW/.." "$NEW""#;
    let moved = Command::new("bash")
        .args(["-ec", script, "move"])
        .args([&session.home(), &kept])
        .args(state_of(kind))
        .env("KEPT", &kept)
        .env("NEW", session.home())
        .status();
    assert!(moved.unwrap().success());
}

/// A new conversation that writes a file, and its continuation on an empty disk.
async fn writes_and_continues(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = run(&session, &model, kind, "[[write]] a file")
        .finish(kind)
        .await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    let hello = std::fs::read_to_string(session.work().join("hello.txt"));
    assert_eq!(hello.unwrap(), "hello from the scripted model\n");
    assert_eq!(ended.texts(EventType::AgentToolResult, "ok"), "true");
    let result = ended.end.result.as_deref();
    assert_eq!(result, Some("Done: the tool has run."));
    let deltas = ended.events.iter();
    let deltas = deltas.filter(|told| told.fields["delta"] == true);
    assert!(deltas.count() > 3);
    let conversation = ended.end.provider_session_id;
    assert!(conversation.is_some());

    move_to_an_empty_disk(&session, kind);
    let mut second = run(&session, &model, kind, "[[text]] again");
    second.resume = conversation.clone();
    let ended = second.finish(kind).await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(
        ended.said().ends_with("I have seen 2 marked user turns."),
        "{}",
        ended.said()
    );
    assert!(
        !ended.said().contains("Using a tool now"),
        "what was told before is not told again: {}",
        ended.said()
    );
    assert_eq!(ended.texts(EventType::AgentToolCall, "tool"), "");
    assert_eq!(ended.end.provider_session_id, conversation);
}

/// A stop while a tool runs: nothing of it is left, and the conversation can be continued.
async fn stops_inside_a_tool(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mark = format!("asleep-{}-{kind}", std::process::id());
    let prompt =
        format!("[[bash:touch begun; exec -a {mark} python3 -c 'import time; time.sleep(300)']]");
    let mut running = run(&session, &model, kind, &prompt).start(kind).await;
    running
        .until(|told| told.kind == EventType::AgentToolCall)
        .await;
    let begun = session.work().join("begun");
    crate::wait::eventually("the tool runs", || begun.exists()).await;
    let since = Instant::now();
    running.stop(StopReason::Cancel);
    let ended = running.finish().await;
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(ended.end.failure, None, "the caller knows why");
    assert!(!is_running(&mark), "the tool is gone");

    let mut second = run(&session, &model, kind, "[[text]] again");
    second.resume = ended.end.provider_session_id;
    let ended = second.finish(kind).await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    assert!(ended.said().contains("I have seen 2"), "{}", ended.said());
}

fn is_running(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.map(|entry| std::fs::read(entry.path().join("cmdline")));
    lines.any(|line| line.is_ok_and(|line| line.starts_with(mark.as_bytes())))
}

#[tokio::test]
async fn opencode_runs_a_model_behind_chat_completions() {
    writes_and_continues(AgentKind::Openai).await;
}

#[tokio::test]
async fn opencode_runs_a_local_model_without_a_key() {
    writes_and_continues(AgentKind::Ollama).await;
}

#[tokio::test]
async fn opencode_runs_a_routed_model() {
    writes_and_continues(AgentKind::Openrouter).await;
}

#[tokio::test]
async fn opencode_speaks_with_a_vendor_at_its_configured_address() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let kind = AgentKind::Opencode;
    let ended = run(&session, &model, kind, "[[text]]").finish(kind).await;
    assert_eq!(ended.end.failure, None, "{:?}", ended.events);
    let keys = model.messages();
    let keys = keys.iter().map(|message| message.headers.get("x-api-key"));
    let expected = Some("scripted-key-value".to_owned());
    assert!(keys.into_iter().all(|key| key.cloned() == expected));
    assert!(ended.end.usage.unwrap().cost_usd.is_some());
}

#[tokio::test]
async fn opencode_stops_inside_a_tool() {
    stops_inside_a_tool(AgentKind::Openai).await;
}

#[tokio::test]
async fn gemini_writes_and_continues() {
    writes_and_continues(AgentKind::Gemini).await;
}

#[tokio::test]
async fn gemini_stops_inside_a_tool() {
    stops_inside_a_tool(AgentKind::Gemini).await;
}

#[tokio::test]
async fn auggie_writes_and_continues() {
    writes_and_continues(AgentKind::Auggie).await;
}

#[tokio::test]
async fn auggie_stops_inside_a_tool() {
    stops_inside_a_tool(AgentKind::Auggie).await;
}
