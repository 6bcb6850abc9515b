//! The conversation with the app-server, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::{ErrorCode, PermissionMode, Usage};
use clawlink_shared::prompt::PromptPart;
use serde_json::{Value, json};

use super::parse::{CodexParser, CodexSignal, CodexVerdict};
use super::{approval, launch};
use crate::agents::AgentJob;
use crate::agents::desk::{Answer, MAX_PLANS, Question, QuestionKind};
use crate::agents::dialogue::{Asked, Dialogue, Heard, message};
use crate::agents::process::{Output, Process};

/// How long the app-server may take to exit after its turn, with its input closed.
const EXIT_GRACE: Duration = Duration::from_secs(3);

/// How long it may take to obey an interrupt.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);

/// Messages of people that may wait until the app-server says whether it took them.
const MAX_UNHEARD: usize = 32;

/// Our numbers for the requests whose answers matter; further ones count on from the last.
const INITIALIZE: u64 = 1;
const THREAD: u64 = 2;
const TURN: u64 = 3;

/// The name of the question whether a plan shall be carried out.
const PLAN: &str = "plan";

/// Our side of the dialogue.
pub(super) struct Talk {
    parser: CodexParser,
    /// What opens the conversation.
    opening: (&'static str, Value),
    prompt: Vec<PromptPart>,
    is_planning: bool,
    /// Plans that were shown.
    plans: u32,
    /// Answers of the model that are still allowed.
    turns_left: Option<u32>,
    /// The last number of a request.
    last_id: u64,
    /// What people said, by the requests that the app-server has not answered.
    unheard: BTreeMap<u64, String>,
    /// What people said that came too late for the turn.
    late: Vec<String>,
    /// The run is over, but for what people said.
    is_over: bool,
    /// The app-server's requests that wait for people, by their names.
    asked: BTreeMap<String, Value>,
    /// The turn that runs.
    turn: Option<String>,
    /// The conversation, once it can be resumed.
    pub(super) thread: Option<String>,
    /// How it ended.
    pub(super) verdict: Option<CodexVerdict>,
}

impl Talk {
    /// Makes the first request.
    pub(super) fn begin(job: &AgentJob, process: &mut Process) -> Self {
        let request = launch::request(INITIALIZE, "initialize", &launch::initialize());
        process.write_line(request);
        Self {
            parser: CodexParser::default(),
            opening: launch::thread(job),
            prompt: job.prompt.clone(),
            is_planning: job.options.permission_mode == PermissionMode::Plan,
            plans: 0,
            turns_left: job.options.max_turns,
            last_id: TURN,
            unheard: BTreeMap::new(),
            late: Vec::new(),
            is_over: false,
            asked: BTreeMap::new(),
            turn: None,
            thread: None,
            verdict: None,
        }
    }

    /// What the run consumed so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.parser.usage()
    }

    fn request(&mut self, method: &str, params: &Value, process: &mut Process) -> u64 {
        self.last_id += 1;
        process.write_line(launch::request(self.last_id, method, params));
        self.last_id
    }

    fn signal(&mut self, signal: CodexSignal, process: &mut Process) -> Heard {
        match signal {
            CodexSignal::Answered { id, result } => return self.step(id, result, process),
            CodexSignal::Asked {
                id,
                method,
                params,
                input,
            } => return self.ask(id, &method, &params, input, process),
            CodexSignal::Withdrawn(id) => {
                let id = id.to_string();
                self.asked.remove(&id);
                return Heard {
                    withdrawn: vec![id],
                    ..Heard::default()
                };
            }
            CodexSignal::Began(turn) => self.turn = Some(turn),
            CodexSignal::ModelAnswered { used_tools } => self.count(used_tools, process),
            CodexSignal::Ended(verdict) => return self.ended(verdict, process),
        }
        Heard::default()
    }

    /// The answer to one of our requests leads to the next.
    fn step(&mut self, id: u64, result: Result<Value, String>, process: &mut Process) -> Heard {
        if let Some(text) = self.unheard.remove(&id) {
            return self.answered_message(text, result.err(), process);
        }
        match (id, result) {
            (INITIALIZE, Ok(_)) => {
                process.write_line(launch::initialized());
                let (method, params) = &self.opening;
                process.write_line(launch::request(THREAD, method, params));
            }
            (THREAD, Ok(result)) => {
                let Some(thread) = result["thread"]["id"].as_str() else {
                    let message = "codex began a conversation without a name";
                    return self.fail(ErrorCode::AgentError, message.to_owned(), process);
                };
                let turn = launch::turn(thread, &std::mem::take(&mut self.prompt));
                process.write_line(launch::request(TURN, "turn/start", &turn));
                self.thread = Some(thread.to_owned());
            }
            (THREAD, Err(message)) if self.opening.0 == "thread/resume" => {
                return self.fail(ErrorCode::SessionUnavailable, message, process);
            }
            (INITIALIZE | THREAD | TURN, Err(message)) => {
                return self.fail(ErrorCode::AgentError, message, process);
            }
            (_, Ok(_) | Err(_)) => {}
        }
        Heard::default()
    }

    /// A message was taken or refused. One that came when the turn was over makes another turn.
    fn answered_message(
        &mut self,
        text: String,
        refusal: Option<String>,
        process: &mut Process,
    ) -> Heard {
        let mut heard = Heard::default();
        match refusal {
            Some(_) if self.is_over => self.late.push(text),
            Some(reason) => {
                let text = format!("codex did not take a message: {reason}");
                heard.events.push(message(text));
            }
            None => {}
        }
        if self.is_over && self.unheard.is_empty() {
            heard.end_within = self.end(process).end_within;
        }
        heard
    }

    /// Ends the run, unless people have said something that nobody heard.
    fn end(&mut self, process: &mut Process) -> Heard {
        let failure = self.verdict.as_ref().and_then(|told| told.failure.as_ref());
        if failure.is_some() || (self.unheard.is_empty() && self.late.is_empty()) {
            return end(process);
        }
        self.is_over = !self.unheard.is_empty();
        if !self.is_over {
            let words = std::mem::take(&mut self.late).join("\n\n");
            self.go_on(&words, process);
        }
        Heard::default()
    }

    /// Begins a further turn of the same run.
    fn go_on(&mut self, words: &str, process: &mut Process) {
        let thread = self.thread.as_deref().unwrap_or_default();
        let turn = launch::further(thread, words);
        self.verdict = None;
        self.parser.next_turn();
        self.request("turn/start", &turn, process);
    }

    fn ask(
        &mut self,
        id: Value,
        method: &str,
        params: &Value,
        input: Value,
        process: &mut Process,
    ) -> Heard {
        let Some(question) = approval::question(method, params, input) else {
            process.write_line(approval::unknown(&id, method));
            return Heard::default();
        };
        if self.is_planning {
            let message = "Only a plan is wanted now.".to_owned();
            self.answer(&id, &Answer::Deny { message }, process);
            return Heard::default();
        }
        let name = id.to_string();
        self.asked.insert(name.clone(), id);
        Heard {
            asked: vec![Asked { id: name, question }],
            ..Heard::default()
        }
    }

    /// A refusal's words are not part of the answer: they are said to the turn.
    fn answer(&mut self, id: &Value, answer: &Answer, process: &mut Process) {
        process.write_line(approval::answer(id, answer));
        if let Some(reason) = answer.reason() {
            self.say(reason, process);
        }
    }

    fn say(&mut self, words: &str, process: &mut Process) -> Option<u64> {
        let params = launch::steer(self.thread.as_deref()?, self.turn.as_deref()?, words);
        Some(self.request("turn/steer", &params, process))
    }

    fn interrupt(&mut self, process: &mut Process) -> bool {
        let (Some(thread), Some(turn)) = (&self.thread, &self.turn) else {
            return false;
        };
        let params = launch::interrupt(thread, turn);
        self.request("turn/interrupt", &params, process);
        true
    }

    /// The model has answered; whoever lets it go on asks it again.
    fn count(&mut self, used_tools: bool, process: &mut Process) {
        let Some(left) = &mut self.turns_left else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 && used_tools && self.verdict.is_none() {
            self.verdict = Some(CodexVerdict {
                failure: Some(Failure::new(
                    ErrorCode::MaxTurns,
                    "codex answered as often as it may",
                )),
                ..CodexVerdict::default()
            });
            self.interrupt(process);
        }
    }

    fn ended(&mut self, verdict: CodexVerdict, process: &mut Process) -> Heard {
        self.turn = None;
        let plan = verdict.result.clone().unwrap_or_default();
        let is_over = self.verdict.is_some() || verdict.failure.is_some() || plan.is_empty();
        if self.is_planning && !is_over {
            self.verdict = Some(verdict);
            self.plans += 1;
            return Heard {
                asked: vec![Asked {
                    id: PLAN.to_owned(),
                    question: Question {
                        kind: QuestionKind::Plan,
                        tool: "plan".to_owned(),
                        input: json!({"plan": plan}),
                    },
                }],
                ..Heard::default()
            };
        }
        match &mut self.verdict {
            Some(told) => told.result = verdict.result,
            None => self.verdict = Some(verdict),
        }
        self.end(process)
    }

    /// An approved plan is carried out, one that a person wants to be another is made anew, and
    /// any other is the run's result.
    fn planned(&mut self, answer: &Answer, process: &mut Process) -> Heard {
        match (answer, answer.words()) {
            (Answer::Allow { .. }, _) => {
                self.is_planning = false;
                self.go_on(launch::CARRY_OUT, process);
            }
            (Answer::Deny { .. }, Some(words)) if self.plans < MAX_PLANS => {
                self.go_on(words, process);
            }
            (Answer::Deny { message: reason }, _) => {
                return Heard {
                    events: vec![message(format!("The plan is not carried out: {reason}"))],
                    ..end(process)
                };
            }
        }
        Heard::default()
    }

    fn fail(&mut self, code: ErrorCode, message: String, process: &mut Process) -> Heard {
        self.verdict = Some(CodexVerdict {
            failure: Some(Failure::new(code, message)),
            ..CodexVerdict::default()
        });
        end(process)
    }
}

/// It exits when it hears nothing more.
fn end(process: &mut Process) -> Heard {
    process.close_stdin();
    Heard {
        end_within: Some(EXIT_GRACE),
        ..Heard::default()
    }
}

impl Dialogue for Talk {
    fn hear(&mut self, output: Output, process: &mut Process) -> Heard {
        let Output::Stdout(line) = output else {
            return Heard::default();
        };
        let parsed = self.parser.line(&line.text);
        let mut heard = match parsed.signal {
            Some(signal) => self.signal(signal, process),
            None => Heard::default(),
        };
        heard.events.splice(0..0, parsed.events);
        heard
    }

    fn ask_to_stop(&mut self, process: &mut Process) -> Duration {
        if self.interrupt(process) {
            return INTERRUPT_GRACE;
        }
        process.close_stdin();
        Duration::ZERO
    }

    fn answered(&mut self, id: &str, answer: Answer, process: &mut Process) -> Heard {
        if id == PLAN {
            return self.planned(&answer, process);
        }
        if let Some(id) = self.asked.remove(id) {
            self.answer(&id, &answer, process);
        }
        Heard::default()
    }

    fn is_listening(&self) -> bool {
        self.thread.is_some() && self.turn.is_some() && self.unheard.len() < MAX_UNHEARD
    }

    fn told(&mut self, text: String, process: &mut Process) -> Heard {
        if let Some(id) = self.say(&text, process) {
            self.unheard.insert(id, text);
        }
        Heard::default()
    }
}
