//! An agent's requests for permission, answered by people or by what the request allows.
//!
//! The protocol's answer is the choice of one of the agent's own options and carries no words:
//! what somebody said when refusing is kept, and becomes the next prompt. What is allowed for the
//! session the dispatcher remembers: an agent's own lasting option may be as wide as a mode, and
//! then steps would pass that no rule of the workspace sees.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent_client_protocol::v1::schema::{
    PermissionOptionKind, RequestPermissionOutcome, RequestPermissionRequest,
    RequestPermissionResponse, SelectedPermissionOutcome, ToolKind,
};
use clawlink_shared::execution::PermissionMode;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::calls::{input_of, tool_of};
use crate::agents::desk::{Answer, Desk, Question, QuestionKind};
use crate::agents::{StopReason, stopped};

/// Questions that may wait for an answer at the same time; a further one is refused.
const MAX_QUESTIONS: usize = 32;

/// Most words of refusals that are kept for the agent.
const MAX_REFUSALS: usize = 16;

/// Who answers.
#[derive(Debug)]
pub(super) struct Permissions {
    desk: Desk,
    mode: PermissionMode,
    /// Ids of calls that are refused whatever the mode.
    refused: &'static [&'static str],
    /// The agent itself holds nothing back while it plans: what changes something is refused.
    only_plans: AtomicBool,
    stop: watch::Receiver<Option<StopReason>>,
    questions: Semaphore,
    /// What people said when they refused, until the agent was told.
    said: Mutex<Vec<String>>,
}

impl Permissions {
    pub(super) fn new(
        desk: Desk,
        mode: PermissionMode,
        refused: &'static [&'static str],
        plans_in_words: bool,
        stop: watch::Receiver<Option<StopReason>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            desk,
            mode,
            refused,
            only_plans: AtomicBool::new(plans_in_words && mode == PermissionMode::Plan),
            stop,
            questions: Semaphore::new(MAX_QUESTIONS),
            said: Mutex::default(),
        })
    }

    /// The answer to one request; `cancelled` when the run is stopped before there is one.
    pub(super) async fn answer(
        &self,
        request: RequestPermissionRequest,
    ) -> RequestPermissionResponse {
        let call = &request.tool_call;
        let is_refused = self.refused.contains(&&*call.tool_call_id.0);
        let changes = !matches!(
            call.fields.kind,
            Some(ToolKind::Read | ToolKind::Search | ToolKind::Fetch)
        );
        let answer = if is_refused || (changes && self.only_plans.load(Ordering::Relaxed)) {
            Some(Answer::Deny {
                message: String::new(),
            })
        } else if self.mode == PermissionMode::BypassPermissions {
            Some(Answer::Allow { for_session: false })
        } else {
            self.ask(&request).await
        };
        RequestPermissionResponse::new(outcome(&request, answer.as_ref()))
    }

    /// The plan is approved: from now on its steps are asked for.
    pub(super) fn end_planning(&self) {
        self.only_plans.store(false, Ordering::Relaxed);
    }

    /// What people said since the last call when they refused something.
    pub(super) fn take_refusals(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask(&self, request: &RequestPermissionRequest) -> Option<Answer> {
        let Ok(_place) = self.questions.try_acquire() else {
            return None;
        };
        // A call always serializes; if not, the question says only that there is one.
        let call: Value = serde_json::to_value(&request.tool_call).unwrap_or_default();
        let tool = tool_of(&call, None);
        let question = Question {
            kind: QuestionKind::Tool,
            tool: tool.clone(),
            input: input_of(&call),
        };
        let mut stop = self.stop.clone();
        let answer = tokio::select! {
            answer = self.desk.ask(question) => answer,
            _ = stopped(&mut stop) => return None,
        };
        if let Some(reason) = answer.reason() {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() < MAX_REFUSALS {
                said.push(format!("{tool} was not permitted: {reason}"));
            }
        }
        Some(answer)
    }
}

/// The agent's option that says what was answered; none of them fits: the request is cancelled.
fn outcome(
    request: &RequestPermissionRequest,
    answer: Option<&Answer>,
) -> RequestPermissionOutcome {
    use PermissionOptionKind::{AllowAlways, AllowOnce, RejectAlways, RejectOnce};
    let wanted = match answer {
        None => return RequestPermissionOutcome::Cancelled,
        Some(Answer::Allow { .. }) => [AllowOnce, AllowAlways],
        Some(Answer::Deny { .. }) => [RejectOnce, RejectAlways],
    };
    let mut options = wanted.iter().filter_map(|kind| {
        let option = request.options.iter().find(|option| option.kind == *kind)?;
        Some(option.option_id.clone())
    });
    options
        .next()
        .map_or(RequestPermissionOutcome::Cancelled, |option| {
            RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option))
        })
}
