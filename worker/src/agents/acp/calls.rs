//! An agent's tool calls: each is told once when its input is known, and once when it ended.
//!
//! Agents announce a call before they know its input, repeat what they said, or say nothing
//! until they ask for permission or are done.

use std::collections::HashMap;

use clawlink_shared::event::EventType;
use serde_json::{Value, json};

use crate::agents::dialogue::draft;
use crate::events::Draft;

/// Calls that are remembered; with more of them, all are forgotten and may be told twice.
const MAX_CALLS: usize = 4096;

/// The calls of one run.
#[derive(Debug, Default)]
pub(super) struct Calls {
    known: HashMap<String, Call>,
    /// A call has ended, and nothing of the model's came since.
    has_result: bool,
}

#[derive(Debug, Default)]
struct Call {
    tool: Option<String>,
    is_told: bool,
    is_ended: bool,
}

impl Calls {
    /// Something of the model's comes; whether results of tools stand before it.
    pub(super) fn begin_round(&mut self) -> bool {
        std::mem::take(&mut self.has_result)
    }

    /// The agent asks whether it may: then the call's input is known.
    pub(super) fn wanted(&mut self, call: &Value, events: &mut Vec<Draft>) {
        let Some(id) = call["toolCallId"].as_str() else {
            return;
        };
        let known = self.entry(id);
        known.tool = Some(tool_of(call, known.tool.take()));
        known.tell(id, call, events);
    }

    /// Whether an update is the first of its call.
    pub(super) fn is_new(&self, update: &Value) -> bool {
        let id = update["toolCallId"].as_str();
        id.is_some_and(|id| !self.known.contains_key(id))
    }

    /// Takes a `tool_call` or `tool_call_update`.
    pub(super) fn told(&mut self, update: &Value, events: &mut Vec<Draft>) {
        let Some(id) = update["toolCallId"].as_str() else {
            return;
        };
        let known = self.entry(id);
        known.tool = Some(tool_of(update, known.tool.take()));
        let status = update["status"].as_str().unwrap_or_default();
        let has_ended = matches!(status, "completed" | "failed");
        if has_input(update) || has_ended || status == "in_progress" {
            known.tell(id, update, events);
        }
        if has_ended && !known.is_ended {
            known.is_ended = true;
            let fields = json!({
                "toolCallId": id,
                "ok": status == "completed",
                "output": output_of(update),
            });
            events.push(draft(EventType::AgentToolResult, &fields));
            self.has_result = true;
        }
    }

    fn entry(&mut self, id: &str) -> &mut Call {
        if self.known.len() >= MAX_CALLS {
            self.known.clear();
        }
        self.known.entry(id.to_owned()).or_default()
    }
}

impl Call {
    fn tell(&mut self, id: &str, call: &Value, events: &mut Vec<Draft>) {
        if self.is_told {
            return;
        }
        self.is_told = true;
        let fields = json!({
            "toolCallId": id,
            "tool": self.tool,
            "input": input_of(call),
        });
        events.push(draft(EventType::AgentToolCall, &fields));
    }
}

/// The tool's name. Agents seldom send one: a title of one word is one, a sentence is not, and
/// then the kind of tool says more.
pub(super) fn tool_of(call: &Value, known: Option<String>) -> String {
    let explicit = [&call["_meta"]["claudeCode"]["toolName"], &call["name"]];
    let mut explicit = explicit.into_iter().filter_map(Value::as_str);
    let title = call["title"].as_str();
    let word = title.filter(|title| !title.is_empty() && !title.contains([' ', '/']));
    let kind = call["kind"].as_str();
    explicit
        .next()
        .map(str::to_owned)
        .or(known)
        .or_else(|| Some(word.or(kind).or(title)?.to_owned()))
        .unwrap_or_else(|| "tool".to_owned())
}

/// The call's input: as the tool gets it, else what the agent shows of it.
pub(super) fn input_of(call: &Value) -> Value {
    if has_input(call) {
        return call["rawInput"].clone();
    }
    let shown = ["title", "locations", "content"].map(|name| (name.to_owned(), call[name].clone()));
    let shown = shown.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(shown.collect())
}

fn has_input(call: &Value) -> bool {
    match &call["rawInput"] {
        Value::Null => false,
        Value::Object(input) => !input.is_empty(),
        _ => true,
    }
}

/// What came out of it, as text.
fn output_of(update: &Value) -> String {
    let raw = &update["rawOutput"];
    if let Some(text) = raw.as_str().or_else(|| raw["output"].as_str()) {
        return text.to_owned();
    }
    let blocks = update["content"].as_array().into_iter().flatten();
    let texts = blocks.filter_map(|block| match block["type"].as_str() {
        Some("content") => block["content"]["text"].as_str().map(str::to_owned),
        Some("diff") => Some(format!("changed {}", block["path"].as_str()?)),
        _ => None,
    });
    let texts: Vec<String> = texts.collect();
    match (texts.is_empty(), raw) {
        (true, Value::Null) => String::new(),
        (true, raw) => raw.to_string(),
        (false, _) => texts.join("\n"),
    }
}
