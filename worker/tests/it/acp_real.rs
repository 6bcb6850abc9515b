//! The real programs behind the one client, in the real sandbox, against a scripted model. They
//! are large: only `./deploy/test --all` installs them and runs these tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::StopReason;

use crate::agent_job::{Run, Session};

/// Two graces of some seconds; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(30);

/// The directory whose `node_modules` holds the programs.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no settings of its own"
)]
fn agent_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agents-all");
    let directory = std::env::var_os("CLAWLINK_TEST_AGENTS_ALL").map_or(default, PathBuf::from);
    assert!(
        directory.join("node_modules").is_dir(),
        "the agents are not installed in {}: run `npm ci --ignore-scripts` in deploy/agents-all, \
         or name a directory that has them in CLAWLINK_TEST_AGENTS_ALL",
        directory.display()
    );
    directory.canonicalize().unwrap()
}

/// A job for one of them, whose model is scripted.
fn run(session: &Session, model: &Model, kind: AgentKind, prompt: &str) -> Run {
    let mut run = session.run(prompt);
    run.environment.agent_dir = Some(agent_dir());
    // They take seconds to say their versions.
    let versions = Path::new(env!("CARGO_TARGET_TMPDIR")).join("acp-real-versions.json");
    run.environment.version_cache = Some(versions);
    let base = model.base_url();
    let mut address = |name: &str, value: String| {
        run.environment.passthrough.insert(name.into(), value);
    };
    match kind {
        AgentKind::Gemini => {
            address("GOOGLE_GEMINI_BASE_URL", base.into());
            run.options.model = Some("gemini-2.5-flash".into());
        }
        AgentKind::Auggie => address("AUGMENT_API_URL", format!("{base}/")),
        AgentKind::Ollama => address("OLLAMA_HOST", base.into()),
        AgentKind::Openrouter => address("OPENROUTER_BASE_URL", format!("{base}/v1")),
        AgentKind::Openai => address("OPENAI_BASE_URL", format!("{base}/v1")),
        _ => address("ANTHROPIC_BASE_URL", base.into()),
    }
    match kind {
        AgentKind::Gemini | AgentKind::Auggie => {}
        AgentKind::Opencode => run.options.model = Some("anthropic/claude-sonnet-4-5".into()),
        _ => run.options.model = Some("scripted".into()),
    }
    run.credential = (kind != AgentKind::Ollama).then(|| Secret::new("scripted-key-value"));
    run
}

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

/// Without a person, steps that need permission are refused.
async fn refuses_what_nobody_permits(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = run(&session, &model, kind, "[[write]] a file");
    run.options.permission_mode = PermissionMode::Default;
    let _ended = run.finish(kind).await;
    assert!(!session.work().join("hello.txt").exists());
}

async fn reports_refused_credentials(kind: AgentKind) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = run(&session, &model, kind, "[[err401]]").finish(kind).await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::AuthError, "{}", failure.message);
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
async fn opencode_asks_first() {
    refuses_what_nobody_permits(AgentKind::Openai).await;
}

#[tokio::test]
async fn opencode_reports_refused_credentials() {
    reports_refused_credentials(AgentKind::Openai).await;
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
async fn gemini_asks_first() {
    refuses_what_nobody_permits(AgentKind::Gemini).await;
}

#[tokio::test]
async fn gemini_reports_refused_credentials() {
    reports_refused_credentials(AgentKind::Gemini).await;
}

#[tokio::test]
async fn auggie_writes_and_continues() {
    writes_and_continues(AgentKind::Auggie).await;
}

#[tokio::test]
async fn auggie_stops_inside_a_tool() {
    stops_inside_a_tool(AgentKind::Auggie).await;
}
