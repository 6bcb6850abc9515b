//! The phases around the agent that concern its files: restore or clone before, commit, push
//! and archive after.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clawlink_shared::agent::Definition;
use clawlink_shared::control::{ArchiveDone, Complete, Failure};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::prompt::text_of;
use tokio_util::sync::CancellationToken;

use super::{Phase, Run, internal, refused, stopped};
use crate::agents::StopReason;
use crate::lease;
use crate::persist::{self, RestoreLimits, SaveRequest, Storage};
use crate::proxy::Proxies;
use crate::push::{self, Deliver, Obtain};
use crate::workspace::git::{self, Before, CleanRequest, GitAccess};
use crate::workspace::root::{SessionRoot, private_dir};

/// How long a session may take to be ready, in a phase that no `timeoutSeconds` bounds: a host that
/// sends a byte now and then would hold a worker for ever.
const OBTAIN_BOUND: Duration = Duration::from_secs(2 * 60 * 60);

/// How long committing and pushing may take, for the same reason.
const DELIVER_BOUND: Duration = Duration::from_secs(2 * 60 * 60);

impl Run<'_> {
    /// Fills the session's directory: from its archive, else from its repository.
    pub(super) async fn obtain_session(&self, root: &SessionRoot) -> Result<(), Failure> {
        let cancel = CancellationToken::new();
        let obtained = async {
            if self.assignment.session.archive.is_some() {
                self.enter(Phase::Restoring);
                self.restore(root, &cancel).await?;
                self.catch_up(root, &cancel).await;
                Ok(())
            } else {
                self.enter(Phase::Cloning);
                self.clone_repository(root, &cancel).await
            }
        };
        let stop = self.stop.requested();
        let (outcome, is_late) = bounded(obtained, stop, OBTAIN_BOUND, &cancel).await;
        match self.stop.reason() {
            Some(reason) => Err(stopped(reason, self.stop.words())),
            None if is_late && outcome.is_err() => {
                let minutes = OBTAIN_BOUND.as_secs() / 60;
                let message = format!("the session was not ready after {minutes} minutes");
                Err(Failure::new(ErrorCode::InternalError, message))
            }
            None => outcome,
        }
    }

    async fn restore(&self, root: &SessionRoot, cancel: &CancellationToken) -> Result<(), Failure> {
        let session = &self.assignment.session;
        let Some(source) = &session.archive else {
            return Ok(());
        };
        let limits = &self.assignment.limits;
        let limits = RestoreLimits {
            max_bytes: limits.max_session_bytes,
            max_files: limits.max_session_files,
        };
        let storage = storage(&self.worker.proxies)?;
        let restored =
            persist::restore(&storage, &self.held, source, root.path(), limits, cancel).await?;
        tracing::info!(restored.bytes, restored.files, "session restored");
        for dir in [root.work(), root.home(), root.tmp()] {
            private_dir(&dir).map_err(|error| {
                Failure::new(
                    ErrorCode::StorageError,
                    format!("complete session: {error}"),
                )
            })?;
        }
        self.relocate(root)
    }

    /// Agents key their state by directory; a session from a worker with another root is moved.
    fn relocate(&self, root: &SessionRoot) -> Result<(), Failure> {
        let session = &self.assignment.session;
        let Some(archived) = session.archived_root.as_deref().map(Path::new) else {
            return Ok(());
        };
        let agent = self.worker.agents.get(self.assignment.request.agent);
        let Some(agent) = agent.filter(|_| archived != self.worker.root) else {
            return Ok(());
        };
        let from = archived.join(session.id.folder());
        agent.relocate(&from, root.path()).map_err(|error| {
            Failure::new(
                ErrorCode::SessionUnavailable,
                format!("move the session from {}: {error:#}", archived.display()),
            )
        })
    }

    /// An earlier turn may have pushed and then lost its worker. That this cannot be found out,
    /// or not be mended, is for the push to say.
    async fn catch_up(&self, root: &SessionRoot, cancel: &CancellationToken) {
        let spec = &self.assignment.request;
        let is_pushed = spec.auto_commit
            && spec.repository.is_some()
            && self.assignment.credentials.git_token.is_some();
        let Some(branch) = spec.working_branch.clone().filter(|_| is_pushed) else {
            return;
        };
        let limits = &self.assignment.limits;
        let bounds = (limits.max_session_bytes, limits.max_session_files);
        let caught_up = async {
            let (access, deliver) = (self.git_access()?, self.delivery(root, branch)?);
            push::catch_up(access, deliver, bounds, &self.events, cancel).await
        };
        if let Err(failure) = caught_up.await {
            let message = self.redactor.redact_text(&failure.message);
            tracing::warn!(%message, "the branch on the git host could not be caught up with");
        }
    }

    async fn clone_repository(
        &self,
        root: &SessionRoot,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let spec = &self.assignment.request;
        let Some(repository) = spec.repository.clone() else {
            return Ok(());
        };
        let limits = &self.assignment.limits;
        let obtain = Obtain {
            repository,
            work: root.work(),
            working_branch: spec.working_branch.clone(),
            max_bytes: limits.max_session_bytes,
            max_files: limits.max_session_files,
        };
        push::obtain_repository(self.git_access()?, obtain, &self.events, cancel).await
    }

    fn git_access(&self) -> Result<GitAccess, Failure> {
        let repository = self.assignment.request.repository.as_ref();
        let url = repository.map_or("", |repository| repository.url.as_str());
        let token = self.assignment.credentials.git_token.clone();
        let (private, proxies) = (self.worker.allow_private_hosts, &self.worker.proxies);
        GitAccess::new(url, token, private, proxies)
    }

    /// Whether what the agent left is committed and pushed: when it did what was asked, or
    /// ended at a limit that somebody set.
    pub(super) fn is_to_be_delivered(&self, report: &Complete) -> bool {
        let spec = &self.assignment.request;
        let is_wanted = spec.auto_commit && spec.repository.is_some();
        let is_worth_it = report.error.as_ref().is_none_or(|failure| {
            matches!(
                failure.code,
                ErrorCode::MaxTurns | ErrorCode::BudgetExceeded | ErrorCode::Timeout
            )
        });
        let is_stopped = matches!(
            self.stop.reason(),
            Some(StopReason::Cancel | StopReason::LeaseLost)
        );
        is_wanted && is_worth_it && !is_stopped
    }

    /// Where git may work out of the agent's reach.
    fn scratch(&self) -> Result<PathBuf, Failure> {
        let scratch = self.worker.desk.dir().join("git");
        private_dir(&scratch).map_err(|error| {
            Failure::new(
                ErrorCode::StorageError,
                format!("make room for git: {error}"),
            )
        })?;
        Ok(scratch)
    }

    fn delivery(&self, root: &SessionRoot, branch: String) -> Result<Deliver, Failure> {
        let repository = self.assignment.request.repository.as_ref();
        Ok(Deliver {
            work: root.work(),
            tmp: self.scratch()?,
            branch,
            base: repository.and_then(|repository| repository.branch.clone()),
            prompt: text_of(&self.assignment.request.prompt),
            author: self.assignment.limits.commit_author.clone(),
            execution: self.assignment.execution.uuid,
            session: self.assignment.session.id,
            redactor: self.redactor.clone(),
        })
    }

    /// Commits and pushes, and has the pull request opened; what became of the push is in the
    /// report also when it failed.
    pub(super) async fn deliver(
        &self,
        root: &SessionRoot,
        report: &mut Complete,
    ) -> Result<(), Failure> {
        let Some(branch) = self.assignment.request.working_branch.clone() else {
            return Ok(());
        };
        let deliver = self.delivery(root, branch)?;
        // A push that has begun is finished; only a lost lease stops it.
        let cancel = CancellationToken::new();
        let confirm = async || {
            lease::confirm_fresh(&self.held)
                .await
                .map_err(|error| refused("confirm the lease before the push", &error))
        };
        let delivered = push::deliver(self.git_access()?, deliver, &self.events, &cancel, confirm);
        let gone = self.held.lease().gone();
        let (delivered, is_late) = bounded(delivered, gone, DELIVER_BOUND, &cancel).await;
        report.branch = delivered.branch;
        report.commit_hash = delivered.commit_hash;
        report.pushed = delivered.pushed;
        if let Some(mut failure) = delivered.failure {
            if is_late {
                let minutes = DELIVER_BOUND.as_secs() / 60;
                failure.message = format!("commit and push took longer than {minutes} minutes");
            }
            return Err(failure);
        }
        self.open_pull_request(report).await;
        Ok(())
    }

    /// Takes secrets out of what git stored since `before`, and tells what that changed.
    async fn clean(&self, root: &SessionRoot, before: Before) -> Result<(), Failure> {
        let (work, tmp, secrets) = (root.work(), self.scratch()?, self.redactor.clone());
        let cleaning = tokio::task::spawn_blocking(move || {
            git::clean(&CleanRequest {
                work: &work,
                tmp: &tmp,
                before: &before,
                secrets: &secrets,
            })
        });
        let notes = cleaning
            .await
            .map_err(|error| internal("look through the repository", &error))??;
        for note in notes {
            self.events.message(note).await;
        }
        Ok(())
    }

    /// Saves and uploads the session; `before` is what git had stored before the agent ran.
    pub(super) async fn archive(
        &self,
        root: &SessionRoot,
        before: Before,
    ) -> Result<Option<ArchiveDone>, Failure> {
        self.clean(root, before).await?;
        let limits = &self.assignment.limits;
        let request = SaveRequest {
            session_root: root.path().to_owned(),
            own_state: match &self.assignment.request.definition {
                Some(Definition::Command(command)) => command.state_folder.clone(),
                _ => None,
            },
            include_ignored: limits.include_ignored,
            max_bytes: limits.max_session_bytes,
            max_files: limits.max_session_files,
            secrets: self.redactor.clone(),
        };
        let storage = storage(&self.worker.proxies)?;
        tokio::select! {
            saved = persist::save(&storage, &self.held, request) => {
                let (archive, notes) = saved?;
                for note in notes {
                    self.events.message(note).await;
                }
                Ok(Some(archive))
            }
            gone = self.held.lease().gone() => Err(refused("archive the session", &gone.into())),
        }
    }
}

/// Waits for work that blocks. If `halt` comes first, or the bound is reached, `cancel` tells the
/// work to end, and it is waited for all the same: it must have left the session's directory
/// before that is cleared. Also says whether the bound was reached.
async fn bounded<T>(
    work: impl Future<Output = T>,
    halt: impl Future,
    bound: Duration,
    cancel: &CancellationToken,
) -> (T, bool) {
    tokio::pin!(work);
    let is_late = tokio::select! {
        done = &mut work => return (done, false),
        _ = halt => false,
        () = tokio::time::sleep(bound) => true,
    };
    cancel.cancel();
    (work.await, is_late)
}

/// A client of the object storage, whose answers lead nowhere else.
fn storage(proxies: &Proxies) -> Result<Storage, Failure> {
    let http = proxies
        .for_own()
        .apply(reqwest::Client::builder())
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| {
            Failure::new(
                ErrorCode::InternalError,
                format!("prepare the HTTP client: {error}"),
            )
        })?;
    Ok(Storage::new(http))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn work_that_does_not_end_is_told_to_and_then_waited_for() {
        let (soon, later) = (Duration::from_millis(1), Duration::from_secs(60 * 60));
        for (is_halted, bound) in [(true, later), (false, soon)] {
            let cancel = CancellationToken::new();
            let work = async {
                cancel.cancelled().await;
                tokio::task::yield_now().await;
                "left the directory"
            };
            let halt = async {
                if !is_halted {
                    pending::<()>().await;
                }
            };
            let done = bounded(work, halt, bound, &cancel).await;
            assert_eq!(done, ("left the directory", !is_halted));
        }
        let cancel = CancellationToken::new();
        let done = bounded(ready("done"), pending::<()>(), later, &cancel).await;
        assert_eq!(done, ("done", false));
        assert!(!cancel.is_cancelled());
    }
}
