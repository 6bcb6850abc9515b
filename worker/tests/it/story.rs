//! Recordings of agents' programs, and what a client sees of them.

use clawlink_worker::events::Draft;
use serde_json::{Value, json};

/// The program's lines in a recording; two-way ones wrap each line with its direction.
pub(crate) fn recorded(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        match value["dir"].as_str() {
            None => Some(line.to_owned()),
            Some("out") => Some(value["msg"].to_string()),
            Some(_) => None,
        }
    });
    lines.flatten().collect()
}

/// Events without the long raw messages, deltas joined, and what the parser signals.
#[derive(Default)]
pub(crate) struct Story {
    told: Vec<Value>,
    pub(crate) signals: Vec<Value>,
}

impl Story {
    pub(crate) fn hear(&mut self, events: Vec<Draft>) {
        for event in events {
            let fields: Value = serde_json::from_str(event.fields.get()).unwrap();
            let is_delta = fields["delta"] == json!(true);
            match (event.kind.as_str(), self.told.last_mut()) {
                ("assistant_message", _) => {
                    let data = &fields["data"];
                    let method = &data["method"];
                    self.told.push(if method.is_null() {
                        json!({"forwarded": [data["type"], data["subtype"]]})
                    } else {
                        json!({"forwarded": method})
                    });
                }
                ("agent_text", Some(last)) if is_delta && last["deltas"].is_string() => {
                    let joined = last["deltas"].as_str().unwrap().to_owned();
                    last["deltas"] = json!(joined + fields["text"].as_str().unwrap());
                }
                ("agent_text", _) if is_delta => {
                    self.told.push(json!({"deltas": fields["text"]}));
                }
                (kind, _) => self.told.push(json!({ kind: fields })),
            }
        }
    }

    /// The order of keys says nothing, and depends on how JSON is compiled.
    pub(crate) fn whole(self) -> Value {
        let mut whole = json!({"events": self.told, "signals": self.signals});
        whole.sort_all_objects();
        whole
    }
}
