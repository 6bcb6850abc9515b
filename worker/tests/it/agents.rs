//! The shell agent, and what every agent's process owes: bounded lines, an end that is final.

use std::path::Path;
use std::time::{Duration, Instant};

use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::prompt::{ImageSource, PromptPart};
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::{MAX_LINE_BYTES, StopReason, discover};
use serde_json::{Value, json};

use crate::agent_job::{Session, eventually};

/// A stop takes the grace of one second and little more; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(30);

/// A program that cannot be stopped politely, in a session of its own, twice orphaned; its
/// command line carries the number by which the test finds it.
const STUBBORN: &str = r#"
trap '' TERM INT HUP
stubborn() { exec -a "stubborn-MARK" python3 -c '
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1] + str(os.getpid()), "w").close()
while True: signal.pause()
' "$PWD/up." "stubborn-MARK"; }
for i in 1 2 3; do (stubborn &) ; done
while [ "$(ls up.* 2>/dev/null | wc -l)" -lt 3 ]; do :; done
echo ready
"#;

fn marked(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let command_lines = processes.map(|entry| std::fs::read(entry.path().join("cmdline")));
    command_lines
        .filter(|line| line.as_ref().is_ok_and(|line| holds(line, mark.as_bytes())))
        .count()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn stubborn(session: &Session, then: &str) -> (String, String) {
    let mark = format!("stubborn-{}-{}", std::process::id(), session.root.display());
    let script = format!("{STUBBORN}{then}\n").replace("stubborn-MARK", &mark);
    (script, mark)
}

#[tokio::test]
async fn script_runs_and_its_lines_are_told() {
    let session = Session::new();
    let run = session.run("echo one; echo two >&2; pwd; echo $HOME; touch made");
    let ended = run.finish(AgentKind::Shell).await;
    assert_eq!(ended.end.failure, None);
    let text = ended.texts(EventType::AgentText, "text");
    for line in ["one", "two", "work", "home"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let data = ended.texts(EventType::AssistantMessage, "data");
    let mut said = data
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(
        said.any(|one| one == json!({"type": "stderr", "text": "two"})),
        "{data}"
    );
    assert!(ended.end.result.unwrap().contains("one"));
    assert!(session.work().join("made").exists());
}

#[tokio::test]
async fn exit_code_is_the_verdict() {
    let ended = Session::new()
        .run("echo x; exit 7")
        .finish(AgentKind::Shell)
        .await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::AgentError);
    assert_eq!(failure.message, "script exited with 7");
    assert_eq!(ended.end.result.as_deref(), Some("x"));
}

#[tokio::test]
async fn images_are_refused() {
    let session = Session::new();
    let mut run = session.run("true");
    run.prompt.push(PromptPart::Image {
        source: ImageSource::Base64 {
            media_type: "image/png".into(),
            data: String::new(),
        },
    });
    let ended = run.finish(AgentKind::Shell).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::ValidationError);
}

#[tokio::test]
async fn request_environment_reaches_the_script_and_the_workers_does_not() {
    let session = Session::new();
    let mut run = session.run("env | sort");
    for (name, value) in [("COLOUR", "blue"), ("LD_PRELOAD", "/nonexistent.so")] {
        run.env.insert(name.into(), Secret::new(value));
    }
    let ended = run.finish(AgentKind::Shell).await;
    let text = ended.texts(EventType::AgentText, "text");
    assert!(text.contains("COLOUR=blue"), "{text}");
    for foreign in ["CARGO", "NEXTEST", "DATABASE_URL", "CLAWLINK"] {
        assert!(!text.contains(foreign), "{foreign} in {text}");
    }
}

#[tokio::test]
async fn hundred_megabyte_line_is_cut_and_said() {
    let session = Session::new();
    let run = session.run("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo after");
    let ended = run.finish(AgentKind::Shell).await;
    assert_eq!(ended.end.failure, None);
    let longest = ended
        .events
        .iter()
        .filter_map(|told| told.fields["text"].as_str());
    assert_eq!(longest.map(str::len).max(), Some(MAX_LINE_BYTES));
    let messages = ended.texts(EventType::Message, "message");
    let dropped = 100_000_000 - MAX_LINE_BYTES;
    assert!(messages.contains(&dropped.to_string()), "{messages}");
    assert!(ended.end.result.unwrap().ends_with("after"));
}

#[tokio::test]
async fn odd_bytes_are_told_as_replacement_characters() {
    let ended = Session::new()
        .run(r"printf 'a\xff\xfeb\0c\n'; printf 'no newline'")
        .finish(AgentKind::Shell)
        .await;
    let text = ended.texts(EventType::AgentText, "text");
    assert_eq!(text, "a\u{FFFD}\u{FFFD}b\0c\nno newline");
}

#[tokio::test]
async fn stubborn_children_end_with_their_script() {
    let session = Session::new();
    let (script, mark) = stubborn(&session, "exit 0");
    let mut running = session.run(&script).start(AgentKind::Shell).await;
    running.until(|told| told.fields["text"] == "ready").await;
    let since = Instant::now();
    let ended = running.finish().await;
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(ended.end.failure, None);
    assert_eq!(marked(&mark), 0);
}

#[tokio::test]
async fn stop_ends_a_script_without_end_and_all_it_started() {
    let session = Session::new();
    let (script, mark) = stubborn(&session, "while :; do echo tick; done");
    let mut running = session.run(&script).start(AgentKind::Shell).await;
    running.until(|told| told.fields["text"] == "ready").await;
    assert!(marked(&mark) >= 3);
    let since = Instant::now();
    running.stop(StopReason::Timeout);
    let ended = running.finish().await;
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(ended.end.failure, None, "the caller knows why it stopped");
    assert_eq!(marked(&mark), 0);
}

#[tokio::test]
async fn stop_works_while_nobody_takes_events() {
    let session = Session::new();
    let (script, mark) = stubborn(&session, "while :; do echo tick; done");
    let mut running = session.run(&script).start(AgentKind::Shell).await;
    running.until(|told| told.fields["text"] == "ready").await;
    running.stop(StopReason::Cancel);
    eventually("the end of all processes", || marked(&mark) == 0).await;
    running.finish().await;
}

/// Each generation lives for a moment only; with `setsid` each is a group of its own.
#[tokio::test]
async fn processes_that_keep_forking_away_end() {
    for leave_group in ["pass", "os.setsid()"] {
        let session = Session::new();
        let mark = format!("runner-{}-{}", std::process::id(), session.root.display());
        let script = format!(
            "python3 -c '
import os
generation = 0
while True:
    if os.fork(): os._exit(0)
    {leave_group}
    generation += 1
    if generation == 100: open(\"running\", \"w\").close()
' {mark} & while [ ! -e running ]; do :; done; echo ready; exit 0"
        );
        let mut running = session.run(&script).start(AgentKind::Shell).await;
        running.until(|told| told.fields["text"] == "ready").await;
        let since = Instant::now();
        running.finish().await;
        let took = since.elapsed();
        assert!(took < SOON, "{leave_group}: {took:?}");
        assert_eq!(marked(&mark), 0, "{leave_group}");
    }
}

#[tokio::test]
async fn versions_are_remembered() {
    let session = Session::new();
    let mut environment = session.run("").environment;
    environment.version_cache = Some(session.outside().join("versions.json"));
    let first = discover(environment.clone()).await.offers();
    let mut known = std::fs::read_to_string(session.outside().join("versions.json")).unwrap();
    assert!(first.iter().any(|offer| known.contains(&offer.version)));
    known = known.replace(&first.last().unwrap().version, "as remembered");
    std::fs::write(session.outside().join("versions.json"), known).unwrap();
    let second = discover(environment).await.offers();
    assert_eq!(second.last().unwrap().version, "as remembered");
}

#[tokio::test]
async fn working_directory_that_vanished_is_a_failure() {
    let session = Session::new();
    let run = session.run("true");
    std::fs::remove_dir(session.work()).unwrap();
    let ended = run.finish(AgentKind::Shell).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::AgentUnavailable);
    assert!(Path::new(&session.root).exists());
}
