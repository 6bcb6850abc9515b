//! Recordings of the real app-server through the parser: what a client sees of them.

use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Usage};
use clawlink_worker::agents::{CodexParsed, CodexParser, CodexSignal, CodexVerdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::story::{Story, recorded};

const ACCEPT: &str = include_str!("recordings/codex/appserver-accept.jsonl");
const DECLINE: &str = include_str!("recordings/codex/appserver-decline.jsonl");
const INTERRUPT: &str = include_str!("recordings/codex/appserver-interrupt.jsonl");
const RESUME: &str = include_str!("recordings/codex/appserver-resume.jsonl");

/// What a client sees of a recording, and the signals.
fn story(text: &str) -> Value {
    let mut parser = CodexParser::default();
    let mut story = Story::default();
    for line in recorded(text) {
        let CodexParsed { events, signal } = parser.line(&line);
        story.hear(events);
        story.signals.extend(signal.map(|signal| match signal {
            CodexSignal::Answered { id, result } => json!({"answered": id, "well": result.is_ok()}),
            CodexSignal::Asked {
                id, method, input, ..
            } => json!({"asked": method, "id": id, "input": input}),
            CodexSignal::Withdrawn(id) => json!({"withdrawn": id}),
            CodexSignal::Began(_) => json!("began"),
            CodexSignal::ModelAnswered { used_tools } => json!({"used_tools": used_tools}),
            CodexSignal::Ended(verdict) => json!(format!("{verdict:?}")),
        }));
    }
    story.whole()
}

macro_rules! snapshots {
    ($($name:ident: $recording:ident;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_json_snapshot!(story($recording));
        }
    )*};
}

snapshots! {
    accepted_command: ACCEPT;
    declined_command: DECLINE;
    interrupted: INTERRUPT;
    resumed_conversation: RESUME;
}

/// The verdict on a turn that ends like this, after these lines.
fn verdict(lines: &[Value], turn: &Value) -> CodexVerdict {
    let mut parser = CodexParser::default();
    for line in lines {
        parser.line(&line.to_string());
    }
    let end = json!({"method": "turn/completed", "params": {"turn": turn}});
    match parser.line(&end.to_string()).signal {
        Some(CodexSignal::Ended(verdict)) => verdict,
        other => panic!("{other:?}"),
    }
}

#[test]
fn usage_of_a_resumed_conversation_is_this_runs_alone() {
    let mut parser = CodexParser::default();
    for line in recorded(RESUME) {
        parser.line(&line);
    }
    let expected = Usage {
        input_tokens: 100,
        output_tokens: 25,
        cache_read_tokens: Some(0),
        ..Usage::default()
    };
    assert_eq!(parser.usage(), Some(expected));
}

#[test]
fn usage_is_right_when_the_report_on_the_last_turn_is_missing() {
    let lines: Vec<String> = recorded(RESUME);
    let is_report = |line: &&String| line.contains("\"totalTokens\":250");
    assert_eq!(lines.iter().filter(is_report).count(), 1);
    let mut parser = CodexParser::default();
    for line in lines.iter().filter(|line| !is_report(line)) {
        parser.line(line);
    }
    assert_eq!(parser.usage().unwrap().input_tokens, 100);
}

#[test]
fn failures_have_codes() {
    let info = |info: Value| json!({"status": "failed", "error": {"message": "m", "codexErrorInfo": info}});
    let text = |text: &str| json!({"status": "failed", "error": {"message": text}});
    let status = |status: u64| json!({"responseTooManyFailedAttempts": {"httpStatusCode": status}});
    for (turn, code) in [
        (info(json!("unauthorized")), ErrorCode::AuthError),
        (info(json!("usageLimitExceeded")), ErrorCode::RateLimited),
        (info(status(429)), ErrorCode::RateLimited),
        (info(status(401)), ErrorCode::AuthError),
        (info(status(500)), ErrorCode::AgentError),
        (info(json!("other")), ErrorCode::AgentError),
        (
            text("unexpected status 401 Unauthorized: no"),
            ErrorCode::AuthError,
        ),
        (
            text("exceeded retry limit, last status: 429 Too Many Requests"),
            ErrorCode::RateLimited,
        ),
        (
            text("Missing environment variable: `X`."),
            ErrorCode::AuthError,
        ),
        (json!({"status": "interrupted"}), ErrorCode::AgentError),
        (json!({}), ErrorCode::AgentError),
    ] {
        let failure = verdict(&[], &turn).failure.expect("a failure");
        assert_eq!(failure.code, code, "{turn}");
    }
    assert_eq!(verdict(&[], &json!({"status": "completed"})).failure, None);
}

#[test]
fn an_error_that_the_turn_does_not_repeat_is_its_reason() {
    let error = json!({"method": "error", "params": {
        "error": {"message": "too many", "codexErrorInfo": "usageLimitExceeded"}, "willRetry": false,
    }});
    let failure = verdict(&[error], &json!({"status": "failed", "error": null})).failure;
    let failure = failure.unwrap();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (ErrorCode::RateLimited, "too many")
    );
}

#[test]
fn notifications_are_forwarded_byte_for_byte() {
    let line = r#"{"b":1.10,"method":"new/thing","a":"\u0000\ud800 \/","n":123456789012345678901234567890}"#;
    let parsed = CodexParser::default().line(line);
    let [event] = parsed.events.as_slice() else {
        panic!("one event");
    };
    let expected = format!(r#"{{"provider":"codex","data":{line}}}"#);
    assert_eq!(event.fields.get(), expected);
}

#[test]
fn text_that_is_not_json_is_forwarded_as_text() {
    let parsed = CodexParser::default().line("thread 'main' panicked");
    let expected =
        json!({"data":{"text":"thread 'main' panicked","type":"raw"},"provider":"codex"});
    let told: Value = serde_json::from_str(parsed.events[0].fields.get()).unwrap();
    assert_eq!(told, expected);
}

#[test]
fn deltas_are_never_forwarded_raw() {
    let mut parser = CodexParser::default();
    let mut lines = recorded(ACCEPT);
    lines.extend(
        [
            "item/reasoning/textDelta",
            "item/commandExecution/outputDelta",
        ]
        .map(|method| json!({"method": method, "params": {"delta": "x"}}).to_string()),
    );
    for line in lines {
        for event in parser.line(&line).events {
            let raw = event.kind == EventType::AssistantMessage;
            assert!(!(raw && event.fields.get().contains("elta\",")), "{line}");
        }
    }
}

#[test]
fn a_helpers_conversation_says_nothing_in_ours() {
    let mut parser = CodexParser::default();
    for line in recorded(INTERRUPT).iter().take(6) {
        parser.line(line);
    }
    for method in ["item/agentMessage/delta", "turn/completed"] {
        let params = json!({"threadId": "other", "delta": "x", "turn": {"status": "failed"}});
        let parsed = parser.line(&json!({"method": method, "params": params}).to_string());
        assert!(parsed.signal.is_none());
        assert!(
            parsed
                .events
                .iter()
                .all(|event| event.kind == EventType::AssistantMessage)
        );
    }
}

#[test]
fn deep_and_huge_lines_are_forwarded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!(r#"{{"method":"x","text":"{}"}}"#, "x".repeat(20_000_000));
    for line in [deep, huge] {
        let parsed = CodexParser::default().line(&line);
        assert_eq!(parsed.events.len(), 1);
        assert!(parsed.events[0].fields.get().contains(&line));
    }
}

fn all_are_objects(parser: &mut CodexParser, line: &str) -> bool {
    let events = parser.line(line).events;
    events
        .iter()
        .all(|event| event.fields.get().starts_with('{'))
}

proptest! {
    #[test]
    fn any_text_gives_objects(lines in prop::collection::vec(any::<String>(), 0..10)) {
        let mut parser = CodexParser::default();
        for line in lines {
            prop_assert!(all_are_objects(&mut parser, &line));
        }
    }

    #[test]
    fn damaged_recordings_are_read_to_their_end(
        which in 0..4usize,
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let text = recorded([ACCEPT, DECLINE, INTERRUPT, RESUME][which]).join("\n");
        let mut bytes = text.as_bytes()[..=cut.index(text.len())].to_vec();
        let at = flip.index(bytes.len());
        bytes[at] = byte;
        let mut parser = CodexParser::default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            prop_assert!(all_are_objects(&mut parser, line));
        }
    }

    #[test]
    fn lines_in_any_order_are_read_to_their_end(
        lines in Just(recorded(ACCEPT)).prop_shuffle(),
    ) {
        let mut parser = CodexParser::default();
        for line in lines {
            prop_assert!(all_are_objects(&mut parser, &line));
        }
    }
}
