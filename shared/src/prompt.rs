//! The request's text and images, as clients send them and agents receive them.

use serde::{Deserialize, Serialize};

/// One part of a prompt, in the shape that Anthropic's Messages API made common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum PromptPart {
    /// Plain text.
    Text {
        /// The text itself.
        text: String,
    },
    /// A picture, inline.
    Image {
        /// Where its bytes are.
        source: ImageSource,
    },
}

/// The bytes of an image; only base64 is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ImageSource {
    /// Inline base64.
    Base64 {
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
        media_type: String,
        /// Standard base64 of the file.
        data: String,
    },
}

/// Media types of images that agents accept.
pub const IMAGE_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// All text parts, joined by newlines.
pub fn text_of(parts: &[PromptPart]) -> String {
    let mut text = String::new();
    for part in parts {
        if let PromptPart::Text { text: piece } = part {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(piece);
        }
    }
    text
}
