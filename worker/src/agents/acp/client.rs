//! Our side of the protocol, from `initialize` to the end of the last turn.
//!
//! The connection hears only answers to our requests and the agent's own requests; everything
//! else is [`super::updates`]'s. A turn ends with the agent's answer to its prompt, also when we
//! cancel it: then we wait for that answer as long as whoever runs us does.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{
    CancelNotification, ContentBlock, ImageContent, Implementation, InitializeRequest,
    InitializeResponse, LoadSessionRequest, NewSessionRequest, PromptRequest, ReadTextFileRequest,
    ReadTextFileResponse, RequestPermissionRequest, TextContent, WriteTextFileRequest,
    WriteTextFileResponse,
};
use agent_client_protocol::v1::{ConnectionTo, Responder};
use agent_client_protocol::{Agent, Client, Error, Lines, UntypedMessage, on_receive_request};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::prompt::{ImageSource, PromptPart};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::permission::Permissions;
use super::session_files::SessionFiles;
use super::setting::{self, Change, Wish};
use super::verdict;
use crate::agents::desk::{Answer, Desk, MAX_PLANS, Question, QuestionKind};
use crate::agents::{StopReason, stopped};
use crate::events::EventSink;

/// How long an agent may take until it is ready for its first prompt.
const START_BOUND: Duration = Duration::from_secs(180);

/// A loaded conversation has been repeated when the agent was silent for so long…
const QUIET: Duration = Duration::from_millis(500);

/// … or after so long, whatever it says.
const REPLAY_BOUND: Duration = Duration::from_secs(10);

/// Texts of people that may wait for the end of a turn.
const MAX_WAITING: usize = 64;

/// What the agent hears when its plan was approved.
const CARRY_OUT: &str = "The plan is approved. Carry it out.";

/// How often a run goes on only because something was refused with words.
const MAX_REFUSED_TURNS: u32 = 8;

/// What a run needs to know to speak with its agent.
pub(super) struct Conversation {
    pub(super) agent: &'static str,
    pub(super) prompt: Vec<PromptPart>,
    /// The conversation to continue.
    pub(super) resume: Option<String>,
    pub(super) cwd: PathBuf,
    pub(super) wish: Wish,
    /// Whether it may repeat a loaded conversation after it said that it has loaded it.
    pub(super) repeats_late: bool,
    pub(super) desk: Desk,
    pub(super) events: EventSink,
    pub(super) permissions: Arc<Permissions>,
    pub(super) files: SessionFiles,
    pub(super) stop: watch::Receiver<Option<StopReason>>,
    /// A bound of the request that was reached.
    pub(super) limit: watch::Receiver<Option<ErrorCode>>,
    /// The agent's last words.
    pub(super) said: watch::Receiver<String>,
    /// When the agent last said something.
    pub(super) heard: watch::Receiver<Instant>,
    /// Where the agent's name for the conversation is put as soon as there is one.
    pub(super) session: Arc<OnceLock<String>>,
}

/// A conversation that can be prompted.
struct Begun {
    /// The agent's name for it.
    session: String,
    /// As the agent described it when it was made or loaded.
    state: Value,
}

/// What ends a run from our side.
enum Halt {
    Stopped,
    Limit(ErrorCode),
}

impl Conversation {
    /// Speaks until the run is over; `Some` says why it did not do what was asked. An error is
    /// the agent's answer to a request of ours, or the end of the connection.
    pub(super) async fn hold(
        self,
        outgoing: mpsc::Sender<String>,
        incoming: mpsc::Receiver<String>,
    ) -> Result<Option<Failure>, Error> {
        let sink = futures::sink::unfold(
            outgoing,
            |queue: mpsc::Sender<String>, line: String| async move {
                let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                queue.send(line).await.map_err(gone)?;
                Ok::<_, io::Error>(queue)
            },
        );
        let lines = futures::stream::unfold(incoming, |mut lines| async move {
            let line = lines.recv().await?;
            Some((Ok::<_, io::Error>(line), lines))
        });
        let permissions = self.permissions.clone();
        let (readable, writable) = (self.files.clone(), self.files.clone());
        Client
            .v1()
            .name("clawlink")
            .on_receive_request(
                async move |request: RequestPermissionRequest,
                            responder: Responder<_>,
                            agent: ConnectionTo<Agent>| {
                    // Beside the loop: people take their time.
                    let permissions = permissions.clone();
                    agent.spawn(async move { responder.respond(permissions.answer(request).await) })
                },
                on_receive_request!(),
            )
            .on_receive_request(
                async move |request: ReadTextFileRequest, responder: Responder<_>, _agent| {
                    let text = readable.read(request).await;
                    responder.respond_with_result(text.map(ReadTextFileResponse::new))
                },
                on_receive_request!(),
            )
            .on_receive_request(
                async move |request: WriteTextFileRequest, responder: Responder<_>, _agent| {
                    let written = writable.write(request).await;
                    responder.respond_with_result(written.map(|()| WriteTextFileResponse::new()))
                },
                on_receive_request!(),
            )
            .connect_with(
                Lines::new(sink, lines),
                async move |agent: ConnectionTo<Agent>| self.speak(agent).await,
            )
            .await
    }

    async fn speak(mut self, agent: ConnectionTo<Agent>) -> Result<Option<Failure>, Error> {
        let (mut stop, mut limit) = (self.stop.clone(), self.limit.clone());
        let began = tokio::select! {
            biased;
            halt = halted(&mut stop, &mut limit) => return Ok(ended_by(halt)),
            began = tokio::time::timeout(START_BOUND, self.begin(&agent)) => began,
        };
        let begun = match began {
            Ok(Ok(Ok(begun))) => begun,
            Ok(Ok(Err(failure))) => return Ok(Some(failure)),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let seconds = START_BOUND.as_secs();
                let message = format!("{} was not ready after {seconds} s", self.agent);
                return Ok(Some(Failure::new(ErrorCode::AgentUnavailable, message)));
            }
        };
        let mut prompt = content(&self.prompt);
        let mut waiting = VecDeque::new();
        let mut refused_turns = 0;
        let mut is_planning = !self.wish.plan_modes.is_empty();
        let mut plans = 0;
        loop {
            let (answer, halt) = self
                .turn(&agent, &begun.session, prompt, &mut waiting)
                .await?;
            if let Some(halt) = halt {
                return Ok(ended_by(halt));
            }
            let refusals = self.permissions.take_refusals();
            let failure = verdict::of_turn(self.agent, &answer);
            prompt = if let Some(text) = waiting.pop_front() {
                let said = refusals.into_iter().chain([text]);
                said.map(text_block).collect()
            } else if !refusals.is_empty() && refused_turns < MAX_REFUSED_TURNS {
                refused_turns += 1;
                refusals.into_iter().map(text_block).collect()
            } else if failure.is_none() && is_planning {
                plans += 1;
                let answer = self.judged_plan().await;
                let words = answer.as_ref().and_then(Answer::words).map(str::to_owned);
                match (answer, words) {
                    (Some(Answer::Allow { .. }), _) => {
                        is_planning = false;
                        self.permissions.end_planning();
                        self.set(&agent, &begun.session, setting::after_plan(&begun.state))
                            .await?;
                        vec![text_block(CARRY_OUT.to_owned())]
                    }
                    (_, Some(words)) if plans < MAX_PLANS => vec![text_block(words)],
                    (Some(Answer::Deny { message }), _) => {
                        let message = format!("The plan is not carried out: {message}");
                        self.events.message(message).await;
                        return Ok(None);
                    }
                    (None, _) => return Ok(None),
                }
            } else {
                return Ok(failure);
            };
        }
    }

    /// What people say to the plan; `None` if the run is stopped meanwhile.
    async fn judged_plan(&mut self) -> Option<Answer> {
        let plan = self.said.borrow().clone();
        let question = Question {
            kind: QuestionKind::Plan,
            tool: "plan".to_owned(),
            input: json!({"plan": plan}),
        };
        tokio::select! {
            answer = self.desk.ask(question) => Some(answer),
            _ = halted(&mut self.stop, &mut self.limit) => None,
        }
    }

    /// Makes the agent ready for its first prompt.
    async fn begin(&self, agent: &ConnectionTo<Agent>) -> Result<Result<Begun, Failure>, Error> {
        let client = Implementation::new("clawlink", env!("CARGO_PKG_VERSION"));
        let hello = InitializeRequest::new(ProtocolVersion::V1).client_info(client);
        let hello = agent.send_request(hello).block_task().await?;
        if let Some(failure) = self.unfit(&hello) {
            return Ok(Err(failure));
        }
        let (session, state) = match &self.resume {
            Some(session) => {
                let load = LoadSessionRequest::new(session.clone(), &self.cwd);
                match ask(agent, "session/load", &load).await {
                    Ok(state) => (session.clone(), state),
                    Err(error) => return verdict::of_load(self.agent, error).map(Err),
                }
            }
            None => {
                let state = ask(agent, "session/new", &NewSessionRequest::new(&self.cwd)).await?;
                match state["sessionId"].as_str() {
                    Some(session) => (session.to_owned(), state),
                    None => return Ok(Err(self.failed("gave its session no name"))),
                }
            }
        };
        // Set once: there is one conversation.
        let _first = self.session.set(session.clone());
        if self.resume.is_some() && self.repeats_late {
            self.quiet().await;
        }
        match setting::changes(self.agent, &state, &self.wish) {
            Ok(changes) => self.set(agent, &session, changes).await?,
            Err(failure) => return Ok(Err(failure)),
        }
        Ok(Ok(Begun { session, state }))
    }

    async fn set(
        &self,
        agent: &ConnectionTo<Agent>,
        session: &str,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        for change in changes {
            let mut params = change.params;
            params["sessionId"] = json!(session);
            ask(agent, change.method, &params).await?;
        }
        Ok(())
    }

    /// Why the agent cannot do what is wanted, as far as it says.
    fn unfit(&self, hello: &InitializeResponse) -> Option<Failure> {
        let able = &hello.agent_capabilities;
        let is_image = |part: &PromptPart| matches!(part, PromptPart::Image { .. });
        if hello.protocol_version != ProtocolVersion::V1 {
            return Some(self.failed("speaks another version of the protocol"));
        }
        if self.resume.is_some() && !able.load_session {
            let message = format!("{} cannot continue an earlier conversation", self.agent);
            return Some(Failure::new(ErrorCode::SessionUnavailable, message));
        }
        if !able.prompt_capabilities.image && self.prompt.iter().any(is_image) {
            let message = format!("{} does not take images", self.agent);
            return Some(Failure::new(ErrorCode::ValidationError, message));
        }
        None
    }

    /// One prompt and what the agent answers to it; with it why it was cancelled, if it was.
    async fn turn(
        &mut self,
        agent: &ConnectionTo<Agent>,
        session: &str,
        prompt: Vec<ContentBlock>,
        waiting: &mut VecDeque<String>,
    ) -> Result<(Value, Option<Halt>), Error> {
        let request = PromptRequest::new(session.to_owned(), prompt);
        let answer = ask(agent, "session/prompt", &request);
        tokio::pin!(answer);
        let mut halt = None;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return match (answer, halt) {
                    // What a cancelled turn says about itself does not matter.
                    (Err(_), Some(halt)) => Ok((Value::Null, Some(halt))),
                    (answer, halt) => answer.map(|answer| (answer, halt)),
                },
                reason = halted(&mut self.stop, &mut self.limit), if halt.is_none() => {
                    halt = Some(reason);
                    agent.send_notification(CancelNotification::new(session.to_owned()))?;
                }
                text = self.desk.next_message(), if halt.is_none() && waiting.len() < MAX_WAITING => {
                    waiting.push_back(text);
                }
            }
        }
    }

    /// Waits until the agent has been silent for a while.
    async fn quiet(&self) {
        let silence = async {
            loop {
                let until = *self.heard.borrow() + QUIET;
                if Instant::now() >= until {
                    return;
                }
                tokio::time::sleep_until(until).await;
            }
        };
        // An agent that is never silent is prompted all the same.
        let _silent = tokio::time::timeout(REPLAY_BOUND, silence).await;
    }

    fn failed(&self, what: &str) -> Failure {
        Failure::new(ErrorCode::AgentError, format!("{} {what}", self.agent))
    }
}

/// Sends a request, and takes whatever is answered: agents send more than the protocol's types
/// know.
async fn ask(
    agent: &ConnectionTo<Agent>,
    method: &str,
    params: &impl serde::Serialize,
) -> Result<Value, Error> {
    let request = UntypedMessage::new(method, params)?;
    agent.send_request(request).block_task().await
}

async fn halted(
    stop: &mut watch::Receiver<Option<StopReason>>,
    limit: &mut watch::Receiver<Option<ErrorCode>>,
) -> Halt {
    let reached = async {
        match limit.wait_for(Option::is_some).await.map(|limit| *limit) {
            Ok(Some(code)) => code,
            // Nobody watches limits any more.
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stopped(stop) => Halt::Stopped,
        code = reached => Halt::Limit(code),
    }
}

fn ended_by(halt: Halt) -> Option<Failure> {
    match halt {
        Halt::Stopped => None,
        Halt::Limit(code) => Some(verdict::of_limit(code)),
    }
}

fn content(prompt: &[PromptPart]) -> Vec<ContentBlock> {
    let blocks = prompt.iter().map(|part| match part {
        PromptPart::Text { text } => text_block(text.clone()),
        PromptPart::Image {
            source: ImageSource::Base64 { media_type, data },
        } => ContentBlock::Image(ImageContent::new(data.clone(), media_type.clone())),
    });
    blocks.collect()
}

fn text_block(text: String) -> ContentBlock {
    ContentBlock::Text(TextContent::new(text))
}
