//! One event as it goes over the wire: redacted, on one line, within its bound.

use clawlink_shared::control::MAX_EVENT_BYTES;
use clawlink_shared::event::EventType;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Draft;
use crate::redact::{DeltaStream, Redactor, json};

/// Room for what stands around the fields: here number and type, in the log the envelope.
const FRAME_BYTES: usize = 1024;

/// Bounds to which strings are cut, one after the other, until an event fits.
const STRING_BOUNDS: [usize; 4] = [64 * 1024, 8 * 1024, 1024, 128];

/// Turns drafts into redacted fields. A draft may give none (its text is held back) or two
/// (held text goes out before something else).
#[derive(Debug)]
pub(super) struct Cleaner {
    redactor: Redactor,
    stream: DeltaStream,
    /// The other fields of the held text.
    rest: Map<String, Value>,
}

#[derive(Deserialize, Serialize)]
struct DeltaText {
    text: String,
    delta: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Cleaner {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self {
            stream: DeltaStream::new(redactor.clone()),
            redactor,
            rest: Map::new(),
        }
    }

    /// What may be shown now, in order.
    pub(super) fn clean(&mut self, draft: Draft) -> Vec<Draft> {
        let mut ready = Vec::with_capacity(2);
        match delta_text(&draft) {
            Some(piece) => {
                if piece.rest != self.rest {
                    ready.extend(self.held());
                    self.rest = piece.rest;
                }
                let shown = self.stream.push(&piece.text);
                ready.extend(self.text(shown));
            }
            None => {
                ready.extend(self.held());
                let fields = self.redactor.redact_json(&draft.fields).into_owned();
                ready.push(Draft { fields, ..draft });
            }
        }
        ready
    }

    /// The text held back, because something else comes or nothing follows.
    pub(super) fn held(&mut self) -> Option<Draft> {
        let shown = self.stream.interrupt();
        self.text(shown)
    }

    fn text(&self, text: String) -> Option<Draft> {
        if text.is_empty() {
            return None;
        }
        let fields = DeltaText {
            text,
            delta: true,
            rest: self.rest.clone(),
        };
        super::draft(EventType::AgentText, &fields).map(|draft| Draft {
            fields: self.redactor.redact_json(&draft.fields).into_owned(),
            ..draft
        })
    }
}

fn delta_text(draft: &Draft) -> Option<DeltaText> {
    if draft.kind != EventType::AgentText {
        return None;
    }
    // Text that is no Unicode (a lone surrogate) is treated as a whole event.
    serde_json::from_str::<DeltaText>(draft.fields.get())
        .ok()
        .filter(|text| text.delta)
}

/// The wire form, newline included; at most [`MAX_EVENT_BYTES`] and a newline.
pub(super) fn encode(n: u64, event: &Draft) -> Vec<u8> {
    let fields = fitting(event.fields.get());
    let kind = event.kind.as_str();
    let mut line = format!(r#"{{"n":{n},"type":"{kind}","fields":{fields}}}"#).into_bytes();
    // Between JSON's tokens a line break is white space; inside strings there is none.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line
}

/// The fields, cut until they fit, and then saying so.
fn fitting(fields: &str) -> std::borrow::Cow<'_, str> {
    let most = MAX_EVENT_BYTES - FRAME_BYTES;
    if fields.len() <= most {
        return fields.into();
    }
    for bound in STRING_BOUNDS {
        let short = json::shorten_strings(fields, bound);
        if short.len() <= most {
            return say_truncated(&short).into();
        }
    }
    // Countless small parts: what is left is the beginning of the text itself.
    let mut end = most / 4;
    while !fields.is_char_boundary(end) {
        end -= 1;
    }
    let start = serde_json::to_string(&fields[..end]).expect("a string always serializes");
    format!(r#"{{"truncated":true,"data":{start}}}"#).into()
}

fn say_truncated(fields: &str) -> String {
    let members = fields.trim_start().strip_prefix('{').unwrap_or("}");
    let comma = if members.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    format!(r#"{{"truncated":true{comma}{members}"#)
}

/// Stands in for an event that the dispatcher refuses by its content.
pub(super) fn substitute(n: u64, kind: &str, reason: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Said {
        message: String,
    }
    let said = Said {
        message: format!("An event of type {kind} was left out: {reason}"),
    };
    let fields: Box<RawValue> =
        serde_json::value::to_raw_value(&said).expect("a text always serializes");
    let kind = EventType::Message;
    encode(n, &Draft { kind, fields })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawlink_shared::event::WorkerEvent;

    fn check(fields: &str) -> WorkerEvent {
        let draft = Draft {
            kind: EventType::AssistantMessage,
            fields: RawValue::from_string(fields.into()).unwrap(),
        };
        let line = encode(7, &draft);
        assert!(line.len() <= MAX_EVENT_BYTES + 1, "{}", line.len());
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let fields = r#"{"a":"\ud800\u0000","big":123456789012345678901234567890}"#;
        assert_eq!(check(fields).fields.get(), fields);
        assert_eq!(check("{\n \"a\":\r1}").fields.get(), "{  \"a\": 1}");
    }

    #[test]
    fn long_strings_are_cut_at_character_and_escape_boundaries() {
        for filler in ["x", "é", "\\u00e9", "\\ud83d\\ude00", "\\\\", "\\\""] {
            for shift in 0..12 {
                let text = "y".repeat(shift) + &filler.repeat(400_000 / filler.len());
                let event = check(&format!(r#"{{"data":{{"text":"{text}"}},"k":[1]}}"#));
                let fields = event.fields.get();
                assert!(fields.starts_with(r#"{"truncated":true,"data":{"text":"y"#) || shift == 0);
                assert!(fields.ends_with(r#"…"},"k":[1]}"#), "{filler} {shift}");
                serde_json::from_str::<Value>(fields).unwrap();
            }
        }
    }

    #[test]
    fn countless_small_parts_are_cut_too() {
        let fields = format!(r#"{{"data":[{}1]}}"#, "1,".repeat(300_000));
        let event = check(&fields);
        assert!(
            event
                .fields
                .get()
                .starts_with(r#"{"truncated":true,"data":"{\"data\":[1,1"#)
        );
    }
}
