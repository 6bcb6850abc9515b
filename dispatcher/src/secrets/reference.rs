//! References: where a request uses a secret by its name, and which names are used where it
//! says nothing. Pure.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::secret::Secret;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::allow::Asker;

/// A place in a request that takes a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// The agent's credential.
    Agent,
    /// The git host's token.
    Git,
    /// A variable of the agent's environment.
    Env(String),
}

impl Place {
    /// Its name in SQL and audit.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Agent => "agent".to_owned(),
            Self::Git => "git".to_owned(),
            Self::Env(variable) => format!("env:{variable}"),
        }
    }

    /// The field of a request.
    pub(super) fn field(&self) -> String {
        match self {
            Self::Agent => "codingAssistantAuthentication".to_owned(),
            Self::Git => "github.accessToken".to_owned(),
            Self::Env(variable) => format!("providerOptions.env.{variable}"),
        }
    }
}

/// One secret in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) place: Place,
    /// The secret's name.
    pub(crate) name: String,
}

/// All references of an execution, sealed with its credentials: nobody can exchange them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct References {
    /// Who uses them.
    pub(crate) asker: Asker,
    /// Named by the request.
    pub(crate) named: Vec<Reference>,
    /// Used because the request names nothing; one that is gone by now is left out.
    pub(crate) usual: Vec<Reference>,
}

impl References {
    /// Whether the agent's credential is among them.
    pub(crate) fn have_agent(&self) -> bool {
        let mut all = self.named.iter().chain(&self.usual);
        all.any(|reference| reference.place == Place::Agent)
    }
}

/// A reference in JSON: `{"secret": "NAME"}`; `None` if the value is something else. The name
/// may be any text; only existing secrets are found by it.
pub(crate) fn name_in(value: &serde_json::Value) -> Option<&str> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.get("secret")?.as_str()
}

/// Secrets that an agent's credential is taken from, the first that exists.
pub(crate) fn usual_for_agent(kind: AgentKind) -> &'static [&'static str] {
    match kind {
        AgentKind::Claude => &[
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "ANTHROPIC_AUTH_TOKEN",
        ],
        AgentKind::Codex => &["OPENAI_API_KEY", "CODEX_AUTH_JSON"],
        AgentKind::Opencode => &["OPENCODE_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"],
        AgentKind::Gemini => &["GEMINI_API_KEY"],
        AgentKind::Auggie => &["AUGMENT_SESSION_AUTH"],
        AgentKind::Openhands => &["LLM_API_KEY"],
        AgentKind::Goose | AgentKind::Openai => &["OPENAI_API_KEY"],
        AgentKind::Ollama => &["OLLAMA_API_KEY"],
        AgentKind::Openrouter => &["OPENROUTER_API_KEY"],
        AgentKind::Acp | AgentKind::Http | AgentKind::Shell => &[],
    }
}

/// Secrets that a repository's token is taken from, the first that exists: a token is never
/// sent to a host that its name does not say.
pub(crate) fn usual_for_repository(url: &str) -> Vec<String> {
    let Some(url) = Url::parse(url).ok() else {
        return Vec::new();
    };
    let Some(host) = url.host_str() else {
        return Vec::new();
    };
    let host = host.to_ascii_lowercase();
    let mut names = Vec::new();
    match (host.as_str(), url.port()) {
        ("github.com", None) => names.push("GITHUB_TOKEN".to_owned()),
        ("gitlab.com", None) => names.push("GITLAB_TOKEN".to_owned()),
        _ => {}
    }
    names.push(match url.port() {
        None => format!("GIT_TOKEN_{host}"),
        Some(port) => format!("GIT_TOKEN_{host}_{port}"),
    });
    names
}

/// A credential as agents take it: where only the secret's name says what it is, it becomes
/// the JSON that says so.
pub(super) fn shaped(name: &str, value: &str) -> Secret {
    let field = match name {
        "CLAUDE_CODE_OAUTH_TOKEN" => "oauthToken",
        "ANTHROPIC_AUTH_TOKEN" => "authToken",
        _ => return Secret::new(value),
    };
    if value.trim_start().starts_with('{') {
        return Secret::new(value);
    }
    Secret::new(json!({ field: value.trim() }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_the_host_that_its_name_says() {
        let names = usual_for_repository;
        assert_eq!(
            names("https://GitHub.com/a/b"),
            ["GITHUB_TOKEN", "GIT_TOKEN_github.com"]
        );
        for (url, name) in [
            (
                "https://github.com.evil.example/a",
                "GIT_TOKEN_github.com.evil.example",
            ),
            ("https://github.com:8443/a", "GIT_TOKEN_github.com_8443"),
            ("http://127.0.0.1:3000/a", "GIT_TOKEN_127.0.0.1_3000"),
        ] {
            assert_eq!(names(url), [name]);
        }
        assert!(names("not a url").is_empty());
    }

    #[test]
    fn only_an_object_with_a_name_alone_is_a_reference() {
        assert_eq!(name_in(&json!({"secret": "A"})), Some("A"));
        for other in [
            json!("A"),
            json!({"secret": 1}),
            json!({"secret": "A", "x": 1}),
            json!({}),
        ] {
            assert_eq!(name_in(&other), None, "{other}");
        }
    }

    #[test]
    fn names_give_values_their_shape() {
        let shape = |name, value| shaped(name, value).expose().to_owned();
        assert_eq!(shape("ANTHROPIC_AUTH_TOKEN", "x\n"), r#"{"authToken":"x"}"#);
        assert_eq!(shape("ANTHROPIC_AUTH_TOKEN", r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(
            shape("CLAUDE_CODE_OAUTH_TOKEN", "x"),
            r#"{"oauthToken":"x"}"#
        );
        assert_eq!(shape("ANTHROPIC_API_KEY", "x"), "x");
    }
}
