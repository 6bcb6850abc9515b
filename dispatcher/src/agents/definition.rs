//! What a stored agent runs: a command of the workspace's own, or an address. Read from the
//! agent's `endpoint` and `config`, refused where a worker could not use it.
//!
//! Credentials never stand here: they are the agent's sealed key, or the request's.

use std::collections::BTreeMap;

use clawlink_shared::agent::{AgentKind, CommandDefinition, Definition, EndpointDefinition};
use serde_json::{Map, Value};

/// Most arguments and variables of a command.
const MAX_WORDS: usize = 64;

/// Longest argument, value or path, in bytes.
const MAX_TEXT: usize = 4096;

/// Longest name of a program or variable, in bytes.
const MAX_NAME: usize = 128;

/// Longest silence that an address may ask for, in seconds.
const MAX_IDLE_SECONDS: u64 = 3600;

/// Variables that the worker sets, or that change what programs load.
const RESERVED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "BASH_ENV"];

/// Beginnings of more of them.
const RESERVED_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "CLAWLINK_"];

/// The definition of an agent of that kind; `None` for kinds that need none. An error names the
/// field and what is wrong with it.
pub(super) fn read(
    kind: AgentKind,
    endpoint: Option<&str>,
    config: Option<&Value>,
) -> Result<Option<Definition>, String> {
    let empty = Map::new();
    let config = match config {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(config)) => config,
        Some(_) => return Err("config must be an object".into()),
    };
    match kind {
        AgentKind::Acp => command(config).map(|command| Some(Definition::Command(command))),
        AgentKind::Http => {
            let endpoint = address(endpoint.unwrap_or_default(), config)?;
            Ok(Some(Definition::Endpoint(endpoint)))
        }
        _ => Ok(None),
    }
}

fn command(config: &Map<String, Value>) -> Result<CommandDefinition, String> {
    let name = text(config, "command")?.ok_or("config.command is required: a program's name")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if name.len() > MAX_NAME || !name.chars().all(is_name) || name.starts_with(['.', '-']) {
        return Err(
            "config.command must be a program's name without a path: letters, digits and ._+-"
                .into(),
        );
    }
    let variable = text(config, "credentialVariable")?;
    if let Some(variable) = &variable {
        check_variable("config.credentialVariable", variable)?;
    }
    let folder = text(config, "stateFolder")?;
    if let Some(folder) = &folder {
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !folder.split('/').all(is_plain) || folder.chars().any(char::is_control) {
            return Err("config.stateFolder must be a relative path below HOME, without ..".into());
        }
    }
    Ok(CommandDefinition {
        command: name,
        args: arguments(config.get("args"))?,
        env: variables(config.get("env"))?,
        credential_variable: variable,
        state_folder: folder,
    })
}

fn address(endpoint: &str, config: &Map<String, Value>) -> Result<EndpointDefinition, String> {
    let refuse = |why: &str| Err(format!("endpoint {why}"));
    let Ok(url) = reqwest::Url::parse(endpoint) else {
        return refuse("is required for http agents: a URL");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return refuse("must be an http(s) URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not carry credentials; store them as apiKey");
    }
    let idle_seconds = match config.get("idleSeconds") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let seconds = value.as_u64();
            let valid = seconds.filter(|seconds| (1..=MAX_IDLE_SECONDS).contains(seconds));
            Some(valid.ok_or("config.idleSeconds must be from 1 to 3600")?)
        }
    };
    Ok(EndpointDefinition {
        url: url.into(),
        idle_seconds,
    })
}

fn text(config: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=MAX_TEXT).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(format!(
            "config.{key} must be a text of 1 to {MAX_TEXT} bytes"
        )),
    }
}

fn arguments(value: Option<&Value>) -> Result<Vec<String>, String> {
    let fault = || format!("config.args must be at most {MAX_WORDS} texts of {MAX_TEXT} bytes");
    let words = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(words)) if words.len() <= MAX_WORDS => words,
        Some(_) => return Err(fault()),
    };
    let words = words.iter().map(|word| {
        let word = word.as_str().filter(|word| word.len() <= MAX_TEXT);
        word.map(str::to_owned).ok_or_else(fault)
    });
    words.collect()
}

fn variables(value: Option<&Value>) -> Result<BTreeMap<String, String>, String> {
    let fault = || format!("config.env must be at most {MAX_WORDS} texts of {MAX_TEXT} bytes");
    let variables = match value {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(variables)) if variables.len() <= MAX_WORDS => variables,
        Some(_) => return Err(fault()),
    };
    let variables = variables.iter().map(|(name, value)| {
        check_variable("config.env", name)?;
        let value = value.as_str().filter(|value| value.len() <= MAX_TEXT);
        let value = value.ok_or_else(fault)?;
        Ok((name.clone(), value.to_owned()))
    });
    variables.collect()
}

fn check_variable(field: &str, name: &str) -> Result<(), String> {
    let is_name = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_reserved = RESERVED.contains(&name)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix));
    match is_name && !is_reserved {
        true => Ok(()),
        false => Err(format!(
            "{field}: this is not a name that a variable may have"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_are_names_with_arguments_and_a_folder() {
        let config = json!({
            "command": "my-agent", "args": ["acp"], "env": {"QUIET": "1"},
            "credentialVariable": "MY_KEY", "stateFolder": ".my-agent/sessions",
        });
        let read = read(AgentKind::Acp, None, Some(&config));
        let Ok(Some(Definition::Command(command))) = read else {
            panic!("{read:?}");
        };
        assert_eq!(command.command, "my-agent");
        assert_eq!(command.args, ["acp"]);
        assert_eq!(command.state_folder.as_deref(), Some(".my-agent/sessions"));
    }

    #[test]
    fn what_a_worker_could_not_use_is_refused() {
        let bad = [
            json!({}),
            json!({"command": "/etc/passwd"}),
            json!({"command": "../agent"}),
            json!({"command": ".."}),
            json!({"command": "-c"}),
            json!({"command": "a", "args": "b"}),
            json!({"command": "a", "args": [7]}),
            json!({"command": "a", "env": {"LD_PRELOAD": "x"}}),
            json!({"command": "a", "env": {"A": 1}}),
            json!({"command": "a", "env": {"a b": "x"}}),
            json!({"command": "a", "credentialVariable": "PATH"}),
            json!({"command": "a", "stateFolder": "../.."}),
            json!({"command": "a", "stateFolder": "/etc"}),
            json!({"command": "a", "stateFolder": "a//b"}),
            json!([1]),
        ];
        for config in bad {
            let read = read(AgentKind::Acp, None, Some(&config));
            assert!(read.is_err(), "{config}");
        }
        let addresses = ["", "ftp://a.example", "https://u:p@a.example", "no URL"];
        for address in addresses {
            assert!(
                read(AgentKind::Http, Some(address), None).is_err(),
                "{address}"
            );
        }
        let idle = json!({"idleSeconds": 0});
        assert!(read(AgentKind::Http, Some("https://a.example"), Some(&idle)).is_err());
    }
}
