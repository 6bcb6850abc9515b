//! The loop that every agent process shares: lines in, events out, questions to people and
//! their answers back, a stop obeyed.
//!
//! Events that the pump does not take yet hold back reading, and nothing else: a stop and a
//! watchdog work while the pump stands still.

use std::collections::VecDeque;
use std::time::Duration;

use clawlink_shared::event::EventType;
use futures::future::{BoxFuture, select_all};
use serde::Serialize;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::desk::{Answer, Desk, Question};
use super::process::{Output, Process};
use super::{MAX_LINE_BYTES, StopReason, stopped};
use crate::events::{Draft, EventSink};

/// Questions of one run that may wait for their answers at the same time; further ones are
/// denied.
const MAX_QUESTIONS: usize = 64;

/// What an agent's side of the loop decides.
pub(super) trait Dialogue: Send {
    /// Takes one line and says what follows from it; may answer through `process`.
    fn hear(&mut self, output: Output, process: &mut Process) -> Heard;

    /// Asks the program to stop by its own means; it is ended when the returned time is over.
    fn ask_to_stop(&mut self, process: &mut Process) -> Duration;

    /// Passes on the answer to a question that [`Heard::asked`] named so.
    fn answered(&mut self, _id: &str, _answer: Answer, _process: &mut Process) -> Heard {
        Heard::default()
    }

    /// Whether the program can take a person's words now.
    fn is_listening(&self) -> bool {
        false
    }

    /// Passes on what a person says; only while it is listening.
    fn told(&mut self, _text: String, _process: &mut Process) -> Heard {
        Heard::default()
    }
}

/// What follows from a line.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// To be told, in order.
    pub(super) events: Vec<Draft>,
    /// The program has said its last word and is ended if it has not exited by then.
    pub(super) end_within: Option<Duration>,
    /// To be asked.
    pub(super) asked: Vec<Asked>,
    /// Names of questions whose answers nobody waits for any more.
    pub(super) withdrawn: Vec<String>,
}

/// A question of the program.
#[derive(Debug)]
pub(super) struct Asked {
    /// The program's name for it.
    pub(super) id: String,
    pub(super) question: Question,
}

/// What is still to come of what was heard.
#[derive(Default)]
struct Open<'a> {
    untold: VecDeque<Draft>,
    questions: Vec<(String, BoxFuture<'a, Answer>)>,
    end_at: Option<Instant>,
}

/// Runs the loop until the program and its descendants are gone; says whether it was stopped.
pub(super) async fn converse(
    process: &mut Process,
    dialogue: &mut impl Dialogue,
    desk: &Desk,
    events: &EventSink,
    stop: &mut watch::Receiver<Option<StopReason>>,
) -> Option<StopReason> {
    let mut open = Open::default();
    let mut reason = None;
    let mut message = Box::pin(desk.next_message());
    loop {
        tokio::select! {
            biased;
            asked = stopped(stop), if reason.is_none() => {
                reason = Some(asked);
                open.questions.clear();
                open.end_at = Some(Instant::now() + dialogue.ask_to_stop(process));
            }
            () = reached(open.end_at), if open.end_at.is_some() => {
                open.end_at = None;
                process.end().await;
            }
            () = tell(events, open.untold.front()), if !open.untold.is_empty() => {
                open.untold.pop_front();
            }
            (id, answer) = answer_of(&mut open.questions), if !open.questions.is_empty() => {
                let heard = dialogue.answered(&id, answer, process);
                open.take(heard, desk);
            }
            text = &mut message, if reason.is_none() && dialogue.is_listening() => {
                message = Box::pin(desk.next_message());
                let heard = dialogue.told(text, process);
                open.take(heard, desk);
            }
            output = process.next(), if open.untold.is_empty() => {
                let Some(output) = output else {
                    return reason;
                };
                let (Output::Stdout(line) | Output::Stderr(line)) = &output;
                let dropped = line.dropped;
                let mut heard = dialogue.hear(output, process);
                if dropped > 0 {
                    heard.events.push(message_of_cut(dropped));
                }
                if reason.is_some() {
                    heard.asked.clear();
                }
                open.take(heard, desk);
            }
        }
    }
}

impl<'a> Open<'a> {
    fn take(&mut self, heard: Heard, desk: &'a Desk) {
        self.untold.extend(heard.events);
        self.questions
            .retain(|(id, _)| !heard.withdrawn.contains(id));
        for Asked { id, question } in heard.asked {
            let answer: BoxFuture<'a, Answer> = if self.questions.len() < MAX_QUESTIONS {
                Box::pin(desk.ask(question))
            } else {
                let message = "Too many questions are open.".to_owned();
                Box::pin(std::future::ready(Answer::Deny { message }))
            };
            self.questions.push((id, answer));
        }
        if let Some(time) = heard.end_within {
            self.end_at.get_or_insert(Instant::now() + time);
        }
    }
}

/// The next answer to any of these, of which there is at least one.
async fn answer_of(questions: &mut Vec<(String, BoxFuture<'_, Answer>)>) -> (String, Answer) {
    let (answer, at, _) = select_all(questions.iter_mut().map(|(_, answer)| answer)).await;
    (questions.swap_remove(at).0, answer)
}

pub(super) fn message_of_cut(dropped: u64) -> Draft {
    message(format!(
        "A line of the agent's output was longer than {MAX_LINE_BYTES} bytes: {dropped} bytes were \
         left out."
    ))
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

/// Returns at that time; never without one.
pub(super) async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => futures::future::pending().await,
    }
}

/// Tells one event, if there is one.
pub(super) async fn tell(events: &EventSink, draft: Option<&Draft>) {
    if let Some(draft) = draft {
        events.emit(draft.kind, &draft.fields).await;
    }
}
