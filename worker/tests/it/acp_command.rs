//! Programs that a workspace names, and models in opencode's harness: how they are started.

use clawlink_shared::agent::{AgentKind, CommandDefinition, Definition};
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use serde_json::Value;

use crate::acp_run::{DONE, READY, play};
use crate::agent_job::{Run, Session};

/// A job for a program named `own-agent` that plays a good run.
fn own(session: &Session, definition: CommandDefinition) -> Run {
    let mut run = play(session, "own-agent", &format!("{READY}{DONE}"));
    run.definition = Some(Definition::Command(definition));
    run
}

fn named(command: &str) -> CommandDefinition {
    CommandDefinition {
        command: command.into(),
        ..CommandDefinition::default()
    }
}

/// The environment in which a scripted agent ran.
fn environment(session: &Session) -> String {
    std::fs::read_to_string(session.work().join("environment")).unwrap()
}

/// A good run that leaves the agent's environment in a file.
fn telling_environment() -> String {
    let tell = r#"{"run":"tr '\\0' '\\n' </proc/$PPID/environ >environment.new; mv environment.new environment"}
{"wait":"environment"}"#;
    format!("{READY}{tell}{DONE}")
}

#[tokio::test]
async fn a_workspaces_own_command_runs_as_any_other_agent() {
    let session = Session::new();
    let mut definition = named("own-agent");
    definition.args = vec!["acp".into(), "--quiet".into()];
    definition.env = [("OWN_SETTING".to_owned(), "on".to_owned())].into();
    definition.credential_variable = Some("OWN_KEY".into());
    let mut run = play(&session, "own-agent", &telling_environment());
    run.definition = Some(Definition::Command(definition));
    run.credential = Some(Secret::new("own-secret-value"));
    let ended = run.finish(AgentKind::Acp).await;
    assert_eq!(ended.end.failure, None);
    assert_eq!(
        ended.end.provider_session_id.as_deref(),
        Some("conversation")
    );
    let environment = environment(&session);
    for expected in ["OWN_SETTING=on", "OWN_KEY=own-secret-value"] {
        assert!(
            environment.lines().any(|line| line == expected),
            "{environment}"
        );
    }
}

#[tokio::test]
async fn commands_that_cannot_run_are_refused_with_the_reason() {
    let session = Session::new();
    let ended = own(&session, named("no-such-agent"))
        .finish(AgentKind::Acp)
        .await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::AgentUnavailable);

    let mut run = own(&session, named("own-agent"));
    run.definition = None;
    let ended = run.finish(AgentKind::Acp).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::ValidationError);

    let mut run = own(&session, named("own-agent"));
    run.credential = Some(Secret::new("own-secret-value"));
    let ended = run.finish(AgentKind::Acp).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::ValidationError);

    let mut run = own(&session, named("own-agent"));
    run.options.model = Some("large".into());
    let ended = run.finish(AgentKind::Acp).await;
    let failure = ended.end.failure.unwrap();
    assert!(failure.message.contains("model"), "{}", failure.message);
}

/// The configuration with which a provider's model is run.
async fn configured(kind: AgentKind, model: &str, key: Option<&str>) -> (Value, String) {
    let session = Session::new();
    let mut run = play(&session, "opencode", &telling_environment());
    run.options.model = Some(model.into());
    run.credential = key.map(Secret::new);
    let addresses = [
        ("OLLAMA_HOST", "10.0.0.9:11434"),
        ("OPENROUTER_BASE_URL", "https://proxy.example/api/v1/"),
        ("ANTHROPIC_BASE_URL", "https://proxy.example"),
    ];
    let addresses = addresses.map(|(name, value)| (name.to_owned(), value.to_owned()));
    run.environment.passthrough.extend(addresses);
    let ended = run.finish(kind).await;
    assert_eq!(ended.end.failure, None);
    let environment = environment(&session);
    let config = environment
        .lines()
        .find_map(|line| line.strip_prefix("OPENCODE_CONFIG_CONTENT="));
    let config = serde_json::from_str(config.unwrap()).unwrap();
    (config, environment.clone())
}

#[tokio::test]
async fn a_local_model_needs_its_name_and_no_key() {
    let (config, _) = configured(AgentKind::Ollama, "qwen3:8b", None).await;
    assert_eq!(config["model"], "ollama/qwen3:8b");
    let provider = &config["provider"]["ollama"];
    assert_eq!(provider["options"]["baseURL"], "http://10.0.0.9:11434/v1");
    assert!(provider["options"]["apiKey"].is_null());
    assert_eq!(provider["npm"], "@ai-sdk/openai-compatible");

    let session = Session::new();
    let run = play(&session, "opencode", "");
    let ended = run.finish(AgentKind::Ollama).await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::ValidationError);
    assert!(failure.message.contains("model"), "{}", failure.message);
}

#[tokio::test]
async fn keys_stand_beside_the_configuration() {
    let key = Some("sk-or-scripted-key");
    let (config, environment) = configured(AgentKind::Openrouter, "vendor/model", key).await;
    assert_eq!(config["model"], "openrouter/vendor/model");
    let options = &config["provider"]["openrouter"]["options"];
    assert_eq!(options["baseURL"], "https://proxy.example/api/v1");
    assert_eq!(options["apiKey"], "{env:CLAWLINK_MODEL_KEY}");
    assert!(!config.to_string().contains("sk-or"));
    assert!(environment.contains("CLAWLINK_MODEL_KEY=sk-or-scripted-key"));
}

#[tokio::test]
async fn opencodes_own_models_are_named_with_their_provider() {
    let key = Some("sk-ant-scripted-key");
    let (config, _) = configured(AgentKind::Opencode, "anthropic/claude-x", key).await;
    let options = &config["provider"]["anthropic"]["options"];
    assert_eq!(options["baseURL"], "https://proxy.example/v1");

    let session = Session::new();
    let mut run = play(&session, "opencode", "");
    run.credential = Some(Secret::new("sk-ant-scripted-key"));
    let ended = run.finish(AgentKind::Opencode).await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::ValidationError, "whose key is it?");
}
