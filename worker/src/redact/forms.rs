//! The spellings under which one secret may be printed: plain, inside JSON, base64 at any
//! alignment, URL-encoded.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::MIN_SECRET_BYTES;

/// A line of a longer secret is a secret itself from this length on: agents print line by line.
const MIN_LINE_BYTES: usize = 16;

/// Adds every form of one secret; of a JSON credential also those of each string in it.
pub(super) fn of_secret(secret: &str, forms: &mut Vec<Vec<u8>>) {
    let secret = secret.trim();
    of_value(secret, forms);
    for line in secret.lines().map(str::trim) {
        if line.len() >= MIN_LINE_BYTES && line.len() < secret.len() {
            of_value(line, forms);
        }
    }
    if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(secret) {
        let mut rest = vec![document];
        while let Some(value) = rest.pop() {
            match value {
                Value::String(text) => of_value(&text, forms),
                Value::Array(items) => rest.extend(items),
                Value::Object(members) => rest.extend(members.into_iter().map(|(_, v)| v)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
    }
}

fn of_value(value: &str, forms: &mut Vec<Vec<u8>>) {
    if value.len() < MIN_SECRET_BYTES {
        return;
    }
    forms.push(value.into());
    forms.push(json_inside(value).into());
    forms.push(json_inside(value).replace('/', "\\/").into());
    for kept in ["-_.~", "-_.~!'()*"] {
        for upper in [true, false] {
            let encoded = percent(value, kept, upper);
            forms.push(encoded.replace("%20", "+").into());
            forms.push(encoded.into());
        }
    }
    for shift in 0..3 {
        forms.push(base64_inside(&STANDARD_NO_PAD, value, shift));
        forms.push(base64_inside(&URL_SAFE_NO_PAD, value, shift));
    }
}

/// As a JSON string without its quotes.
fn json_inside(value: &str) -> String {
    let quoted = serde_json::to_string(value).expect("a string always serializes");
    quoted[1..quoted.len() - 1].to_owned()
}

/// The characters that are certain when the value stands `shift` bytes into a base64 triple,
/// whatever stands around it.
fn base64_inside(engine: &impl Engine, value: &str, shift: usize) -> Vec<u8> {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(value.as_bytes());
    let uncertain = (shift * 8).div_ceil(6);
    let certain_until = bytes.len() * 8 / 6;
    engine.encode(&bytes).as_bytes()[uncertain..certain_until].to_vec()
}

fn percent(value: &str, kept: &str, upper: bool) -> String {
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else if upper {
            encoded.push_str(&format!("%{byte:02X}"));
        } else {
            encoded.push_str(&format!("%{byte:02x}"));
        }
    }
    encoded
}
