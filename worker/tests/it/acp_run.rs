//! The one client of the Agent Client Protocol, in the real sandbox, with agents that play
//! recordings of the real ones and with agents as no agent should be.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, PermissionMode};
use clawlink_shared::prompt::{ImageSource, PromptPart};
use clawlink_worker::agents::{MAX_LINE_BYTES, StopReason};
use serde_json::{Value, json};

use crate::agent_job::{Ended, Run, Session, eventually, worker_exe};

/// Graces of some seconds at most; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(30);

/// What an agent says first, and the steps in which it becomes ready for a prompt.
pub(crate) const READY: &str = r#"
{"dir":"in","msg":{"id":1,"method":"initialize"}}
{"dir":"out","msg":{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}}}
{"dir":"in","msg":{"id":2,"method":"session/new"}}
{"dir":"out","msg":{"jsonrpc":"2.0","id":2,"result":{"sessionId":"conversation"}}}
{"dir":"in","msg":{"id":3,"method":"session/prompt"}}
"#;

/// A good end of the turn.
pub(crate) const DONE: &str = r#"
{"dir":"out","msg":{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}}
"#;

/// The program that plays scripts; it is built with the workspace's other programs.
fn scripted_agent() -> PathBuf {
    let program = worker_exe().with_file_name("clawlink-scripted-agent");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --workspace --bins`",
        program.display()
    );
    program
}

/// A job for an agent whose program has that name and plays these steps.
pub(crate) fn play(session: &Session, name: &str, steps: &str) -> Run {
    std::fs::write(session.work().join("script.jsonl"), steps).unwrap();
    let directory = session.outside().join("agents");
    std::fs::create_dir_all(&directory).unwrap();
    let program = directory.join(name);
    if !program.exists() {
        std::fs::copy(scripted_agent(), program).unwrap();
    }
    let mut run = session.run("a prompt");
    run.environment.agent_dir = Some(directory);
    run
}

/// The same, ready for its prompt: what follows is the turn.
pub(crate) fn in_turn(session: &Session, steps: &str) -> Run {
    play(session, "opencode", &format!("{READY}{steps}"))
}

/// What the agent heard of us.
pub(crate) fn heard(session: &Session) -> Vec<Value> {
    let heard = std::fs::read_to_string(session.work().join("heard.jsonl")).unwrap();
    let lines = heard.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Our answer to the agent's request with that id.
pub(crate) fn answered(session: &Session, id: u64) -> Value {
    let heard = heard(session);
    let answers = |message: &&Value| message["method"].is_null() && message["id"] == id;
    heard.iter().find(answers).expect("it was answered").clone()
}

fn code(ended: &Ended) -> Option<ErrorCode> {
    ended.end.failure.as_ref().map(|failure| failure.code)
}

/// Events without long forwarded ones, deltas joined, and how it ended.
fn story(ended: &Ended) -> Value {
    let mut told: Vec<Value> = Vec::new();
    for event in &ended.events {
        let is_delta = event.fields["delta"] == json!(true);
        match (event.kind.as_str(), told.last_mut()) {
            ("assistant_message", _) => {
                let data = &event.fields["data"];
                let kind = [&data["sessionUpdate"], &data["method"], &data["type"]];
                told.push(json!({"forwarded": kind.iter().find(|kind| !kind.is_null())}));
            }
            ("agent_text", Some(last)) if is_delta && last["deltas"].is_string() => {
                let joined = last["deltas"].as_str().unwrap().to_owned();
                last["deltas"] = json!(joined + event.fields["text"].as_str().unwrap());
            }
            ("agent_text", _) if is_delta => told.push(json!({"deltas": event.fields["text"]})),
            (kind, _) => told.push(json!({ kind: event.fields })),
        }
    }
    let end = &ended.end;
    let mut story = json!({
        "events": told,
        "failure": end.failure,
        "result": end.result,
        "usage": end.usage,
        "session": end.provider_session_id,
    });
    story.sort_all_objects();
    story
}

/// Plays a recording of a real agent. gemini's was made by a client that sent its prompt before
/// the earlier conversation had been repeated; ours does not, so its prompt comes after that.
async fn replay(kind: AgentKind, recording: &str) -> Value {
    let mut steps: Vec<&str> = recording.lines().collect();
    let is = |step: &str, what: &str| step.contains(what);
    if kind == AgentKind::Gemini && steps.iter().any(|step| is(step, "session/load")) {
        let prompt = steps.iter().position(|step| is(step, "session/prompt"));
        let prompt = steps.remove(prompt.unwrap());
        let answer = steps
            .iter()
            .rposition(|step| is(step, "available_commands"));
        steps.insert(answer.unwrap() + 1, prompt);
    }
    let session = Session::new();
    let mut run = play(&session, kind.as_str(), &steps.join("\n"));
    let load = steps.iter().find(|step| is(step, "session/load"));
    run.resume = load.map(|step| {
        let step: Value = serde_json::from_str(step).unwrap();
        step["msg"]["params"]["sessionId"].as_str().unwrap().into()
    });
    let ended = if recording.contains("session/cancel") {
        let mut running = run.start(kind).await;
        running
            .until(|told| told.kind == EventType::AgentText)
            .await;
        running.stop(StopReason::Cancel);
        running.finish().await
    } else {
        run.finish(kind).await
    };
    story(&ended)
}

macro_rules! snapshots {
    ($($name:ident: $kind:ident, $file:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let recording = include_str!(concat!("recordings/acp/", $file));
            insta::assert_json_snapshot!(replay(AgentKind::$kind, recording).await);
        }
    )*};
}

snapshots! {
    opencode_writes: Opencode, "opencode-write.jsonl";
    opencode_continues: Opencode, "opencode-load.jsonl";
    gemini_writes: Gemini, "gemini-write.jsonl";
    gemini_continues: Gemini, "gemini-load.jsonl";
    gemini_is_cancelled: Gemini, "gemini-cancel.jsonl";
    auggie_writes: Auggie, "auggie-write.jsonl";
    auggie_continues: Auggie, "auggie-load.jsonl";
    // The adapters for agents that have a way of their own here speak the same protocol.
    claudes_adapter_writes: Openhands, "claude-acp-write.jsonl";
    claudes_adapter_continues: Openhands, "claude-acp-load.jsonl";
    claudes_adapter_is_cancelled: Openhands, "claude-acp-cancel.jsonl";
    codexs_adapter_writes: Goose, "codex-acp-write.jsonl";
    codexs_other_adapter_writes: Goose, "codex-acp-zed-write.jsonl";
}

pub(crate) const PERMISSION: &str = r#"
{"dir":"out","msg":{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"sessionId":"conversation","toolCall":{"toolCallId":"1","title":"write","rawInput":{"path":"a"}},"options":[{"optionId":"always","kind":"allow_always","name":"Always"},{"optionId":"once","kind":"allow_once","name":"Once"},{"optionId":"no","kind":"reject_once","name":"No"}]}}}
{"dir":"in","msg":{"id":0}}
"#;

#[tokio::test]
async fn stop_cancels_the_turn_and_keeps_the_conversation() {
    let session = Session::new();
    let steps = r#"
{"dir":"out","msg":{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"conversation","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"hm"}}}}}
{"dir":"in","msg":{"method":"session/cancel"}}
{"dir":"out","msg":{"jsonrpc":"2.0","id":3,"result":{"stopReason":"cancelled"}}}
"#;
    let mut running = in_turn(&session, steps).start(AgentKind::Opencode).await;
    running
        .until(|told| told.kind == EventType::AgentText)
        .await;
    running.stop(StopReason::Cancel);
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None, "the caller knows why");
    assert_eq!(
        ended.end.provider_session_id.as_deref(),
        Some("conversation")
    );
}

#[tokio::test]
async fn stop_ends_agents_that_do_not_listen() {
    let before = r#"{"hang":true}"#;
    let inside = format!(
        "{READY}{}",
        r#"{"stderr":"in"}{"hang":true}"#.replace("}{", "}\n{")
    );
    let asking = format!(
        "{READY}{}",
        PERMISSION.replace("\n{\"dir\":\"in\"", "\n{\"hang\":true}\n{\"dir\":\"in\"")
    );
    for steps in [before, &inside, &asking] {
        let session = Session::new();
        let run = play(&session, "opencode", steps);
        let running = run.start(AgentKind::Opencode).await;
        let started = session.work().join("heard.jsonl");
        eventually("the agent runs", || started.exists()).await;
        let since = Instant::now();
        running.stop(StopReason::Timeout);
        let ended = running.finish().await;
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        assert_eq!(ended.end.failure, None);
    }
}

#[tokio::test]
async fn an_agent_that_dies_in_its_turn_says_why() {
    let session = Session::new();
    let steps = r#"
{"stderr":"out of memory"}
{"exit":3}
"#;
    let ended = in_turn(&session, steps).finish(AgentKind::Opencode).await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::AgentError);
    for part in ["exit status: 3", "out of memory"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(
        ended.end.provider_session_id.as_deref(),
        Some("conversation")
    );
}

#[tokio::test]
async fn tools_that_outlive_their_agent_are_ended() {
    let mark = format!("outliving-{}", std::process::id());
    let run = format!(
        r#"{{"run":"trap '' TERM HUP; exec -a {mark} python3 -c 'import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(\"up\",\"w\"); time.sleep(600)'"}}"#
    );
    for end in [DONE, "\n{\"exit\":0}\n", "\n{\"hang\":true}\n"] {
        let session = Session::new();
        let steps = format!("{run}{end}");
        let running = in_turn(&session, &steps).start(AgentKind::Opencode).await;
        if end.contains("hang") {
            let up = session.work().join("up");
            eventually("the tool runs", || up.exists()).await;
            running.stop(StopReason::Cancel);
        }
        running.finish().await;
        assert!(!is_running(&mark), "after {end}");
    }
}

fn is_running(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.map(|entry| std::fs::read(entry.path().join("cmdline")));
    lines.any(|line| line.is_ok_and(|line| line.starts_with(mark.as_bytes())))
}

#[tokio::test]
async fn nonsense_is_kept_and_disturbs_nobody() {
    let session = Session::new();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let steps = format!(
        r#"
{{"raw":"not JSON at all"}}
{{"raw":"{deep}"}}
{{"raw":"{{\"jsonrpc\":\"2.0\",\"id\":\"unknown\",\"result\":{{}}}}"}}
{{"raw":"{{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"terminal/create\",\"params\":{{}}}}"}}
{{"raw":"{{\"jsonrpc\":\"2.0\",\"id\":78,\"method\":\"session/request_permission\",\"params\":{{}}}}"}}
{{"raw":"{{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":[]}}"}}
{{"fill":{length}}}
{DONE}"#,
        length = MAX_LINE_BYTES + 10
    );
    let ended = in_turn(&session, &steps).finish(AgentKind::Opencode).await;
    assert_eq!(ended.end.failure, None);
    let forwarded = ended
        .events
        .iter()
        .filter(|told| told.kind == EventType::AssistantMessage);
    assert_eq!(forwarded.count(), 5, "{:?}", story(&ended));
    let messages = ended.texts(EventType::Message, "message");
    assert!(messages.contains("10 bytes were left out"), "{messages}");
    assert_eq!(answered(&session, 77)["error"]["code"], -32601);
    assert_eq!(answered(&session, 78)["error"]["code"], -32602);
}

#[tokio::test]
async fn errors_have_their_codes() {
    let cases = [
        (-32000, "Authentication required", ErrorCode::AuthError),
        (-32603, "API Error: 401 Unauthorized", ErrorCode::AuthError),
        (-32603, "RESOURCE_EXHAUSTED: quota", ErrorCode::RateLimited),
        (429, "please wait", ErrorCode::RateLimited),
        (403, "not for you", ErrorCode::AuthError),
        (500, "overloaded", ErrorCode::AgentError),
        (-32603, "Request rejected (429)", ErrorCode::RateLimited),
        (-32603, "500 at 127.0.0.1:401", ErrorCode::AgentError),
        (-32603, "Internal error", ErrorCode::AgentError),
    ];
    for (number, text, expected) in cases {
        let session = Session::new();
        let error = json!({"code": number, "message": text});
        let answer = json!({"jsonrpc": "2.0", "id": 3, "error": error});
        let steps = json!({"dir": "out", "msg": answer}).to_string();
        let ended = in_turn(&session, &steps).finish(AgentKind::Opencode).await;
        assert_eq!(code(&ended), Some(expected), "{text}");
        let message = ended.end.failure.unwrap().message;
        assert!(message.contains(text), "{message}");
    }
    for (reason, expected) in [
        ("max_turn_requests", ErrorCode::MaxTurns),
        ("refusal", ErrorCode::AgentError),
        ("something new", ErrorCode::AgentError),
    ] {
        let session = Session::new();
        let ended = in_turn(&session, &DONE.replace("end_turn", reason))
            .finish(AgentKind::Opencode)
            .await;
        assert_eq!(code(&ended), Some(expected), "{reason}");
    }
}

#[tokio::test]
async fn bounds_of_the_request_end_the_turn() {
    let update = |update: Value| {
        let params = json!({"sessionId": "conversation", "update": update});
        let message = json!({"jsonrpc": "2.0", "method": "session/update", "params": params});
        format!("{}\n", json!({"dir": "out", "msg": message}))
    };
    let call = |id: u32| {
        update(
            json!({"sessionUpdate": "tool_call", "toolCallId": id.to_string(), "status": "completed"}),
        )
    };
    let cost = update(json!({
        "sessionUpdate": "usage_update", "used": 1, "size": 9,
        "cost": {"amount": 0.02, "currency": "USD"},
    }));
    let cancelled = r#"{"dir":"in","msg":{"method":"session/cancel"}}
{"dir":"out","msg":{"jsonrpc":"2.0","id":3,"result":{"stopReason":"cancelled"}}}"#;
    let cases = [
        (format!("{}{}", call(1), call(2)), ErrorCode::MaxTurns),
        (cost, ErrorCode::BudgetExceeded),
    ];
    for (steps, expected) in cases {
        let session = Session::new();
        let mut run = in_turn(&session, &format!("{steps}{cancelled}"));
        run.options.max_turns = Some(1);
        run.options.max_budget_usd = Some(0.01);
        let ended = run.finish(AgentKind::Opencode).await;
        assert_eq!(code(&ended), Some(expected));
        assert!(ended.end.provider_session_id.is_some());
    }
}

#[tokio::test]
async fn what_an_agent_cannot_do_is_said() {
    let hello = |able: &str| {
        format!(
            r#"{{"dir":"in","msg":{{"id":1,"method":"initialize"}}}}
{{"dir":"out","msg":{{"jsonrpc":"2.0","id":1,"result":{able}}}}}
{{"dir":"in","msg":{{"id":2,"method":"session/load"}}}}
{{"dir":"out","msg":{{"jsonrpc":"2.0","id":2,"error":{{"code":-32002,"message":"no such session"}}}}}}"#
        )
    };
    let session = Session::new();
    let mut run = play(&session, "opencode", &hello(r#"{"protocolVersion":1}"#));
    run.resume = Some("earlier".into());
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(code(&ended), Some(ErrorCode::SessionUnavailable));

    let able = r#"{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}"#;
    let mut run = play(&session, "opencode", &hello(able));
    run.resume = Some("earlier".into());
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(code(&ended), Some(ErrorCode::SessionUnavailable));
    assert_eq!(ended.end.provider_session_id.as_deref(), Some("earlier"));

    let mut run = play(&session, "opencode", &hello(able));
    run.prompt.push(PromptPart::Image {
        source: ImageSource::Base64 {
            media_type: "image/png".into(),
            data: "AAAA".into(),
        },
    });
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(code(&ended), Some(ErrorCode::ValidationError));

    let run = play(&session, "opencode", &hello(r#"{"protocolVersion":7}"#));
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(code(&ended), Some(ErrorCode::AgentError));

    let mut run = in_turn(&session, DONE);
    run.options.permission_mode = PermissionMode::Plan;
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(code(&ended), Some(ErrorCode::ValidationError));
}
