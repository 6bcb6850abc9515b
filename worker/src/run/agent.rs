//! The phase in which the agent runs, bounded by its time and by everything that may stop it.

use std::time::Duration;

use clawlink_shared::control::{Complete, Failure};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::prompt::PromptPart;
use clawlink_shared::secret::Secret;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Run, stopped};
use crate::agents::rate_limit::Patience;
use crate::agents::{Agent, AgentEnd, AgentJob, StopReason, end_all_descendants, skills};
use crate::redact::Redactor;
use crate::workspace::git;
use crate::workspace::root::{LOCK_PATIENCE, SessionRoot};

/// How long an agent may take to end after it was stopped, before its processes are killed
/// behind its back.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long its code may take to notice that.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

// Whoever lost its lease still holds the session's directory for so long.
const _: () = assert!(
    LOCK_PATIENCE.as_secs() > STOP_PATIENCE.as_secs() + LAST_PATIENCE.as_secs(),
    "the next attempt on this machine waits for the one before"
);

/// How long the last renewed login may take to be handed back.
const HAND_BACK_PATIENCE: Duration = Duration::from_secs(30);

/// Longest result in a report, in bytes.
const MAX_RESULT_BYTES: usize = 64 * 1024;

/// Longest name of a model or a conversation in a report, in bytes: dispatchers refuse long reports.
const MAX_NAME_BYTES: usize = 1024;

/// What an agent is told when it goes on after a limit of the model.
const GO_ON: &str = "The model's limit that stopped you is over. Go on where you stopped.";

/// What is to be done when the model does not accept a credential.
const ON_REFUSED_CREDENTIAL: &str = "(Send a valid credential with the request, or store one as \
    the workspace's secret. A login that has expired is renewed with the agent's own program.)";

/// What differs between the runs of one agent phase.
struct Round {
    prompt: Vec<PromptPart>,
    resume: Option<String>,
    credential: Option<Secret>,
}

impl Run<'_> {
    /// Runs the agent, again after a limit of the model that is over soon, and takes what it has to
    /// report. The failure, if it did not do what was asked.
    pub(super) async fn run_agent(
        &self,
        root: &SessionRoot,
        report: &mut Complete,
    ) -> Option<Failure> {
        let spec = &self.assignment.request;
        let Some(agent) = self.worker.agents.get(spec.agent) else {
            return Some(Failure::new(
                ErrorCode::AgentUnavailable,
                format!("this worker does not have {}", spec.agent),
            ));
        };
        let time = Duration::from_secs(self.assignment.limits.timeout_seconds);
        let late = Instant::now() + time;
        let mut patience = Patience::new(self.worker.rate_limit_wait);
        let mut round = Round {
            prompt: spec.prompt.clone(),
            resume: self.assignment.session.provider_session_id.clone(),
            credential: self.assignment.credentials.agent.clone(),
        };
        loop {
            let end = match self.run_once(agent.as_ref(), root, &round, late).await {
                Ok(end) => end,
                Err(failure) => return Some(failure),
            };
            self.meter.run_ended(end.usage.as_ref());
            if self.waits_for_the_model(&end, &mut patience, late).await {
                if end.provider_session_id.is_some() {
                    let text = GO_ON.to_owned();
                    round.prompt = vec![PromptPart::Text { text }];
                    round.resume = end.provider_session_id;
                }
                round.credential = end.refreshed_credential.or(round.credential);
                continue;
            }
            self.take(&end, report);
            return match self.stop.reason() {
                // A limit that was passed by its last word stops nothing any more.
                Some(StopReason::Budget) if end.has_finished => None,
                Some(reason) => Some(stopped(reason, self.stop.words())),
                None => end.failure.map(advised),
            };
        }
    }

    /// Waits for a limit of the model to be over, if that is why the agent ended and it is worth
    /// it: the run has time left then. False: there is nothing to go on with.
    async fn waits_for_the_model(
        &self,
        end: &AgentEnd,
        patience: &mut Patience,
        late: Instant,
    ) -> bool {
        let failure = end.failure.as_ref();
        let Some(failure) = failure.filter(|failure| failure.code == ErrorCode::RateLimited) else {
            return false;
        };
        if self.stop.reason().is_some() {
            return false;
        }
        let now = OffsetDateTime::now_utc();
        let Some(wait) = patience.after(&failure.message, now) else {
            return false;
        };
        if late.saturating_duration_since(Instant::now()) <= wait {
            return false;
        }
        let until = (now + wait).replace_nanosecond(0).unwrap_or(now);
        let until = until.format(&Rfc3339).unwrap_or_default();
        let words = format!("The model's limit is reached; the agent goes on at {until}.");
        self.events.message(words).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => self.stop.reason().is_none(),
            () = self.stopped_or_late(late) => false,
        }
    }

    /// One run to its end, whoever ends it.
    async fn run_once(
        &self,
        agent: &dyn Agent,
        root: &SessionRoot,
        round: &Round,
        late: Instant,
    ) -> Result<AgentEnd, Failure> {
        let (renewed, renewals) = watch::channel(None);
        let job = self.job(root, round, renewed)?;
        if let Err(error) = self.place_skills(&job).await {
            let message = format!("the workspace's skills cannot be placed: {error:#}");
            return Err(Failure::new(ErrorCode::InternalError, message));
        }
        let end = {
            let mut running = agent.run(job);
            tokio::select! {
                end = &mut running => Some(end),
                never = self.hand_back_each(renewals) => never,
                () = self.stopped_or_late(late) => {
                    let ended = tokio::time::timeout(STOP_PATIENCE, &mut running).await.ok();
                    match ended {
                        Some(end) => Some(end),
                        None => {
                            tracing::error!("the agent does not end; its processes are killed");
                            end_all_descendants().await;
                            tokio::time::timeout(LAST_PATIENCE, &mut running).await.ok()
                        }
                    }
                }
            }
        };
        let end = end.unwrap_or_default();
        if let Some(renewed) = &end.refreshed_credential {
            self.redactor.learn(renewed);
            let last = tokio::time::timeout(HAND_BACK_PATIENCE, self.hand_back(renewed));
            if last.await.is_err() {
                tracing::warn!("the agent's renewed login was not handed back in time");
            }
        }
        Ok(end)
    }

    /// Hands back every login that the agent's program renews, as long as it runs: the old one
    /// may be worth nothing by then, and other runs of the workspace use the same.
    async fn hand_back_each<T>(&self, mut renewals: watch::Receiver<Option<Secret>>) -> T {
        while renewals.changed().await.is_ok() {
            let renewed = renewals.borrow_and_update().clone();
            if let Some(renewed) = renewed {
                self.hand_back(&renewed).await;
            }
        }
        std::future::pending().await
    }

    async fn hand_back(&self, renewed: &Secret) {
        match self.held.credentials(renewed).await {
            Ok(stored) => tracing::info!(stored, "the agent's login was renewed"),
            Err(error) => tracing::warn!(%error, "the agent's renewed login is not stored"),
        }
    }

    fn job(
        &self,
        root: &SessionRoot,
        round: &Round,
        renewed: watch::Sender<Option<Secret>>,
    ) -> Result<AgentJob, Failure> {
        let spec = &self.assignment.request;
        let directory = spec
            .repository
            .as_ref()
            .and_then(|repository| repository.directory.as_deref());
        let cwd = git::working_directory(&root.work(), directory)?;
        Ok(AgentJob {
            prompt: round.prompt.clone(),
            options: spec.options.clone(),
            definition: spec.definition.clone(),
            credential: round.credential.clone(),
            env: self.assignment.credentials.env.clone(),
            session_root: root.path().to_owned(),
            home: root.home(),
            tmp: root.tmp(),
            cwd,
            resume: round.resume.clone(),
            max_file_bytes: Some(self.assignment.limits.max_session_bytes),
            desk: self.people.clone(),
            events: self.events.metered(self.meter.clone()),
            redactor: self.redactor.clone(),
            renewed,
            stop: self.stop.watch(),
        })
    }

    async fn place_skills(&self, job: &AgentJob) -> anyhow::Result<()> {
        let skills = self.assignment.skills.clone();
        if skills.is_empty() {
            return Ok(());
        }
        let kind = self.assignment.request.agent;
        let (root, home) = (job.session_root.clone(), job.home.clone());
        let placing = move || skills::place(kind, &root, &home, &skills);
        tokio::task::spawn_blocking(placing).await?
    }

    async fn stopped_or_late(&self, late: Instant) {
        tokio::select! {
            _ = self.stop.requested() => {}
            () = tokio::time::sleep_until(late) => self.stop.request(StopReason::Timeout),
        }
    }

    fn take(&self, end: &AgentEnd, report: &mut Complete) {
        report.usage = self.meter.total().map(|mut usage| {
            let model = usage.model.as_deref();
            usage.model = model.map(|model| bounded(&self.redactor, model, MAX_NAME_BYTES));
            usage
        });
        // A name that holds a secret, or is none for any agent, is none of a conversation.
        report.provider_session_id = end
            .provider_session_id
            .clone()
            .filter(|name| name.len() <= MAX_NAME_BYTES && !self.redactor.is_hit(name.as_bytes()));
        report.result = end
            .result
            .as_deref()
            .map(|text| bounded(&self.redactor, text, MAX_RESULT_BYTES));
    }
}

/// A refused credential with what can be done about it: the programs speak to people at a terminal.
fn advised(mut failure: Failure) -> Failure {
    if failure.code == ErrorCode::AuthError {
        failure.message = format!("{} {ON_REFUSED_CREDENTIAL}", failure.message);
    }
    failure
}

fn bounded(redactor: &Redactor, text: &str, most: usize) -> String {
    let mut clean = redactor.redact_text(text).into_owned();
    clean.truncate(clean.floor_char_boundary(most));
    clean
}
