//! An agent's lines as events. Pure: a line in, events out, and what the connection must hear.
//!
//! Notifications are forwarded as they came, byte for byte, with one exception: text that
//! arrives in pieces. The answer's pieces become `agent_text`, where a secret that is split
//! between two of them is found; other pieces (thoughts) are joined first. Nothing that an
//! agent repeats from earlier turns is told again. No line is an error: what we do not know is
//! forwarded, what is not JSON is forwarded as text.

use std::collections::HashMap;

use clawlink_shared::event::EventType;
use clawlink_shared::execution::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::calls::Calls;
use crate::agents::dialogue::draft;
use crate::agents::raw::{forward, forward_text, lenient};
use crate::events::Draft;

/// Longest text that is kept as the agent's last word, and longest joined thought, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Updates that tell of the conversation itself: only they are repeated when one is loaded.
const CONVERSATION: [&str; 7] = [
    "user_message_chunk",
    "agent_message_chunk",
    "agent_thought_chunk",
    "tool_call",
    "tool_call_update",
    "plan",
    "usage_update",
];

/// Reads one agent's side of one connection.
#[derive(Debug)]
pub struct AcpParser {
    provider: &'static str,
    /// Our requests that wait for an answer: their ids as JSON, and whether it ends a turn.
    asked: HashMap<String, bool>,
    /// An earlier conversation is being loaded.
    is_replaying: bool,
    calls: Calls,
    joined: Option<Joined>,
    said: String,
    /// The next piece of text begins a new last word.
    is_said_over: bool,
    usage: Option<Usage>,
    /// What the conversation had cost when this run began; absent: nobody knows.
    cost_before: Option<f64>,
    cost: Option<f64>,
    rounds: u32,
}

/// What one line means.
#[derive(Debug, Default)]
pub struct AcpParsed {
    /// To be told, in order.
    pub events: Vec<Draft>,
    /// A request or an answer, for whoever speaks with the agent.
    pub message: Option<String>,
}

/// Pieces of one kind that belong together.
#[derive(Debug)]
struct Joined {
    kind: String,
    text: String,
    is_cut: bool,
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    update: &'a RawValue,
}

impl AcpParser {
    /// A parser for the agent of that name. `cost_before` is what its conversation had cost
    /// before this run, in US dollars; `Some(0.0)` for a new one.
    pub fn new(provider: &'static str, cost_before: Option<f64>) -> Self {
        Self {
            provider,
            asked: HashMap::new(),
            is_replaying: false,
            calls: Calls::default(),
            joined: None,
            said: String::new(),
            is_said_over: true,
            usage: None,
            cost_before,
            cost: None,
            rounds: 0,
        }
    }

    /// Notes a line that we send.
    pub fn sent(&mut self, line: &str) {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        let method = message["method"].as_str().unwrap_or_default();
        match method {
            "session/load" => self.is_replaying = true,
            "session/prompt" => {
                self.is_replaying = false;
                self.is_said_over = true;
                self.rounds += 1;
                self.calls.begin_round();
            }
            _ => {}
        }
        if !method.is_empty()
            && let Some(id) = message.get("id")
        {
            self.asked
                .insert(id.to_string(), method == "session/prompt");
        }
    }

    /// Reads one line, without its newline.
    pub fn line(&mut self, line: &str) -> AcpParsed {
        let mut parsed = AcpParsed::default();
        let line = line.trim();
        if line.is_empty() {
            return parsed;
        }
        let Ok(raw) = serde_json::from_str::<&RawValue>(line) else {
            self.interrupt(&mut parsed);
            parsed.events.push(forward_text(self.provider, line));
            return parsed;
        };
        // Too deep to look into: still forwarded.
        let value = lenient(line).unwrap_or_default();
        match (value["method"].as_str(), value.get("id")) {
            (Some("session/update"), None) => self.update(line, raw, &value, &mut parsed),
            (Some(method), Some(_)) => {
                if method == "session/request_permission" {
                    self.interrupt(&mut parsed);
                    let call = &value["params"]["toolCall"];
                    self.calls.wanted(call, &mut parsed.events);
                }
                parsed.message = Some(value.to_string());
            }
            // About requests of the agent's own.
            (Some(method), None) if method.starts_with("$/") => {
                parsed.message = Some(value.to_string());
            }
            (None, Some(id)) => match self.asked.remove(&id.to_string()) {
                Some(is_end_of_turn) => {
                    if is_end_of_turn {
                        self.interrupt(&mut parsed);
                        self.turn_ended(&value["result"], &mut parsed);
                    }
                    parsed.message = Some(value.to_string());
                }
                None => self.unknown(raw, &mut parsed),
            },
            _ => self.unknown(raw, &mut parsed),
        }
        parsed
    }

    /// What is still held back.
    pub fn rest(&mut self) -> Vec<Draft> {
        let mut parsed = AcpParsed::default();
        self.interrupt(&mut parsed);
        parsed.events
    }

    /// The agent's last word in this run.
    pub fn said(&self) -> Option<&str> {
        Some(self.said.trim()).filter(|said| !said.is_empty())
    }

    /// What this run consumed, as far as the agent says.
    pub fn usage(&self) -> Option<Usage> {
        let cost = self.cost_usd();
        if self.usage.is_none() && cost.is_none() {
            return None;
        }
        let mut usage = self.usage.clone().unwrap_or_default();
        usage.cost_usd = cost;
        Some(usage)
    }

    /// What this run has cost so far, in US dollars, if the agent says.
    pub fn cost_usd(&self) -> Option<f64> {
        Some((self.cost? - self.cost_before?).max(0.0))
    }

    /// What the whole conversation has cost, in US dollars, if the agent says.
    pub fn whole_cost_usd(&self) -> Option<f64> {
        self.cost
    }

    /// How often the model was asked, as far as one can see: once for a prompt, once more
    /// whenever something follows the results of tools.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    fn update(&mut self, line: &str, raw: &RawValue, value: &Value, parsed: &mut AcpParsed) {
        let update = &value["params"]["update"];
        let kind = update["sessionUpdate"].as_str().unwrap_or_default();
        if self.is_replaying && CONVERSATION.contains(&kind) {
            return;
        }
        let text = update["content"]["text"].as_str();
        match (kind, text) {
            ("agent_message_chunk", Some(text)) => return self.say(text, parsed),
            ("agent_thought_chunk" | "user_message_chunk", Some(text)) => {
                return self.join(kind, text, parsed);
            }
            _ => {}
        }
        self.interrupt(parsed);
        match serde_json::from_str::<Notification<'_>>(line) {
            Ok(notification) => self.forward(notification.params.update, parsed),
            Err(_) => self.forward(raw, parsed),
        }
        match kind {
            "tool_call" | "tool_call_update" => {
                self.is_said_over = true;
                self.count(self.calls.is_new(update));
                self.calls.told(update, &mut parsed.events);
            }
            "usage_update" => self.cost(&update["cost"]),
            _ => {}
        }
    }

    fn say(&mut self, text: &str, parsed: &mut AcpParsed) {
        if text.is_empty() {
            return;
        }
        self.interrupt(parsed);
        self.count(true);
        if std::mem::take(&mut self.is_said_over) {
            self.said.clear();
        }
        push_bounded(&mut self.said, text);
        let fields = json!({"text": text, "delta": true});
        parsed.events.push(draft(EventType::AgentText, &fields));
    }

    fn join(&mut self, kind: &str, text: &str, parsed: &mut AcpParsed) {
        self.count(kind == "agent_thought_chunk");
        if self
            .joined
            .as_ref()
            .is_none_or(|joined| joined.kind != kind)
        {
            self.interrupt(parsed);
        }
        let joined = self.joined.get_or_insert_with(|| Joined {
            kind: kind.to_owned(),
            text: String::new(),
            is_cut: false,
        });
        joined.is_cut |= !push_bounded(&mut joined.text, text);
    }

    /// Something else comes: what was joined is told.
    fn interrupt(&mut self, parsed: &mut AcpParsed) {
        let Some(joined) = self.joined.take() else {
            return;
        };
        let mut data = json!({
            "sessionUpdate": joined.kind,
            "content": {"type": "text", "text": joined.text},
        });
        if joined.is_cut {
            data["truncated"] = json!(true);
        }
        let fields = json!({"provider": self.provider, "data": data});
        parsed
            .events
            .push(draft(EventType::AssistantMessage, &fields));
    }

    fn unknown(&mut self, raw: &RawValue, parsed: &mut AcpParsed) {
        self.interrupt(parsed);
        self.forward(raw, parsed);
    }

    fn forward(&self, data: &RawValue, parsed: &mut AcpParsed) {
        parsed.events.push(forward(self.provider, data));
    }

    fn count(&mut self, is_from_model: bool) {
        if is_from_model && self.calls.begin_round() {
            self.rounds += 1;
        }
    }

    fn cost(&mut self, cost: &Value) {
        let amount = cost["amount"].as_f64().filter(|amount| amount.is_finite());
        if cost["currency"] == "USD" && amount.is_some() {
            self.cost = amount;
        }
    }

    fn turn_ended(&mut self, result: &Value, parsed: &mut AcpParsed) {
        let Some(turn) = tokens(result) else { return };
        let usage = self.usage.get_or_insert_default();
        usage.input_tokens = usage.input_tokens.saturating_add(turn.input_tokens);
        usage.output_tokens = usage.output_tokens.saturating_add(turn.output_tokens);
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        usage.cache_read_tokens = sum(usage.cache_read_tokens, turn.cache_read_tokens);
        usage.cache_write_tokens = sum(usage.cache_write_tokens, turn.cache_write_tokens);
        if let Some(usage) = self.usage() {
            parsed.events.push(draft(EventType::Usage, &usage));
        }
    }
}

/// A turn's tokens: in the protocol's own field, or where gemini puts them.
fn tokens(result: &Value) -> Option<Usage> {
    if let Some(usage) = result["usage"].as_object() {
        let count = |name: &str| usage.get(name).and_then(Value::as_u64);
        let cached = count("cachedReadTokens");
        let input = count("inputTokens").unwrap_or_default();
        let written = count("cachedWriteTokens").unwrap_or_default();
        return Some(Usage {
            input_tokens: input
                .saturating_add(written)
                .saturating_add(cached.unwrap_or_default()),
            output_tokens: count("outputTokens").unwrap_or_default(),
            cache_read_tokens: cached,
            cache_write_tokens: Some(written),
            ..Usage::default()
        });
    }
    let quota = result["_meta"]["quota"]["token_count"].as_object()?;
    let count = |name: &str| quota.get(name).and_then(Value::as_u64).unwrap_or_default();
    Some(Usage {
        input_tokens: count("input_tokens"),
        output_tokens: count("output_tokens"),
        ..Usage::default()
    })
}

/// Adds as much of `more` as there is room for; says whether that was all.
fn push_bounded(text: &mut String, more: &str) -> bool {
    let room = MAX_TEXT_BYTES - text.len();
    let kept = &more[..more.floor_char_boundary(room)];
    text.push_str(kept);
    kept.len() == more.len()
}
