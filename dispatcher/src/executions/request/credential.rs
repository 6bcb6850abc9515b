//! Credentials in a request: raw, as JSON, the names of secrets, or taken from the
//! installation's settings.

use std::collections::BTreeMap;

use clawlink_shared::secret::Secret;
use serde_json::Value;

use super::fields::{Faults, Fields, text};
use crate::config::Tuning;
use crate::secrets::{self, Place, Reference};

/// Longest agent credential, in bytes.
const MAX_CREDENTIAL: usize = 64 * 1024;
/// Longest git token, in bytes.
const MAX_TOKEN: usize = 4096;
/// Instead of a credential: the one that the operator configured.
const FROM_ENV: &str = "FROM_ENV";
/// The end of names of variables that tell an agent where to send its credential.
const BASE_URL: &str = "_BASE_URL";

/// Whether the value is `{"secret": "NAME"}`; then the name stands among the references.
pub(super) fn is_reference(
    value: &Value,
    path: &str,
    place: Place,
    references: &mut Vec<Reference>,
    faults: &mut Faults,
) -> bool {
    if value.get("secret").is_none() {
        return false;
    }
    match secrets::name_in(value) {
        Some(name) => references.push(Reference {
            place,
            name: name.to_owned(),
        }),
        None => faults.add(path, "must be {\"secret\": \"NAME\"} and nothing beside it"),
    }
    true
}

/// `codingAssistantAuthentication`: a raw key, JSON as text, the JSON itself, or a reference.
pub(super) fn agent(
    body: &mut Fields,
    tuning: &Tuning,
    references: &mut Vec<Reference>,
    faults: &mut Faults,
) -> Option<Secret> {
    const KEY: &str = "codingAssistantAuthentication";
    let value = body.get(KEY)?;
    if is_reference(value, KEY, Place::Agent, references, faults) {
        return None;
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            let json = value.to_string();
            if json.len() > MAX_CREDENTIAL {
                faults.add(
                    KEY,
                    format!("must not be longer than {MAX_CREDENTIAL} bytes"),
                );
                return None;
            }
            Some(Secret::new(json))
        }
        Value::String(_) => {
            let text = text(value, KEY, MAX_CREDENTIAL, faults)?;
            configured(text, tuning.default_agent_credential.as_ref(), KEY, faults)
        }
        _ => {
            faults.add(KEY, "must be a key, or an object such as {\"apiKey\": …}");
            None
        }
    }
}

/// `github.accessToken`.
pub(super) fn git_token(
    github: &mut Fields,
    tuning: &Tuning,
    references: &mut Vec<Reference>,
    faults: &mut Faults,
) -> Option<Secret> {
    let path = github.path("accessToken");
    let value = github.get("accessToken")?;
    if is_reference(value, &path, Place::Git, references, faults) {
        return None;
    }
    let token = text(value, &path, MAX_TOKEN, faults)?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        faults.add(path, "must consist of visible ASCII characters");
        return None;
    }
    configured(token, tuning.default_git_token.as_ref(), &path, faults)
}

/// Whether the configured git token is asked for; the plan checks that its repository is on
/// the host that the token belongs to.
pub(super) fn is_default_git_token(github: &mut Fields) -> bool {
    github.get("accessToken").and_then(Value::as_str) == Some(FROM_ENV)
}

/// The operator's agent credential goes where the operator says, not where a request does.
pub(super) fn refuse_diversion(
    body: &mut Fields,
    env: &BTreeMap<String, Secret>,
    faults: &mut Faults,
) {
    let sent = body.get("codingAssistantAuthentication");
    if sent.and_then(Value::as_str) != Some(FROM_ENV) {
        return;
    }
    for name in env.keys() {
        if name.to_ascii_uppercase().ends_with(BASE_URL) {
            faults.add(
                format!("providerOptions.env.{name}"),
                "cannot be combined with codingAssistantAuthentication FROM_ENV; leave it out, \
                 or send a credential of your own",
            );
        }
    }
}

fn configured(
    text: &str,
    default: Option<&Secret>,
    path: &str,
    faults: &mut Faults,
) -> Option<Secret> {
    if text != FROM_ENV {
        return Some(Secret::new(text));
    }
    if default.is_none() {
        faults.add(path, "is FROM_ENV, but the operator configured no default");
    }
    default.cloned()
}
