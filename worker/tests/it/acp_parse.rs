//! Lines of agents that speak the protocol, through the parser alone: whatever they hold, they
//! become events or messages for the connection, and nothing is lost or told twice.

use clawlink_worker::agents::{AcpParsed, AcpParser};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::agent_job::{Told, told};

/// A parser in the middle of a turn whose prompt has the id `"p"`.
fn in_a_turn() -> AcpParser {
    let mut parser = AcpParser::new("opencode", Some(0.0));
    parser.sent(r#"{"jsonrpc":"2.0","id":"p","method":"session/prompt","params":{}}"#);
    parser
}

fn update(update: &Value) -> String {
    json!({
        "jsonrpc": "2.0",
        "method": "session/update",
        "params": {"sessionId": "s", "update": update},
    })
    .to_string()
}

fn text(kind: &str, text: &str) -> String {
    update(&json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}}))
}

fn events(parser: &mut AcpParser, lines: &[String]) -> Vec<Told> {
    let parsed = lines.iter().flat_map(|line| parser.line(line).events);
    let mut events: Vec<Told> = parsed.map(told).collect();
    events.extend(parser.rest().into_iter().map(told));
    events
}

#[test]
fn updates_are_forwarded_byte_for_byte() {
    let inside = r#"{"b":1.10,"sessionUpdate":"new_kind","n":123456789012345678901234567890}"#;
    let line =
        format!(r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"update":{inside}}}}}"#);
    let parsed = in_a_turn().line(&line);
    let [event] = parsed.events.as_slice() else {
        panic!("one event");
    };
    let expected = format!(r#"{{"provider":"opencode","data":{inside}}}"#);
    assert_eq!(event.fields.get(), expected);
}

#[test]
fn unknown_lines_are_kept() {
    let lines = [
        "Segmentation fault",
        r#"{"jsonrpc":"2.0","method":"_vendor/news","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":"nobody asked","result":{}}"#,
        "[1,2]",
        "17",
        "{}",
    ];
    for line in lines {
        let AcpParsed { events, message } = in_a_turn().line(line);
        assert_eq!(events.len(), 1, "{line}");
        assert_eq!(events[0].kind.as_str(), "assistant_message", "{line}");
        assert_eq!(message, None, "{line}");
    }
    assert!(in_a_turn().line("  \r").events.is_empty());
}

#[test]
fn deep_and_huge_lines_are_forwarded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!(r#"{{"method":"x","text":"{}"}}"#, "x".repeat(20_000_000));
    for line in [deep, huge] {
        let parsed = in_a_turn().line(&line);
        assert_eq!(parsed.events.len(), 1);
        assert!(parsed.events[0].fields.get().contains(&line));
    }
}

#[test]
fn pieces_of_text_are_never_forwarded_raw() {
    let lines = [
        text("agent_thought_chunk", "my sec"),
        text("agent_thought_chunk", "ret"),
        text("agent_message_chunk", "Hel"),
        text("agent_message_chunk", "lo"),
    ];
    let events = events(&mut in_a_turn(), &lines);
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["assistant_message", "agent_text", "agent_text"]);
    let thought = &events[0].fields["data"];
    assert_eq!(thought["content"]["text"], "my secret");
    assert_eq!(events[1].fields, json!({"text": "Hel", "delta": true}));
}

#[test]
fn the_last_word_is_what_follows_the_last_tool() {
    let mut parser = in_a_turn();
    let call = json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "write"});
    let lines = [
        text("agent_message_chunk", "I shall write."),
        update(&call),
        text("agent_message_chunk", "Done"),
        text("agent_message_chunk", ".\n"),
    ];
    events(&mut parser, &lines);
    assert_eq!(parser.said(), Some("Done."));
}

#[test]
fn each_call_is_told_once_with_its_input_and_once_with_its_result() {
    let call = |fields: Value| {
        let mut whole = json!({"sessionUpdate": "tool_call_update", "toolCallId": "1"});
        let fields = fields.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(fields);
        update(&whole)
    };
    let lines = [
        call(json!({"title": "write", "status": "pending", "rawInput": {}})),
        call(json!({"status": "in_progress", "rawInput": {"path": "a"}})),
        call(json!({"status": "in_progress", "rawInput": {"path": "a"}, "title": "a path"})),
        call(json!({"status": "failed", "content": [
            {"type": "content", "content": {"type": "text", "text": "no room"}},
        ]})),
        call(json!({"status": "failed"})),
    ];
    let events = events(&mut in_a_turn(), &lines);
    let told = events
        .iter()
        .filter(|event| event.kind.as_str() != "assistant_message");
    let told: Vec<&Value> = told.map(|event| &event.fields).collect();
    let call = json!({"toolCallId": "1", "tool": "write", "input": {"path": "a"}});
    let result = json!({"toolCallId": "1", "ok": false, "output": "no room"});
    assert_eq!(told, [&call, &result]);
}

#[test]
fn rounds_are_counted_by_what_follows_results() {
    let mut parser = in_a_turn();
    assert_eq!(parser.rounds(), 1);
    for number in 0..3 {
        let call = |status: &str| {
            update(&json!({
                "sessionUpdate": "tool_call_update",
                "toolCallId": number.to_string(),
                "status": status,
            }))
        };
        // Two steps of one round, and what is said between them.
        let lines = [
            text("agent_thought_chunk", "hm"),
            text("agent_message_chunk", "so"),
            call("in_progress"),
            call("completed"),
        ];
        events(&mut parser, &lines);
        assert_eq!(parser.rounds(), number + 1);
    }
}

#[test]
fn cost_is_this_runs_alone() {
    let cost = |amount: f64| {
        let cost = json!({"amount": amount, "currency": "USD"});
        update(&json!({"sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": cost}))
    };
    let answer = r#"{"jsonrpc":"2.0","id":"p","result":{"stopReason":"end_turn","usage":{"inputTokens":7,"outputTokens":3,"cachedReadTokens":2}}}"#;
    for (before, expected) in [(Some(0.25), Some(0.5)), (None, None)] {
        let mut parser = AcpParser::new("opencode", before);
        parser.sent(r#"{"id":"p","method":"session/prompt"}"#);
        let mut lines = [cost(0.5), cost(0.75)].to_vec();
        lines.push(answer.to_owned());
        let events = events(&mut parser, &lines);
        let usage = parser.usage().unwrap();
        assert_eq!(usage.cost_usd, expected);
        assert_eq!((usage.input_tokens, usage.output_tokens), (9, 3));
        let told = events.last().unwrap();
        assert_eq!(told.kind.as_str(), "usage");
        assert_eq!(told.fields, serde_json::to_value(&usage).unwrap());
    }
}

#[test]
fn answers_and_requests_are_for_the_connection() {
    let mut parser = in_a_turn();
    let request = r#"{"jsonrpc":"2.0","id":0,"method":"fs/read_text_file","params":{}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":"p","result":{"text":"\ud800"}}"#;
    for line in [request, answer] {
        let message: Value = serde_json::from_str(&parser.line(line).message.unwrap()).unwrap();
        assert_eq!(message["jsonrpc"], "2.0");
    }
    // Each answer counts once.
    assert_eq!(parser.line(answer).message, None);
}

const RECORDINGS: [&str; 4] = [
    include_str!("recordings/acp/opencode-write.jsonl"),
    include_str!("recordings/acp/gemini-load.jsonl"),
    include_str!("recordings/acp/auggie-write.jsonl"),
    include_str!("recordings/acp/claude-acp-write.jsonl"),
];

/// The agent's lines of a recording.
fn recorded(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let step: Value = serde_json::from_str(line).unwrap();
        (step["dir"] == "out").then(|| step["msg"].to_string())
    });
    lines.flatten().collect()
}

proptest! {
    #[test]
    fn any_text_gives_objects(lines in prop::collection::vec(any::<String>(), 0..10)) {
        let mut parser = in_a_turn();
        for line in lines {
            for event in parser.line(&line).events {
                let is_object = event.fields.get().starts_with('{');
                prop_assert!(is_object);
            }
        }
    }

    #[test]
    fn damaged_and_disordered_recordings_are_read_to_their_end(
        which in 0..RECORDINGS.len(),
        order in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut lines = recorded(RECORDINGS[which]);
        let middle = order.index(lines.len());
        lines.rotate_left(middle);
        let at = at.index(lines.len());
        let mut damaged = lines[at].clone().into_bytes();
        let cut = cut.index(damaged.len());
        damaged[cut] = byte;
        lines.push(String::from_utf8_lossy(&damaged).into_owned());
        lines.push(String::from_utf8_lossy(&damaged[..cut]).into_owned());
        let mut parser = in_a_turn();
        for line in &lines {
            let parsed = parser.line(line);
            for event in &parsed.events {
                prop_assert!(serde_json::from_str::<Value>(event.fields.get()).is_ok());
            }
            if let Some(message) = parsed.message {
                prop_assert!(serde_json::from_str::<Value>(&message).is_ok());
            }
        }
        prop_assert!(parser.rest().len() <= 1);
    }

    #[test]
    fn no_text_of_an_answer_is_lost(pieces in prop::collection::vec("[ -~]{1,20}", 1..20)) {
        let lines: Vec<String> = pieces
            .iter()
            .map(|piece| text("agent_message_chunk", piece))
            .collect();
        let said: String = events(&mut in_a_turn(), &lines)
            .iter()
            .filter_map(|event| event.fields["text"].as_str())
            .collect();
        prop_assert_eq!(said, pieces.concat());
    }
}
