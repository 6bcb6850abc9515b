//! `providerOptions`: what a client may tune about the agent.

use std::collections::BTreeMap;

use clawlink_shared::execution::{AgentOptions, PermissionMode};
use clawlink_shared::secret::Secret;
use serde_json::Value;

use super::credential;
use super::fields::{Faults, Fields};
use crate::config::Tuning;
use crate::secrets::{Place, Reference};

/// Longest model name, in bytes.
const MAX_MODEL: usize = 200;
/// Most turns of the agent's own loop.
const MAX_TURNS: u64 = 10_000;
/// Most additional variables.
const MAX_VARIABLES: usize = 100;
/// Longest name of one, in bytes.
const MAX_NAME: usize = 128;
/// Longest value of one, in bytes.
const MAX_VALUE: usize = 32 * 1024;

/// Variables that the worker sets itself, or that change what programs load.
const RESERVED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "TMPDIR",
    "IFS",
    "ENV",
    "BASH_ENV",
    "CLAUDE_CONFIG_DIR",
];
/// Beginnings of more of them.
const RESERVED_PREFIXES: &[&str] = &["LD_", "DYLD_", "CLAWLINK_", "XDG_"];

/// The agent's settings, and its additional environment.
pub(super) fn read(
    body: &mut Fields,
    tuning: &Tuning,
    references: &mut Vec<Reference>,
    faults: &mut Faults,
) -> (AgentOptions, BTreeMap<String, Secret>) {
    let Some(mut options) = body.object("providerOptions", faults) else {
        return Default::default();
    };
    let read = AgentOptions {
        model: model(&mut options, faults),
        permission_mode: permission_mode(&mut options, faults),
        max_turns: options
            .whole("maxTurns", 1..=MAX_TURNS, faults)
            .and_then(|turns| u32::try_from(turns).ok()),
        max_budget_usd: dollars(&mut options, "maxBudgetUsd", faults),
        timeout_seconds: options.whole("timeoutSeconds", 1..=tuning.max_timeout_seconds, faults),
    };
    let env = env(&mut options, references, faults);
    options.finish(faults);
    (read, env)
}

/// It becomes an argument of the agent's program, so it must not look like a flag.
fn model(options: &mut Fields, faults: &mut Faults) -> Option<String> {
    let model = options.text("model", MAX_MODEL, faults)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@[]+-".contains(&byte);
    if model.starts_with('-') || !model.bytes().all(allowed) {
        let message = "must consist of letters, digits and ._:/@[]+-, and not begin with a dash";
        faults.add(options.path("model"), message);
        return None;
    }
    Some(model.to_owned())
}

fn permission_mode(options: &mut Fields, faults: &mut Faults) -> PermissionMode {
    let modes = [
        ("bypassPermissions", PermissionMode::BypassPermissions),
        ("default", PermissionMode::Default),
        ("plan", PermissionMode::Plan),
    ];
    let mode = options.choice("permissionMode", &modes, faults);
    let skip = options.flag("skipPermissions", faults);
    let old = skip.map(|skip| match skip {
        true => PermissionMode::BypassPermissions,
        false => PermissionMode::Default,
    });
    match (mode, skip) {
        (Some(PermissionMode::BypassPermissions), Some(false))
        | (Some(PermissionMode::Default | PermissionMode::Plan), Some(true)) => faults.add(
            options.path("skipPermissions"),
            "contradicts permissionMode; send only one of them",
        ),
        _ => {}
    }
    mode.or(old).unwrap_or_default()
}

/// An amount of money.
pub(super) fn dollars(fields: &mut Fields, key: &'static str, faults: &mut Faults) -> Option<f64> {
    let amount = fields
        .get(key)?
        .as_f64()
        .filter(|amount| amount.is_finite() && *amount >= 0.0);
    if amount.is_none() {
        let message = "must be a number of US dollars, not negative";
        faults.add(fields.path(key), message);
    }
    amount
}

fn env(
    options: &mut Fields,
    references: &mut Vec<Reference>,
    faults: &mut Faults,
) -> BTreeMap<String, Secret> {
    let path = options.path("env");
    let mut env = BTreeMap::new();
    let variables = match options.get("env") {
        None => return env,
        Some(Value::Object(variables)) => variables,
        Some(_) => {
            faults.add(path, "must be an object of strings");
            return env;
        }
    };
    if variables.len() > MAX_VARIABLES {
        faults.add(
            path,
            format!("must not have more than {MAX_VARIABLES} variables"),
        );
        return env;
    }
    let shown = |name: &str| {
        format!(
            "{path}.{}",
            name.escape_debug().take(60).collect::<String>()
        )
    };
    for (name, value) in variables {
        let fault = name_fault(name).or(match value {
            Value::String(value) if value.len() <= MAX_VALUE => None,
            Value::String(_) => Some(format!("must not be longer than {MAX_VALUE} bytes")),
            value if value.get("secret").is_some() => None,
            _ => Some("must be a string".to_owned()),
        });
        match (fault, value) {
            (Some(fault), _) => faults.add(shown(name), fault),
            (None, Value::String(value)) => {
                env.insert(name.clone(), Secret::new(value.as_str()));
            }
            (None, value) => {
                let place = Place::Env(name.clone());
                credential::is_reference(value, &shown(name), place, references, faults);
            }
        }
    }
    env
}

fn name_fault(name: &str) -> Option<String> {
    let valid = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid {
        return Some("is not a variable's name: [A-Za-z_][A-Za-z0-9_]*".to_owned());
    }
    let reserved = RESERVED.contains(&name)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix));
    reserved.then(|| {
        format!(
            "is reserved, as are {} and names that begin with {}",
            RESERVED.join(", "),
            RESERVED_PREFIXES.join(", ")
        )
    })
}
