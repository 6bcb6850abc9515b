//! `userRequest`: a string, or text and image parts.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clawlink_shared::prompt::{IMAGE_TYPES, ImageSource, PromptPart};
use serde_json::Value;

use super::fields::{Faults, Fields, text};

/// Longest text, in bytes: of the string, or of one part.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// Most parts of one request.
const MAX_PARTS: usize = 100;
/// Largest image, in bytes of the file.
const MAX_IMAGE: usize = 5 * 1024 * 1024;

pub(super) fn read(body: &mut Fields, faults: &mut Faults) -> Vec<PromptPart> {
    const KEY: &str = "userRequest";
    match body.get(KEY) {
        None => faults.add(KEY, "is required: what the agent is to do"),
        Some(Value::Array(parts)) if parts.len() > MAX_PARTS => {
            faults.add(KEY, format!("must not have more than {MAX_PARTS} parts"));
        }
        Some(Value::Array(parts)) => {
            if parts.is_empty() {
                faults.add(KEY, "must have at least one part");
            }
            return parts
                .iter()
                .enumerate()
                .filter_map(|(index, part)| read_part(part, &format!("{KEY}[{index}]"), faults))
                .collect();
        }
        Some(value @ Value::String(_)) => {
            let text = text(value, KEY, MAX_TEXT, faults);
            if text.is_some_and(|text| text.trim().is_empty()) {
                faults.add(KEY, "must not be blank");
            }
            return text.map(text_part).into_iter().collect();
        }
        Some(_) => faults.add(KEY, "must be a string or an array of parts"),
    }
    Vec::new()
}

fn text_part(text: &str) -> PromptPart {
    PromptPart::Text { text: text.into() }
}

fn read_part(value: &Value, path: &str, faults: &mut Faults) -> Option<PromptPart> {
    let mut part = Fields::of(value, path, faults)?;
    let kind = part.get("type").and_then(Value::as_str);
    let read = match kind {
        Some("text") => {
            if part.get("text").is_none() {
                faults.add(part.path("text"), "is required");
            }
            part.text("text", MAX_TEXT, faults).map(text_part)
        }
        Some("image") => {
            if part.get("source").is_none() {
                faults.add(part.path("source"), "is required");
            }
            let source = part.object("source", faults);
            source
                .and_then(|source| read_source(source, faults))
                .map(|source| PromptPart::Image { source })
        }
        _ => {
            faults.add(part.path("type"), "must be text or image");
            return None;
        }
    };
    part.finish(faults);
    read
}

fn read_source(mut source: Fields, faults: &mut Faults) -> Option<ImageSource> {
    for key in ["type", "media_type", "data"] {
        if source.get(key).is_none() {
            faults.add(source.path(key), "is required");
        }
    }
    source.choice("type", &[("base64", ())], faults);
    let media_type = source.choice("media_type", &IMAGE_TYPES.map(|name| (name, name)), faults);
    let data = source.text("data", MAX_IMAGE.div_ceil(3) * 4, faults);
    let path = source.path("data");
    source.finish(faults);
    let data = data?;
    if BASE64_STANDARD.decode(data).is_err() {
        faults.add(path, "must be standard base64, with padding");
        return None;
    }
    Some(ImageSource::Base64 {
        media_type: media_type?.to_owned(),
        data: data.to_owned(),
    })
}
