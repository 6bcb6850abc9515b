//! Programs that behave as no CLI should, in claude's place.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::StopReason;

use crate::agent_job::{Run, Session, eventually};

/// Two graces of three seconds at most; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(30);

const RESULT: &str =
    r#"echo '{"subtype":"success","is_error":false,"result":"done","type":"result"}'"#;

/// A job for a claude that is this bash script.
fn fake(session: &Session, script: &str) -> Run {
    let directory = session.outside().join("agents");
    std::fs::create_dir(&directory).unwrap();
    let program = directory.join("claude");
    let version = "#!/bin/bash\nif [ \"$1\" = --version ]; then echo 0 fake; exit; fi\n";
    std::fs::write(&program, format!("{version}{script}\n")).unwrap();
    for path in [&directory, &program] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let mut run = session.run("hello");
    run.environment.agent_dir = Some(directory);
    run
}

#[tokio::test]
async fn program_that_stays_after_its_result_is_ended() {
    let session = Session::new();
    let script = format!("{RESULT}; trap '' TERM; while :; do sleep 1; done");
    let since = Instant::now();
    let ended = fake(&session, &script).finish(AgentKind::Claude).await;
    assert!(since.elapsed() < SOON);
    assert_eq!(ended.end.failure, None);
    assert_eq!(ended.end.result.as_deref(), Some("done"));
}

#[tokio::test]
async fn input_is_closed_after_the_result() {
    let session = Session::new();
    let script = format!("read init; read prompt; {RESULT}; while read more; do :; done; echo bye");
    let ended = fake(&session, &script).finish(AgentKind::Claude).await;
    assert!(
        ended
            .texts(EventType::AssistantMessage, "data")
            .contains("bye")
    );
}

#[tokio::test]
async fn exit_code_is_not_the_verdict() {
    let session = Session::new();
    let ended = fake(&session, &format!("{RESULT}; exit 1"))
        .finish(AgentKind::Claude)
        .await;
    assert_eq!(ended.end.failure, None);
    let session = Session::new();
    let ended = fake(&session, "echo broken >&2; exit 0")
        .finish(AgentKind::Claude)
        .await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::AgentError);
    assert!(failure.message.contains("broken"), "{}", failure.message);
}

#[tokio::test]
async fn program_that_ignores_the_interrupt_is_ended() {
    let session = Session::new();
    let script = "trap '' TERM INT; echo '{\"type\":\"x\"}'; while :; do sleep 1; done";
    let mut running = fake(&session, script).start(AgentKind::Claude).await;
    running
        .until(|told| told.fields["data"]["type"] == "x")
        .await;
    let since = Instant::now();
    running.stop(StopReason::Cancel);
    let ended = running.finish().await;
    assert!(since.elapsed() < SOON);
    assert_eq!(ended.end.failure, None);
}

#[tokio::test]
async fn program_that_reads_nothing_blocks_nobody() {
    let session = Session::new();
    let mut run = fake(&session, &format!("sleep 0.1; {RESULT}"));
    let part = run.prompt[0].clone();
    run.prompt = vec![part; 200_000];
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
}

#[tokio::test]
async fn flood_of_huge_lines_is_told_within_its_bound() {
    let session = Session::new();
    let line = r#"{"type":"x","text":"%s"}\n"#;
    let script = format!(
        "head -c 5000000 /dev/zero | tr '\\0' x > $TMPDIR/x
for i in 1 2 3 4 5 6 7 8; do printf '{line}' \"\"; cat $TMPDIR/x; echo; done; {RESULT}"
    );
    let ended = fake(&session, &script).finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    assert_eq!(ended.events.len(), 17);
}

#[tokio::test]
async fn rewritten_login_is_learned_during_the_run() {
    let session = Session::new();
    let script = format!(
        "sed -i s/-old/-new/ ~/.claude/.credentials.json; read init; read prompt; \
         until [ -e ~/../work/go ]; do sleep 0.05; done; {RESULT}"
    );
    let mut run = fake(&session, &script);
    run.credential = Some(Secret::new(
        r#"{"claudeAiOauth":{"accessToken":"token-old","refreshToken":"refresh-old"}}"#,
    ));
    let redactor = run.redactor.clone();
    let running = run.start(AgentKind::Claude).await;
    eventually("the new token is known", || redactor.is_hit(b"token-new")).await;
    std::fs::write(session.root.join("work/go"), "").unwrap();
    assert_eq!(running.finish().await.end.failure, None);
}
