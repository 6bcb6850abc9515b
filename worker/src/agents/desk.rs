//! Where an agent asks people, and where people speak to it while it runs.
//!
//! An agent's request for permission becomes a [`Question`]; whoever may answer (a policy, a
//! person, the clock) does so through the dispatcher. Text that somebody sends to a running
//! agent arrives here too. A question never outlives its run.
//!
//! Everything that leaves this desk is an event: so it stands in the log in its place, is
//! redacted, and is repeated until a dispatcher has it. What comes back are orders.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clawlink_shared::approval::{
    DENIED_BY_RULE, MAX_INPUT_BYTES, MAX_MESSAGES, MAX_OPEN_QUESTIONS, MAX_TOOL_BYTES, Requested,
    TOO_MANY_QUESTIONS, Taken, UNANSWERED, Withdrawn,
};
use clawlink_shared::event::EventType;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

pub use clawlink_shared::approval::QuestionKind;

use crate::events::EventSink;
use crate::redact::{self, Redactor};

/// What an agent reads when somebody denies without a word.
pub const UNEXPLAINED: &str = "This was not allowed.";

/// What it reads when there is nobody who could answer.
const NOBODY: &str = "This needs an approval, and there is nobody to ask. \
                      Go on without it, or say what you would have done.";

/// What it reads when those who could have answered are gone.
const GONE: &str = "Nobody answers any more.";

/// Denials in which no person says anything.
const WORDLESS: [&str; 6] = [
    UNEXPLAINED,
    NOBODY,
    GONE,
    UNANSWERED,
    DENIED_BY_RULE,
    TOO_MANY_QUESTIONS,
];

/// Plans that one run shows at most; of the last one nothing more is heard.
pub const MAX_PLANS: u32 = 16;

/// Bounds to which the strings of an input are cut, one after the other, until it fits.
const STRING_BOUNDS: [usize; 4] = [32 * 1024, 8 * 1024, 1024, 128];

/// What an agent wants to know before it goes on.
#[derive(Debug, Clone)]
pub struct Question {
    /// What kind of step it is.
    pub kind: QuestionKind,
    /// The tool's name as the agent says it: `Bash`, `exec_command`, …
    pub tool: String,
    /// The tool's arguments as the agent says them; for a plan, `{"plan": "<text>"}`.
    pub input: Value,
}

/// What people said.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It may.
    Allow {
        /// Also every further step of that kind, as far as the agent can remember it.
        for_session: bool,
    },
    /// It may not.
    Deny {
        /// Why, for the agent to read.
        message: String,
    },
}

impl Answer {
    /// What a person said when refusing; `None` if nobody said anything.
    pub fn words(&self) -> Option<&str> {
        match self {
            Self::Deny { message } if !WORDLESS.contains(&message.as_str()) => Some(message),
            Self::Deny { .. } | Self::Allow { .. } => None,
        }
    }

    /// What the agent is told of a refusal, unless that is no more than the refusal itself.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Deny { message } if message != UNEXPLAINED && !message.is_empty() => {
                Some(message)
            }
            Self::Deny { .. } | Self::Allow { .. } => None,
        }
    }

    fn deny(message: &str) -> Self {
        Self::Deny {
            message: message.to_owned(),
        }
    }
}

/// The agent's side of the conversation with people; clones share it. By default nobody sits
/// on the other side: everything is denied.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    office: Arc<Office>,
}

#[derive(Debug, Default)]
struct Office {
    /// To the people, if there are any.
    line: Option<Line>,
    /// Questions without an answer.
    open: Mutex<HashMap<Uuid, oneshot::Sender<Answer>>>,
    /// What people said and the agent has not taken.
    texts: Mutex<VecDeque<(Uuid, String)>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Line {
    events: EventSink,
    redactor: Redactor,
}

impl Office {
    fn open(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<Answer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn texts(&self) -> MutexGuard<'_, VecDeque<(Uuid, String)>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// A desk whose questions go out as events.
    pub fn new(events: EventSink, redactor: Redactor) -> Self {
        let office = Office {
            line: Some(Line { events, redactor }),
            ..Office::default()
        };
        Self {
            office: Arc::new(office),
        }
    }

    /// Asks, and waits for the answer. Whoever no longer waits drops the future, which
    /// withdraws the question.
    pub async fn ask(&self, question: Question) -> Answer {
        let Some(line) = &self.office.line else {
            return Answer::deny(NOBODY);
        };
        let id = Uuid::new_v4();
        let (answer, answered) = oneshot::channel();
        {
            let mut open = self.office.open();
            if open.len() >= MAX_OPEN_QUESTIONS {
                return Answer::deny(TOO_MANY_QUESTIONS);
            }
            open.insert(id, answer);
        }
        let mut asked = Asked {
            office: &self.office,
            id,
            is_told: false,
        };
        let requested = requested(id, question, &line.redactor);
        line.events
            .emit(EventType::ApprovalRequested, &requested)
            .await;
        asked.is_told = true;
        answered.await.unwrap_or_else(|_| Answer::deny(GONE))
    }

    /// The next text that a person sends to the running agent; pending while nobody does.
    /// Only agents that can take one ask. Whoever stops waiting loses none.
    pub async fn next_message(&self) -> String {
        let Some(line) = &self.office.line else {
            return std::future::pending().await;
        };
        loop {
            let mut arrived = pin!(self.office.arrived.notified());
            arrived.as_mut().enable();
            if self.office.texts().is_empty() {
                arrived.await;
                continue;
            }
            // Nothing is taken before there is room to say so.
            let Some(room) = line.events.room().await else {
                return std::future::pending().await;
            };
            let next = self.office.texts().pop_front();
            let Some((message_id, text)) = next else {
                continue;
            };
            let taken = Taken { message_id, text };
            room.emit(EventType::UserMessage, &taken);
            return taken.text;
        }
    }

    /// Passes on an answer; one that nobody waits for is dropped.
    pub fn answered(&self, id: Uuid, answer: Answer) {
        let waiting = self.office.open().remove(&id);
        if let Some(waiting) = waiting {
            let _no_longer = waiting.send(answer);
        }
    }

    /// Puts down what a person says until the agent takes it. What finds no room here becomes
    /// the session's next turn, like everything that the agent does not take.
    pub fn put(&self, id: Uuid, text: String) {
        let mut texts = self.office.texts();
        if texts.len() < MAX_MESSAGES {
            texts.push_back((id, text));
            self.office.arrived.notify_waiters();
        }
    }
}

/// A question on its way; dropped unanswered, it is withdrawn.
struct Asked<'a> {
    office: &'a Arc<Office>,
    id: Uuid,
    is_told: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let is_unanswered = self.office.open().remove(&self.id).is_some();
        if !is_unanswered || !self.is_told {
            return;
        }
        let (office, approval_id) = (self.office.clone(), self.id);
        // The dispatcher withdraws what is open when a run ends; this is for runs that go on.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(line) = &office.line {
                    let withdrawn = Withdrawn { approval_id };
                    line.events
                        .emit(EventType::ApprovalWithdrawn, &withdrawn)
                        .await;
                }
            });
        }
    }
}

fn requested(approval_id: Uuid, question: Question, redactor: &Redactor) -> Requested {
    let mut tool = question.tool;
    tool.truncate(tool.floor_char_boundary(MAX_TOOL_BYTES));
    let (input, partial) = shown(&question.input, redactor);
    Requested {
        approval_id,
        kind: question.kind,
        tool,
        input,
        partial,
    }
}

/// An input as people and policies may see it: redacted, then cut to its bound; also whether
/// anything is missing in it.
fn shown(input: &Value, redactor: &Redactor) -> (Box<RawValue>, bool) {
    let whole = to_raw_value(input).expect("a JSON value always serializes");
    let clean = redactor.redact_json(&whole);
    let is_masked = matches!(clean, Cow::Owned(_));
    if clean.get().len() <= MAX_INPUT_BYTES {
        return (clean.into_owned(), is_masked);
    }
    let cut = STRING_BOUNDS.into_iter().find_map(|bound| {
        let short = redact::json::shorten_strings(clean.get(), bound);
        RawValue::from_string(short)
            .ok()
            .filter(|short| short.get().len() <= MAX_INPUT_BYTES)
    });
    let nothing = || to_raw_value(&serde_json::json!({"truncated": true}));
    let cut = cut.unwrap_or_else(|| nothing().expect("a small object serializes"));
    (cut, true)
}

#[cfg(test)]
mod tests {
    use clawlink_shared::secret::Secret;
    use serde_json::json;

    use super::*;
    use crate::events::{DRAFTS, Draft};
    use futures::FutureExt;
    use tokio::sync::mpsc::Receiver;

    fn desk() -> (Desk, Receiver<Draft>) {
        let (events, drafts) = EventSink::channel();
        let redactor = Redactor::new([&Secret::new("secret-of-the-run")]);
        (Desk::new(events, redactor), drafts)
    }

    fn question(command: &str) -> Question {
        Question {
            kind: QuestionKind::Tool,
            tool: "Bash".to_owned(),
            input: json!({ "command": command }),
        }
    }

    async fn asked(drafts: &mut Receiver<Draft>) -> Requested {
        let draft = drafts.recv().await.unwrap();
        assert_eq!(draft.kind, EventType::ApprovalRequested);
        serde_json::from_str(draft.fields.get()).unwrap()
    }

    #[tokio::test]
    async fn several_questions_wait_for_their_own_answers() {
        let (desk, mut drafts) = desk();
        let ask = |command: &'static str| {
            let desk = desk.clone();
            tokio::spawn(async move { desk.ask(question(command)).await })
        };
        let first = ask("one");
        let one = asked(&mut drafts).await;
        let second = ask("two");
        let two = asked(&mut drafts).await;
        assert!(!one.partial && one.input.get() == r#"{"command":"one"}"#);
        desk.answered(two.approval_id, Answer::Allow { for_session: true });
        assert_eq!(second.await.unwrap(), Answer::Allow { for_session: true });
        desk.answered(one.approval_id, Answer::deny("no"));
        assert_eq!(first.await.unwrap(), Answer::deny("no"));
    }

    #[test]
    fn only_people_have_words_and_no_agent_is_told_a_bare_refusal() {
        for (message, words, reason) in [
            ("use another name", true, true),
            (UNANSWERED, false, true),
            (DENIED_BY_RULE, false, true),
            (NOBODY, false, true),
            (UNEXPLAINED, false, false),
        ] {
            let answer = Answer::deny(message);
            assert_eq!(answer.words(), words.then_some(message));
            assert_eq!(answer.reason(), reason.then_some(message));
        }
        let allowed = Answer::Allow { for_session: false };
        assert_eq!((allowed.words(), allowed.reason()), (None, None));
    }

    #[tokio::test]
    async fn what_is_masked_or_cut_says_so() {
        let (desk, mut drafts) = desk();
        for command in ["echo secret-of-the-run".to_owned(), "x".repeat(300_000)] {
            let asking = {
                let (desk, command) = (desk.clone(), command.clone());
                tokio::spawn(async move { desk.ask(question(&command)).await })
            };
            let requested = asked(&mut drafts).await;
            assert!(requested.partial);
            assert!(requested.input.get().len() <= MAX_INPUT_BYTES);
            assert!(!requested.input.get().contains("secret-of-the-run"));
            asking.abort();
        }
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_is_withdrawn() {
        let (desk, mut drafts) = desk();
        let asking = {
            let desk = desk.clone();
            tokio::spawn(async move { desk.ask(question("one")).await })
        };
        let requested = asked(&mut drafts).await;
        asking.abort();
        let draft = drafts.recv().await.unwrap();
        assert_eq!(draft.kind, EventType::ApprovalWithdrawn);
        let withdrawn: Withdrawn = serde_json::from_str(draft.fields.get()).unwrap();
        assert_eq!(withdrawn.approval_id, requested.approval_id);
        desk.answered(requested.approval_id, Answer::deny("late"));
    }

    #[tokio::test]
    async fn texts_are_taken_in_order_and_told_and_none_is_lost_by_not_waiting() {
        let (desk, mut drafts) = desk();
        assert_eq!(desk.next_message().now_or_never(), None);
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        desk.put(ids[0], "one".to_owned());
        desk.put(ids[1], "two".to_owned());
        let events = desk.office.line.as_ref().unwrap().events.clone();
        for _ in 0..DRAFTS {
            events.message("full").await;
        }
        assert_eq!(
            desk.next_message().now_or_never(),
            None,
            "no room to say so"
        );
        for _ in 0..DRAFTS {
            drafts.recv().await.unwrap();
        }
        for (id, text) in ids.into_iter().zip(["one", "two"]) {
            assert_eq!(desk.next_message().await, text);
            let draft = drafts.recv().await.unwrap();
            assert_eq!(draft.kind, EventType::UserMessage);
            let taken: Taken = serde_json::from_str(draft.fields.get()).unwrap();
            assert_eq!((taken.message_id, taken.text.as_str()), (id, text));
        }
    }
}
