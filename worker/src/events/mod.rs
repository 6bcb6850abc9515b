//! Where everything that a worker learns goes: a bounded channel of drafts, which a pump
//! numbers, redacts, batches, keeps on disk until acknowledged, and sends.
//!
//! A full channel makes `emit` wait, which stops reading the agent's pipe: memory is bounded
//! by [`DRAFTS`] whatever the agent prints.
//!
//! Text that arrives in pieces goes out as `agent_text` with `delta: true` and in no other
//! type: only there are secrets found that are split between two events.

mod line;
mod pump;
mod spool;

use clawlink_shared::control::MAX_EVENT_BYTES;
use clawlink_shared::event::EventType;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::meter::Meter;

pub use pump::Pump;
pub use spool::SPOOL_BYTES;

/// Drafts that may wait for the pump.
pub const DRAFTS: usize = 64;

/// An event before it has a number; not yet redacted.
#[derive(Debug)]
pub struct Draft {
    /// Its type; one that a worker may send.
    pub kind: EventType,
    /// A JSON object.
    pub fields: Box<RawValue>,
}

/// The cloneable end that producers hold.
#[derive(Debug, Clone)]
pub struct EventSink {
    drafts: mpsc::Sender<Draft>,
    /// Looks at what an agent says.
    meter: Option<Meter>,
}

impl EventSink {
    /// A sink and what is poured into it.
    pub fn channel() -> (Self, mpsc::Receiver<Draft>) {
        let (drafts, receiver) = mpsc::channel(DRAFTS);
        let meter = None;
        (Self { drafts, meter }, receiver)
    }

    /// The same sink for an agent, whose events pass this meter.
    pub fn metered(&self, meter: Meter) -> Self {
        Self {
            meter: Some(meter),
            ..self.clone()
        }
    }

    /// Emits one event; waits while the pump is behind. `fields` must serialize to an object.
    pub async fn emit(&self, kind: EventType, fields: &(impl Serialize + ?Sized)) {
        if let Some(mut draft) = draft(kind, fields) {
            if let Some(meter) = &self.meter {
                draft.fields = meter.pass(kind, draft.fields);
            }
            // The pump is gone only when the execution is given up: nobody is left to tell.
            if let Ok(mut slots) = self.drafts.reserve_many(slots(&draft)).await
                && let Some(slot) = slots.next()
            {
                slot.send(draft);
            }
        }
    }

    /// Waits for room for one event within the bound; `None` when the execution is given up.
    pub async fn room(&self) -> Option<Room<'_>> {
        self.drafts.reserve().await.ok().map(Room)
    }

    /// The same from a blocking thread.
    pub fn emit_blocking(&self, kind: EventType, fields: &(impl Serialize + ?Sized)) {
        if let Some(draft) = draft(kind, fields) {
            let _given_up = self.drafts.blocking_send(draft);
        }
    }

    /// A `message` event.
    pub async fn message(&self, text: impl Into<String>) {
        self.emit(
            EventType::Message,
            &Message {
                message: text.into(),
            },
        )
        .await;
    }
}

/// Room for one event, which takes no more waiting.
#[derive(Debug)]
pub struct Room<'a>(mpsc::Permit<'a, Draft>);

impl Room<'_> {
    /// Emits the event. `fields` must serialize to an object.
    pub fn emit(self, kind: EventType, fields: &(impl Serialize + ?Sized)) {
        if let Some(draft) = draft(kind, fields) {
            self.0.send(draft);
        }
    }
}

/// A draft beyond an event's bound waits until it is alone: one of 16 MiB may be on its way,
/// not [`DRAFTS`] of them.
fn slots(draft: &Draft) -> usize {
    if draft.fields.get().len() > MAX_EVENT_BYTES {
        DRAFTS
    } else {
        1
    }
}

#[derive(Serialize)]
struct Message {
    message: String,
}

fn draft(kind: EventType, fields: &(impl Serialize + ?Sized)) -> Option<Draft> {
    match serde_json::value::to_raw_value(fields) {
        Ok(fields) => Some(Draft { kind, fields }),
        Err(error) => {
            tracing::error!(%error, kind = kind.as_str(), "event does not serialize");
            None
        }
    }
}
