//! How claude is started: flags, environment, the first lines. The one place that knows.
//!
//! The flags are those of the vendor's own SDK: a two-way pipe of JSON lines. Nothing secret
//! may stand in the arguments, which every process on the machine can read.

use std::ffi::OsString;

use clawlink_shared::execution::PermissionMode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::credential::Credential;
use crate::agents::AgentJob;
use crate::agents::process::Launch;
use crate::agents::{AgentEnvironment, discovery::needs_of};

/// How often the CLI repeats a call that the model refused or that broke.
const MAX_RETRIES: u32 = 3;

/// Switches that keep the CLI from talking to anybody but the model.
const QUIET: [(&str, &str); 5] = [
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_TELEMETRY", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    // Confirms to the CLI that somebody else confines it.
    ("IS_SANDBOX", "1"),
];

/// The process for one job.
pub(super) fn launch(
    environment: &AgentEnvironment,
    program: &std::path::Path,
    job: &AgentJob,
    credential: Option<&Credential>,
    session: &str,
) -> Launch {
    let mut env = environment.passthrough.clone();
    env.extend(job.variables());
    env.extend(QUIET.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.insert("CLAUDE_CODE_MAX_RETRIES".into(), MAX_RETRIES.to_string());
    if let Some((name, secret)) = credential.and_then(Credential::variable) {
        env.insert(name.into(), secret.expose().to_owned());
    }
    Launch {
        program: program.to_owned(),
        args: arguments(job, session),
        env,
        read_only: vec![needs_of(program, environment)],
    }
}

/// The name of the conversation: the one to continue, or a new one.
pub(super) fn session(job: &AgentJob) -> String {
    job.resume
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().to_string())
}

/// The lines that begin the dialogue.
pub(super) fn opening(job: &AgentJob) -> [String; 2] {
    let initialize = json!({
        "type": "control_request",
        "request_id": "initialize",
        "request": {"subtype": "initialize", "hooks": null},
    });
    [initialize.to_string(), user(&json!(job.prompt)).to_string()]
}

/// The line that asks for a stop.
pub(super) fn interrupt() -> String {
    let request = json!({
        "type": "control_request",
        "request_id": "interrupt",
        "request": {"subtype": "interrupt"},
    });
    request.to_string()
}

/// The line that says something during the turn; under this name the CLI says what becomes of it.
pub(super) fn say(id: &str, text: &str) -> String {
    let mut line = user(&json!([{"type": "text", "text": text}]));
    line["uuid"] = json!(id);
    line.to_string()
}

fn user(content: &Value) -> Value {
    json!({
        "type": "user",
        "session_id": "",
        "parent_tool_use_id": null,
        "message": {"role": "user", "content": content},
    })
}

fn arguments(job: &AgentJob, session: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = [
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--include-partial-messages",
    ]
    .map(OsString::from)
    .to_vec();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    match job.options.permission_mode {
        PermissionMode::BypassPermissions => add(&[
            "--permission-mode",
            "bypassPermissions",
            "--allow-dangerously-skip-permissions",
        ]),
        PermissionMode::Default => add(&["--permission-prompt-tool", "stdio"]),
        PermissionMode::Plan => add(&[
            "--permission-mode",
            "plan",
            "--permission-prompt-tool",
            "stdio",
        ]),
    }
    // One word, so that no value can be taken for a flag.
    if let Some(model) = &job.options.model {
        add(&[&format!("--model={model}")]);
    }
    if let Some(turns) = job.options.max_turns {
        add(&[&format!("--max-turns={turns}")]);
    }
    if let Some(dollars) = job.options.max_budget_usd {
        add(&[&format!("--max-budget-usd={dollars}")]);
    }
    if job.resume.is_some() {
        add(&[&format!("--resume={session}")]);
    } else {
        add(&[&format!("--session-id={session}")]);
    }
    arguments
}
