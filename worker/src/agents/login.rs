//! A login in a file of the agent's program, which the program may rewrite while it runs.
//!
//! The file exists as long as the run; it is never archived. What the program makes of it is
//! learned by the redactor and handed back.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use serde_json::Value;
use tokio::sync::watch;

use super::{AgentEnd, AgentJob, files};
use crate::redact::Redactor;

/// Largest login file that is read back.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How often a run looks whether the program rewrote it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Most rewrites that one run looks for in its output; a token lasts for hours.
const MAX_REWRITES: usize = 32;

/// How a program keeps its login.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Its file, below HOME.
    pub(super) file: &'static str,
    /// Whether JSON is such a login.
    pub(super) is_login: fn(&Value) -> bool,
}

/// A login file that exists for one run.
struct LoginFile {
    kind: Kind,
    session_root: PathBuf,
    relative: PathBuf,
    written: Secret,
}

impl LoginFile {
    /// Writes it, with mode 0600, whatever lies in its place.
    fn write(kind: Kind, job: &AgentJob, login: &Secret) -> Result<Self> {
        let session_root = job.session_root.clone();
        let home = job.home.strip_prefix(&session_root);
        let relative = home.context("find HOME in the session")?.join(kind.file);
        files::write_private(&session_root, &relative, login.expose().as_bytes())
            .context("write the agent's login")?;
        Ok(Self {
            kind,
            session_root,
            relative,
            written: login.clone(),
        })
    }

    /// Teaches `redactor` what the CLI makes of it, and passes it on, until [`MAX_REWRITES`].
    async fn watch(&self, redactor: &Redactor, renewed: &watch::Sender<Option<Secret>>) {
        let mut last = self.written.clone();
        for _ in 0..MAX_REWRITES {
            last = loop {
                tokio::time::sleep(LOOK_EVERY).await;
                match self.rewritten() {
                    Some(login) if login.expose() != last.expose() => break login,
                    _ => {}
                }
            };
            redactor.learn(&last);
            renewed.send_replace(Some(last.clone()));
        }
    }

    /// Removes it; returns what the CLI made of it, if that is another login.
    fn remove(self) -> Option<Secret> {
        let rewritten = self.rewritten();
        if let Err(error) = files::remove(&self.session_root, &self.relative) {
            tracing::error!("the agent's login stays in the session: {error:#}");
        }
        rewritten
    }

    fn rewritten(&self) -> Option<Secret> {
        let bytes = files::read_regular(&self.session_root, &self.relative, MAX_FILE_BYTES)?;
        let text = String::from_utf8(bytes).ok()?;
        let is_login = |text: &str| {
            serde_json::from_str::<Value>(text).is_ok_and(|json| (self.kind.is_login)(&json))
        };
        (text.trim() != self.written.expose() && is_login(&text)).then(|| Secret::new(text))
    }
}

/// Runs `talk` with the login in its file, if there is one; the end names what became of it.
pub(super) async fn with_login<F>(
    login: Option<(Kind, &Secret)>,
    job: AgentJob,
    talk: impl FnOnce(AgentJob) -> F,
) -> AgentEnd
where
    F: Future<Output = Result<AgentEnd>>,
{
    let file = login.map(|(kind, login)| LoginFile::write(kind, &job, login));
    let file = match file.transpose() {
        Ok(file) => file,
        Err(error) => return AgentEnd::failed(ErrorCode::InternalError, format!("{error:#}")),
    };
    let (redactor, renewed) = (job.redactor.clone(), job.renewed.clone());
    let watch = async {
        if let Some(file) = &file {
            file.watch(&redactor, &renewed).await;
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = talk(job) => ended,
        never = watch => never,
    };
    let mut end = match ended {
        Ok(end) => end,
        Err(error) => AgentEnd::failed(ErrorCode::AgentUnavailable, format!("{error:#}")),
    };
    end.refreshed_credential = file.and_then(LoginFile::remove);
    end
}
