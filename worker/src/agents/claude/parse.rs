//! The CLI's lines as events. Pure: a line in, events and a signal out.
//!
//! Whatever the CLI prints is forwarded as it is, byte for byte, with two exceptions:
//! `stream_event` lines, because a secret that is split over two deltas could not be found in
//! them, and the control protocol, which is ours. No line is an error: what we do not know is
//! forwarded, what is not JSON is forwarded as text.

use clawlink_shared::control::Failure;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Usage};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::permission::Permission;
use super::usage::Tally;
use crate::agents::dialogue::{draft, message};
use crate::agents::raw::{forward, forward_text, lenient};
use crate::events::Draft;

/// Reads the CLI's output, line by line.
#[derive(Debug, Default)]
pub struct ClaudeParser {
    /// The message whose text came as deltas, so that it is not told twice.
    streamed: Option<String>,
    /// The kind of error that the last message reported.
    error: Option<String>,
    /// When the model's usage limit ends, once it is reached: seconds since 1970.
    resets_at: Option<i64>,
    usage: Tally,
}

/// What one line means.
#[derive(Debug, Default)]
pub struct Parsed {
    /// To be told, in order.
    pub events: Vec<Draft>,
    /// For whoever drives the CLI.
    pub signal: Option<Signal>,
}

/// What the driver must act on.
#[derive(Debug)]
pub enum Signal {
    /// The conversation has begun, under this name.
    Session(String),
    /// A tool waits for an answer to this request.
    Permission(Permission),
    /// It does not wait for this one any more.
    Withdrawn {
        /// The request's name.
        request_id: String,
    },
    /// A text that the CLI was given does not wait any more.
    Taken {
        /// The text's name.
        id: String,
    },
    /// The last line of a turn.
    Result(Verdict),
}

/// What the CLI says about the run.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// Absent when it did what was asked.
    pub failure: Option<Failure>,
    /// Its last word.
    pub result: Option<String>,
    /// What this run consumed, without earlier turns of the conversation.
    pub usage: Option<Usage>,
}

impl Verdict {
    /// Keeps what an earlier turn of the same run said that was consumed, if this one says nothing:
    /// what is said is the sum of all of them.
    pub(super) fn keep_usage_of(&mut self, earlier: Option<Self>) {
        if self.usage.is_none() {
            self.usage = earlier.and_then(|earlier| earlier.usage);
        }
    }
}

impl ClaudeParser {
    /// Reads one line, without its newline.
    pub fn line(&mut self, line: &str) -> Parsed {
        let mut parsed = Parsed::default();
        let line = line.trim();
        if line.is_empty() {
            return parsed;
        }
        let Ok(raw) = serde_json::from_str::<&RawValue>(line) else {
            parsed.events.push(forward_text("claude", line));
            return parsed;
        };
        // Too deep to look into: still forwarded.
        let value = lenient(line).unwrap_or_default();
        let kind = value["type"].as_str().unwrap_or_default();
        if !matches!(
            kind,
            "stream_event"
                | "control_request"
                | "control_response"
                | "control_cancel_request"
                | "command_lifecycle"
        ) {
            parsed.events.push(forward("claude", raw));
        }
        match kind {
            "stream_event" => {
                if let Some(usage) = self.usage.stream_event(&value) {
                    parsed.events.push(draft(EventType::Usage, &usage));
                }
                self.delta(&value, &mut parsed);
            }
            "rate_limit_event" => self.rate_limit(&value),
            "assistant" => self.assistant(&value, &mut parsed),
            "user" => tool_results(&value, &mut parsed),
            "system" => system(&value, &mut parsed),
            "control_request" => {
                parsed.signal = Permission::read(&value).map(Signal::Permission);
            }
            "command_lifecycle" if value["state"] != "queued" => {
                let id = value["command_uuid"].as_str().map(str::to_owned);
                parsed.signal = id.map(|id| Signal::Taken { id });
            }
            "control_cancel_request" => {
                let request_id = value["request_id"].as_str().map(str::to_owned);
                parsed.signal = request_id.map(|request_id| Signal::Withdrawn { request_id });
            }
            "result" => {
                let usage = self.usage.result(&value);
                let verdict = Verdict {
                    usage,
                    ..self.verdict(&value)
                };
                if let Some(usage) = &verdict.usage {
                    parsed.events.push(draft(EventType::Usage, usage));
                }
                parsed.signal = Some(Signal::Result(verdict));
            }
            _ => {}
        }
        parsed
    }

    fn delta(&mut self, value: &Value, parsed: &mut Parsed) {
        if !value["parent_tool_use_id"].is_null() {
            return;
        }
        let event = &value["event"];
        if event["type"] == "message_start" {
            self.streamed = event["message"]["id"].as_str().map(str::to_owned);
        } else if event["delta"]["type"] == "text_delta"
            && let Some(text) = event["delta"]["text"].as_str()
        {
            let fields = json!({"text": text, "delta": true});
            parsed.events.push(draft(EventType::AgentText, &fields));
        }
    }

    fn rate_limit(&mut self, value: &Value) {
        let limit = &value["rate_limit_info"];
        let is_reached = limit["status"] == "rejected";
        self.resets_at = limit["resetsAt"].as_i64().filter(|_| is_reached);
    }

    fn assistant(&mut self, value: &Value, parsed: &mut Parsed) {
        self.error = value["error"].as_str().map(str::to_owned);
        let is_streamed = self.streamed.as_deref() == value["message"]["id"].as_str();
        let is_nested = !value["parent_tool_use_id"].is_null();
        for block in blocks(value) {
            match block["type"].as_str() {
                Some("text") if !is_streamed && !is_nested => {
                    let fields = json!({"text": block["text"], "delta": false});
                    parsed.events.push(draft(EventType::AgentText, &fields));
                }
                Some("tool_use") => {
                    let fields = json!({
                        "toolCallId": block["id"],
                        "tool": block["name"],
                        "input": block["input"],
                    });
                    parsed.events.push(draft(EventType::AgentToolCall, &fields));
                }
                _ => {}
            }
        }
    }

    fn verdict(&self, value: &Value) -> Verdict {
        let result = value["result"].as_str().map(str::to_owned);
        let is_success = value["subtype"] == "success" && value["is_error"] != json!(true);
        Verdict {
            failure: (!is_success).then(|| self.failure(value)),
            result,
            usage: None,
        }
    }

    fn failure(&self, value: &Value) -> Failure {
        let subtype = value["subtype"].as_str().unwrap_or_default();
        let errors = value["errors"].as_array().into_iter().flatten();
        let errors: Vec<&str> = errors.filter_map(Value::as_str).collect();
        let message = match value["result"].as_str() {
            Some(result) if !result.is_empty() => result.to_owned(),
            _ if !errors.is_empty() => errors.join("; "),
            _ => format!("claude ended with {subtype}"),
        };
        let error = self.error.as_deref().unwrap_or_default();
        let code = match (subtype, value["api_error_status"].as_u64()) {
            ("error_max_turns", _) => ErrorCode::MaxTurns,
            (subtype, _) if subtype.contains("budget") => ErrorCode::BudgetExceeded,
            (_, Some(401 | 403)) => ErrorCode::AuthError,
            (_, Some(429)) => ErrorCode::RateLimited,
            _ if error == "authentication_failed" || message.starts_with("Not logged in") => {
                ErrorCode::AuthError
            }
            _ if error == "rate_limit" => ErrorCode::RateLimited,
            _ if message.starts_with("No conversation found") => ErrorCode::SessionUnavailable,
            _ => ErrorCode::AgentError,
        };
        Failure::new(code, self.with_reset(code, message))
    }

    /// The words of a limit with its end, in the form in which every agent's are understood.
    fn with_reset(&self, code: ErrorCode, message: String) -> String {
        let at = self.resets_at.filter(|_| code == ErrorCode::RateLimited);
        let at = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        match at.and_then(|at| at.format(&Rfc3339).ok()) {
            Some(at) => format!("{message} (until {at})"),
            None => message,
        }
    }
}

fn blocks(value: &Value) -> impl Iterator<Item = &Value> {
    let content = value["message"]["content"].as_array();
    content.into_iter().flatten()
}

fn tool_results(value: &Value, parsed: &mut Parsed) {
    for block in blocks(value).filter(|block| block["type"] == "tool_result") {
        let output = match &block["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                texts.collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        };
        let fields = json!({
            "toolCallId": block["tool_use_id"],
            "ok": block["is_error"] != json!(true),
            "output": output,
        });
        parsed
            .events
            .push(draft(EventType::AgentToolResult, &fields));
    }
}

fn system(value: &Value, parsed: &mut Parsed) {
    match value["subtype"].as_str() {
        Some("init") => {
            let session = value["session_id"].as_str();
            parsed.signal = session.map(|session| Signal::Session(session.to_owned()));
        }
        Some("api_retry") => {
            let reason = match value["error_status"].as_u64() {
                Some(status) => format!("The model answered {status}"),
                None => "The model could not be reached".to_owned(),
            };
            let seconds = value["retry_delay_ms"].as_f64().unwrap_or_default() / 1000.0;
            let (attempt, attempts) = (&value["attempt"], &value["max_retries"]);
            parsed.events.push(message(format!(
                "{reason}; claude tries again in {seconds:.1} s ({attempt} of {attempts})."
            )));
        }
        _ => {}
    }
}
