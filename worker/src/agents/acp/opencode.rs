//! opencode's configuration: which model, where it is, which key, what needs asking.
//!
//! It travels in the environment, where it takes precedence over files of the repository, which
//! could otherwise send the key elsewhere. The key itself stands in a variable of its own.

use std::collections::BTreeMap;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::PermissionMode;
use serde_json::{Map, Value, json};

use super::providers::{self, Provider};

/// The variable with the configuration.
pub(super) const CONFIG: &str = "OPENCODE_CONFIG_CONTENT";

/// The variable with the key.
pub(super) const KEY: &str = "CLAWLINK_MODEL_KEY";

/// opencode's client for everything that speaks Chat Completions.
const COMPATIBLE: &str = "@ai-sdk/openai-compatible";

/// Where models are that are reached at one usual place.
const OPENROUTER: &str = "https://openrouter.ai/api/v1";
const OLLAMA: &str = "http://127.0.0.1:11434/v1";

/// What the configuration is made from.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// `opencode` itself, or the provider whose model it runs.
    pub(super) kind: AgentKind,
    pub(super) model: Option<&'a str>,
    pub(super) has_key: bool,
    pub(super) mode: PermissionMode,
    /// The run's environment, where addresses stand.
    pub(super) environment: &'a BTreeMap<String, String>,
}

/// The configuration as JSON; what is missing is said for people.
pub(super) fn config(wanted: &Wanted<'_>) -> Result<String, String> {
    let allow = match wanted.mode {
        PermissionMode::BypassPermissions => "allow",
        PermissionMode::Default | PermissionMode::Plan => "ask",
    };
    let mut config = json!({
        "share": "disabled",
        "autoupdate": false,
        "permission": {"edit": allow, "bash": allow, "webfetch": allow, "external_directory": allow},
    });
    let Some((provider, model, settings)) = provider(wanted)? else {
        return Ok(config.to_string());
    };
    let full = format!("{provider}/{model}");
    config["model"] = json!(full);
    // Titles of conversations are made by a second model otherwise, which may be another
    // vendor's.
    config["small_model"] = json!(full);
    config["provider"] = json!({ provider: settings });
    Ok(config.to_string())
}

/// The provider's name, its model and its settings; `None`: opencode's own choice.
fn provider(wanted: &Wanted<'_>) -> Result<Option<(String, String, Value)>, String> {
    let Some(model) = wanted.model else {
        return match (wanted.kind, wanted.has_key) {
            (AgentKind::Opencode, false) => Ok(None),
            (AgentKind::Opencode, true) => Err(
                "opencode needs a model of the form PROVIDER/NAME to know whose key it is".into(),
            ),
            (kind, _) => Err(format!("{kind} needs the name of a model")),
        };
    };
    let environment = wanted.environment;
    let address = |known: &Provider| known.opencode_url(environment);
    let own = |name: &str| providers::named(name).and_then(address);
    let (provider, model, url, client) = match wanted.kind {
        AgentKind::Ollama => {
            let url = own("ollama").unwrap_or_else(|| OLLAMA.into());
            ("ollama", model, Some(url), Some(COMPATIBLE))
        }
        AgentKind::Openrouter => {
            let url = own("openrouter").unwrap_or_else(|| OPENROUTER.into());
            ("openrouter", model, Some(url), Some(COMPATIBLE))
        }
        // Whoever is not OpenAI speaks Chat Completions rather than Responses.
        AgentKind::Openai => match own("openai") {
            Some(url) => ("openai-compatible", model, Some(url), Some(COMPATIBLE)),
            None => ("openai", model, None, None),
        },
        _ => {
            let (provider, model) =
                providers::split(model).ok_or("opencode's models are named PROVIDER/NAME")?;
            (provider, model, own(provider), None)
        }
    };
    let mut options = Map::new();
    if wanted.has_key {
        options.insert("apiKey".into(), json!(format!("{{env:{KEY}}}")));
    }
    if let Some(url) = url {
        options.insert("baseURL".into(), json!(url));
    }
    let mut settings = json!({"options": options, "models": {model: {}}});
    if let Some(client) = client {
        settings["npm"] = json!(client);
    }
    Ok(Some((provider.to_owned(), model.to_owned(), settings)))
}
