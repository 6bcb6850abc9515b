//! The phase in which the agent runs, bounded by its time and by everything that may stop it.

use std::time::Duration;

use clawlink_shared::control::{Complete, Failure};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use tokio::sync::watch;

use super::{Run, stopped};
use crate::agents::{AgentEnd, AgentJob, StopReason, end_all_descendants, skills};
use crate::redact::Redactor;
use crate::workspace::git;
use crate::workspace::root::SessionRoot;

/// How long an agent may take to end after it was stopped, before its processes are killed
/// behind its back.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long its code may take to notice that.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last renewed login may take to be handed back.
const HAND_BACK_PATIENCE: Duration = Duration::from_secs(30);

/// Longest result in a report, in bytes.
const MAX_RESULT_BYTES: usize = 64 * 1024;

impl Run<'_> {
    /// Runs the agent and takes what it has to report. The failure, if it did not do what
    /// was asked.
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
        let (renewed, renewals) = watch::channel(None);
        let job = match self.job(root, renewed) {
            Ok(job) => job,
            Err(failure) => return Some(failure),
        };
        if let Err(error) = self.place_skills(&job).await {
            let message = format!("the workspace's skills cannot be placed: {error:#}");
            return Some(Failure::new(ErrorCode::InternalError, message));
        }
        let end = {
            let mut running = agent.run(job);
            let bound = Duration::from_secs(self.assignment.limits.timeout_seconds);
            tokio::select! {
                end = &mut running => Some(end),
                never = self.hand_back_each(renewals) => never,
                () = self.stopped_or_late(bound) => {
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
        self.take(&end, report);
        match self.stop.reason() {
            Some(reason) => Some(stopped(reason)),
            None => end.failure,
        }
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
        renewed: watch::Sender<Option<Secret>>,
    ) -> Result<AgentJob, Failure> {
        let spec = &self.assignment.request;
        let directory = spec
            .repository
            .as_ref()
            .and_then(|repository| repository.directory.as_deref());
        let cwd = git::working_directory(&root.work(), directory)?;
        Ok(AgentJob {
            prompt: spec.prompt.clone(),
            options: spec.options.clone(),
            definition: spec.definition.clone(),
            credential: self.assignment.credentials.agent.clone(),
            env: self.assignment.credentials.env.clone(),
            session_root: root.path().to_owned(),
            home: root.home(),
            tmp: root.tmp(),
            cwd,
            resume: self.assignment.session.provider_session_id.clone(),
            max_file_bytes: Some(self.assignment.limits.max_session_bytes),
            desk: self.people.clone(),
            events: self.events.clone(),
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

    async fn stopped_or_late(&self, bound: Duration) {
        tokio::select! {
            _ = self.stop.requested() => {}
            () = tokio::time::sleep(bound) => self.stop.request(StopReason::Timeout),
        }
    }

    fn take(&self, end: &AgentEnd, report: &mut Complete) {
        report.usage.clone_from(&end.usage);
        report
            .provider_session_id
            .clone_from(&end.provider_session_id);
        report.result = end
            .result
            .as_deref()
            .map(|text| bounded(&self.redactor, text));
    }
}

fn bounded(redactor: &Redactor, text: &str) -> String {
    let mut clean = redactor.redact_text(text).into_owned();
    clean.truncate(clean.floor_char_boundary(MAX_RESULT_BYTES));
    clean
}
