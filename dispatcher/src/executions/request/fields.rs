//! Walking a JSON body by hand: every fault is collected, none ends the walk.

use clawlink_shared::problem::FieldFault;
use serde_json::{Map, Value};

/// Faults named in one answer; further ones are only counted.
const MAX_FAULTS: usize = 50;
/// How much of a client's own key is repeated in a fault, in characters.
const MAX_SHOWN: usize = 60;

/// The faults of a body so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<FieldFault>,
    more: usize,
}

impl Faults {
    pub(super) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.list.len() == MAX_FAULTS {
            self.more += 1;
            return;
        }
        self.list.push(FieldFault {
            field: field.into(),
            message: message.into(),
        });
    }

    /// All faults; empty means that the body is good.
    pub(super) fn into_list(mut self) -> Vec<FieldFault> {
        if self.more > 0 {
            self.list.push(FieldFault {
                field: "body".into(),
                message: format!("{} more faults are not listed", self.more),
            });
        }
        self.list
    }
}

/// One JSON object of the body. Asking for a key makes it a known one; `null` counts as absent.
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Reads `value` at `path` (empty for the body itself) as an object.
    pub(super) fn of(value: &'a Value, path: &str, faults: &mut Faults) -> Option<Self> {
        let Value::Object(map) = value else {
            let place = if path.is_empty() { "body" } else { path };
            faults.add(place, "must be a JSON object");
            return None;
        };
        Some(Self {
            path: path.to_owned(),
            map,
            known: Vec::new(),
        })
    }

    /// The path of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            shown(key)
        } else {
            format!("{}.{}", self.path, shown(key))
        }
    }

    /// The raw value.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A nested object.
    pub(super) fn object(&mut self, key: &'static str, faults: &mut Faults) -> Option<Fields<'a>> {
        let path = self.path(key);
        Fields::of(self.get(key)?, &path, faults)
    }

    /// A string of 1 to `max` bytes.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        max: usize,
        faults: &mut Faults,
    ) -> Option<&'a str> {
        let value = self.get(key)?;
        text(value, &self.path(key), max, faults)
    }

    /// A boolean.
    pub(super) fn flag(&mut self, key: &'static str, faults: &mut Faults) -> Option<bool> {
        let value = self.get(key)?;
        if value.as_bool().is_none() {
            faults.add(self.path(key), "must be true or false");
        }
        value.as_bool()
    }

    /// A whole number within bounds.
    pub(super) fn whole(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        faults: &mut Faults,
    ) -> Option<u64> {
        let number = self
            .get(key)?
            .as_u64()
            .filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!(
                "must be a whole number from {} to {}",
                range.start(),
                range.end()
            );
            faults.add(self.path(key), message);
        }
        number
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        faults: &mut Faults,
    ) -> Option<T> {
        let value = self.get(key)?;
        let found = choices
            .iter()
            .find(|(word, _)| value.as_str() == Some(word))
            .map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            faults.add(
                self.path(key),
                format!("must be one of {}", words.join(", ")),
            );
        }
        found
    }

    /// Names every key that nobody asked for.
    pub(super) fn finish(self, faults: &mut Faults) {
        for key in self.map.keys() {
            if !self.known.contains(&key.as_str()) {
                let mut known = self.known.clone();
                known.sort_unstable();
                let message = format!("is not known here; known are {}", known.join(", "));
                faults.add(self.path(key), message);
            }
        }
    }
}

/// A string of 1 to `max` bytes.
pub(super) fn text<'a>(
    value: &'a Value,
    path: &str,
    max: usize,
    faults: &mut Faults,
) -> Option<&'a str> {
    let Value::String(text) = value else {
        faults.add(path, "must be a string");
        return None;
    };
    if text.is_empty() {
        faults.add(path, "must not be empty");
        return None;
    }
    if text.len() > max {
        faults.add(path, format!("must not be longer than {max} bytes"));
        return None;
    }
    Some(text)
}

/// Finds NUL characters, in values and keys, however deep: neither Postgres nor a program's
/// arguments can carry them.
pub(super) fn refuse_nul(value: &Value, path: &str, faults: &mut Faults) {
    match value {
        Value::String(text) if text.contains('\0') => {
            let place = if path.is_empty() { "body" } else { path };
            faults.add(place, "must not contain a NUL character");
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                refuse_nul(item, &format!("{path}[{index}]"), faults);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let inside = if path.is_empty() {
                    shown(key)
                } else {
                    format!("{path}.{}", shown(key))
                };
                if key.contains('\0') {
                    faults.add(inside.clone(), "is a key with a NUL character");
                }
                refuse_nul(item, &inside, faults);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A client's own key, fit to be repeated in an answer.
fn shown(key: &str) -> String {
    key.chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
