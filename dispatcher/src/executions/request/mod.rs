//! The body of `POST /execute`: all faults are found at once, and nothing is ignored in
//! silence. What cannot be obeyed yet but must be accepted becomes a note, which the stream
//! says as a `message`.

mod credential;
mod fields;
mod options;
mod prompt;
mod pull;
mod repo;

use clawlink_shared::agent::{AgentKind, Definition};
use clawlink_shared::control::Credentials;
use clawlink_shared::execution::{AgentOptions, OnWorkerLost, Priority, PullRequestWish};
use clawlink_shared::id::{AgentId, SessionId};
use clawlink_shared::prompt::PromptPart;
use serde_json::Value;
use uuid::Uuid;

use crate::config::Tuning;
use crate::error::{ApiError, ApiResult};
use crate::secrets::{Reference, References};
use crate::usage::money::Micros;
use fields::{Faults, Fields};
pub(crate) use repo::{Github, is_on_host, same_repository};

/// Longest session name, in characters.
pub(crate) const MAX_SESSION_NAME: usize = 80;
/// Longest id of a task or a mirror, in bytes.
const MAX_ID: usize = 128;
/// Longest text that is only passed on, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// A valid request, not yet completed from its session.
#[derive(Debug)]
pub struct Request {
    pub(crate) prompt: Vec<PromptPart>,
    /// Absent: the session's, else the configured default.
    pub(crate) agent: Option<AgentKind>,
    /// The stored agent that the client names.
    pub(crate) stored_agent: Option<AgentId>,
    /// What that runs, once it is looked up.
    pub(crate) definition: Option<Definition>,
    pub(crate) credentials: Credentials,
    /// Secrets that the request names instead of sending their values.
    pub(crate) named_secrets: Vec<Reference>,
    /// The same with those that are used without being named, once they are checked.
    pub(crate) references: Option<References>,
    pub(crate) resume: Option<SessionId>,
    pub(crate) github: Option<Github>,
    pub(crate) auto_commit: Option<bool>,
    pub(crate) branch_name: Option<String>,
    pub(crate) session_name: Option<String>,
    pub(crate) pull_request: Option<PullRequestWish>,
    pub(crate) options: AgentOptions,
    /// What the new session may cost in all its turns.
    pub(crate) session_budget: Option<Micros>,
    pub(crate) priority: Priority,
    pub(crate) on_worker_lost: OnWorkerLost,
    pub(crate) cancel_on_disconnect: bool,
    /// Sentences for `message` events: what was asked and will not happen.
    pub(crate) notes: Vec<String>,
}

/// Reads JSON; what is not JSON is 400 in the API's own shape.
pub fn json(body: &[u8]) -> ApiResult<Value> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is not valid JSON: {error}")))
}

/// The body as bytes that do not depend on the order of keys or on spacing.
pub fn canonical(body: &Value) -> Vec<u8> {
    let mut body = body.clone();
    body.sort_all_objects();
    body.to_string().into_bytes()
}

/// Validates a body.
pub fn parse(body: &Value, tuning: &Tuning) -> ApiResult<Request> {
    let mut faults = Faults::default();
    fields::refuse_nul(body, "", &mut faults);
    let request = Fields::of(body, "", &mut faults).map(|body| read(body, tuning, &mut faults));
    let faults = faults.into_list();
    match request {
        Some(request) if faults.is_empty() => Ok(request),
        _ => Err(ApiError::invalid_fields(faults)),
    }
}

fn read(mut body: Fields, tuning: &Tuning, faults: &mut Faults) -> Request {
    let prompt = prompt::read(&mut body, faults);
    let (resume, resuming) = session(&mut body, faults);
    let default = tuning.default_agent.as_deref();
    let stored_agent = stored_agent(&mut body, faults);
    let is_known = resuming || stored_agent.is_some();
    let agent = agent(&mut body, default, is_known, faults);
    let mut named = Vec::new();
    let authentication = credential::agent(&mut body, tuning, &mut named, faults);
    let mut github = repo::read(&mut body, resuming, tuning, &mut named, faults);
    let (options, env) = options::read(&mut body, tuning, &mut named, faults);
    credential::refuse_diversion(&mut body, &env, faults);
    let request = Request {
        agent,
        stored_agent,
        definition: None,
        credentials: Credentials {
            agent: authentication,
            git_token: github.as_mut().and_then(|github| github.token.take()),
            env,
        },
        named_secrets: named,
        references: None,
        resume,
        auto_commit: body.flag("autoCommit", faults),
        branch_name: repo::branch_name(&mut body, faults),
        session_name: session_name(&mut body, faults),
        pull_request: pull::read(&mut body, faults),
        options,
        session_budget: session_budget(&mut body, resuming, faults),
        priority: body
            .choice("priority", &PRIORITIES, faults)
            .unwrap_or_default(),
        on_worker_lost: body
            .choice("onWorkerLost", &ON_WORKER_LOST, faults)
            .unwrap_or_default(),
        cancel_on_disconnect: body.flag("cancelOnDisconnect", faults).unwrap_or(false),
        notes: later(&mut body, faults),
        prompt,
        github,
    };
    body.finish(faults);
    request
}

const PRIORITIES: [(&str, Priority); 4] = [
    ("low", Priority::Low),
    ("medium", Priority::Medium),
    ("high", Priority::High),
    ("critical", Priority::Critical),
];

const ON_WORKER_LOST: [(&str, OnWorkerLost); 2] = [
    ("fail", OnWorkerLost::Fail),
    ("resume", OnWorkerLost::Resume),
];

/// `websiteSessionId` or its alias; also whether one was given at all.
fn session(body: &mut Fields, faults: &mut Faults) -> (Option<SessionId>, bool) {
    let mut ids = ["websiteSessionId", "resumeSessionId"].map(|key| {
        let value = body.get(key)?;
        // Only the usual form with hyphens; the parser would take others too.
        let id = value
            .as_str()
            .filter(|text| text.len() == 36)
            .and_then(|text| text.parse::<Uuid>().ok());
        if id.is_none() {
            faults.add(key, "must be a session's UUID");
        }
        Some(id)
    });
    if let [Some(Some(one)), Some(Some(other))] = ids
        && one != other
    {
        faults.add(
            "resumeSessionId",
            "is an alias of websiteSessionId and differs from it",
        );
    }
    let given = ids[0].take().or(ids[1].take());
    (given.flatten().map(SessionId), given.is_some())
}

fn agent(
    body: &mut Fields,
    default: Option<&str>,
    is_known: bool,
    faults: &mut Faults,
) -> Option<AgentKind> {
    const KEY: &str = "codingAssistantProvider";
    let known = || AgentKind::ALL.map(AgentKind::as_str).join(", ");
    match body.get(KEY) {
        Some(value) => {
            let agent = value.as_str().and_then(AgentKind::from_spelling);
            if agent.is_none() {
                faults.add(KEY, format!("must be one of {}", known()));
            }
            agent
        }
        None if is_known => None,
        None => {
            let agent = default.and_then(AgentKind::from_spelling);
            if agent.is_none() {
                faults.add(KEY, format!("is required: one of {}", known()));
            }
            agent
        }
    }
}

/// `agentId`: the number of a stored agent, also as text.
fn stored_agent(body: &mut Fields, faults: &mut Faults) -> Option<AgentId> {
    const KEY: &str = "agentId";
    let value = body.get(KEY)?;
    let number = value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    if number.is_none() {
        faults.add(KEY, "must be the number of a stored agent");
    }
    number.map(AgentId)
}

/// `sessionBudgetUsd`; that of a session that exists is changed by those who manage limits.
fn session_budget(body: &mut Fields, resuming: bool, faults: &mut Faults) -> Option<Micros> {
    const KEY: &str = "sessionBudgetUsd";
    let dollars = options::dollars(body, KEY, faults)?;
    if resuming {
        let message = "is for new sessions; PATCH /sessions/{id} changes that of an existing one";
        faults.add(KEY, message);
    }
    Micros::from_dollars(dollars)
}

fn session_name(body: &mut Fields, faults: &mut Faults) -> Option<String> {
    const KEY: &str = "sessionName";
    let name = body.text(KEY, MAX_TEXT, faults)?.trim();
    if name.is_empty() || name.contains(char::is_control) {
        faults.add(KEY, "must be one line of visible text");
        return None;
    }
    if name.chars().count() > MAX_SESSION_NAME {
        faults.add(
            KEY,
            format!("must not be longer than {MAX_SESSION_NAME} characters"),
        );
        return None;
    }
    Some(name.to_owned())
}

/// What is accepted because clients send it, and has no effect.
fn later(body: &mut Fields, faults: &mut Faults) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(mut database) = body.object("database", faults) {
        database.text("sessionId", MAX_ID, faults);
        database.text("accessToken", MAX_TEXT, faults);
        database.finish(faults);
        notes
            .push("`database`: mirroring of events is not configured; events are kept here".into());
    }
    if let Some(value) = body.get("taskId") {
        let is_id = value.is_u64()
            || value
                .as_str()
                .is_some_and(|id| !id.is_empty() && id.len() <= MAX_ID);
        if !is_id {
            faults.add("taskId", "must be an id");
        }
        notes.push("`taskId`: it has no effect here; POST /api/tasks/execute runs a task".into());
    }
    notes
}
