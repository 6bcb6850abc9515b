//! The four ways to pay for claude, and the one file that one of them needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clawlink_shared::secret::Secret;
use serde_json::Value;
use tokio::sync::watch;

use crate::agents::files;
use crate::redact::Redactor;

/// Where the CLI looks for a login, below HOME.
const FILE: &str = ".claude/.credentials.json";

/// Largest login file that is read back.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How often a run looks whether the CLI rewrote it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Most rewrites that one run looks for in its output; a token lasts for hours.
const MAX_REWRITES: usize = 32;

/// A credential, by the way in which the CLI takes it.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// `ANTHROPIC_API_KEY`.
    ApiKey(Secret),
    /// `CLAUDE_CODE_OAUTH_TOKEN`.
    OauthToken(Secret),
    /// `ANTHROPIC_AUTH_TOKEN`.
    Bearer(Secret),
    /// `{"claudeAiOauth": …}` as the CLI's own login file, which the CLI may rewrite.
    Login(Secret),
}

impl Credential {
    /// Reads a raw key or token, or JSON in one of the known shapes.
    pub(super) fn parse(credential: &Secret) -> Result<Self> {
        let text = credential.expose().trim();
        if !text.starts_with('{') {
            let secret = Secret::new(text);
            return Ok(if text.starts_with("sk-ant-oat") {
                Self::OauthToken(secret)
            } else {
                Self::ApiKey(secret)
            });
        }
        let Ok(json) = serde_json::from_str::<Value>(text) else {
            bail!("the credential looks like JSON but is not");
        };
        let field = |name: &str| json[name].as_str().map(Secret::new);
        if json["claudeAiOauth"].is_object() {
            Ok(Self::Login(Secret::new(text)))
        } else if let Some(token) = field("oauthToken").or_else(|| field("claudeCodeOauthToken")) {
            Ok(Self::OauthToken(token))
        } else if let Some(token) = field("authToken") {
            Ok(Self::Bearer(token))
        } else if let Some(key) = field("apiKey") {
            Ok(Self::ApiKey(key))
        } else {
            bail!(
                "the credential's JSON has none of claudeAiOauth, oauthToken, claudeCodeOauthToken, authToken, apiKey"
            )
        }
    }

    /// The environment variable that carries it, if one does.
    pub(super) fn variable(&self) -> Option<(&'static str, &Secret)> {
        match self {
            Self::ApiKey(secret) => Some(("ANTHROPIC_API_KEY", secret)),
            Self::OauthToken(secret) => Some(("CLAUDE_CODE_OAUTH_TOKEN", secret)),
            Self::Bearer(secret) => Some(("ANTHROPIC_AUTH_TOKEN", secret)),
            Self::Login(_) => None,
        }
    }
}

/// A login file that exists for one run.
pub(super) struct LoginFile {
    session_root: PathBuf,
    relative: PathBuf,
    written: Secret,
}

impl LoginFile {
    /// Writes it, with mode 0600, whatever lies in its place.
    pub(super) fn write(session_root: &Path, home: &Path, login: &Secret) -> Result<Self> {
        let home = home
            .strip_prefix(session_root)
            .context("find HOME in the session")?;
        let relative = home.join(FILE);
        files::write_private(session_root, &relative, login.expose().as_bytes())
            .context("write the agent's login")?;
        Ok(Self {
            session_root: session_root.to_owned(),
            relative,
            written: login.clone(),
        })
    }

    /// Teaches `redactor` what the CLI makes of it, and passes it on, until [`MAX_REWRITES`].
    pub(super) async fn watch(&self, redactor: &Redactor, renewed: &watch::Sender<Option<Secret>>) {
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
    pub(super) fn remove(self) -> Option<Secret> {
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
            serde_json::from_str::<Value>(text).is_ok_and(|json| json["claudeAiOauth"].is_object())
        };
        (text.trim() != self.written.expose() && is_login(&text)).then(|| Secret::new(text))
    }
}
