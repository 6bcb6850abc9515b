//! One execution, phase by phase, from the acknowledged claim to the recorded end.
//!
//! ```text
//! acknowledge ▸ prepare root ▸ restore or clone ▸ running ▸ agent ▸ deliver ▸ archive ▸ flush ▸ complete ▸ clear
//! ```
//!
//! A failure in any phase decides the outcome and skips what makes no sense after it, but
//! whatever state the session has is archived and the end is always reported. Only a lost
//! lease ends in silence: then nothing of this run counts any more. What must never happen:
//! an agent starts before `running` is committed, or an end is sent before it is on the disk.

mod agent;
mod end;
mod pull_request;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawlink_shared::control::{Assignment, Complete, Failure};
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Outcome, State};
use clawlink_shared::shutdown::Shutdown;
use clawlink_shared::telemetry::traces;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::agents::{self, Agents, StopReason};
use crate::client::{CallError, Client, Held};
use crate::control::{self, Stop};
use crate::events::{EventSink, Pump};
use crate::lease::{self, Gone, Lease};
use crate::meter::Meter;
use crate::proxy::Proxies;
use crate::redact::{self, Redactor};
use crate::report::Desk;
use crate::workspace::git::{self, Before};
use crate::workspace::root::SessionRoot;

/// How long a run waits for limits of the model where no setting says.
pub const RATE_LIMIT_WAIT: Duration = Duration::from_secs(900);

/// Longest message of a failure, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What stays the same whatever is run.
pub struct Worker {
    /// Names this process: `{host}-{8 hex}`.
    pub id: String,
    /// The dispatchers.
    pub client: Arc<Client>,
    /// What this worker can run.
    pub agents: Agents,
    /// This process's private directory.
    pub desk: Desk,
    /// Where session directories are.
    pub root: PathBuf,
    /// Whether repositories may be on private addresses.
    pub allow_private_hosts: bool,
    /// By which git hosts are reached.
    pub proxies: Proxies,
    /// How long a running agent may finish when the worker drains.
    pub drain_timeout: Duration,
    /// How long a run waits for limits of the model, in all.
    pub rate_limit_wait: Duration,
    /// When the worker drains.
    pub shutdown: Shutdown,
}

/// How the work on an assignment ended, for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was taken back before we acknowledged it; nothing was done.
    NotOurs,
    /// Its end is recorded.
    Recorded,
    /// Somebody else decides about it now.
    LeaseLost,
    /// No dispatcher answered; the report waits on the disk if there is one.
    Unreachable,
    /// The dispatcher does not accept our report.
    Refused,
}

/// Where a run stands; for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Restoring,
    Cloning,
    Starting,
    Running,
    Delivering,
    Archiving,
    Flushing,
    Completing,
    Clearing,
}

/// One assignment being worked on.
struct Run<'a> {
    worker: &'a Worker,
    assignment: Assignment,
    held: Held,
    stop: Stop,
    events: EventSink,
    meter: Meter,
    redactor: Redactor,
    /// Where its agent asks people.
    people: agents::desk::Desk,
}

/// Works on an assignment that came in answer to a claim sent at `sent`.
pub async fn execute(worker: &Worker, assignment: Assignment, sent: Instant) -> Ended {
    // Of the highest level, so that every line of the run carries it under any filter.
    let span = tracing::error_span!(
        "execution",
        execution.id = %assignment.execution.id,
        session.id = %assignment.session.id,
        attempt = assignment.lease.attempt,
        worker.id = worker.id,
    );
    if let Some(parent) = &assignment.request.traceparent {
        traces::go_on(&span, parent);
    }
    acknowledge_and_run(worker, assignment, sent)
        .instrument(span)
        .await
}

async fn acknowledge_and_run(worker: &Worker, assignment: Assignment, sent: Instant) -> Ended {
    let grace = Duration::from_secs(assignment.limits.outage_grace_seconds);
    let held = Held::new(
        worker.client.clone(),
        assignment.execution.id,
        assignment.lease.token.clone(),
        Lease::new(sent, assignment.lease.expires_in_ms, grace),
    );
    if let Err(error) = held.ack().await {
        tracing::warn!(%error, "the assignment was taken back");
        return Ended::NotOurs;
    }
    let credentials = &assignment.credentials;
    let of_env = redact::secrets_of(&credentials.env);
    let redactor = Redactor::new(
        [&credentials.agent, &credentials.git_token]
            .into_iter()
            .flatten()
            .chain([&assignment.lease.token, worker.client.pool_token()])
            .chain(&of_env)
            .chain(worker.proxies.passwords()),
    );
    let (events, drafts) = EventSink::channel();
    let pump = Pump::start(drafts, redactor.clone(), held.clone(), worker.desk.dir());
    let stop = Stop::default();
    let people = agents::desk::Desk::new(events.clone(), redactor.clone());
    let _companions = companions(worker, &held, &stop, &people);
    let meter = Meter::new(&assignment.request.options, stop.clone());
    let run = Run {
        worker,
        assignment,
        held,
        stop,
        events,
        meter,
        redactor,
        people,
    };
    run.to_its_end(&pump).await
}

/// What goes on beside the phases; ends when dropped.
fn companions(
    worker: &Worker,
    held: &Held,
    stop: &Stop,
    people: &agents::desk::Desk,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let keep = {
        let (held, stop) = (held.clone(), stop.clone());
        async move {
            let gone = lease::keep(held).await;
            tracing::warn!(?gone, "the lease is over");
            stop.request(StopReason::LeaseLost);
        }
    };
    let drain = {
        let (stop, shutdown, patience) =
            (stop.clone(), worker.shutdown.clone(), worker.drain_timeout);
        async move {
            shutdown.soft().cancelled().await;
            tracing::info!("draining: the agent may finish");
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                () = shutdown.hard().cancelled() => {}
            }
            stop.request(StopReason::Drain);
        }
    };
    tasks.spawn(keep.in_current_span());
    let listening = control::listen(held.clone(), stop.clone(), people.clone());
    tasks.spawn(listening.in_current_span());
    tasks.spawn(drain.in_current_span());
    tasks
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionName<'a> {
    session_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch_name: Option<&'a str>,
}

impl Run<'_> {
    async fn to_its_end(&self, pump: &Pump) -> Ended {
        let mut report = Complete {
            outcome: Outcome::Completed,
            error: None,
            last_n: 0,
            archive: None,
            branch: None,
            commit_hash: None,
            pushed: false,
            usage: None,
            result: None,
            provider_session_id: None,
        };
        self.enter(Phase::Preparing);
        let root = match self.prepare_root().await {
            Ok(root) => {
                self.work(&root, &mut report).await;
                Some(root)
            }
            Err(failure) => {
                self.fail(&mut report, failure);
                None
            }
        };
        let ended = self.report(pump, report).await;
        self.enter(Phase::Clearing);
        if let Some(root) = root {
            clear(root).await;
        }
        ended
    }

    async fn prepare_root(&self) -> Result<SessionRoot, Failure> {
        let (root, session) = (self.worker.root.clone(), self.assignment.session.id);
        tokio::task::spawn_blocking(move || SessionRoot::prepare(&root, session))
            .await
            .map_err(|error| internal("prepare session directory", &error))?
            .map_err(|error| Failure::new(ErrorCode::InternalError, format!("{error:#}")))
    }

    /// The phases that need the session's directory.
    async fn work(&self, root: &SessionRoot, report: &mut Complete) {
        let before = match self.before_the_agent(root).await {
            Ok(before) => before,
            Err(failure) => {
                // The session is as it was, or not there: nothing to archive.
                self.fail(report, failure);
                return;
            }
        };
        self.enter(Phase::Running);
        let span = tracing::info_span!("agent", agent.kind = %self.assignment.request.agent);
        let failure = self.run_agent(root, report).instrument(span).await;
        if let Some(failure) = failure {
            self.fail(report, failure);
        }
        if self.is_to_be_delivered(report) {
            self.enter(Phase::Delivering);
            if let Err(failure) = self.deliver(root, report).await {
                self.fail(report, failure);
            }
        }
        if self.stop.reason() != Some(StopReason::LeaseLost) {
            self.enter(Phase::Archiving);
            match self.archive(root, before).await {
                Ok(archive) => report.archive = archive,
                Err(failure) => self.fail(report, failure),
            }
        }
    }

    /// Everything up to the moment from which the agent may start; answers what git had stored
    /// by then.
    async fn before_the_agent(&self, root: &SessionRoot) -> Result<Before, Failure> {
        let spec = &self.assignment.request;
        let name = SessionName {
            session_name: &spec.session_name,
            branch_name: spec.working_branch.as_deref(),
        };
        self.events.emit(EventType::SessionName, &name).await;
        self.obtain_session(root).await?;
        self.enter(Phase::Starting);
        if let Some(reason) = self.stop.reason() {
            return Err(stopped(reason, self.stop.words()));
        }
        let work = root.work();
        let remembered = tokio::task::spawn_blocking(move || git::remember(&work));
        let (running, before) = tokio::join!(self.held.state(State::Running), remembered);
        running.map_err(|error| refused("ask to run", &error))?;
        before.map_err(|error| internal("look at the repository", &error))
    }

    /// Writes a failure into the report; the first one stays. A stop from outside decides
    /// over what the phases made of it.
    fn fail(&self, report: &mut Complete, failure: Failure) {
        let mut message = self.redactor.redact_text(&failure.message).into_owned();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        tracing::info!(code = failure.code.as_str(), message, "the run fails");
        if report.outcome != Outcome::Completed {
            return;
        }
        report.outcome = match self.stop.reason() {
            Some(StopReason::Cancel) => Outcome::Cancelled,
            Some(StopReason::Drain) if failure.code == ErrorCode::Interrupted => {
                Outcome::Interrupted
            }
            _ => Outcome::Failed,
        };
        report.error =
            (report.outcome != Outcome::Cancelled).then(|| Failure::new(failure.code, message));
    }

    fn enter(&self, phase: Phase) {
        tracing::info!(?phase, "phase");
    }
}

/// What stands in the report when a stop from outside ended a phase.
fn stopped(reason: StopReason, words: Option<String>) -> Failure {
    let said = |fallback: &str| words.clone().unwrap_or_else(|| fallback.to_owned());
    match reason {
        StopReason::Timeout => Failure::new(
            ErrorCode::Timeout,
            "the agent's time is up; give it more by timeoutSeconds, or go on in its session",
        ),
        StopReason::Budget => Failure::new(ErrorCode::BudgetExceeded, said("a budget is used up")),
        StopReason::Cancel => Failure::new(ErrorCode::Interrupted, "the execution was cancelled"),
        StopReason::Drain => Failure::new(ErrorCode::Interrupted, "the worker was told to stop"),
        StopReason::LeaseLost => Failure::new(ErrorCode::WorkerLost, "the lease is lost"),
    }
}

/// A dispatcher's refusal as the failure of a run.
fn refused(action: &str, error: &CallError) -> Failure {
    let code = match error {
        CallError::LeaseLost | CallError::Unreachable => ErrorCode::WorkerLost,
        _ => ErrorCode::InternalError,
    };
    Failure::new(code, format!("{action}: {error}"))
}

fn internal(action: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::InternalError, format!("{action}: {error}"))
}

impl From<Gone> for Ended {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Lost => Self::LeaseLost,
            Gone::Unreachable => Self::Unreachable,
        }
    }
}

async fn clear(root: SessionRoot) {
    let path = root.path().to_owned();
    let span = tracing::Span::current();
    let cleared = tokio::task::spawn_blocking(move || span.in_scope(|| root.clear())).await;
    if let Err(error) = cleared.unwrap_or_else(|panic| Err(panic.into())) {
        tracing::error!(path = %Path::display(&path), "{error:#}");
    }
}
