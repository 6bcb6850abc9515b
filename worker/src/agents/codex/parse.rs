//! The app-server's lines as events. Pure: a line in, events and a signal out.
//!
//! Notifications are forwarded as they are, byte for byte, with three exceptions: deltas,
//! because a secret that is split over two of them could not be found in them; the prompt,
//! which the request holds; and requests and answers, which are our own conversation. No line
//! is an error: what we do not know is forwarded, what is not JSON is forwarded as text.

use std::collections::BTreeMap;

use clawlink_shared::control::Failure;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Usage};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::items;
use crate::agents::dialogue::{draft, message};
use crate::agents::raw::{forward, forward_text, lenient};
use crate::events::Draft;

/// Steps of the model that may be open at the same time; more are told without their inputs.
const MAX_OPEN_ITEMS: usize = 1024;

/// Reads the app-server's output, line by line.
#[derive(Debug, Default)]
pub struct CodexParser {
    /// The conversation, once it is known: others are the agent's own helpers.
    thread: Option<String>,
    /// The turn that runs.
    turn: Option<String>,
    /// Items that have begun and not ended: their inputs, and whether text of them was told.
    open: BTreeMap<String, Item>,
    /// The last whole message of the turn.
    result: Option<String>,
    /// What failed for good, as far as was said.
    error: Value,
    tokens: Tokens,
    /// Tools that were used since the model answered last.
    tools: u32,
}

#[derive(Debug, Default)]
struct Item {
    input: Value,
    is_told: bool,
}

/// Counts of the whole conversation, and what they were when this run began.
#[derive(Debug, Default)]
struct Tokens {
    before: Option<[u64; 3]>,
    now: [u64; 3],
}

/// What one line means.
#[derive(Debug, Default)]
pub struct CodexParsed {
    /// To be told, in order.
    pub events: Vec<Draft>,
    /// For whoever drives the app-server.
    pub signal: Option<CodexSignal>,
}

/// What the driver must act on.
#[derive(Debug)]
pub enum CodexSignal {
    /// The answer to the request with this number.
    Answered {
        /// The number.
        id: u64,
        /// The answer, or the app-server's words for why there is none.
        result: Result<Value, String>,
    },
    /// The app-server wants an answer.
    Asked {
        /// To be named in the answer.
        id: Value,
        /// What it asks for.
        method: String,
        /// With these particulars.
        params: Value,
        /// The input of the step that it is about, if that began before.
        input: Value,
    },
    /// A question needs no answer any more.
    Withdrawn(Value),
    /// A turn has begun, under this name.
    Began(String),
    /// The model has answered once; it will be asked again if it used tools.
    ModelAnswered {
        /// Whether it used tools.
        used_tools: bool,
    },
    /// The turn is over.
    Ended(CodexVerdict),
}

/// What the app-server says about a turn.
#[derive(Debug, Default, PartialEq)]
pub struct CodexVerdict {
    /// Absent when it did what was asked.
    pub failure: Option<Failure>,
    /// Its last word.
    pub result: Option<String>,
    /// What this run consumed, without earlier turns of the conversation.
    pub usage: Option<Usage>,
}

impl CodexParser {
    /// Reads one line, without its newline.
    pub fn line(&mut self, line: &str) -> CodexParsed {
        let mut parsed = CodexParsed::default();
        let line = line.trim();
        if line.is_empty() {
            return parsed;
        }
        let Ok(raw) = serde_json::from_str::<&RawValue>(line) else {
            parsed.events.push(forward_text("codex", line));
            return parsed;
        };
        // Too deep to look into: still forwarded.
        let value = lenient(line).unwrap_or_default();
        let (method, params) = (value["method"].as_str(), &value["params"]);
        match method {
            None if value["id"].is_u64() => parsed.signal = answer(&value),
            Some(method) if !value["id"].is_null() => {
                parsed.signal = Some(self.asked(&value["id"], method, params));
            }
            Some(method) if is_delta(method) => self.delta(method, params, &mut parsed),
            method => {
                if params["item"]["type"] != "userMessage" {
                    parsed.events.push(forward("codex", raw));
                }
                self.notification(method.unwrap_or_default(), params, &mut parsed);
            }
        }
        parsed
    }

    /// What has been consumed so far by this run.
    pub fn usage(&self) -> Option<Usage> {
        let before = self.tokens.before?;
        let used = |at: usize| self.tokens.now[at].saturating_sub(before[at]);
        Some(Usage {
            input_tokens: used(0),
            output_tokens: used(1),
            cache_read_tokens: Some(used(2)),
            ..Usage::default()
        })
    }

    /// Begins to count anew what belongs to one turn: another follows in the same run.
    pub fn next_turn(&mut self) {
        self.turn = None;
        self.tools = 0;
    }

    fn asked(&self, id: &Value, method: &str, params: &Value) -> CodexSignal {
        let item = params["itemId"].as_str().and_then(|id| self.open.get(id));
        CodexSignal::Asked {
            id: id.clone(),
            method: method.to_owned(),
            params: params.clone(),
            input: item.map(|item| item.input.clone()).unwrap_or_default(),
        }
    }

    fn is_ours(&self, params: &Value) -> bool {
        let thread = params["threadId"].as_str();
        self.thread.is_none() || self.thread.as_deref() == thread
    }

    fn delta(&mut self, method: &str, params: &Value, parsed: &mut CodexParsed) {
        let text = params["delta"].as_str();
        let (Some(text), true) = (text, method == "item/agentMessage/delta") else {
            return;
        };
        if !self.is_ours(params) {
            return;
        }
        if let Some(item) = params["itemId"].as_str() {
            self.opened(item).is_told = true;
        }
        let fields = json!({"text": text, "delta": true});
        parsed.events.push(draft(EventType::AgentText, &fields));
    }

    fn notification(&mut self, method: &str, params: &Value, parsed: &mut CodexParsed) {
        match method {
            "thread/started" if self.thread.is_none() => {
                self.thread = params["thread"]["id"].as_str().map(str::to_owned);
            }
            _ if !self.is_ours(params) => {}
            "turn/started" => {
                let turn = params["turn"]["id"].as_str();
                self.turn = turn.map(str::to_owned);
                parsed.signal = turn.map(|turn| CodexSignal::Began(turn.to_owned()));
            }
            "serverRequest/resolved" => {
                parsed.signal = Some(CodexSignal::Withdrawn(params["requestId"].clone()));
            }
            "item/started" => self.item_started(&params["item"], parsed),
            "item/completed" => self.item_completed(&params["item"], parsed),
            "thread/tokenUsage/updated" => self.tokens(params, parsed),
            "error" if params["willRetry"] == json!(true) => {
                parsed.events.push(message(retry(&params["error"])));
            }
            "error" => self.error = params["error"].clone(),
            "turn/completed" => self.completed(&params["turn"], parsed),
            _ => {}
        }
    }

    fn opened(&mut self, id: &str) -> &mut Item {
        if self.open.len() >= MAX_OPEN_ITEMS {
            self.open.clear();
        }
        self.open.entry(id.to_owned()).or_default()
    }

    fn item_started(&mut self, item: &Value, parsed: &mut CodexParsed) {
        let (Some(id), Some((tool, input))) = (item["id"].as_str(), items::call(item)) else {
            return;
        };
        let fields = json!({"toolCallId": id, "tool": tool, "input": input});
        parsed.events.push(draft(EventType::AgentToolCall, &fields));
        self.tools += 1;
        *self.opened(id) = Item {
            input,
            is_told: true,
        };
    }

    fn item_completed(&mut self, item: &Value, parsed: &mut CodexParsed) {
        let id = item["id"].as_str().unwrap_or_default();
        let is_told = self.open.get(id).is_some_and(|item| item.is_told);
        if item["type"] == "agentMessage" {
            if let Some(text) = item["text"].as_str() {
                if !is_told {
                    let fields = json!({"text": text, "delta": false});
                    parsed.events.push(draft(EventType::AgentText, &fields));
                }
                self.result = Some(text.to_owned());
            }
        } else if let Some(result) = items::result(item) {
            if !is_told {
                self.item_started(item, parsed);
            }
            let fields = json!({"toolCallId": id, "ok": result.ok, "output": result.output});
            parsed
                .events
                .push(draft(EventType::AgentToolResult, &fields));
        }
        self.open.remove(id);
    }

    /// Counts arrive for the whole conversation; those of a resumed one begin with a report
    /// on its last turn.
    fn tokens(&mut self, params: &Value, parsed: &mut CodexParsed) {
        let counts = |name: &str| {
            let counts = &params["tokenUsage"][name];
            ["inputTokens", "outputTokens", "cachedInputTokens"]
                .map(|name| counts[name].as_u64().unwrap_or_default())
        };
        let (total, last) = (counts("total"), counts("last"));
        let is_this_turn = self.turn.is_some() && self.turn.as_deref() == params["turnId"].as_str();
        if !is_this_turn {
            self.tokens.before.get_or_insert(total);
            return;
        }
        let before = std::array::from_fn(|at| total[at].saturating_sub(last[at]));
        self.tokens.before.get_or_insert(before);
        if total != self.tokens.now {
            self.tokens.now = total;
            let used_tools = std::mem::take(&mut self.tools) > 0;
            parsed.signal = Some(CodexSignal::ModelAnswered { used_tools });
            if let Some(usage) = &self.usage() {
                parsed.events.push(draft(EventType::Usage, usage));
            }
        }
    }

    fn completed(&mut self, turn: &Value, parsed: &mut CodexParsed) {
        let (result, usage) = (self.result.take(), self.usage());
        if let Some(usage) = &usage {
            parsed.events.push(draft(EventType::Usage, usage));
        }
        let failure = (turn["status"] != "completed").then(|| self.failure(turn));
        parsed.signal = Some(CodexSignal::Ended(CodexVerdict {
            failure,
            result,
            usage,
        }));
    }

    fn failure(&self, turn: &Value) -> Failure {
        let error = [&turn["error"], &self.error];
        let error = error.into_iter().find(|error| !error.is_null());
        let error = error.unwrap_or(&Value::Null);
        let text = error["message"].as_str().filter(|text| !text.is_empty());
        let message = text.map_or_else(
            || match turn["status"].as_str() {
                Some(status) => format!("codex ended the turn as {status}"),
                None => "codex ended the turn without saying how".to_owned(),
            },
            str::to_owned,
        );
        Failure::new(code_of(&error["codexErrorInfo"], &message), message)
    }
}

/// Whether a notification carries a piece of something: `item/agentMessage/delta`,
/// `item/commandExecution/outputDelta`, …
fn is_delta(method: &str) -> bool {
    let last = method.rsplit('/').next().unwrap_or_default();
    last.to_ascii_lowercase().ends_with("delta")
}

fn answer(value: &Value) -> Option<CodexSignal> {
    let result = match &value["error"] {
        Value::Null => Ok(value["result"].clone()),
        error => Err(error["message"]
            .as_str()
            .map_or_else(|| error.to_string(), str::to_owned)),
    };
    let id = value["id"].as_u64()?;
    Some(CodexSignal::Answered { id, result })
}

/// A failure that codex gets over, for people.
fn retry(error: &Value) -> String {
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    match text("additionalDetails") {
        "" => format!("The model failed; codex: {}", text("message")),
        details => format!("The model failed ({details}); codex: {}", text("message")),
    }
}

/// The kind of error is a word, or an object with a word and the status that the model
/// answered; the text is all there is for some.
fn code_of(info: &Value, message: &str) -> ErrorCode {
    let (kind, status) = match info {
        Value::String(kind) => (kind.as_str(), None),
        Value::Object(map) => map.iter().next().map_or(("", None), |(kind, more)| {
            (kind.as_str(), more["httpStatusCode"].as_u64())
        }),
        _ => ("", None),
    };
    match (kind, status) {
        ("unauthorized", _) | (_, Some(401 | 403)) => ErrorCode::AuthError,
        ("usageLimitExceeded" | "rateLimitExceeded", _) | (_, Some(429)) => ErrorCode::RateLimited,
        ("sessionBudgetExceeded", _) => ErrorCode::BudgetExceeded,
        _ if message.contains("401 Unauthorized") || message.contains("403 Forbidden") => {
            ErrorCode::AuthError
        }
        _ if message.starts_with("Missing environment variable") => ErrorCode::AuthError,
        _ if message.contains("429 Too Many Requests") => ErrorCode::RateLimited,
        _ => ErrorCode::AgentError,
    }
}
