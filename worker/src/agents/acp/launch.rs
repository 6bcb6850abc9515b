//! How an agent is started: arguments, environment, files in its HOME. Nothing secret stands in
//! the arguments, which every process on the machine can read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::PermissionMode;
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};

use super::opencode;
use super::providers;
use super::table::{Entry, KeyWay, ModelWay};
use crate::agents::discovery::needs_of;
use crate::agents::process::Launch;
use crate::agents::{AgentEnvironment, AgentJob, files};

/// opencode's login file, below HOME.
const OPENCODE_LOGIN: &str = ".local/share/opencode/auth.json";

/// Where Augment's service is, for tokens that do not say.
const AUGMENT_ADDRESS: &str = "AUGMENT_API_URL";

/// What is started, and what must lie in HOME before.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) launch: Launch,
    files: Vec<(PathBuf, String)>,
    /// The file among them that must not stay.
    login: Option<PathBuf>,
}

/// A credential, by its shape.
#[derive(Debug)]
enum Credential {
    /// A key or token.
    Key(Secret),
    /// JSON in the vendor's own shape.
    Json(Secret, Value),
}

impl Credential {
    fn parse(credential: &Secret) -> Result<Self, String> {
        let text = credential.expose().trim();
        if !text.starts_with('{') {
            return Ok(Self::Key(Secret::new(text)));
        }
        let Ok(json) = serde_json::from_str::<Value>(text) else {
            return Err("the credential looks like JSON but is not".into());
        };
        Ok(match json["apiKey"].as_str() {
            Some(key) => Self::Key(Secret::new(key)),
            None => Self::Json(Secret::new(text), json),
        })
    }
}

/// The process for one job of `kind` in the harness that `entry` describes. An error is the
/// request's.
pub(super) fn prepare(
    environment: &AgentEnvironment,
    entry: &Entry,
    kind: AgentKind,
    program: &Path,
    job: &AgentJob,
) -> Result<Prepared, String> {
    let credential = job.credential.as_ref().map(Credential::parse).transpose()?;
    let mut env = environment.passthrough.clone();
    env.extend(job.variables());
    let quiet = entry.environment.iter();
    env.extend(quiet.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut prepared = Prepared {
        launch: Launch {
            program: program.to_owned(),
            args: entry.arguments.iter().map(OsString::from).collect(),
            env: BTreeMap::new(),
            read_only: vec![needs_of(program, environment)],
        },
        files: Vec::new(),
        login: None,
    };
    if job.options.permission_mode != PermissionMode::BypassPermissions {
        let asking = entry.asking.iter().map(OsString::from);
        prepared.launch.args.extend(asking);
    }
    let files = entry.files.iter();
    prepared
        .files
        .extend(files.map(|(path, content)| (PathBuf::from(path), (*content).to_owned())));
    let model = job.options.model.as_deref();
    match (entry.model, model) {
        (ModelWay::Flag(flag), Some(model)) => {
            // One word, so that no value can be taken for a flag.
            prepared.launch.args.push(format!("{flag}={model}").into());
        }
        (ModelWay::Variable(name), Some(model)) => {
            env.insert(name.into(), model.into());
            // Set in any case: a file of the repository could send the key elsewhere otherwise.
            let address = address_of(model, &env).unwrap_or_default();
            env.entry("LLM_BASE_URL".into()).or_insert(address);
        }
        (ModelWay::Goose, Some(model)) => goose(model, &mut env)?,
        (ModelWay::Opencode, model) => {
            let wanted = opencode::Wanted {
                kind,
                model,
                has_key: matches!(credential, Some(Credential::Key(_))),
                mode: job.options.permission_mode,
                environment: &env,
            };
            let config = opencode::config(&wanted)?;
            env.insert(opencode::CONFIG.into(), config);
        }
        (_, None) => {}
    }
    if let Some(credential) = credential {
        prepared.take(entry, model, credential, &mut env)?;
    }
    prepared.launch.env = env;
    Ok(prepared)
}

impl Prepared {
    /// Puts the credential where the agent expects it.
    fn take(
        &mut self,
        entry: &Entry,
        model: Option<&str>,
        credential: Credential,
        env: &mut BTreeMap<String, String>,
    ) -> Result<(), String> {
        let (name, value) = match (entry.key, credential) {
            (KeyWay::Variable(name), Credential::Key(key)) => (name, key),
            (KeyWay::Opencode, Credential::Key(key)) => (opencode::KEY, key),
            (KeyWay::Opencode, Credential::Json(login, _)) => {
                let path = PathBuf::from(OPENCODE_LOGIN);
                self.files.push((path.clone(), login.expose().to_owned()));
                self.login = Some(path);
                return Ok(());
            }
            (KeyWay::Provider, Credential::Key(key)) => {
                let provider = model.and_then(providers::split);
                let provider = provider.and_then(|(name, _)| providers::named(name));
                let provider = provider.ok_or_else(|| {
                    let program = entry.program;
                    format!("{program} needs a model PROVIDER/NAME to know whose key it is")
                })?;
                (provider.key, key)
            }
            (KeyWay::Augment, credential) => augment(credential, env)?,
            (_, Credential::Json(..)) => {
                let program = entry.program;
                return Err(format!(
                    "{program} takes a key, or JSON with it as apiKey, and no other credential"
                ));
            }
        };
        env.insert(name.into(), value.expose().to_owned());
        Ok(())
    }

    /// Writes the files below HOME.
    pub(super) fn write(&self, job: &AgentJob) -> Result<()> {
        let home = home(job)?;
        for (path, content) in &self.files {
            files::write_private(&job.session_root, &home.join(path), content.as_bytes())
                .context("write the agent's files")?;
        }
        Ok(())
    }

    /// Removes what must not stay.
    pub(super) fn clear(&self, job: &AgentJob) -> Result<()> {
        match &self.login {
            Some(login) => files::remove(&job.session_root, &home(job)?.join(login)),
            None => Ok(()),
        }
    }
}

/// HOME below the session root.
pub(super) fn home(job: &AgentJob) -> Result<&Path> {
    job.home
        .strip_prefix(&job.session_root)
        .context("find HOME in the session")
}

fn address_of(model: &str, env: &BTreeMap<String, String>) -> Option<String> {
    let (provider, _) = providers::split(model)?;
    providers::named(provider)?.address(env)
}

fn goose(model: &str, env: &mut BTreeMap<String, String>) -> Result<(), String> {
    let (provider, name) =
        providers::split(model).ok_or("goose's models are named PROVIDER/NAME")?;
    if let Some(known) = providers::named(provider)
        && let Some(address) = known.address(env)
    {
        env.insert(known.goose_host.into(), address);
    }
    env.insert("GOOSE_PROVIDER".into(), provider.into());
    env.insert("GOOSE_MODEL".into(), name.into());
    Ok(())
}

/// Augment's session is JSON that also says where its service is; a configured address wins.
fn augment(
    credential: Credential,
    env: &BTreeMap<String, String>,
) -> Result<(&'static str, Secret), String> {
    let address = env.get(AUGMENT_ADDRESS);
    let session = match (credential, address) {
        (Credential::Json(_, mut session), address) => {
            if let Some(address) = address {
                session["tenantURL"] = json!(address);
            }
            session
        }
        (Credential::Key(key), Some(address)) => json!({
            "accessToken": key.expose(),
            "tenantURL": address,
            "scopes": ["read", "write"],
        }),
        (Credential::Key(_), None) => {
            return Err(
                "a token for auggie needs AUGMENT_API_URL; or send the JSON that \
                 `auggie token print` shows"
                    .into(),
            );
        }
    };
    Ok(("AUGMENT_SESSION_AUTH", Secret::new(session.to_string())))
}
