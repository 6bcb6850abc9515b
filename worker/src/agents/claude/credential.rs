//! The four ways to pay for claude; one of them needs a file.

use anyhow::{Result, bail};
use clawlink_shared::secret::Secret;
use serde_json::Value;

use crate::agents::login::Kind;

/// Where the CLI looks for a login.
pub(super) const LOGIN: Kind = Kind {
    file: ".claude/.credentials.json",
    is_login: |json| json["claudeAiOauth"].is_object(),
};

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
        if (LOGIN.is_login)(&json) {
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
