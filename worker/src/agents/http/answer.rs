//! The body of an answer as records: server-sent events, or a JSON object per line. Records are
//! bounded as every agent's lines are.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use tokio::io::AsyncRead;

use crate::agents::MAX_LINE_BYTES;
use crate::agents::lines::{Line, Lines};

/// How records stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `data:` lines, up to an empty line.
    Events,
    /// One per line.
    Lines,
}

/// Reads records.
#[derive(Debug)]
pub(super) struct Records<R> {
    lines: Lines<R>,
    format: Format,
}

impl Format {
    /// As the answer says it.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.trim_start().starts_with("text/event-stream")) {
            Self::Events
        } else {
            Self::Lines
        }
    }
}

impl<R: AsyncRead + Unpin> Records<R> {
    pub(super) fn new(body: R, format: Format) -> Self {
        Self {
            lines: Lines::new(body),
            format,
        }
    }

    /// The next record; `None` at the end of the body. One that is empty only says that the other
    /// side lives: an empty line, or a comment between events.
    pub(super) async fn next(&mut self) -> Option<Line> {
        match self.format {
            Format::Lines => self.lines.next().await,
            Format::Events => self.event().await,
        }
    }

    /// An event's data; empty as soon as something else than data comes before it.
    async fn event(&mut self) -> Option<Line> {
        let mut data = Line {
            text: String::new(),
            dropped: 0,
        };
        loop {
            let Some(line) = self.lines.next().await else {
                // An event that was not finished still says what it says.
                return (!data.text.is_empty()).then_some(data);
            };
            data.dropped += line.dropped;
            let text = line.text.trim_end_matches('\r');
            if text.is_empty() {
                return Some(data);
            }
            let Some(piece) = text.strip_prefix("data:") else {
                if data.text.is_empty() {
                    return Some(data);
                }
                continue;
            };
            let piece = piece.strip_prefix(' ').unwrap_or(piece);
            let separator = if data.text.is_empty() { "" } else { "\n" };
            if data.text.len() + separator.len() + piece.len() > MAX_LINE_BYTES {
                data.dropped += piece.len() as u64;
                continue;
            }
            data.text.push_str(separator);
            data.text.push_str(piece);
        }
    }
}
