//! The two ways to pay for codex: a key, or a login in a file that the CLI may rewrite.

use anyhow::{Result, bail};
use clawlink_shared::secret::Secret;
use serde_json::Value;

use crate::agents::login::Kind;

/// Where the CLI looks for a login.
pub(super) const LOGIN: Kind = Kind {
    file: ".codex/auth.json",
    is_login: |json| json["tokens"].is_object(),
};

/// A credential, by the way in which the CLI takes it.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// A key of the API, in a variable that only the CLI itself sees.
    ApiKey(Secret),
    /// `{"tokens": …}`: the login file that the CLI makes when somebody signs in with ChatGPT.
    Login(Secret),
}

impl Credential {
    /// Reads a raw key, or JSON in one of the known shapes.
    pub(super) fn parse(credential: &Secret) -> Result<Self> {
        let text = credential.expose().trim();
        if !text.starts_with('{') {
            return Ok(Self::ApiKey(Secret::new(text)));
        }
        let Ok(json) = serde_json::from_str::<Value>(text) else {
            bail!("the credential looks like JSON but is not");
        };
        let field = |name: &str| json[name].as_str().map(Secret::new);
        if (LOGIN.is_login)(&json) {
            Ok(Self::Login(Secret::new(text)))
        } else if let Some(key) = field("apiKey").or_else(|| field("OPENAI_API_KEY")) {
            Ok(Self::ApiKey(key))
        } else {
            bail!("the credential's JSON has none of tokens, apiKey, OPENAI_API_KEY")
        }
    }
}
