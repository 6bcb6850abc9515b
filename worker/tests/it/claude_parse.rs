//! Recordings of the real CLI through the parser: what a client sees of them.

use clawlink_worker::agents::{ClaudeParser, Parsed, Signal};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::story::{Story, recorded};

/// What a client sees of a recording, and the signals.
fn story(text: &str) -> Value {
    let mut parser = ClaudeParser::default();
    let mut story = Story::default();
    for line in recorded(text) {
        let Parsed { events, signal } = parser.line(&line);
        story.hear(events);
        story.signals.extend(signal.map(|signal| match signal {
            Signal::Session(_) => json!("session"),
            Signal::Permission(_) => json!("permission"),
            Signal::Withdrawn { request_id } => json!({ "withdrawn": request_id }),
            Signal::Taken { id } => json!({ "taken": id }),
            Signal::Result(verdict) => json!(format!("{verdict:?}")),
        }));
    }
    story.whole()
}

macro_rules! snapshots {
    ($($name:ident: $file:literal;)*) => {$(
        #[test]
        fn $name() {
            let story = story(include_str!(concat!("recordings/claude/", $file)));
            insta::assert_json_snapshot!(story);
        }
    )*};
}

snapshots! {
    text_streams_as_deltas: "text.jsonl";
    tool_call_and_its_result: "write.jsonl";
    turn_limit: "maxturns.jsonl";
    refused_credentials: "err401.jsonl";
    rate_limit: "err429.jsonl";
    model_error: "err500.jsonl";
    no_credentials: "nokey.jsonl";
    ungranted_tool: "noperm.jsonl";
    unknown_conversation: "resume-missing.jsonl";
    signal_with_a_result: "sigint.jsonl";
    signal_without_a_result: "sigterm-tool.jsonl";
    denied_approval: "control-deny.jsonl";
    allowed_approval: "control-allow.jsonl";
    interrupted: "control-interrupt.jsonl";
    image: "control-image.jsonl";
    model_out_of_reach: "conn-broken-retries.jsonl";
}

#[test]
fn known_lines_are_forwarded_byte_for_byte() {
    let line =
        r#"{"b":1.10,"type":"unknown","a":"\u0000\ud800 \/","n":123456789012345678901234567890}"#;
    let parsed = ClaudeParser::default().line(line);
    let [event] = parsed.events.as_slice() else {
        panic!("one event");
    };
    let expected = format!(r#"{{"provider":"claude","data":{line}}}"#);
    assert_eq!(event.fields.get(), expected);
}

#[test]
fn text_that_is_not_json_is_forwarded_as_text() {
    let parsed = ClaudeParser::default().line("Segmentation fault");
    let expected = json!({"data":{"text":"Segmentation fault","type":"raw"},"provider":"claude"});
    let told: Value = serde_json::from_str(parsed.events[0].fields.get()).unwrap();
    assert_eq!(told, expected);
}

#[test]
fn lone_surrogates_hide_nothing() {
    let line = r#"{"type":"result","subtype":"success","is_error":false,"result":"a\ud83db\ude00 \ud83d\ude00 \\ud800"}"#;
    let Some(Signal::Result(verdict)) = ClaudeParser::default().line(line).signal else {
        panic!("a result");
    };
    assert_eq!(verdict.failure, None);
    let result = verdict.result.unwrap();
    assert_eq!(result, "a\u{FFFD}b\u{FFFD} \u{1F600} \\ud800");
}

#[test]
fn deltas_are_never_forwarded_raw() {
    for line in recorded(include_str!("recordings/claude/write.jsonl")) {
        for event in ClaudeParser::default().line(&line).events {
            assert!(!event.fields.get().contains("stream_event"), "{line}");
        }
    }
}

#[test]
fn deep_and_huge_lines_are_forwarded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!(r#"{{"type":"x","text":"{}"}}"#, "x".repeat(20_000_000));
    for line in [deep, huge] {
        let parsed = ClaudeParser::default().line(&line);
        assert_eq!(parsed.events.len(), 1);
        assert!(parsed.events[0].fields.get().contains(&line));
    }
}

proptest! {
    #[test]
    fn any_text_gives_objects(lines in prop::collection::vec(any::<String>(), 0..10)) {
        let mut parser = ClaudeParser::default();
        for line in lines {
            for event in parser.line(&line).events {
                let fields: Value = serde_json::from_str(event.fields.get()).unwrap_or_default();
                prop_assert!(fields.is_object() || line.contains("\\u"));
            }
        }
    }

    #[test]
    fn damaged_recordings_are_read_to_their_end(
        which in 0..4usize,
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let text = [
            include_str!("recordings/claude/write.jsonl"),
            include_str!("recordings/claude/err401.jsonl"),
            include_str!("recordings/claude/maxturns.jsonl"),
            include_str!("recordings/claude/noperm.jsonl"),
        ][which];
        let mut bytes = text.as_bytes()[..=cut.index(text.len())].to_vec();
        let at = flip.index(bytes.len());
        bytes[at] = byte;
        let mut parser = ClaudeParser::default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            for event in parser.line(line).events {
                let is_object = event.fields.get().starts_with('{');
                prop_assert!(is_object);
            }
        }
    }
}
