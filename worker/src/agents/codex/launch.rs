//! How codex is started: flags, environment, and the requests of its app-server. The one
//! place that knows.
//!
//! Settings travel as flags, because these count more than what a repository's own
//! configuration says. Nothing secret may stand in them: every process on the machine can
//! read them.

use std::ffi::OsString;

use clawlink_shared::execution::PermissionMode;
use clawlink_shared::prompt::{ImageSource, PromptPart};
use serde_json::{Value, json};

use super::credential::Credential;
use crate::agents::process::Launch;
use crate::agents::{AgentEnvironment, AgentJob, discovery::needs_of};

/// Where the CLI keeps everything, below HOME.
pub(super) const FOLDER: &str = ".codex";

/// How often the CLI repeats a call that the model refused or that broke.
const MAX_RETRIES: u32 = 3;

/// The variable that carries the key. The tools that the model uses do not get it.
const KEY: &str = "CLAWLINK_MODEL_KEY";

/// Begins the turn in which an approved plan is carried out.
pub(super) const CARRY_OUT: &str = "The plan is approved. Carry it out now.";

/// What the CLI is told when it shall only plan.
const PLAN_ONLY: &str = "You are in plan mode. Look at whatever you need, but change nothing: \
    do not edit, create or delete files, and run no command that does. \
    End with a plan of what you would do. A person decides whether it is carried out.";

/// Settings that keep the CLI from talking to anybody but the model, and from files of its own.
const QUIET: [&str; 3] = [
    "analytics.enabled=false",
    "check_for_update_on_startup=false",
    "history.persistence=\"none\"",
];

/// The process for one job.
pub(super) fn launch(
    environment: &AgentEnvironment,
    program: &std::path::Path,
    job: &AgentJob,
    credential: Option<&Credential>,
) -> Launch {
    let mut env = environment.passthrough.clone();
    env.extend(job.variables());
    let home = job.home.join(FOLDER);
    env.insert("CODEX_HOME".into(), home.to_string_lossy().into_owned());
    if let Some(Credential::ApiKey(key)) = credential {
        env.insert(KEY.into(), key.expose().to_owned());
    }
    let base_url = environment.passthrough.get("OPENAI_BASE_URL");
    Launch {
        program: program.to_owned(),
        args: arguments(base_url.map(String::as_str), credential),
        env,
        read_only: vec![needs_of(program, environment)],
    }
}

fn arguments(base_url: Option<&str>, credential: Option<&Credential>) -> Vec<OsString> {
    let mut settings: Vec<String> = QUIET.map(str::to_owned).to_vec();
    settings.push("model_provider=\"clawlink\"".to_owned());
    let mut provider = vec![
        "name=\"clawlink\"".to_owned(),
        "wire_api=\"responses\"".to_owned(),
        format!("request_max_retries={MAX_RETRIES}"),
        format!("stream_max_retries={MAX_RETRIES}"),
    ];
    // Without one it is the vendor's own, which depends on the credential.
    if let Some(url) = base_url {
        // JSON's strings are TOML's.
        provider.push(format!("base_url={}", json!(versioned(url))));
    }
    match credential {
        Some(Credential::ApiKey(_)) => provider.push(format!("env_key={}", json!(KEY))),
        Some(Credential::Login(_)) => provider.push("requires_openai_auth=true".to_owned()),
        None => {}
    }
    settings.push(format!(
        "model_providers.clawlink={{{}}}",
        provider.join(",")
    ));
    settings.push(format!("shell_environment_policy.exclude=[{}]", json!(KEY)));
    let mut arguments: Vec<OsString> = ["--disable", "plugins"].map(OsString::from).to_vec();
    for setting in settings {
        arguments.extend(["-c".into(), setting.into()]);
    }
    arguments.push("app-server".into());
    arguments
}

/// The API's address ends with its version, as the vendor's own programs expect it.
fn versioned(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with("/v1") {
        url.to_owned()
    } else {
        format!("{url}/v1")
    }
}

/// A request that waits for an answer.
pub(super) fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"id": id, "method": method, "params": params}).to_string()
}

/// The first request.
pub(super) fn initialize() -> Value {
    json!({
        "clientInfo": {
            "name": "clawlink",
            "title": "clawlink",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "capabilities": {"experimentalApi": true},
    })
}

/// What follows the answer to the first request.
pub(super) fn initialized() -> String {
    json!({"method": "initialized"}).to_string()
}

/// The method and the particulars with which the conversation begins or goes on.
pub(super) fn thread(job: &AgentJob) -> (&'static str, Value) {
    let policy = match job.options.permission_mode {
        PermissionMode::BypassPermissions => "never",
        PermissionMode::Default | PermissionMode::Plan => "untrusted",
    };
    let mut params = json!({
        "cwd": job.cwd,
        "approvalPolicy": policy,
        // The worker's own sandbox is around it.
        "sandbox": "danger-full-access",
    });
    if let Some(model) = &job.options.model {
        params["model"] = json!(model);
    }
    if job.options.permission_mode == PermissionMode::Plan {
        params["developerInstructions"] = json!(PLAN_ONLY);
    }
    match &job.resume {
        Some(thread) => {
            params["threadId"] = json!(thread);
            // A long conversation would be one line of any length.
            params["excludeTurns"] = json!(true);
            ("thread/resume", params)
        }
        None => ("thread/start", params),
    }
}

/// The turn with the job's prompt.
pub(super) fn turn(thread: &str, prompt: &[PromptPart]) -> Value {
    let input: Vec<Value> = prompt.iter().map(input).collect();
    json!({"threadId": thread, "input": input})
}

/// A further turn of the same run.
pub(super) fn further(thread: &str, words: &str) -> Value {
    json!({"threadId": thread, "input": [text(words)]})
}

/// What is said to a running turn.
pub(super) fn steer(thread: &str, turn: &str, words: &str) -> Value {
    json!({"threadId": thread, "expectedTurnId": turn, "input": [text(words)]})
}

/// What ends a running turn.
pub(super) fn interrupt(thread: &str, turn: &str) -> Value {
    json!({"threadId": thread, "turnId": turn})
}

fn input(part: &PromptPart) -> Value {
    match part {
        PromptPart::Text { text: words } => text(words),
        PromptPart::Image {
            source: ImageSource::Base64 { media_type, data },
        } => json!({"type": "image", "url": format!("data:{media_type};base64,{data}")}),
    }
}

fn text(words: &str) -> Value {
    json!({"type": "text", "text": words})
}
