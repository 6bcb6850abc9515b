//! The loop that every agent process shares: lines in, events out, a stop obeyed.
//!
//! Events that the pump does not take yet hold back reading, and nothing else: a stop and a
//! watchdog work while the pump stands still.

use std::collections::VecDeque;
use std::time::Duration;

use clawlink_shared::event::EventType;
use serde::Serialize;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::process::{Output, Process};
use super::{MAX_LINE_BYTES, StopReason, stopped};
use crate::events::{Draft, EventSink};

/// What an agent's side of the loop decides.
pub(super) trait Dialogue: Send {
    /// Takes one line and says what follows from it; may answer through `process`.
    fn hear(&mut self, output: Output, process: &mut Process) -> Heard;

    /// Asks the program to stop by its own means; it is ended when the returned time is over.
    fn ask_to_stop(&mut self, process: &mut Process) -> Duration;
}

/// What follows from a line.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// To be told, in order.
    pub(super) events: Vec<Draft>,
    /// The program has said its last word and is ended if it has not exited by then.
    pub(super) end_within: Option<Duration>,
}

/// Runs the loop until the program and its descendants are gone; says whether it was stopped.
pub(super) async fn converse(
    process: &mut Process,
    dialogue: &mut impl Dialogue,
    events: &EventSink,
    stop: &mut watch::Receiver<Option<StopReason>>,
) -> Option<StopReason> {
    let mut untold: VecDeque<Draft> = VecDeque::new();
    let mut reason = None;
    let mut end_at: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            asked = stopped(stop), if reason.is_none() => {
                reason = Some(asked);
                end_at = Some(Instant::now() + dialogue.ask_to_stop(process));
            }
            () = reached(end_at), if end_at.is_some() => {
                end_at = None;
                process.end().await;
            }
            () = tell(events, untold.front()), if !untold.is_empty() => {
                untold.pop_front();
            }
            output = process.next(), if untold.is_empty() => {
                let Some(output) = output else {
                    return reason;
                };
                let (Output::Stdout(line) | Output::Stderr(line)) = &output;
                let dropped = line.dropped;
                let heard = dialogue.hear(output, process);
                untold.extend(heard.events);
                if dropped > 0 {
                    untold.push_back(message(format!(
                        "A line of the agent's output was longer than {MAX_LINE_BYTES} bytes: \
                         {dropped} bytes were left out."
                    )));
                }
                if let Some(time) = heard.end_within {
                    end_at.get_or_insert(Instant::now() + time);
                }
            }
        }
    }
}

/// An event of `kind` with these fields, which serialize to an object.
pub(super) fn draft(kind: EventType, fields: &impl Serialize) -> Draft {
    Draft {
        kind,
        fields: to_raw_value(fields).expect("fields have string keys and no failing types"),
    }
}

/// A `message` event.
pub(super) fn message(text: String) -> Draft {
    draft(EventType::Message, &json!({ "message": text }))
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => futures::future::pending().await,
    }
}

async fn tell(events: &EventSink, draft: Option<&Draft>) {
    if let Some(draft) = draft {
        events.emit(draft.kind, &draft.fields).await;
    }
}
