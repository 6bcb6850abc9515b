//! Secrets across the pieces of one text stream.
//!
//! Only a suffix that may begin a secret is held back. When the stream is interrupted, that
//! suffix must go out: it goes masked if it is long enough to matter, and stays known, so that
//! the rest of the secret is masked when it comes.

use super::{MASK, MIN_SECRET_BYTES, Redactor};

/// One stream of text that arrives in pieces.
#[derive(Debug)]
pub struct DeltaStream {
    redactor: Redactor,
    /// The undecided end of the stream.
    tail: String,
    /// How many bytes of `tail` have gone out already, by an interruption.
    gone: usize,
}

impl DeltaStream {
    /// A stream that has not begun.
    pub fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            tail: String::new(),
            gone: 0,
        }
    }

    /// Takes a piece, gives what can be shown; empty while undecided.
    pub fn push(&mut self, piece: &str) -> String {
        self.tail.push_str(piece);
        let decided = self.tail.len() - self.redactor.unfinished(self.tail.as_bytes());
        let hits = self.redactor.hits(self.tail.as_bytes());
        // A hit that reaches into the undecided part is masked now; that part stays known,
        // because another secret may begin in it.
        let until = hits.last().map_or(decided, |hit| hit.end.max(decided));
        let mut shown = String::with_capacity(until);
        let mut at = self.gone;
        for hit in hits.into_iter().filter(|hit| hit.end > self.gone) {
            if hit.start > at {
                shown.push_str(&self.tail[at..hit.start]);
            }
            shown.push_str(MASK);
            at = hit.end;
        }
        if until > at {
            shown.push_str(&self.tail[at..until]);
        }
        self.tail.drain(..decided);
        self.gone = until.max(self.gone) - decided;
        shown
    }

    /// What was held back, because something else is about to be shown, or nothing follows.
    pub fn interrupt(&mut self) -> String {
        let held = &self.tail[self.gone..];
        let shown = if !held.is_empty() && self.tail.len() >= MIN_SECRET_BYTES {
            MASK.to_owned()
        } else {
            held.to_owned()
        };
        self.gone = self.tail.len();
        shown
    }
}
