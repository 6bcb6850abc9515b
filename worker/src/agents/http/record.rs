//! What one record of an answer means. Pure.
//!
//! A record is a JSON object with a `type`: one of our own event types with its fields, or
//! `session`, `completed`, `error`. What is anything else is forwarded as it came.

use clawlink_shared::control::Failure;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::agents::AgentEnd;
use crate::agents::dialogue::{draft, message};
use crate::agents::raw::{forward, forward_text, lenient};
use crate::events::Draft;

/// Who is named as the source of what is forwarded.
const PROVIDER: &str = "http";

/// Longest name of a conversation, in bytes.
const MAX_NAME: usize = 512;

/// Codes that an address may give its failure; any other is `agent_error`.
const CODES: [ErrorCode; 5] = [
    ErrorCode::AuthError,
    ErrorCode::RateLimited,
    ErrorCode::MaxTurns,
    ErrorCode::BudgetExceeded,
    ErrorCode::AgentError,
];

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    end: AgentEnd,
    is_over: bool,
}

impl Reader {
    /// An answer in this conversation, if it continues one.
    pub(super) fn new(conversation: Option<String>) -> Self {
        Self {
            end: AgentEnd {
                provider_session_id: conversation,
                ..AgentEnd::default()
            },
            is_over: false,
        }
    }

    /// Whether the last record has come.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What is known of the run.
    pub(super) fn end(self) -> AgentEnd {
        self.end
    }

    /// Reads a record; what is to be told of it.
    pub(super) fn record(&mut self, text: &str) -> Option<Draft> {
        let text = text.trim();
        let Ok(raw) = serde_json::from_str::<&RawValue>(text) else {
            return Some(forward_text(PROVIDER, text));
        };
        let value = lenient(text).unwrap_or_default();
        self.known(&value)
            .unwrap_or_else(|| Some(forward(PROVIDER, raw)))
    }

    /// A record of a known type with the fields of that type; inside: what is to be told of it.
    fn known(&mut self, value: &Value) -> Option<Option<Draft>> {
        match value["type"].as_str()? {
            "agent_text" => {
                let text = value["text"].as_str()?;
                let is_piece = value["delta"] == json!(true);
                let fields = json!({"text": text, "delta": is_piece});
                Some(Some(draft(EventType::AgentText, &fields)))
            }
            "agent_tool_call" => {
                let (id, tool) = (value["toolCallId"].as_str()?, value["tool"].as_str()?);
                let fields = json!({"toolCallId": id, "tool": tool, "input": value["input"]});
                Some(Some(draft(EventType::AgentToolCall, &fields)))
            }
            "agent_tool_result" => {
                let (id, ok) = (value["toolCallId"].as_str()?, value["ok"].as_bool()?);
                let fields = json!({"toolCallId": id, "ok": ok, "output": value["output"]});
                Some(Some(draft(EventType::AgentToolResult, &fields)))
            }
            "message" => Some(Some(message(value["message"].as_str()?.to_owned()))),
            "usage" => {
                let usage = Usage::deserialize(value).ok()?;
                let told = draft(EventType::Usage, &usage);
                self.end.usage = Some(usage);
                Some(Some(told))
            }
            "session" => {
                self.named(value)?;
                Some(None)
            }
            "completed" => {
                self.over(value);
                self.end.result = value["result"].as_str().map(str::to_owned);
                Some(None)
            }
            "error" => {
                self.over(value);
                let texts = [&value["message"], &value["error"]];
                let mut texts = texts.into_iter().filter_map(Value::as_str);
                let text = texts
                    .next()
                    .unwrap_or("the agent failed without saying why");
                let codes = CODES.into_iter();
                let mut known = codes.filter(|code| value["code"] == code.as_str());
                let code = known.next().unwrap_or(ErrorCode::AgentError);
                self.end.failure = Some(Failure::new(code, text));
                Some(None)
            }
            _ => None,
        }
    }

    fn over(&mut self, value: &Value) {
        self.is_over = true;
        // Both are optional here.
        let _unnamed = self.named(value);
        if let Ok(usage) = Usage::deserialize(&value["usage"]) {
            self.end.usage = Some(usage);
        }
    }

    /// Takes the name of the conversation.
    fn named(&mut self, value: &Value) -> Option<()> {
        let name = value["conversation"].as_str()?;
        if name.is_empty() || name.len() > MAX_NAME {
            return None;
        }
        self.end.provider_session_id = Some(name.to_owned());
        Some(())
    }
}
