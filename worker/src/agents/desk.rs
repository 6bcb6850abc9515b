//! Where an agent asks people, and where people speak to it while it runs.
//!
//! An agent's request for permission becomes a [`Question`]; whoever may answer (a policy, a
//! person, the clock) does so through the dispatcher. Text that somebody sends to a running
//! agent arrives here too. A question never outlives its run.

use serde_json::Value;

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

/// Kinds of questions, on the wire in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionKind {
    /// It wants to use a tool.
    Tool,
    /// It has made a plan, and wants to carry it out.
    Plan,
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

/// The agent's side of the conversation with people; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Desk {}

impl Desk {
    /// Asks, and waits for the answer. Whoever no longer waits drops the future, which
    /// withdraws the question.
    pub async fn ask(&self, _question: Question) -> Answer {
        Answer::Deny {
            message: "This needs an approval, and approvals are not available yet. \
                      Go on without it, or say what you would have done."
                .to_owned(),
        }
    }

    /// The next text that a person sends to the running agent; pending while nobody does.
    /// Only agents that can take one ask.
    pub async fn next_message(&self) -> String {
        std::future::pending().await
    }
}
