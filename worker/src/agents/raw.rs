//! What a program prints, as it is: forwarded byte for byte, or looked into with patience.

use clawlink_shared::event::EventType;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::dialogue::draft;
use crate::events::Draft;

#[derive(Serialize)]
struct AssistantMessage<'a> {
    provider: &'static str,
    data: &'a RawValue,
}

/// JSON that `provider` printed, not re-serialized.
pub(super) fn forward(provider: &'static str, data: &RawValue) -> Draft {
    draft(
        EventType::AssistantMessage,
        &AssistantMessage { provider, data },
    )
}

/// A line of `provider` that is not JSON.
pub(super) fn forward_text(provider: &'static str, line: &str) -> Draft {
    let data = json!({"type": "raw", "text": line});
    let fields = json!({"provider": provider, "data": data});
    draft(EventType::AssistantMessage, &fields)
}

/// Parses JSON that may hold lone surrogates, which JavaScript's strings may and ours may
/// not: each is read as U+FFFD.
pub(super) fn lenient(line: &str) -> Option<Value> {
    serde_json::from_str(line)
        .or_else(|_| serde_json::from_str(&mend_surrogates(line)))
        .ok()
}

fn mend_surrogates(line: &str) -> String {
    let mut mended = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push('\u{FFFD}');
                rest = &rest[6..];
                continue;
            }
            // Another escape: its first character is never the start of one.
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    mended
}

/// The code unit that `\uXXXX` at the start of `text` stands for.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}
