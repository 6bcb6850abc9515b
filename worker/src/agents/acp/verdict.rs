//! What an agent's answers say about a run.

use agent_client_protocol::{
    Error, ErrorCode as RpcCode, is_connection_terminated, is_incoming_transport_closed,
};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use serde_json::Value;

/// Longest part of an error's data that is shown, in bytes.
const MAX_DATA_BYTES: usize = 2000;

/// Words of an error that mean refused credentials, in lower case.
const AUTH_WORDS: [&str; 7] = [
    "unauthorized",
    "unauthenticated",
    "authentication",
    "permission_denied",
    "api key",
    "api_key",
    "api-key",
];

/// Words of an error that mean a rate or usage limit.
const RATE_WORDS: [&str; 5] = [
    "rate limit",
    "rate_limit",
    "resource_exhausted",
    "quota",
    "too many requests",
];

/// The verdict on a turn that the agent ended; `None`: it did what was asked.
pub(super) fn of_turn(agent: &str, answer: &Value) -> Option<Failure> {
    let failed = |code, what: &str| Some(Failure::new(code, format!("{agent} {what}")));
    match answer["stopReason"].as_str() {
        Some("end_turn") => None,
        Some("max_turn_requests") => failed(ErrorCode::MaxTurns, "reached its own turn limit"),
        Some("refusal") => failed(ErrorCode::AgentError, "refused to go on"),
        Some("max_tokens") => failed(ErrorCode::AgentError, "reached the model's output limit"),
        Some("cancelled") => failed(ErrorCode::AgentError, "cancelled its turn by itself"),
        Some(other) => failed(
            ErrorCode::AgentError,
            &format!("stopped because of {other}"),
        ),
        None => failed(ErrorCode::AgentError, "ended its turn without saying why"),
    }
}

/// The failure behind an agent's error. `None` if it is the connection that ended.
pub(super) fn of_error(agent: &str, error: &Error) -> Option<Failure> {
    if is_connection_terminated(error) || is_incoming_transport_closed(error) {
        return None;
    }
    let text = text_of(error);
    Some(Failure::new(
        code_of(error, &text),
        format!("{agent}: {text}"),
    ))
}

/// The failure when an earlier conversation could not be loaded; an error if that is another
/// matter.
pub(super) fn of_load(agent: &str, error: Error) -> Result<Failure, Error> {
    match of_error(agent, &error) {
        Some(failure) if failure.code == ErrorCode::AgentError => {
            Ok(Failure::new(ErrorCode::SessionUnavailable, failure.message))
        }
        _ => Err(error),
    }
}

/// A bound of the request that was reached.
pub(super) fn of_limit(code: ErrorCode) -> Failure {
    let message = match code {
        ErrorCode::BudgetExceeded => "the run's budget is used up",
        _ => "the run reached its turn limit",
    };
    Failure::new(code, message)
}

/// A model's status stands in the error's code, or somewhere in its words.
fn code_of(error: &Error, text: &str) -> ErrorCode {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match i32::from(error.code) {
        401 | 403 => return ErrorCode::AuthError,
        429 => return ErrorCode::RateLimited,
        500..600 => return ErrorCode::AgentError,
        _ => {}
    }
    if has_number(&text, &["429"]) || says(&RATE_WORDS) {
        ErrorCode::RateLimited
    } else if error.code == RpcCode::AUTH_REQUIRED
        || has_number(&text, &["401", "403"])
        || says(&AUTH_WORDS)
    {
        ErrorCode::AuthError
    } else {
        ErrorCode::AgentError
    }
}

/// Whether one of these numbers stands in a text, and not as a part of an address or another one.
fn has_number(text: &str, numbers: &[&str]) -> bool {
    let is_edge = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, ':' | '.');
    let mut words = text.split(is_edge);
    words.any(|word| numbers.contains(&word.trim_matches([':', '.'])))
}

fn text_of(error: &Error) -> String {
    let data = match &error.data {
        None | Some(Value::Null) => return error.message.clone(),
        Some(Value::String(text)) => text.clone(),
        Some(data) => {
            let inner = data["message"].as_str().or(data["details"].as_str());
            inner.map_or_else(|| data.to_string(), str::to_owned)
        }
    };
    let data = &data[..data.floor_char_boundary(MAX_DATA_BYTES)];
    format!("{}: {data}", error.message)
}
