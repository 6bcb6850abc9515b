//! The loop of one run: the program's lines to the parser, what is left of them to the
//! connection, our own lines to the program, events to the pump, a stop obeyed.
//!
//! Events that the pump does not take yet, and answers that the connection does not take yet,
//! hold back reading and nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_client_protocol::Error;
use clawlink_shared::control::Failure;
use clawlink_shared::execution::{AgentOptions, ErrorCode};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::client::Conversation;
use super::permission::Permissions;
use super::session_files::SessionFiles;
use super::setting::Wish;
use super::updates::AcpParser;
use crate::agents::dialogue::{message_of_cut, reached, tell};
use crate::agents::process::{Output, Process};
use crate::agents::{AgentJob, StopReason, stopped};
use crate::events::Draft;

/// Lines that may wait between the program and the connection, in each direction.
const MAX_QUEUED: usize = 16;

/// How long an agent may take to end its turn when it is asked to.
const CANCEL_GRACE: Duration = Duration::from_secs(3);

/// How long it may take to exit once its input is closed.
const EXIT_GRACE: Duration = Duration::from_secs(3);

/// How long the connection may take to notice that the program is gone.
const CLOSE_BOUND: Duration = Duration::from_secs(5);

/// What of a run depends on its agent.
pub(super) struct Ways {
    pub(super) name: &'static str,
    pub(super) wish: Wish,
    pub(super) repeats_late: bool,
    pub(super) refused: &'static [&'static str],
    pub(super) plans_in_words: bool,
}

/// How a run ended.
pub(super) struct Driven {
    pub(super) outcome: Result<Option<Failure>, Error>,
    pub(super) stopped: Option<StopReason>,
    /// The agent's name for the conversation, once it has one.
    pub(super) session: Option<String>,
    pub(super) parser: AcpParser,
}

/// Runs the loop until the program and its descendants are gone.
pub(super) async fn drive(
    process: &mut Process,
    mut parser: AcpParser,
    job: &AgentJob,
    ways: Ways,
) -> Driven {
    let (outgoing, mut to_agent) = mpsc::channel(MAX_QUEUED);
    let (from_agent, incoming) = mpsc::channel(MAX_QUEUED);
    let mut from_agent = Some(from_agent);
    let (limit, limits) = watch::channel(None);
    let (heard, hearing) = watch::channel(Instant::now());
    let (said, saying) = watch::channel(String::new());
    let session = Arc::new(OnceLock::new());
    let conversation = Conversation {
        agent: ways.name,
        prompt: job.prompt.clone(),
        resume: job.resume.clone(),
        cwd: job.cwd.clone(),
        wish: ways.wish,
        repeats_late: ways.repeats_late,
        desk: job.desk.clone(),
        events: job.events.clone(),
        permissions: Permissions::new(
            job.desk.clone(),
            job.options.permission_mode,
            ways.refused,
            ways.plans_in_words,
            job.stop.clone(),
        ),
        files: SessionFiles {
            root: job.session_root.clone(),
            max_bytes: job.max_file_bytes,
        },
        stop: job.stop.clone(),
        limit: limits,
        heard: hearing,
        said: saying,
        session: session.clone(),
    };
    let mut talk = Box::pin(conversation.hold(outgoing, incoming));
    let mut outcome = None;
    let mut stop = job.stop.clone();
    let mut reason = None;
    let mut end_at = None;
    let mut untold: VecDeque<Draft> = VecDeque::new();
    let mut unheard: Option<String> = None;
    loop {
        tokio::select! {
            biased;
            asked = stopped(&mut stop), if reason.is_none() => {
                reason = Some(asked);
                end_at = Some(Instant::now() + CANCEL_GRACE);
            }
            () = reached(end_at), if end_at.is_some() => {
                end_at = None;
                process.end().await;
            }
            () = tell(&job.events, untold.front()), if !untold.is_empty() => {
                untold.pop_front();
            }
            Some(line) = to_agent.recv() => {
                parser.sent(&line);
                process.write_line(line);
            }
            ended = &mut talk, if outcome.is_none() => {
                outcome = Some(ended);
                while let Ok(line) = to_agent.try_recv() {
                    process.write_line(line);
                }
                from_agent = None;
                unheard = None;
                process.close_stdin();
                let end = Instant::now() + EXIT_GRACE;
                end_at = Some(end_at.map_or(end, |earlier: Instant| earlier.min(end)));
            }
            () = pass_on(from_agent.as_ref(), &mut unheard), if unheard.is_some() => {}
            output = process.next(), if untold.is_empty() && unheard.is_none() => {
                let Some(output) = output else { break };
                let Output::Stdout(line) = output else { continue };
                heard.send_replace(Instant::now());
                let parsed = parser.line(&line.text);
                untold.extend(parsed.events);
                if line.dropped > 0 {
                    untold.push_back(message_of_cut(line.dropped));
                }
                if parsed.message.is_some() {
                    said.send_replace(parser.said().unwrap_or_default().to_owned());
                }
                unheard = parsed.message.filter(|_| from_agent.is_some());
                let is_open = limit.borrow().is_none();
                if let Some(code) = over(&parser, &job.options).filter(|_| is_open) {
                    limit.send_replace(Some(code));
                    end_at.get_or_insert(Instant::now() + CANCEL_GRACE);
                }
            }
        }
    }
    drop(from_agent);
    for draft in parser.rest() {
        tell(&job.events, Some(&draft)).await;
    }
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => end_of(talk, &mut to_agent).await,
    };
    Driven {
        outcome,
        stopped: reason,
        session: session.get().cloned(),
        parser,
    }
}

/// What the connection makes of the program's end; it may still want to write.
async fn end_of(
    talk: impl Future<Output = Result<Option<Failure>, Error>>,
    to_agent: &mut mpsc::Receiver<String>,
) -> Result<Option<Failure>, Error> {
    let drain = async {
        while to_agent.recv().await.is_some() {}
        std::future::pending().await
    };
    let ended = tokio::time::timeout(CLOSE_BOUND, async {
        tokio::select! {
            ended = talk => ended,
            never = drain => never,
        }
    });
    ended
        .await
        .unwrap_or_else(|_| Err(Error::internal_error().data("the connection does not end")))
}

/// Hands the connection one message. Returns once it has it, or is gone.
async fn pass_on(connection: Option<&mpsc::Sender<String>>, unheard: &mut Option<String>) {
    if let Some(connection) = connection
        && let Ok(place) = connection.reserve().await
        && let Some(message) = unheard.take()
    {
        place.send(message);
    }
    *unheard = None;
}

/// The bound of the request that the run has gone beyond, if any.
fn over(parser: &AcpParser, options: &AgentOptions) -> Option<ErrorCode> {
    let rounds = options.max_turns.filter(|most| parser.rounds() > *most);
    let budget = options.max_budget_usd;
    let cost = parser.cost_usd();
    if rounds.is_some() {
        Some(ErrorCode::MaxTurns)
    } else if budget.zip(cost).is_some_and(|(budget, cost)| cost > budget) {
        Some(ErrorCode::BudgetExceeded)
    } else {
        None
    }
}
